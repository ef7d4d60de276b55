"""Depth from focus: the plane, with a fraction, in which each pixel of a stack is in focus.

Detail is pooled over scales, coarse ones with less weight, so that textures are measured by
themselves and flat areas by their surroundings. The plane with most detail is a pixel's first
estimate. These estimates, weighed by their confidence, make a histogram over planes at each pixel,
which is pooled over scales too; its mode is the depth: single errors are outvoted, steps stay
steps. The weights are this package's own, chosen on rendered stacks of known depth.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_defocus.filters.pyramid import double_smoothly, gaussian_pyramid, levels_of
from napari_defocus.stacks.focus_measure import block_means
from napari_defocus.stacks.plane_scores import lower_rim

Float = npt.NDArray[np.float32]

# Weight of the detail of a pixel itself and of each halving: surroundings 2, 4, ... times as wide.
DETAIL_WEIGHTS = (1.0, 1.0, 1.0, 0.3, 0.1)
# Of the histogram of depths; from there on each halving weighs `HISTOGRAM_DECAY` of the one before.
HISTOGRAM_WEIGHTS = (0.3, 1.0, 0.1)
HISTOGRAM_DECAY = 0.3
# Standard deviation, in planes, of the Gaussian that climbs to a mode, and its steps (mean shift).
MODE_SIGMA = 1.5
MODE_STEPS = 2
# Amplitude of detail over that of noise: confidence rises from 0 at the first to 1 at the second.
SIGNAL_TO_NOISE = (2.0, 4.0)
# Detail as a share of the most around it, at any width: what is less may be the glow that strong
# edges cast over flat ground when out of focus. Confidence rises from the first to the second.
SHARE_OF_SURROUNDINGS = (0.1, 0.4)
GLOW_LEVELS = 6
# How far detail rises on both sides of a plane between: out of focus, strong edges cast a glow
# over flat ground, before their focus and behind it. Confidence falls from the first to the second.
DOUBLE_PEAK = (2.0, 4.0)
# Samples a side of the blocks that the noise is estimated in.
NOISE_BLOCK = 8
# A depth that rises by more planes from pixel to pixel is a step, which is not smoothed.
STEP_PLANES = 1.0
TINY = np.float32(1e-30)


@dataclass(frozen=True, eq=False)
class DepthMap:
    """Depth (Y, X) in planes from 0, and its confidence (Y, X) in [0, 1]."""

    depth: Float
    confidence: Float


def estimate_depth(
    energy: Float, noise: Float, extremum: str = "max", fallback: int = 0
) -> DepthMap:
    """Compute where each pixel is in focus.

    `energy` is the detail in each plane (Z, Y, X), less the noise's, of two planes or more, and
    `noise` the noise's detail (Y, X). For `extremum` see `StackConfig`; `fallback` is the depth
    where there is no detail at all.
    """
    pooled = np.maximum(pool_scales(energy, DETAIL_WEIGHTS), 0)
    if extremum == "max":
        noise = np.maximum(noise, constant_detail(energy))
    noise = np.maximum(np.float32(sum(DETAIL_WEIGHTS)) * noise, TINY)
    first = highest_peak(pooled, noise) if extremum == "max" else deepest_valley(pooled, noise)
    del pooled
    histogram = _histogram(first, len(energy))
    histogram = pool_scales(histogram, HISTOGRAM_WEIGHTS, HISTOGRAM_DECAY)
    depth, share = _mode(histogram)
    depth[histogram.sum(axis=0) == 0] = fallback
    return DepthMap(depth, np.asarray(np.clip(first.confidence * share, 0, 1), np.float32))


def highest_peak(pooled: Float, noise: Float) -> DepthMap:
    """Return where detail (Z, Y, X) is most, by a Gaussian through the three planes around it.

    S. Nayar, Y. Nakagawa, IEEE PAMI 16(8), 1994. The confidence is how far it stands out of the
    other planes and of the noise (Y, X).
    """
    most = pooled.max(axis=0)
    depth = _parabola_top(np.log(pooled + 1e-3 * most + 1e-30), pooled.argmax(axis=0))
    others = (pooled.sum(axis=0) - most) / (len(pooled) - 1)
    confidence = (1 - others / np.maximum(most, TINY)) * above_noise(most, noise)
    confidence *= _ramp(share_of_surroundings(most), *SHARE_OF_SURROUNDINGS)
    confidence *= 1 - _ramp(_valley_ratio(pooled, noise), *DOUBLE_PEAK)
    return DepthMap(depth, np.asarray(confidence, np.float32))


def constant_detail(energy: Float) -> np.float32:
    """Return the detail that no focus removes: the median, over blocks, of the least of the planes.

    Compression and interpolation leave noise that is not white, which no model of it foresees.
    """
    least = np.min([block_means(plane, NOISE_BLOCK) for plane in energy], axis=0)
    return np.float32(np.median(least))


def _ramp(values: Float, low: float, high: float) -> Float:
    """Rise linearly from 0, at `low` and below, to 1, at `high` and above."""
    return np.asarray(np.clip((values - low) / (high - low), 0, 1), np.float32)


def share_of_surroundings(energy: Float) -> Float:
    """Return detail (Y, X) as a share of the most in its surroundings of any width."""
    pyramid = gaussian_pyramid(energy, levels_of(energy.shape, GLOW_LEVELS))
    most = pyramid[-1]
    for level in pyramid[-2:0:-1]:
        most = np.maximum(double_smoothly(most, level.shape), level)
    if len(pyramid) > 1:
        most = double_smoothly(most, energy.shape)
    return np.asarray(energy / np.maximum(most, TINY), np.float32)


def above_noise(energy: Float, noise: Float) -> Float:
    """Return, from 0 to 1, how far detail stands out of the noise."""
    return _ramp(np.sqrt(energy / noise), *SIGNAL_TO_NOISE)


def _valley_ratio(pooled: Float, noise: Float) -> Float:
    """Return how many times detail (Z, Y, X) rises on both sides of any plane, 1 or more."""
    ratio: Float = np.ones_like(pooled[0])
    for plane, rim in zip(pooled, lower_rim(pooled), strict=True):
        np.maximum(ratio, (rim + noise) / (plane + noise), out=ratio)
    return ratio


def deepest_valley(pooled: Float, noise: Float) -> DepthMap:
    """Return where detail (Z, Y, X) is least between two planes with more, by a parabola.

    The confidence is how far it lies below the lower of the two.
    """
    rim = lower_rim(pooled)
    valley = np.log((rim + noise) / (pooled + noise))
    depth = _parabola_top(-pooled, valley.argmax(axis=0))
    confidence = (1 - np.exp(-valley.max(axis=0))) * above_noise(rim.max(axis=0), noise)
    return DepthMap(depth, np.asarray(confidence, np.float32))


def _parabola_top(values: Float, best: npt.NDArray[np.intp]) -> Float:
    """Return the top of the parabola through `values` (Z, Y, X) at `best` (Y, X) and beside it."""
    planes = len(values)
    if planes < 3:
        return np.asarray(best, np.float32)
    middle = np.clip(best, 1, planes - 2)
    before, here, after = (
        np.take_along_axis(values, (middle + offset)[np.newaxis], axis=0)[0]
        for offset in (-1, 0, 1)
    )
    bend = before - 2 * here + after
    offset = np.where(bend < 0, 0.5 * (before - after) / np.minimum(bend, -TINY), np.inf)
    found = np.where(np.abs(offset) <= 1, middle + offset, best)
    return np.asarray(np.clip(found, 0, planes - 1), np.float32)


def _histogram(first: DepthMap, planes: int) -> Float:
    """Share each pixel's confidence out to the planes beside its depth: (Z, Y, X)."""
    histogram = np.empty((planes, *first.depth.shape), np.float32)
    for z in range(planes):
        histogram[z] = np.maximum(1 - np.abs(first.depth - z), 0) * first.confidence
    return histogram


def _mode(histogram: Float) -> tuple[Float, Float]:
    """Return the mode of each pixel's histogram (Z, Y, X), by mean shift, and its share of it."""
    depth = np.asarray(histogram.argmax(axis=0), np.float32)
    total = np.maximum(histogram.sum(axis=0), 1e-30)
    share = np.ones_like(depth)
    for _ in range(MODE_STEPS):
        near, moment = np.zeros_like(depth), np.zeros_like(depth)
        for z, counts in enumerate(histogram):
            part = counts * np.exp(-0.5 * np.square((z - depth) / MODE_SIGMA))
            near += part
            moment += z * part
        share = near / total
        depth = np.where(near > 0, moment / np.maximum(near, 1e-30), depth)
    return depth.astype(np.float32), share


def pool_scales(values: Float, weights: tuple[float, ...], decay: float = 0.0) -> Float:
    """Sum `values` (..., Y, X) and its halvings, each with its weight.

    Beyond `weights`, each halving weighs `decay` of the one before; 0 for no further ones.
    """
    levels = levels_of(values.shape[-2:], len(weights) - 1 if decay == 0 else 32)
    pyramid = gaussian_pyramid(values, levels)
    weights += tuple(weights[-1] * decay**k for k in range(1, levels + 2))
    pooled = weights[levels] * pyramid[-1]
    for level in range(levels - 1, -1, -1):
        pooled = double_smoothly(pooled, pyramid[level].shape) + weights[level] * pyramid[level]
    return pooled


def upsample(
    values: Float, step: int, shape: tuple[int, int], steps_above: float = np.inf
) -> Float:
    """Interpolate a map of means of `step` x `step` blocks to its full size, `shape`.

    Neighbours that differ by more than `steps_above` are a step: they are repeated, not
    interpolated.
    """
    if step == 1:
        return values
    full = ndimage.zoom(values, step, order=1, mode="nearest", grid_mode=True)
    full = full[: shape[0], : shape[1]]
    if np.isfinite(steps_above):
        rise = ndimage.maximum_filter(values, 3) - ndimage.minimum_filter(values, 3)
        steep = _repeated(rise > steps_above, step, shape)
        full = np.where(steep, _repeated(values, step, shape), full)
    return np.asarray(full, np.float32)


def _repeated(values: npt.NDArray[Any], step: int, shape: tuple[int, int]) -> npt.NDArray[Any]:
    return values.repeat(step, axis=0)[: shape[0]].repeat(step, axis=1)[:, : shape[1]]
