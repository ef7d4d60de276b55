"""The guided filter (K. He et al., IEEE PAMI 35(6), 2013)."""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Float = npt.NDArray[np.float32]


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
    gain, offset = guided_coefficients(values, guide, radius, epsilon)
    return gain * guide + offset


def guided_coefficients(
    values: Float, guide: Float, radius: int, epsilon: float
) -> tuple[Float, Float]:
    """Return the gain and offset by which the guide becomes its guided filter."""
    # In double precision: differences of running sums must not depend on where a window begins.
    edges, given = guide.astype(np.float64), values.astype(np.float64)

    def mean(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return ndimage.uniform_filter(x, 2 * radius + 1, mode="reflect")

    guide_mean, values_mean = mean(edges), mean(given)
    covariance = mean(edges * given) - guide_mean * values_mean
    variance = mean(edges * edges) - guide_mean * guide_mean
    gain = covariance / (variance + epsilon)
    offset = mean(values_mean - gain * guide_mean)
    return np.asarray(mean(gain), np.float32), np.asarray(offset, np.float32)
