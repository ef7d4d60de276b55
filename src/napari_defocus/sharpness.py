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
from napari_defocus.metric import LocalMetric, Pooling
from napari_defocus.plane import Plane

Float = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]

# Responses and contrasts below this share of the grey range count as equally nothing.
LEAST = 1e-3
# A region can be judged where its contrast exceeds the noise this many times, and LEAST_CONTRAST.
TEXTURE_FACTOR = 4.0
LEAST_CONTRAST = 5e-4


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
    energy -= metric.pooling.noise_factor * plane.noise_variance
    return np.sqrt(np.maximum(energy, 0))


def local_contrast(plane: Plane, sigma: float) -> Float:
    """Gradient magnitude at scale `sigma` pixels, (Y, X), 0 or more."""
    return np.asarray(ndimage.gaussian_gradient_magnitude(plane.grey, sigma), np.float32)


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


def sharpness_level(plane: Plane, metric: LocalMetric) -> Float:
    """Level of sharpness at each pixel, (Y, X) float32, in log units.

    Raises
    ------
    DefocusError
        Where the image is smaller than a filter.
    """
    pooling = metric.pooling
    response = pool(filter_response(plane, metric), plane.grey, pooling)
    contrast = pool(local_contrast(plane, pooling.contrast_sigma), plane.grey, pooling)
    return combine(response, contrast, pooling)


def combine(response: Float, contrast: Float, pooling: Pooling) -> Float:
    """Compare pooled responses with pooled contrasts of the same shape, in log units."""
    level = np.log(response + LEAST) - pooling.contrast_exponent * np.log(contrast + LEAST)
    return np.asarray(level, np.float32)


def log_odds(level: Float, metric: LocalMetric) -> Float:
    """Log odds of being sharp, by the metric's calibration."""
    calibration = metric.calibration
    return np.asarray(calibration.slope * (level - calibration.threshold), np.float32)


def probability(odds: Float) -> Float:
    """Turn log odds into values in [0, 1]."""
    return np.asarray(special.expit(odds), np.float32)


def has_texture(plane: Plane, metric: LocalMetric) -> Bool:
    """Tell where there is contrast enough to judge focus, (Y, X)."""
    sigma = metric.pooling.contrast_sigma
    contrast = ndimage.gaussian_filter(local_contrast(plane, sigma), 1.5 * metric.pooling.sigma)
    # What a gradient at this scale makes of white noise of variance 1.
    from_noise = np.sqrt(2 / (8 * np.pi)) / sigma**2
    noise = np.sqrt(plane.noise_variance) * from_noise
    return np.asarray(contrast > TEXTURE_FACTOR * noise + LEAST_CONTRAST, np.bool_)
