"""Apply a metric to a plane: filter, combine, pool, compare with the local contrast.

The level of sharpness at a pixel is ``log(response) - exponent * log(contrast)``, both pooled over
the surroundings: high where there is more fine detail than the contrast alone would give. Combining
K1 and K2 by their energy, the power before pooling and the comparison with the contrast are not in
the paper; they are this package's own choice.
"""

import numpy as np
import numpy.typing as npt
from scipy import ndimage, special

from napari_defocus.errors import DefocusError
from napari_defocus.events import ShouldStop, Stopped, never_stop
from napari_defocus.metric import LocalMetric, Pooling
from napari_defocus.plane import Plane

Float = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]

# Responses and contrasts below this share of the grey range count as equally nothing.
LEAST = 1e-3
# Nothing can be judged where the gradient is less, in grey ranges a pixel.
LEAST_CONTRAST = 5e-4
# The answer of a sharp region, in standard deviations of the noise: not told from it at the first,
# trusted wholly at the second.
SIGNAL_TO_NOISE = (0.7, 2.0)
# Halvings of an image whose noise hides the finer scales.
COARSER = 2
# Log odds that a halving costs: what looks sharp once halved may have been blurred before.
HALVING_COST = 1.0


def filter_response(plane: Plane, metric: LocalMetric) -> Float:
    """Root of the summed squares of the filters' answers, less that of the noise.

    Parameters
    ----------
    plane : Plane
        The image.
    metric : LocalMetric
        Its filters' squares sum to 1, so noise of variance v answers with v.

    Returns
    -------
    ndarray of float32, (Y, X)
        0 or more.

    Raises
    ------
    DefocusError
        Where the image is smaller than a filter.
    """
    if min(plane.grey.shape) < metric.size:
        raise DefocusError(
            f"an image of {plane.grey.shape} is smaller than the metric's filters "
            f"({metric.size} x {metric.size}): there is nothing to judge"
        )
    energy = np.zeros(plane.grey.shape, np.float32)
    for kernel in metric.filters:
        energy += np.square(ndimage.correlate(plane.grey, kernel, mode="reflect"))
    return without_noise(energy, plane.noise_variance, metric.pooling)


def local_contrast(plane: Plane, pooling: Pooling) -> Float:
    """Gradient magnitude, less that of the noise, in grey ranges a pixel; (Y, X), 0 or more."""
    gradient = ndimage.gaussian_gradient_magnitude(plane.grey, pooling.contrast_sigma)
    return without_noise(
        np.square(gradient), plane.noise_variance * gradient_noise(pooling), pooling
    )


def gradient_noise(pooling: Pooling) -> float:
    """Variance of the gradient of white noise of variance 1, both directions together."""
    return float(1 / (4 * np.pi * pooling.contrast_sigma**4))


def without_noise(energy: Float, variance: Float, pooling: Pooling) -> Float:
    """Root of what an energy has above that of noise of `variance`, 0 where it has nothing."""
    return np.asarray(np.sqrt(np.maximum(energy - pooling.noise_factor * variance, 0)), np.float32)


def pool(values: Float, guide: Float, pooling: Pooling) -> Float:
    """Average values (Y, X) over the surroundings, along the outlines seen in `guide` (Y, X)."""
    powered = ndimage.gaussian_filter(values**pooling.power, pooling.sigma)
    guided = guided_filter(powered, guide, pooling.guide_radius, pooling.guide_epsilon)
    return np.asarray(np.maximum(guided, 0) ** (1 / pooling.power), np.float32)


def guided_filter(values: Float, guide: Float, radius: int, epsilon: float) -> Float:
    """Smooth `values` with the edges of `guide` (K. He et al., IEEE PAMI 35(6), 2013).

    Parameters
    ----------
    values, guide : ndarray of float32, (Y, X)
        What is smoothed, and what shows the edges.
    radius : int
        Of the square window, in pixels.
    epsilon : float
        Edges of a variance far above it are kept.
    """

    def mean(x: Float) -> Float:
        return np.asarray(ndimage.uniform_filter(x, 2 * radius + 1, mode="reflect"), np.float32)

    guide_mean, values_mean = mean(guide), mean(values)
    covariance = mean(guide * values) - guide_mean * values_mean
    variance = mean(guide * guide) - guide_mean * guide_mean
    gain = np.asarray(covariance / (variance + epsilon), np.float32)
    return mean(gain) * guide + mean(values_mean - gain * guide_mean)


def sharpness_odds(
    plane: Plane,
    metric: LocalMetric,
    coarser: int = COARSER,
    should_stop: ShouldStop = never_stop,
) -> tuple[Float, Bool]:
    """Log odds of being sharp at each pixel, and where they can be trusted.

    A pixel is judged at the finest scale at which its surroundings, were they sharp, would answer
    to the filters above the noise; where noise hides that, the image is halved, which halves the
    noise, and judged again.

    Parameters
    ----------
    plane : Plane
        The image.
    metric : LocalMetric
        Filters, pooling and calibration.
    coarser : int
        How many times the image may be halved.
    should_stop : callable
        Asked between the steps.

    Returns
    -------
    odds : ndarray of float32, (Y, X)
        By the metric's calibration.
    judged : ndarray of bool, (Y, X)
        False where no scale shows enough contrast above the noise.

    Raises
    ------
    DefocusError
        Where the image is smaller than a filter.
    Stopped
        Where it was asked to stop.
    """
    pooling, calibration = metric.pooling, metric.calibration
    response = pool(filter_response(plane, metric), plane.grey, pooling)
    if should_stop():
        raise Stopped
    gradient = local_contrast(plane, pooling)
    level = combine(response, pool(gradient, plane.grey, pooling), pooling)
    odds = calibration.slope * (level - calibration.threshold)
    trust = _trust(plane, ndimage.gaussian_filter(gradient, 1.5 * pooling.sigma), metric)
    half = halve(plane) if coarser and trust.min() < 1 else None
    if half is None or min(half.grey.shape) < metric.size:
        return odds, trust > 0
    coarse_odds, coarse_judged = sharpness_odds(half, metric, coarser - 1, should_stop)
    shape = plane.grey.shape
    odds = trust * odds + (1 - trust) * (_double(coarse_odds, shape) - HALVING_COST)
    return odds, (trust > 0) | (_double(coarse_judged.astype(np.float32), shape) > 0.5)


def _trust(plane: Plane, contrast: Float, metric: LocalMetric) -> Float:
    """Rate from 0 to 1 how far the answer of a sharp region would stand out of the noise."""
    sharp = np.exp(metric.calibration.threshold) * contrast**metric.pooling.contrast_exponent
    low, high = SIGNAL_TO_NOISE
    trust = np.clip((sharp / np.sqrt(plane.noise_variance) - low) / (high - low), 0, 1)
    return np.asarray(trust * (contrast > LEAST_CONTRAST), np.float32)


def halve(plane: Plane) -> Plane:
    """Average 2 x 2 pixels; an odd last row or column is averaged with itself."""
    rows, columns = plane.grey.shape
    widths = ((0, rows % 2), (0, columns % 2))
    blocks = ((rows + 1) // 2, 2, (columns + 1) // 2, 2)
    grey = np.pad(plane.grey, widths, mode="edge").reshape(blocks).mean(axis=(1, 3))
    holes = np.asarray(np.pad(plane.holes, widths, mode="edge").reshape(blocks).all(axis=(1, 3)))
    return Plane(grey, holes, (plane.noise[0] / 4, plane.noise[1] / 4))


def _double(values: Float, shape: tuple[int, ...]) -> Float:
    doubled = ndimage.zoom(values, 2, order=1, mode="nearest", grid_mode=True)
    return np.asarray(doubled[: shape[0], : shape[1]], np.float32)


def combine(response: Float, contrast: Float, pooling: Pooling) -> Float:
    """Compare pooled responses with pooled contrasts of the same shape, in log units."""
    level = np.log(response + LEAST) - pooling.contrast_exponent * np.log(contrast + LEAST)
    return np.asarray(level, np.float32)


def probability(odds: Float) -> Float:
    """Turn log odds into values in [0, 1]."""
    return np.asarray(special.expit(odds), np.float32)
