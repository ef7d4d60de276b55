"""Classical local sharpness operators: what any learnt metric has to beat.

Each takes a grey plane (Y, X) of any range and returns a sharpness map (Y, X) of float32, 0 or
more, higher where sharper, in units of its own: only the order of the pixels of one image has a
meaning. All ignore a constant added to the plane. Focus measures made for a whole image or window
become local by pooling over a Gaussian window of `sigma` pixels, the same for all of them.

References
----------
Tenenbaum, "Accommodation in computer vision", PhD thesis, Stanford, 1970 (Tenengrad).
Brenner et al., "An automated microscope for cytologic research", J. Histochem. Cytochem. 24(1),
1976.
Krotkov, "Focusing", Int. J. Computer Vision 1, 1987 (Tenengrad).
Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy: a comparative study", ICPR 2000
(variance of the Laplacian).
Ojala, Pietikainen, Maenpaa, "Multiresolution gray-scale and rotation invariant texture
classification with local binary patterns", IEEE PAMI 24(7), 2002.
Yi, Eramian, "LBP-based segmentation of defocus blur", IEEE TIP 25(4), 2016.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Float = npt.NDArray[np.float32]
Double = npt.NDArray[np.float64]
Baseline = Callable[[npt.NDArray[Any]], Float]

POOLING_SIGMA = 10.0
"""Of the Gaussian window, in pixels: where the pooled Laplacian has its highest Fmax on photos."""
LBP_THRESHOLD = 0.016
"""T_LBP of Yi and Eramian, in grey ranges."""
LBP_WINDOWS = (11, 15, 21)
"""Widths s, in pixels, of the windows of Yi and Eramian."""

_NEIGHBOURS = 8
# Non-uniform patterns count as one more than all neighbours set.
_NOT_UNIFORM = _NEIGHBOURS + 1
_SHARP_PATTERNS = (6, _NOT_UNIFORM)


def laplacian_variance(plane: npt.NDArray[Any], *, sigma: float = POOLING_SIGMA) -> Float:
    """Compute the variance of the Laplacian in a Gaussian window (Pech-Pacheco et al. 2000)."""
    response = ndimage.laplace(np.asarray(plane, np.float64))
    mean = ndimage.gaussian_filter(response, sigma)
    variance = ndimage.gaussian_filter(response**2, sigma) - mean**2
    return np.asarray(np.maximum(variance, 0), np.float32)


def tenengrad(plane: npt.NDArray[Any], *, sigma: float = POOLING_SIGMA) -> Float:
    """Compute the energy of Sobel's gradient (Tenenbaum 1970, Krotkov 1987), without a threshold.

    The kernels have the weights 1, 2, 1.
    """
    grey = np.asarray(plane, np.float64)
    energy = ndimage.sobel(grey, axis=0) ** 2 + ndimage.sobel(grey, axis=1) ** 2
    return _pooled(energy, sigma)


def brenner(plane: npt.NDArray[Any], *, sigma: float = POOLING_SIGMA) -> Float:
    """Compute the squared difference of pixels two apart (Brenner et al. 1976).

    The paper takes differences along the rows; here both axes count, so that lines of any direction
    do. Each difference stands at the pixel between the two.
    """
    grey = np.asarray(plane, np.float64)
    energy = np.zeros(grey.shape)
    for axis in (0, 1):
        energy += ndimage.correlate1d(grey, [-1, 0, 1], axis=axis, mode="nearest") ** 2
    return _pooled(energy, sigma)


def pooled_laplacian(plane: npt.NDArray[Any], *, sigma: float = POOLING_SIGMA) -> Float:
    """Compute the absolute Laplacian, averaged within a Gaussian window."""
    return _pooled(np.abs(ndimage.laplace(np.asarray(plane, np.float64))), sigma)


def _pooled(values: Double, sigma: float) -> Float:
    return np.asarray(ndimage.gaussian_filter(values, sigma), np.float32)


def lbp_sharpness(
    plane: npt.NDArray[Any],
    *,
    threshold: float = LBP_THRESHOLD,
    windows: Sequence[int] = LBP_WINDOWS,
) -> Float:
    """Compute the share of local binary patterns that blur makes rare (Yi and Eramian, TIP 2016).

    Where an image is blurred few pixels differ from their neighbours by more than the threshold,
    and of the rotation-invariant uniform patterns those with 6, 7 or 8 neighbours set, and those
    that are not uniform, become rare. The paper goes on with matting and inference over scales;
    here the maps of its scales are averaged.

    Parameters
    ----------
    plane : ndarray of float, (Y, X)
        Grey, black to white spanning about 1.
    threshold : float
        What a neighbour must exceed the pixel by, in the plane's unit.
    windows : sequence of int
        Widths, in pixels, of the square windows.

    Returns
    -------
    ndarray of float32, (Y, X)
        In [0, 1].
    """
    low, high = _SHARP_PATTERNS
    patterns = local_binary_patterns(plane, threshold)
    sharp = ((patterns >= low) & (patterns <= high)).astype(np.float64)
    shares = [ndimage.uniform_filter(sharp, width, mode="nearest") for width in windows]
    # the filter's running sums leave [0, 1] by rounding
    return np.asarray(np.clip(np.mean(shares, axis=0), 0, 1), np.float32)


def local_binary_patterns(
    plane: npt.NDArray[Any], threshold: float = LBP_THRESHOLD
) -> npt.NDArray[np.uint8]:
    """Compute rotation-invariant uniform patterns of 8 neighbours at radius 1, with a threshold.

    A neighbour is set where it exceeds the pixel by more than the threshold: with its sign, as in
    the code of Yi and Eramian. The diagonal ones lie on the circle, between pixels, and are
    interpolated (Ojala et al. 2002).

    Parameters
    ----------
    plane : ndarray of float, (Y, X)
        Grey; beyond its border the nearest pixels are repeated.
    threshold : float
        In the plane's unit.

    Returns
    -------
    ndarray of uint8, (Y, X)
        How many neighbours are set, 0 to 8, where at most two changes are met on the way around;
        else 9.
    """
    grey = np.asarray(plane, np.float64)
    angles = 2 * np.pi * np.arange(_NEIGHBOURS) / _NEIGHBOURS
    places = np.stack([np.sin(angles), np.cos(angles)], axis=1).round(12)
    around = [ndimage.shift(grey, -place, order=1, mode="nearest") for place in places]
    bits = np.stack([values - grey > threshold for values in around])
    changes = np.count_nonzero(bits != np.roll(bits, 1, axis=0), axis=0)
    patterns = np.where(changes <= 2, np.count_nonzero(bits, axis=0), _NOT_UNIFORM)
    return patterns.astype(np.uint8)


BASELINES: Mapping[str, Baseline] = MappingProxyType(
    {
        "variance of Laplacian": laplacian_variance,
        "Tenengrad": tenengrad,
        "Brenner": brenner,
        "LBP sharpness": lbp_sharpness,
        "pooled |Laplacian|": pooled_laplacian,
    }
)
"""Name and function of every operator, at its default settings."""
