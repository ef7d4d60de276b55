"""White inputs: why principal components of kernels mean something.

Natural images have a 1/f spectrum. Kernels learnt on raw pixels stay near their random start in all
but the lowest frequencies: their directions of largest variance mean little. So nets see windows
in which all directions have the same variance (ZCA: A. Bell and T. Sejnowski, Vision Research
37(23), 1997), and the whitening matrix is folded into the kernels afterwards:
``k . (W x) = (W k) . x``. The mean of a window is projected out, else kernels measure brightness.
"""

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]

# Added to the spectrum, as a share of its mean: noise must not be blown up into signal.
REGULARISATION = 1e-3
MOST_WINDOWS = 300_000


def window_covariance(patches: npt.NDArray[np.float32], size: int, seed: int = 0) -> Float:
    """Return the covariance of all windows of a size in patches (N, s, s), each less its own mean.

    Of more than `MOST_WINDOWS`, so many are drawn at random.
    """
    windows = np.lib.stride_tricks.sliding_window_view(patches, (size, size), axis=(1, 2))
    count, rows, columns = windows.shape[:3]
    total = count * rows * columns
    drawn = np.arange(total)
    if total > MOST_WINDOWS:
        drawn = np.random.default_rng(seed).integers(0, total, MOST_WINDOWS)
    x = windows[np.unravel_index(drawn, (count, rows, columns))].reshape(len(drawn), -1)
    x = (x - x.mean(axis=1, keepdims=True)).astype(np.float64)
    return np.asarray(x.T @ x / len(x))


def whitening_matrix(covariance: Float) -> Float:
    """Compute the ZCA matrix W of a covariance C: symmetric, W C W = 1 but for the mean, now 0."""
    n = len(covariance)
    ridge = REGULARISATION * np.trace(covariance) / n
    values, vectors = np.linalg.eigh(covariance)
    root = (vectors / np.sqrt(np.maximum(values, 0) + ridge)) @ vectors.T
    centre = np.eye(n) - 1 / n
    return np.asarray(centre @ root @ centre)
