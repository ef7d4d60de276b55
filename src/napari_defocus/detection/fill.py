"""What undecided pixels take: the sharpness of the nearest judged ones.

It is worked out on cells of 16 x 16 pixels: sums over cells are small even for planes that do not
fit into memory, and do not depend on how the plane is cut, as long as no cell is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_defocus.core.tiling import Region, widen, within
from napari_defocus.filters.resampling import block_mean, enlarge

Float = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]

CELL = 16
# Gaussians, in cells, over which judged regions lend their sharpness; widest last.
SIGMAS = (0, 1, 2, 4, 8, 16)


@dataclass(frozen=True, eq=False)
class Surroundings:
    """Sums over the judged pixels of each cell.

    Parameters
    ----------
    sharpness : ndarray of float32, (rows, columns)
        Sum of their sharpness as a share of the cell's pixels.
    valid : ndarray of float32, (rows, columns)
        Their share of the cell's pixels.
    shape : tuple of int
        Rows and columns of pixels.
    """

    sharpness: Float
    valid: Float
    shape: tuple[int, int]

    @classmethod
    def of(cls, sharpness: Float, valid: Bool) -> "Surroundings":
        """Sum over the cells of a plane (Y, X), or of a part that begins with a cell.

        The sharpness of pixels that are not judged is 0.
        """
        rows, columns = valid.shape
        return cls(_cell_means(sharpness), _cell_means(valid), (rows, columns))

    @classmethod
    def empty(cls, shape: tuple[int, int]) -> "Surroundings":
        """Make those of a plane of which nothing is known yet."""
        cells = [-(-size // CELL) for size in shape]
        return cls(np.zeros(cells, np.float32), np.zeros(cells, np.float32), shape)

    def put(self, part: "Surroundings", region: Region) -> None:
        """Take over the sums of a part."""
        cells = tuple(slice(s.start // CELL, -(-s.stop // CELL)) for s in region)
        self.sharpness[cells] = part.sharpness
        self.valid[cells] = part.valid

    def spread(self) -> Float:
        """Give each cell the sharpness of the nearest judged pixels; 0.5 far from any."""
        spread = np.full(self.valid.shape, 0.5, np.float32)
        for sigma in reversed(SIGMAS):
            near = ndimage.gaussian_filter(self.valid, sigma) if sigma else self.valid
            known = ndimage.gaussian_filter(self.sharpness, sigma) if sigma else self.sharpness
            trust = np.clip(10 * near, 0, 1)
            spread += trust * (known / np.maximum(near, 1e-6) - spread)
        return np.clip(spread, 0, 1)


def cells_around(region: Region, shape: Sequence[int]) -> Region:
    """Give the cells, of `shape` rows and columns, that `at_pixels` needs for a region."""
    rows, columns = (slice(s.start // CELL, -(-s.stop // CELL)) for s in region)
    return widen((rows, columns), 1, shape)


def at_pixels(cells: Float, region: Region, around: Region | None = None) -> Float:
    """Give the values of cells at the pixels of a region, (Y, X) float32.

    Parameters
    ----------
    cells : ndarray of float32
        All cells of the plane or, where `around` is given, those alone.
    region : tuple of slice
        Rows and columns of pixels.
    around : tuple of slice, optional
        See `cells_around`.
    """
    if around is None:
        around = cells_around(region, cells.shape)
        cells = cells[around]
    values = enlarge(cells, CELL)
    pixels = slice(CELL * around[0].start, None), slice(CELL * around[1].start, None)
    return values[within(region, pixels)]


def _cell_means(values: npt.NDArray[np.float32 | np.bool_]) -> Float:
    """Average over cells; those at the lower and right border may have fewer pixels."""
    shares = [np.ones(-(-size // CELL), np.float32) for size in values.shape]
    for share, size in zip(shares, values.shape, strict=True):
        share[-1] -= (-size % CELL) / CELL
    padded = np.pad(values.astype(np.float32), [(0, -size % CELL) for size in values.shape])
    return np.asarray(block_mean(padded, CELL) / np.multiply.outer(*shares), np.float32)
