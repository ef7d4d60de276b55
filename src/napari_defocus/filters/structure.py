"""Where a plane shows structure, sharp or blurred: contrast above the noise, at every scale.

The standard deviation of the grey values around a pixel does not fall with blur as gradients do, so
that a blurred bead counts as well as a sharp one; flat background has noise alone.
"""

import numpy as np

from napari_defocus.filters.linear import box_mean, squared_gradient
from napari_defocus.filters.luminance import Bool, Float
from napari_defocus.filters.resampling import block_mean

# All is computed on blocks of so many pixels.
BLOCK = 2
# Side of the square around a block that counts, in blocks.
AROUND = 25
# Of the estimated variance of the noise, subtracted: more than it varies by among as many blocks,
# and the estimate, of the flattest blocks, is low by a fifth.
NOISE_FACTOR = 1.9
# Structure has this share of the strongest contrast of its plane, the percentile of all blocks.
LEAST_SHARE = 0.06
STRONGEST = 99.0
# Of the gradient that weighs edges, in blocks.
EDGE_SIGMA = 0.75


def local_deviation(grey: Float, noise: tuple[float, float]) -> Float:
    """Compute the standard deviation around each block of pixels, less that of the noise.

    Parameters
    ----------
    grey : ndarray of float32, (Y, X)
        A plane, or a part of one that begins with a block.
    noise : tuple of float
        (a, b): the variance of a pixel's noise is a + b * grey.

    Returns
    -------
    ndarray of float32, (Y / 2, X / 2)
        In grey ranges, 0 or more.
    """
    blocks = block_mean(grey, BLOCK)
    mean = box_mean(blocks, AROUND)
    variance = box_mean(blocks * blocks, AROUND) - mean * mean
    a, b = (np.float32(part * NOISE_FACTOR / BLOCK**2) for part in noise)
    variance = np.maximum(variance - a - b * np.maximum(mean, 0), 0)
    return np.asarray(np.sqrt(variance), np.float32)


def strongest_contrast(deviations: list[Float]) -> float:
    """Return the contrast of the strongest structure of a plane that these parts sample."""
    values = np.concatenate([part.ravel() for part in deviations])
    return float(np.percentile(values, STRONGEST)) if values.size else 0.0


def shows_structure(deviation: Float, contrast: float, shape: tuple[int, ...]) -> Bool:
    """Return which pixels, of `shape`, have structure to go by.

    `deviation` is that of `local_deviation`, `contrast` that of `strongest_contrast`.
    """
    seen = deviation > max(LEAST_SHARE * contrast, 1e-6)
    pixels = seen.repeat(BLOCK, 0).repeat(BLOCK, 1)
    return np.asarray(pixels[: shape[0], : shape[1]], np.bool_)


def edge_energy(grey: Float, noise: tuple[float, float]) -> Float:
    """Compute the squared gradient of blocks of pixels, less that of the noise, (Y / 2, X / 2)."""
    blocks = block_mean(grey, BLOCK)
    a, b = (np.float32(part * NOISE_FACTOR / BLOCK**2) for part in noise)
    of_noise = (a + b * np.maximum(blocks, 0)) / np.float32(4 * np.pi * EDGE_SIGMA**4)
    return np.asarray(np.maximum(squared_gradient(blocks, EDGE_SIGMA) - of_noise, 0), np.float32)
