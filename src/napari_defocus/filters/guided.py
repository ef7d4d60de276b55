"""The guided filter (K. He et al., IEEE PAMI 35(6), 2013)."""

import numpy as np
import numpy.typing as npt

from napari_defocus.filters.linear import box_mean

Float = npt.NDArray[np.float32]


def guided_coefficients(
    values: Float, guide: Float, radius: int, epsilon: float
) -> tuple[Float, Float]:
    """Return the gain and offset by which the guide becomes its guided filter.

    Parameters
    ----------
    values, guide : ndarray of float32, (Y, X)
        What is smoothed, and what shows the edges.
    radius : int
        Of the square window, in pixels.
    epsilon : float
        Edges of a variance far above it are kept.
    """
    # In double precision: what cancels may be large beside what is left.
    v, g = values.astype(np.float64), guide.astype(np.float64)

    def mean(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return box_mean(x, 2 * radius + 1)

    guide_mean, values_mean = mean(g), mean(v)
    gain = mean(g * v) - guide_mean * values_mean
    gain /= mean(g * g) - guide_mean * guide_mean + epsilon
    offset = values_mean - gain * guide_mean
    return np.asarray(mean(gain), np.float32), np.asarray(mean(offset), np.float32)
