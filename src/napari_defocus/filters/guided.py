"""The guided filter (K. He et al., IEEE PAMI 35(6), 2013)."""

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from napari_defocus.filters.linear import box_mean

Float = npt.NDArray[np.float32]
Real = TypeVar("Real", npt.NDArray[np.float32], npt.NDArray[np.float64])


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
    # In single precision about the guide's mean: what cancels stays small beside what is left.
    edges = guide - np.float32(guide.mean(dtype=np.float64))
    gain, offset = _coefficients(values, edges, radius, epsilon)
    gain *= edges
    gain += offset
    return gain


def guided_coefficients(
    values: Float, guide: Float, radius: int, epsilon: float
) -> tuple[Float, Float]:
    """Return the gain and offset by which the guide becomes its guided filter."""
    # In double precision: what cancels may be large beside what is left.
    gain, offset = _coefficients(
        values.astype(np.float64), guide.astype(np.float64), radius, epsilon
    )
    return np.asarray(gain, np.float32), np.asarray(offset, np.float32)


def _coefficients(values: Real, guide: Real, radius: int, epsilon: float) -> tuple[Real, Real]:
    """Return gain and offset in the precision of the arguments."""

    def mean(x: Real) -> Real:
        return box_mean(x, 2 * radius + 1)

    guide_mean, values_mean = mean(guide), mean(values)
    gain = mean(guide * values)
    gain -= guide_mean * values_mean
    variance = mean(guide * guide)
    variance -= guide_mean * guide_mean
    variance += np.asarray(epsilon, variance.dtype)
    gain /= variance
    values_mean -= gain * guide_mean
    return mean(gain), mean(values_mean)
