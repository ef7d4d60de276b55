"""Apply a metric to a plane: filter, combine, pool, compare with the local contrast.

The score of a pixel is ``log(response) - exponent * log(contrast)``, both pooled over its
surroundings: high where there is more fine detail than the contrast alone would explain. Combining
K1 and K2 by their energy, the power before pooling and the comparison with the contrast are not in
the paper; they are this package's own choice. The paper's way is in `zeng2019`.
"""

import numpy as np
import numpy.typing as npt
from scipy import ndimage, special

from napari_defocus.core.errors import DefocusError
from napari_defocus.core.progress import ShouldStop, Stopped, never_stop
from napari_defocus.core.threads import cores_are_free, in_threads, plan_parts, side_by_side
from napari_defocus.core.tiling import Region, Tile, shifted, whole, widen, within
from napari_defocus.filters.contrast import local_contrast, without_noise
from napari_defocus.filters.guided import guided_coefficients
from napari_defocus.filters.linear import gaussian_radius, summed_squares
from napari_defocus.filters.plane import Plane, halve
from napari_defocus.filters.resampling import block_mean, enlarge
from napari_defocus.metric.local_metric import LocalMetric, Pooling

Float = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]

# Sides of the blocks that pooling works on.
BLOCKS = (1, 2, 4)
# Responses and contrasts below this share of the grey range count as equally nothing.
LEAST = 1e-3
# No score is valid where the gradient is less, in grey ranges a pixel.
LEAST_CONTRAST = 5e-4
# The response of a sharp region, in standard deviations of the noise: not trusted at the first,
# trusted wholly at the second.
SIGNAL_TO_NOISE = (0.7, 2.0)
# Contrast is looked for this much wider than responses are pooled.
TRUST_SIGMA = 1.5
# Halvings of an image whose noise hides the finer scales.
COARSER = 2
# Rows that are blended at once.
BAND = 256
# Log odds that a halving costs: what looks sharp once halved may have been blurred before.
HALVING_COST = 1.0


def filter_response(plane: Plane, metric: LocalMetric) -> Float:
    """Return the root of the filters' summed squared responses (Y, X), less that of the noise.

    The filters' squares sum to 1, so noise of variance v responds with v.
    """
    if min(plane.grey.shape) < metric.size:
        raise DefocusError(
            f"an image of {plane.grey.shape} is smaller than the metric's filters "
            f"({metric.size} x {metric.size}): there is nothing to detect"
        )
    energy = summed_squares(plane.grey, metric.filters)
    return without_noise(energy, plane.noise_variance, metric.pooling.noise_factor)


def pool(values: Float, guide: Float, pooling: Pooling) -> Float:
    """Average values (Y, X) over the surroundings, along the outlines seen in `guide` (Y, X).

    What is as smooth as this is worked out on blocks of pixels, as in the fast guided filter (K.
    He and J. Sun, arXiv:1505.00996, 2015).
    """
    step = block_side(pooling)
    smooth = ndimage.gaussian_filter(block_mean(values**pooling.power, step), pooling.sigma / step)
    gain, offset = guided_coefficients(
        smooth, block_mean(guide, step), round(pooling.guide_radius / step), pooling.guide_epsilon
    )
    rows, columns = guide.shape
    guided = enlarge(gain, step)[:rows, :columns] * guide
    guided += enlarge(offset, step)[:rows, :columns]
    return np.asarray(np.maximum(guided, 0) ** (1 / pooling.power), np.float32)


def block_side(pooling: Pooling) -> int:
    """Return the side of the blocks to pool, in pixels: narrow beside the Gaussian."""
    return max(side for side in BLOCKS if side == 1 or 1.5 * side <= pooling.sigma)


def alignment(metric: LocalMetric) -> int:
    """Return what rows and columns of windows begin at multiples of, so that no block is cut."""
    return int(2**COARSER) * block_side(metric.pooling)


def halo_at_one_scale(metric: LocalMetric) -> int:
    """Return the distance, in pixels, beyond which nothing counts at one scale."""
    pooling = metric.pooling
    filtered = max(metric.size // 2, 2, gaussian_radius(pooling.contrast_sigma))
    step = block_side(pooling)
    pooled = gaussian_radius(pooling.sigma / step) + 2 * round(pooling.guide_radius / step)
    # Beside the blocks at its ends, and the one that interpolation needs.
    return filtered + step * (max(pooled, gaussian_radius(TRUST_SIGMA * pooling.sigma / step)) + 2)


def halo(metric: LocalMetric, coarser: int = COARSER) -> int:
    """Return the same distance for `predict_log_odds`, with all its halvings."""
    at_one_scale = halo_at_one_scale(metric)
    return max(at_one_scale, 2 * (halo(metric, coarser - 1) + 2)) if coarser else at_one_scale


def predict_log_odds(
    plane: Plane,
    metric: LocalMetric,
    coarser: int = COARSER,
    should_stop: ShouldStop = never_stop,
    region: Region | None = None,
) -> tuple[Float, Bool]:
    """Return the log odds of being sharp at each pixel (Y, X), and where they can be trusted.

    The finest scale counts at which the surroundings of a pixel, were they sharp, would respond to
    the filters above the noise; where noise hides that, the image is halved, at most `coarser`
    times, which halves the noise, and filtered again. A `region` needs `halo` pixels around it, and
    a plane that begins at multiples of `alignment` in its image. A metric that has `halvings`
    is applied at that scale alone.
    """
    region = region or whole(plane.grey.shape)
    if metric.halvings is not None:
        return _at_own_scale(plane, metric, metric.halvings, region, should_stop)
    log_odds, trust = _at_one_scale(plane, metric, region, should_stop)
    half = halve(plane) if coarser and trust.min() < 1 else None
    if half is None or min(half.grey.shape) < metric.size:
        return log_odds, trust > 0
    around, inside = _halved(region, half.grey.shape)
    coarse = predict_log_odds(half, metric, coarser - 1, should_stop, around)
    return _blend(log_odds, trust, coarse, inside)


def _halved(region: Region, shape: tuple[int, ...]) -> tuple[Region, Region]:
    """Return what a region needs of the halved plane, and where it lies in that, enlarged."""
    rows, columns = (slice(side.start // 2, -(-side.stop // 2)) for side in region)
    around = widen((rows, columns), 2, shape)
    top, left = (2 * inner.start for inner in around)
    return around, within(region, (slice(top, None), slice(left, None)))


def _at_own_scale(
    plane: Plane, metric: LocalMetric, halvings: int, region: Region, should_stop: ShouldStop
) -> tuple[Float, Bool]:
    """Compute as `predict_log_odds` does, of a plane that is halved so many times first."""
    if not halvings:
        log_odds, trust = _at_one_scale(plane, metric, region, should_stop)
        return log_odds, trust > 0
    half = halve(plane)
    around, inside = _halved(region, half.grey.shape)
    coarse, valid = _at_own_scale(half, metric, halvings - 1, around, should_stop)
    return enlarge(coarse, 2)[inside], enlarge(valid.astype(np.float32), 2)[inside] > 0.5


def _blend(
    log_odds: Float, trust: Float, coarse: tuple[Float, Bool], inside: Region
) -> tuple[Float, Bool]:
    """Blend log odds with coarser ones, of twice the pixels, by trust.

    Works in place, band by band: large planes fill the memory.
    """
    valid = np.empty(log_odds.shape, np.bool_)
    rows, columns = inside
    for start in range(rows.start, rows.stop, BAND):
        stop = min(start + BAND, rows.stop)
        # With a row to each side, for the interpolation.
        first = max(start // 2 - 1, 0)
        cut, doubled = slice(first, stop // 2 + 2), slice(start - 2 * first, stop - 2 * first)
        coarse_log_odds, coarse_valid = (
            enlarge(found[cut].astype(np.float32), 2)[doubled, columns] for found in coarse
        )
        band = slice(start - rows.start, stop - rows.start)
        own = trust[band]
        log_odds[band] = own * log_odds[band] + (1 - own) * (coarse_log_odds - HALVING_COST)
        valid[band] = (own > 0) | (coarse_valid > 0.5)
    return log_odds, valid


def _at_one_scale(
    plane: Plane, metric: LocalMetric, region: Region, should_stop: ShouldStop
) -> tuple[Float, Float]:
    """Compute `_log_odds_and_trust` of a region; of a large one part by part."""

    def predict(part: Tile) -> tuple[Float, Float]:
        own = shifted(part.region, region)
        near = widen(own, halo_at_one_scale(metric), plane.grey.shape, block_side(metric.pooling))
        inside = within(own, near)
        log_odds, trust = _log_odds_and_trust(plane.part(*near), metric, should_stop)
        return log_odds[inside], trust[inside]

    shape = [side.stop - side.start for side in region]
    parts = plan_parts(shape, 1)
    if len(parts) == 1:
        return predict(parts[0])
    log_odds, trust = np.empty(shape, np.float32), np.empty(shape, np.float32)
    for part, found in in_threads(predict, parts, alone=not cores_are_free()):
        log_odds[part.region], trust[part.region] = found
    return log_odds, trust


def _log_odds_and_trust(
    plane: Plane, metric: LocalMetric, should_stop: ShouldStop
) -> tuple[Float, Float]:
    """Compute log odds of being sharp, and from 0 to 1 how far they can be trusted."""
    pooling, calibration = metric.pooling, metric.calibration

    def respond() -> Float:
        return pool(filter_response(plane, metric), plane.grey, pooling)

    def contrast_and_trust() -> tuple[Float, Float]:
        gradient = local_contrast(plane, pooling.contrast_sigma, pooling.noise_factor)
        return pool(gradient, plane.grey, pooling), _trust(plane, gradient, metric)

    response, (contrast, trust) = side_by_side(respond, contrast_and_trust)
    if should_stop():
        raise Stopped
    score = combine(response, contrast, pooling)
    return calibration.slope * (score - calibration.threshold), trust


def _trust(plane: Plane, gradient: Float, metric: LocalMetric) -> Float:
    """Compute from 0 to 1 how far the response of a sharp region would exceed the noise.

    A calibration of the user's own patches has seen their noise: there, contrast is enough.
    """
    pooling = metric.pooling
    step = block_side(pooling)
    contrast = ndimage.gaussian_filter(
        block_mean(gradient, step), TRUST_SIGMA * pooling.sigma / step
    )
    trust = (contrast > LEAST_CONTRAST).astype(np.float32)
    if metric.halvings is None:
        sharp = np.exp(metric.calibration.threshold) * contrast**pooling.contrast_exponent
        low, high = SIGNAL_TO_NOISE
        noise = np.sqrt(block_mean(plane.noise_variance, step))
        trust *= np.clip((sharp / noise - low) / (high - low), 0, 1)
    rows, columns = gradient.shape
    return enlarge(np.asarray(trust, np.float32), step)[:rows, :columns]


def combine(response: Float, contrast: Float, pooling: Pooling) -> Float:
    """Compare pooled responses with pooled contrasts of the same shape, in log units."""
    score = np.log(response + LEAST) - pooling.contrast_exponent * np.log(contrast + LEAST)
    return np.asarray(score, np.float32)


def probability(log_odds: Float) -> Float:
    """Convert log odds to probabilities."""
    return np.asarray(special.expit(log_odds), np.float32)
