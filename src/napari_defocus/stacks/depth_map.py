"""Where each pixel of a stack is in focus: best plane, fraction of a plane, confidence, smoothing.

Detail is pooled over ever wider surroundings with ever smaller weight, so that textures are judged
by themselves and flat areas by what lies around them. Each pixel then votes for its altitude with
its confidence, votes are pooled in the same manner, and the altitude is the centre of the highest
hill of votes: single errors are outvoted, steps stay steps. The weights are this package's own,
chosen on rendered stacks of known depth.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_defocus.filters.pyramid import (
    double_smoothly,
    gaussian_pyramid,
    halve_smoothly,
    levels_of,
)
from napari_defocus.stacks.focus_measure import block_means

Float = npt.NDArray[np.float32]
Scalar = TypeVar("Scalar", bound=np.generic)

# Weight of the detail of a pixel itself and of each halving: surroundings 2, 4, ... times as wide.
DETAIL_WEIGHTS = (1.0, 1.0, 1.0, 0.3, 0.1)
# Of the votes; from there on each halving has `VOTE_DECAY` of the weight of the one before.
VOTE_WEIGHTS = (0.3, 1.0, 0.1)
VOTE_DECAY = 0.3
# Standard deviation, in planes, of what belongs to one hill of votes, and steps to its centre.
HILL = 1.5
HILL_STEPS = 2
# Amplitude of detail, in those of noise: not believed at the first, wholly at the second.
BELIEVED = (2.0, 4.0)
# Detail, as a share of the most that surroundings of any width show: what is less may be the glow
# that strong edges cast over flat ground when out of focus. Believed from the first to the second.
OUTSHONE = (0.1, 0.4)
GLOW_LEVELS = 6
# How far detail rises on both sides of a plane between: out of focus, strong edges cast a glow
# over flat ground, before their focus and behind it. Such peaks are believed below the first
# rise, and not above the second.
TWO_SIDED = (2.0, 4.0)
# Samples a side of the blocks that tell the noise.
NOISE_BLOCK = 8
# An altitude that rises by more planes from pixel to pixel is a step, which is not smoothed.
STEP_PLANES = 1.0


@dataclass(frozen=True, eq=False)
class DepthMap:
    """Altitude (Y, X) in planes from 0, and confidence (Y, X) in [0, 1]."""

    depth_map: Float
    confidence: Float


def estimate_depth(
    energy: Float, noise: Float, extremum: str = "max", fallback: int = 0
) -> DepthMap:
    """Find where each pixel is in focus.

    Parameters
    ----------
    energy : ndarray of float32, (Z, Y, X)
        Detail in each plane, less the noise's, Z >= 2.
    noise : ndarray of float32, (Y, X)
        What noise has of detail.
    extremum : str
        ``max`` or ``min``, see `StackConfig`.
    fallback : int
        The altitude where no detail at all is to be seen.

    Returns
    -------
    Altitude
    """
    pooled = np.maximum(pool_widely(energy, DETAIL_WEIGHTS), 0)
    if extremum == "max":
        noise = np.maximum(noise, unchanged(energy))
    noise = np.maximum(np.float32(sum(DETAIL_WEIGHTS)) * noise, np.float32(1e-30))
    peak = highest_peak(pooled, noise) if extremum == "max" else deepest_valley(pooled, noise)
    del pooled
    votes = pool_widely(_votes(peak, len(energy)), VOTE_WEIGHTS, VOTE_DECAY)
    depth_map, share = _hill(votes)
    depth_map[votes.sum(axis=0) == 0] = fallback
    return DepthMap(depth_map, np.asarray(np.clip(peak.confidence * share, 0, 1), np.float32))


def highest_peak(pooled: Float, noise: Float) -> DepthMap:
    """Give where detail (Z, Y, X) is most, by a Gaussian through the three planes around it.

    S. Nayar, Y. Nakagawa, IEEE PAMI 16(8), 1994. The confidence is how far it stands out of the
    other planes and of the noise (Y, X).
    """
    planes = len(pooled)
    best = pooled.argmax(axis=0)
    most = pooled.max(axis=0)
    level = np.log(pooled + 1e-3 * most + 1e-30)
    depth_map = _vertex(level, best)
    others = (pooled.sum(axis=0) - most) / (planes - 1)
    stands_out = 1 - others / np.maximum(most, 1e-30)
    trust = stands_out * believed(most, noise)
    trust *= _between(outshining(most), *OUTSHONE)
    trust *= 1 - _between(valley_rise(pooled, noise), *TWO_SIDED)
    return DepthMap(depth_map, np.asarray(trust, np.float32))


def unchanged(energy: Float) -> np.float32:
    """Give the detail that no focus takes away: the median, over blocks, of the least in any plane.

    Compression and interpolation leave noise that is not white, which no model of it foresees.
    """
    least = np.min([block_means(plane, NOISE_BLOCK) for plane in energy], axis=0)
    return np.float32(np.median(least))


def _between(values: Float, low: float, high: float) -> Float:
    """Rate from 0, at `low` and below, to 1, at `high` and above."""
    return np.asarray(np.clip((values - low) / (high - low), 0, 1), np.float32)


def outshining(energy: Float) -> Float:
    """Give detail (Y, X) as a share of the most that surroundings of any width show."""
    pyramid = gaussian_pyramid(energy, levels_of(energy.shape, GLOW_LEVELS))
    most = pyramid[-1]
    for level in pyramid[-2:0:-1]:
        most = np.maximum(double_smoothly(most, level.shape), level)
    if len(pyramid) > 1:
        most = double_smoothly(most, energy.shape)
    return np.asarray(energy / np.maximum(most, np.float32(1e-30)), np.float32)


def believed(energy: Float, noise: Float) -> Float:
    """Rate from 0 to 1 how far detail stands out of the noise."""
    return _between(np.sqrt(energy / noise), *BELIEVED)


def valley_rise(pooled: Float, noise: Float) -> Float:
    """Give how many times detail (Z, Y, X) rises on both sides of any plane, 1 or more: (Y, X)."""
    rise: Float = np.ones_like(pooled[0])
    after = np.maximum.accumulate(pooled[::-1], axis=0)[::-1]
    before = pooled[0].copy()
    for plane, behind in zip(pooled, after, strict=True):
        np.maximum(before, plane, out=before)
        np.maximum(rise, (np.minimum(before, behind) + noise) / (plane + noise), out=rise)
    return rise


def deepest_valley(pooled: Float, noise: Float) -> DepthMap:
    """Give where detail (Z, Y, X) is least between two planes with more, by a parabola.

    The confidence is how far it lies below the lower of the two.
    """
    before = np.maximum.accumulate(pooled, axis=0)
    after = np.maximum.accumulate(pooled[::-1], axis=0)[::-1]
    height = np.minimum(before, after)
    depth = np.log((height + noise) / (pooled + noise))
    depth_map = _vertex(-pooled, depth.argmax(axis=0))
    trust = (1 - np.exp(-depth.max(axis=0))) * believed(height.max(axis=0), noise)
    return DepthMap(depth_map, np.asarray(trust, np.float32))


def _vertex(level: Float, best: npt.NDArray[np.intp]) -> Float:
    """Give the top of the parabola through `level` (Z, Y, X) at `best` (Y, X) and beside it."""
    planes = len(level)
    if planes < 3:
        return np.asarray(best, np.float32)
    middle = np.clip(best, 1, planes - 2)
    before, here, after = (
        np.take_along_axis(level, (middle + offset)[np.newaxis], axis=0)[0] for offset in (-1, 0, 1)
    )
    bend = before - 2 * here + after
    offset = np.where(bend < 0, 0.5 * (before - after) / np.minimum(bend, -1e-30), np.inf)
    found = np.where(np.abs(offset) <= 1, middle + offset, best)
    return np.asarray(np.clip(found, 0, planes - 1), np.float32)


def _votes(peak: DepthMap, planes: int) -> Float:
    """Share each pixel's confidence out to the planes beside its altitude: (Z, Y, X)."""
    votes = np.empty((planes, *peak.depth_map.shape), np.float32)
    for z in range(planes):
        votes[z] = np.maximum(1 - np.abs(peak.depth_map - z), 0) * peak.confidence
    return votes


def _hill(votes: Float) -> tuple[Float, Float]:
    """Give the centre of the highest hill of votes (Z, Y, X), and its share of them."""
    depth_map = np.asarray(votes.argmax(axis=0), np.float32)
    total = np.maximum(votes.sum(axis=0), 1e-30)
    share = np.ones_like(depth_map)
    for _ in range(HILL_STEPS):
        near, moment = np.zeros_like(depth_map), np.zeros_like(depth_map)
        for z, vote in enumerate(votes):
            part = vote * np.exp(-0.5 * np.square((z - depth_map) / HILL))
            near += part
            moment += z * part
        share = near / total
        depth_map = np.where(near > 0, moment / np.maximum(near, 1e-30), depth_map)
    return depth_map.astype(np.float32), share


def pool_widely(values: Float, weights: tuple[float, ...], decay: float = 0.0) -> Float:
    """Sum `values` (..., Y, X) and its halvings, each with its weight.

    Parameters
    ----------
    values : ndarray of float32, (..., Y, X)
    weights : tuple of float
        Of `values` and of each halving.
    decay : float
        Weight of each further halving, as a share of the one before; 0 for no further ones.
    """
    most = len(weights) - 1 if decay == 0 else 32
    levels = levels_of(values.shape[-2:], most)
    pyramid = [values]
    for _ in range(levels):
        pyramid.append(halve_smoothly(pyramid[-1]))
    weight = [*weights] + [weights[-1] * decay**k for k in range(1, levels + 2)]
    pooled = weight[levels] * pyramid[-1]
    for level in range(levels - 1, -1, -1):
        pooled = double_smoothly(pooled, pyramid[level].shape) + weight[level] * pyramid[level]
    return pooled


def enlarge(values: Float, step: int, shape: tuple[int, int], steps_above: float = np.inf) -> Float:
    """Bring a map of every `step`-th pixel to full size, by interpolation.

    Parameters
    ----------
    values : ndarray of float32, (Y / step, X / step)
        Means of squares of `step` pixels.
    step : int
        At least 1.
    shape : tuple of int
        (Y, X) of the full size.
    steps_above : float
        Neighbours that differ by more are a step, and are repeated, not interpolated.
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


def _repeated(
    values: npt.NDArray[Scalar], step: int, shape: tuple[int, int]
) -> npt.NDArray[Scalar]:
    return values.repeat(step, axis=0)[: shape[0]].repeat(step, axis=1)[:, : shape[1]]
