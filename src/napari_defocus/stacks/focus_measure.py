"""The focus measure: fine detail at each pixel, on one scale for all planes of a stack.

It is the geometric mean, over two scales, of the squared Laplacian of Gaussian, less that of the
noise, pooled. Planes show the same scene, so that it is not set against the contrast, as in a
single image. The fine scale alone takes the grain in the glow of a blurred edge for detail, the
coarse one alone misses fine textures. On rendered stacks of known depth the
default metric's filters, the modified Laplacian of S. Nayar and Y. Nakagawa (IEEE PAMI 16(8), 1994)
and the gradient had a median error alike, and more pixels far out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_defocus.core.errors import about
from napari_defocus.core.progress import OnEvent, ShouldStop, track
from napari_defocus.core.threads import in_threads
from napari_defocus.filters.luminance import fill_holes, grey_and_holes, stretch
from napari_defocus.filters.noise import FLATTEST, PlaneStatistics, measure_plane
from napari_defocus.stacks.flaws import FlawFinder, Flaws
from napari_defocus.stacks.planes import StackPlanes, check_same

Float = npt.NDArray[np.float32]

# Standard deviations, in pixels, of the two scales.
SIGMA = 1.0
COARSE_SIGMA = 2.0
# Of the first pooling, in samples.
POOLING = 1.0
# Radius, in pixels, of the Laplacian of Gaussian.
RADIUS = 4
# Variance of its response to white noise of variance 1.
NOISE_GAIN = 1 / (2 * np.pi * SIGMA**6)
# Rows that are worked on at once, so that large planes need little memory.
STRIP = 512


@dataclass(frozen=True)
class StackScale:
    """The grey limits that become 0 and 1 in all planes, and (a, b) of the noise, once stretched.

    Its variance is a + b * grey. `flaws` of single planes are left out of both.
    """

    limits: tuple[float, float]
    noise: tuple[float, float]
    flaws: Flaws = field(default_factory=Flaws)


def common_scale(statistics: Sequence[PlaneStatistics]) -> StackScale:
    """Combine the statistics of planes: the widest limits, the median noise."""
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


def measure_scale(planes: StackPlanes, on_event: OnEvent, should_stop: ShouldStop) -> StackScale:
    """Read every plane once: check that all are alike, and return what they are measured with."""
    statistics = []
    finder = FlawFinder()
    first: npt.NDArray[Any] | None = None
    for z in track("reading planes", len(planes), on_event, should_stop):
        plane = planes[z]
        first = plane if first is None else first
        check_same(z, plane, first)
        with about(f"plane {z}"):
            statistics.append(measure_plane(plane))
        finder.add(plane, statistics[-1])
    flaws = finder.found()
    kept = [each for z, each in enumerate(statistics) if z not in flaws.odd]
    return replace(common_scale(kept), flaws=flaws)


def measure_detail(plane: npt.NDArray[Any], scale: StackScale, step: int) -> tuple[Float, Float]:
    """Return the detail of a plane (Y, X[, C]), and of its noise, in blocks of `step` pixels.

    The detail is that less the noise's, 0 or more.
    """
    starts = range(0, plane.shape[0], _strip_height(step))
    strips = in_threads(lambda start: _measure_strip(plane, scale, step, start), starts)
    fine, grey = map(np.concatenate, zip(*(strip for _, strip in strips), strict=True))
    # On the block means, as it is smooth: scaled so that edges respond alike at both scales.
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
    return energy, noise


def _strip_height(step: int) -> int:
    return max(STRIP // step, 1) * step


def _measure_strip(
    plane: npt.NDArray[Any], scale: StackScale, step: int, start: int
) -> tuple[Float, Float]:
    """Return squared Laplacian and grey values of the rows from `start` on, (rows, X) / step."""
    stop = min(start + _strip_height(step), plane.shape[0])
    top = max(start - RADIUS, 0)
    grey, holes = grey_and_holes(plane[top : stop + RADIUS])
    values = stretch(fill_holes(np.where(holes, 0, grey), holes), *scale.limits)
    response = ndimage.gaussian_laplace(values, SIGMA, truncate=RADIUS / SIGMA)
    response[holes] = 0
    inside = slice(start - top, stop - top)
    return block_means(np.square(response[inside]), step), block_means(values[inside], step)


def _pooled(energy: Float) -> Float:
    return np.maximum(ndimage.gaussian_filter(energy, POOLING), 0)


def block_means(values: Float, step: int) -> Float:
    """Average blocks of `step` x `step` pixels; blocks over the border repeat the last pixel."""
    values = np.pad(values, [(0, -size % step) for size in values.shape], mode="edge")
    rows, columns = (size // step for size in values.shape)
    return np.asarray(values.reshape(rows, step, columns, step).mean(axis=(1, 3)), np.float32)
