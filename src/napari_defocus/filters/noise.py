"""Statistics of a whole plane that every part of it needs: contrast limits, noise, colours.

A plane of more than `MOST_PIXELS` is sampled by windows spread evenly over it: statistics do not
depend on how it is cut into tiles, and cost little beside its detection.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, product
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_defocus.core.errors import DefocusError, NoDetailError
from napari_defocus.core.tiling import Region, within
from napari_defocus.filters.linear import second_difference
from napari_defocus.filters.luminance import (
    Bool,
    Float,
    fill_holes,
    grey_and_holes,
    is_constant,
    stretch,
    why_only_holes,
)
from napari_defocus.filters.structure import local_deviation, strongest_contrast

# Standard deviation of a normal distribution, by its median absolute deviation.
NORMAL = 1.4826
# Percentiles of the grey values that become 0 and 1.
STRETCH = (0.1, 99.9)
NOISE_BLOCK = 16
NOISE_BINS = 6
# The flattest tenth of the blocks is taken for noise alone.
NOISE_PERCENTILE = 10.0
# These blocks have so much of white noise's variance.
FLATTEST = 0.79
# Half a step of an 8-bit image: no recording is better than this.
NOISE_FLOOR = 0.5 / 255 / np.sqrt(3)
# Larger planes are sampled: so many windows at most, of this side.
MOST_PIXELS = 2**22
WINDOWS = 1024
WINDOW = 64

ReadPart = Callable[[slice, slice], npt.NDArray[Any]]


@dataclass(frozen=True)
class PlaneStatistics:
    """Statistics of a whole plane.

    Parameters
    ----------
    limits : tuple of float
        The values that become 0 and 1.
    noise : tuple of float
        (a, b): the variance of the noise, once stretched, is a + b * grey.
    colours : tuple of float
        Mean and standard deviation of all colours together, once stretched; zeros where they were
        not measured.
    contrast : float
        Of the strongest structure, see `strongest_contrast`; measured with the colours.
    """

    limits: tuple[float, float]
    noise: tuple[float, float]
    colours: tuple[float, float] = (0.0, 0.0)
    contrast: float = 0.0

    @property
    def constant(self) -> bool:
        """Whether there is nothing to see."""
        low, high = self.limits
        return is_constant(low, high)


def measure_plane(image: npt.NDArray[Any], *, colours: bool = False) -> PlaneStatistics:
    """Measure an image (Y, X) or (Y, X, C) in memory; see `measure`."""
    image = np.asarray(image)
    if image.ndim not in (2, 3):
        grey_and_holes(image)  # which raises
    return measure(lambda rows, columns: image[rows, columns], image.shape[:2], colours=colours)


def measure(
    read: ReadPart,
    shape: Sequence[int],
    block: tuple[int, int] = (1, 1),
    *,
    colours: bool = False,
) -> PlaneStatistics:
    """Measure a plane that is read in parts.

    Parameters
    ----------
    read : callable
        Returns rows and columns of the plane, (Y, X) or (Y, X, C).
    shape : sequence of int
        Rows and columns of the whole.
    block : tuple of int
        Rows and columns that are read at once at least: windows in one are read together.
    colours : bool
        Whether colours are measured too.

    Raises
    ------
    DefocusError
        Where the plane is no image, is empty, or has no finite pixel (`NoDetailError`).
    """
    constant = None
    for windows in sample_windows(shape):
        parts = list(_read_windows(read, windows, block))
        seen = [grey_and_holes(part) for part in parts]
        values = np.concatenate([grey[~holes] for grey, holes in seen])
        if values.size:
            statistics = _measure(parts, seen, values, colours)
            if not statistics.constant:
                return statistics
            constant = statistics
    if constant is None:
        raise NoDetailError(why_only_holes(parts))
    return constant


def sample_windows(shape: Sequence[int]) -> Iterator[list[Region]]:
    """Yield windows that sample a plane and, for planes mostly of holes, others and others.

    Parameters
    ----------
    shape : sequence of int
        Rows and columns.
    """
    rows, columns = shape
    if rows * columns <= MOST_PIXELS:
        yield [(slice(0, rows), slice(0, columns))]
        return
    down = min(max(rows // WINDOW, 1), int(WINDOWS**0.5))
    across = min(max(columns // WINDOW, 1), WINDOWS // down)
    down = min(max(rows // WINDOW, 1), WINDOWS // across)
    for y, x in product(range(0, rows // down, WINDOW), range(0, columns // across, WINDOW)):
        yield [
            (_window(i * rows // down + y, rows), _window(j * columns // across + x, columns))
            for i, j in product(range(down), range(across))
        ]


def _read_windows(
    read: ReadPart, windows: Sequence[Region], block: tuple[int, int]
) -> Iterator[npt.NDArray[Any]]:
    """Read windows block by block."""

    def place(window: Region) -> tuple[int, ...]:
        return tuple(part.start // side for part, side in zip(window, block, strict=True))

    for _, group in groupby(
        sorted(windows, key=lambda w: (place(w), w[0].start, w[1].start)), place
    ):
        together = list(group)
        rows, columns = (
            slice(min(part.start for part in parts), max(part.stop for part in parts))
            for parts in zip(*together, strict=True)
        )
        read_once = read(rows, columns)
        for window in together:
            yield read_once[within(window, (rows, columns))].copy()


def _window(start: int, size: int) -> slice:
    start = max(min(start, size - WINDOW), 0)
    return slice(start, min(start + WINDOW, size))


def _measure(
    parts: Sequence[npt.NDArray[Any]],
    seen: Sequence[tuple[npt.NDArray[np.float64], Bool]],
    values: npt.NDArray[np.float64],
    colours: bool,
) -> PlaneStatistics:
    limits = _stretch_limits(values)
    usable = [(part, *given) for part, given in zip(parts, seen, strict=True) if not given[1].all()]
    greys = [stretch(fill_holes(grey, holes), *limits) for _, grey, holes in usable]
    noise = estimate_noise(*greys)
    if not colours:
        return PlaneStatistics(limits, noise)
    contrast = strongest_contrast([local_deviation(grey, noise) for grey in greys])
    return PlaneStatistics(limits, noise, _colours(parts, usable, greys, limits), contrast)


def _colours(
    parts: Sequence[npt.NDArray[Any]],
    usable: Sequence[tuple[npt.NDArray[Any], npt.NDArray[np.float64], Bool]],
    greys: Sequence[Float],
    limits: tuple[float, float],
) -> tuple[float, float]:
    """Return mean and standard deviation of the stretched colours."""
    if parts[0].ndim == 2 or parts[0].shape[-1] < 3:
        return _moments(greys)
    if parts[0].dtype == np.uint8 and not any(holes.any() for _, _, holes in usable):
        counted = [np.bincount(part[..., :3].ravel(), minlength=256) for part in parts]
        table = stretch(np.arange(256.0), *limits)
        return _moments([table], np.sum(counted, axis=0))
    shown = [
        stretch(fill_holes(part[..., :3].astype(np.float64), holes), *limits)
        for part, _, holes in usable
    ]
    return _moments(shown)


def _moments(
    shown: Sequence[Float], counts: npt.NDArray[np.int64] | int = 1
) -> tuple[float, float]:
    """Return mean and standard deviation of values that occur so many times."""
    count = sum(part.size for part in shown) if isinstance(counts, int) else counts.sum()
    mean = sum(float((counts * part).sum(dtype=np.float64)) for part in shown) / count
    square = sum(float((counts * np.square(part - mean)).sum(dtype=np.float64)) for part in shown)
    return float(mean), float(np.sqrt(square / count))


def _stretch_limits(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return the grey values that become 0 and 1."""
    low, high = np.percentile(values, STRETCH)
    if high <= low:
        low, high = values.min(), values.max()
    if not np.isfinite(high - low):
        raise DefocusError("the image's values are too large to compute with; rescale them")
    return float(low), float(high)


def estimate_noise(*greys: Float) -> tuple[float, float]:
    """Estimate how the variance of the noise grows with brightness.

    In each of `NOISE_BINS` ranges of brightness the flattest blocks are taken for noise alone, and
    a line through them, never falling, is the model of read and shot noise.

    Parameters
    ----------
    greys : ndarray of float32, (Y, X)
        The plane, or windows of it.

    Returns
    -------
    tuple of float
        (a, b): the variance is a + b * grey, a at least the square of `NOISE_FLOOR`.
    """
    floor = float(NOISE_FLOOR**2)
    variance = np.concatenate([_block_means(second_difference(g) ** 2) for g in greys])
    brightness = np.concatenate([_block_means(grey) for grey in greys])
    if not brightness.size:
        return floor, 0.0
    edges = np.quantile(brightness, np.linspace(0, 1, NOISE_BINS + 1)[1:-1])
    which = np.searchsorted(edges, brightness)
    points = [
        (brightness[which == i].mean(), np.percentile(variance[which == i], NOISE_PERCENTILE))
        for i in np.unique(which)
    ]
    x, y = np.array(points).T
    a, b = _line_that_never_falls(np.clip(x, 0, None), y)
    return max(a, floor), b


def _line_that_never_falls(
    x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]
) -> tuple[float, float]:
    """Fit y = a + b x by least squares, a and b 0 or more."""
    # SciPy's solver would double the time that the command line takes to start.
    a, b = np.linalg.lstsq(np.stack([np.ones_like(x), x], 1), y, rcond=None)[0]
    if a >= 0 and b >= 0:
        return float(a), float(b)
    flat = max(float(y.mean()), 0.0), 0.0
    steep = 0.0, max(float(x @ y / (x @ x)), 0.0) if x.any() else 0.0
    return min(flat, steep, key=lambda line: float(np.square(line[0] + line[1] * x - y).sum()))


def _block_means(values: Float) -> Float:
    rows, columns = (size // NOISE_BLOCK for size in values.shape)
    cut = values[: rows * NOISE_BLOCK, : columns * NOISE_BLOCK]
    blocks = cut.reshape(rows, NOISE_BLOCK, columns, NOISE_BLOCK)
    return np.asarray(blocks.mean(axis=(1, 3)).ravel(), np.float32)
