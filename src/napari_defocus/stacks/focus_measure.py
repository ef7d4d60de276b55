"""How much fine detail each place of a plane shows, on one scale for all planes of a stack.

The measure is the squared Laplacian of Gaussian at two scales, less what noise has of it, pooled,
and of both the geometric mean. Planes show the same scene, so that it needs no comparison with the
contrast, as a single image does. The fine scale alone takes the grain in the glow of a blurred edge
for detail, the coarse one alone leaves fine textures to it. On rendered stacks of known depth the
default metric's filters, the modified Laplacian of S. Nayar and Y. Nakagawa (IEEE PAMI 16(8), 1994)
and the gradient had a median error alike, and more pixels far out.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_defocus.filters.luminance import fill_holes, grey_and_holes, stretch
from napari_defocus.filters.noise import PlaneStatistics

Float = npt.NDArray[np.float32]

# Standard deviations, in pixels, of the two scales.
SIGMA = 1.0
COARSE_SIGMA = 2.0
# Of the first pooling, in samples.
POOLING = 1.0
# Rows and columns around a place that the Laplacian of Gaussian looks at.
REACH = 4
# Variance of its answer to white noise of variance 1.
NOISE_GAIN = 1 / (2 * np.pi * SIGMA**6)
# The flattest tenth of the blocks, by which a plane's noise is told, has so much of white noise's
# variance.
FLATTEST = 0.79
# Rows that are worked on at once, so that large planes need little memory.
STRIP = 512
THREADS = 2


@dataclass(frozen=True)
class StackScale:
    """What all planes of a stack are measured by.

    Parameters
    ----------
    limits : tuple of float
        The grey values that become 0 and 1.
    noise : tuple of float
        (a, b): the variance of the noise is a + b * grey, once stretched.
    """

    limits: tuple[float, float]
    noise: tuple[float, float]


def common_scale(statistics: Sequence[PlaneStatistics]) -> StackScale:
    """Join what was measured of each plane: the widest limits, the median noise."""
    low = min(each.limits[0] for each in statistics)
    high = max(each.limits[1] for each in statistics)
    span = max(high - low, np.finfo(np.float64).tiny)
    noises = []
    for each in statistics:
        own = each.limits[1] - each.limits[0]
        a, b = each.noise
        # The plane's own 0 is elsewhere on the common scale, its own 1 too.
        offset = (each.limits[0] - low) / span
        gain = own / span
        noises.append((a * gain**2 - b * gain * offset, b * gain))
    a, b = np.median(noises, axis=0)
    return StackScale((low, high), (float(a), float(b)))


@dataclass(frozen=True)
class Detail:
    """Fine detail of a plane, at every `step`-th pixel.

    Parameters
    ----------
    energy : ndarray of float32, (Y / step, X / step)
        Squared answer, less the noise's, 0 or more.
    noise : ndarray of float32
        What the noise has of it.
    grey : ndarray of float32
        The stretched grey values.
    """

    energy: Float
    noise: Float
    grey: Float


def measure_detail(plane: npt.NDArray[Any], scale: StackScale, step: int) -> Detail:
    """Measure the detail of a plane.

    Parameters
    ----------
    plane : ndarray, (Y, X) or (Y, X, C)
        See `grey_and_holes`.
    scale : StackScale
        Of the stack.
    step : int
        Squares of so many pixels are averaged.
    """
    starts = range(0, plane.shape[0], _strip_height(step))
    strips = in_threads(lambda start: _measure_strip(plane, scale, step, start), starts)
    fine, grey = (np.concatenate(parts) for parts in zip(*strips, strict=True))
    # On the samples, where it is smooth: scaled so that edges answer alike at both scales.
    sigma = max(COARSE_SIGMA / step, 1.0)
    coarse = np.square(sigma**2 * ndimage.gaussian_laplace(grey, sigma))
    coarse_gain = 1 / (2 * np.pi * (sigma * step) ** 2)
    a, b = scale.noise
    least = np.float32(np.finfo(np.float32).tiny)
    variance = np.maximum(a + b * np.clip(grey, 0, None), least) / FLATTEST
    energy = np.sqrt(
        _pooled(fine - NOISE_GAIN * variance) * _pooled(coarse - coarse_gain * variance)
    )
    noise = np.asarray(np.sqrt(NOISE_GAIN * coarse_gain) * variance, np.float32)
    return Detail(energy, noise, grey)


def _strip_height(step: int) -> int:
    return max(STRIP // step, 1) * step


def _measure_strip(
    plane: npt.NDArray[Any], scale: StackScale, step: int, start: int
) -> tuple[Float, Float]:
    """Give squared Laplacian and grey values of the rows from `start` on, each (rows, X) / step."""
    stop = min(start + _strip_height(step), plane.shape[0])
    top = max(start - REACH, 0)
    grey, holes = grey_and_holes(plane[top : stop + REACH])
    values = stretch(fill_holes(np.where(holes, 0, grey), holes), *scale.limits)
    answer = ndimage.gaussian_laplace(values, SIGMA, truncate=REACH / SIGMA)
    answer[holes] = 0
    inside = slice(start - top, stop - top)
    return block_means(np.square(answer[inside]), step), block_means(values[inside], step)


def _pooled(energy: Float) -> Float:
    return np.maximum(ndimage.gaussian_filter(energy, POOLING), 0)


def block_means(values: Float, step: int) -> Float:
    """Average squares of `step` pixels; those at the rim average what is there."""
    if step == 1:
        return values
    widths = [(0, -size % step) for size in values.shape]
    if any(after for _, after in widths):
        values = np.pad(values, widths, mode="edge")
    rows, columns = (size // step for size in values.shape)
    return np.asarray(values.reshape(rows, step, columns, step).mean(axis=(1, 3)), np.float32)


def in_threads(work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """Map `work` over `items` in a few threads; the order of the results is that of the items."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(work, items))
