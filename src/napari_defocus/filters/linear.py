"""The linear filters of detection, by compiled loops where there are any, else by SciPy."""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_defocus.filters import _numba as compiled

Float = npt.NDArray[np.float32]
# Gaussians end at so many standard deviations, as SciPy's.
TRUNCATE = 4.0


def summed_squares(values: Float, kernels: npt.NDArray[np.float32]) -> Float:
    """Correlate with each kernel, and sum the squares of the responses; the border is mirrored.

    Parameters
    ----------
    values : ndarray of float32, (Y, X) or (N, Y, X)
        An image, or images one by one.
    kernels : ndarray of float32, (kernels, size, size)
        Of odd size.

    Returns
    -------
    ndarray of float32, as `values`
    """
    loops = compiled.loops(values.size) if values.ndim == 2 else None
    if loops is not None:
        padded = np.pad(values, kernels.shape[1] // 2, mode="symmetric")
        return np.asarray(loops.summed_squares(padded, kernels.astype(np.float64)), np.float32)
    sums = np.zeros(values.shape, np.float32)
    for kernel in kernels if values.ndim == 2 else kernels[:, np.newaxis]:
        sums += np.square(ndimage.correlate(values, kernel, mode="reflect"))
    return sums


def squared_gradient(values: Float, sigma: float) -> Float:
    """Square the gradient by derivatives of a Gaussian; the border is mirrored.

    Parameters
    ----------
    values : ndarray of float32, (Y, X) or (N, Y, X)
        An image, or images one by one.
    sigma : float
        Of the Gaussian, in pixels.

    Returns
    -------
    ndarray of float32, as `values`
    """
    loops = compiled.loops(values.size) if values.ndim == 2 else None
    if loops is not None:
        smooth, slope = _gaussian(sigma)
        padded = np.pad(values, smooth.size - 1, mode="symmetric")
        return np.asarray(loops.squared_gradient(padded, smooth, slope), np.float32)
    axes = (-2, -1)
    down = ndimage.gaussian_filter(values, sigma, (1, 0), truncate=TRUNCATE, axes=axes)
    across = ndimage.gaussian_filter(values, sigma, (0, 1), truncate=TRUNCATE, axes=axes)
    return np.asarray(down * down + across * across, np.float32)


def box_mean(values: Float, size: int) -> Float:
    """Average over squares of an odd `size`; the border is mirrored; (Y, X) float32."""
    loops = compiled.loops(values.size)
    if loops is not None:
        padded = np.pad(values, size // 2, mode="symmetric")
        return np.asarray(loops.box_mean(padded, size), np.float32)
    return np.asarray(ndimage.uniform_filter(values, size), np.float32)


def second_difference(values: Float) -> Float:
    """Differ twice along both axes; white noise of variance 1 keeps its variance.

    J. Immerkaer, "Fast noise variance estimation", CVIU 64(2), 1996.
    """
    padded = np.pad(values, 1, mode="symmetric")
    loops = compiled.loops(values.size)
    if loops is not None:
        return np.asarray(loops.second_difference(padded), np.float32)
    down = padded[:-2] - 2 * padded[1:-1] + padded[2:]
    across = down[:, :-2] - 2 * down[:, 1:-1] + down[:, 2:]
    return np.asarray(across / np.float32(6), np.float32)


def gaussian_radius(sigma: float) -> int:
    """Return the radius, in pixels, at which a Gaussian ends."""
    return int(TRUNCATE * sigma + 0.5)


def _gaussian(sigma: float) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return half of a Gaussian and of its derivative, the centre first."""
    x = np.arange(-gaussian_radius(sigma), gaussian_radius(sigma) + 1)
    weights = np.exp(-0.5 / sigma**2 * x**2)
    weights /= weights.sum()
    return weights[x >= 0], (weights * x / sigma**2)[x >= 0]
