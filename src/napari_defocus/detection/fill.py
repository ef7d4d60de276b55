"""Fill undecided pixels with the sharpness of the nearest valid ones.

It is computed on cells of 16 x 16 pixels: sums over cells are small even for planes larger than
memory, and do not depend on how the plane is tiled, as long as no cell is cut.
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
# Gaussians, in cells, by which valid regions spread; widest last.
SIGMAS = (0, 1, 2, 4, 8, 16)


@dataclass(frozen=True, eq=False)
class Surroundings:
    """Valid pixels of each cell: their summed sharpness and count, over the cell's pixels.

    `shape` are the rows and columns of pixels.
    """

    sharpness: Float
    valid: Float
    shape: tuple[int, int]

    @classmethod
    def of(cls, sharpness: Float, valid: Bool) -> "Surroundings":
        """Sum over the cells of a plane (Y, X), or of a part that begins with a cell.

        The sharpness of pixels that are not valid is 0.
        """
        rows, columns = valid.shape
        return cls(_cell_means(sharpness), _cell_means(valid), (rows, columns))

    @classmethod
    def empty(cls, shape: tuple[int, int]) -> "Surroundings":
        """Return those of a plane without any valid pixel."""
        cells = [-(-size // CELL) for size in shape]
        return cls(np.zeros(cells, np.float32), np.zeros(cells, np.float32), shape)

    def put(self, part: "Surroundings", region: Region) -> None:
        """Insert the sums of a part."""
        cells = tuple(slice(s.start // CELL, -(-s.stop // CELL)) for s in region)
        self.sharpness[cells] = part.sharpness
        self.valid[cells] = part.valid

    def spread(self) -> Float:
        """Return for each cell the sharpness of the nearest valid pixels; 0.5 far from any."""
        spread = np.full(self.valid.shape, 0.5, np.float32)
        for sigma in reversed(SIGMAS):
            near = ndimage.gaussian_filter(self.valid, sigma) if sigma else self.valid
            known = ndimage.gaussian_filter(self.sharpness, sigma) if sigma else self.sharpness
            weight = np.clip(10 * near, 0, 1)
            spread += weight * (known / np.maximum(near, 1e-6) - spread)
        return np.clip(spread, 0, 1)


def cells_around(region: Region, shape: Sequence[int]) -> Region:
    """Return the cells, of `shape` rows and columns, that `at_pixels` needs for a region."""
    rows, columns = (slice(s.start // CELL, -(-s.stop // CELL)) for s in region)
    return widen((rows, columns), 1, shape)


def at_pixels(cells: Float, region: Region, around: Region | None = None) -> Float:
    """Interpolate the values of cells at the pixels of a region, (Y, X) float32.

    `cells` are all those of the plane or, where `around` is given, those of `cells_around` alone.
    """
    if around is None:
        around = cells_around(region, cells.shape)
        cells = cells[around]
    values = enlarge(cells, CELL)
    pixels = slice(CELL * around[0].start, None), slice(CELL * around[1].start, None)
    return values[within(region, pixels)]


def _cell_means(values: npt.NDArray[np.float32 | np.bool_]) -> Float:
    """Average over cells; those at the lower and right border may have fewer pixels."""
    floats = values.astype(np.float32, copy=False)
    if all(size % CELL == 0 for size in values.shape):
        return block_mean(floats, CELL)
    shares = [np.ones(-(-size // CELL), np.float32) for size in values.shape]
    for share, size in zip(shares, values.shape, strict=True):
        share[-1] -= (-size % CELL) / CELL
    padded = np.pad(floats, [(0, -size % CELL) for size in values.shape])
    return np.asarray(block_mean(padded, CELL) / np.multiply.outer(*shares), np.float32)
