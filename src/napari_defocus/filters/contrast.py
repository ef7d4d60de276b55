"""Local contrast, less what noise adds to it."""

import numpy as np
import numpy.typing as npt

from napari_defocus.filters.linear import squared_gradient
from napari_defocus.filters.plane import Plane

Float = npt.NDArray[np.float32]


def local_contrast(plane: Plane, sigma: float, noise_factor: float) -> Float:
    """Measure the gradient magnitude by derivatives of a Gaussian, less that of the noise.

    Parameters
    ----------
    plane : Plane
        The image.
    sigma : float
        Of the Gaussian, in pixels.
    noise_factor : float
        See `without_noise`.

    Returns
    -------
    ndarray of float32, (Y, X)
        In grey ranges a pixel, 0 or more.
    """
    energy = squared_gradient(plane.grey, sigma)
    return without_noise(energy, plane.noise_variance * gradient_noise(sigma), noise_factor)


def gradient_noise(sigma: float) -> float:
    """Return the variance of both derivatives together of white noise of variance 1."""
    return float(1 / (4 * np.pi * sigma**4))


def without_noise(energy: Float, variance: Float, factor: float) -> Float:
    """Return the root of an energy less `factor` times the noise's variance, 0 at least."""
    return np.asarray(np.sqrt(np.maximum(energy - factor * variance, 0)), np.float32)
