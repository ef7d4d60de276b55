"""Image pyramids of halved sides (P. Burt, E. Adelson, IEEE Trans. Commun. 31(4), 1983)."""

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float32]


def halve_smoothly(values: Float) -> Float:
    """Smooth the last two axes by [1 4 6 4 1] / 16 and keep every second sample.

    Parameters
    ----------
    values : ndarray of float32, (..., Y, X)

    Returns
    -------
    ndarray of float32, (..., (Y + 1) // 2, (X + 1) // 2)
    """
    return _halve_last(_halve_rows(values))


def double_smoothly(values: Float, shape: tuple[int, ...]) -> Float:
    """Undo the halving of `halve_smoothly`, by interpolation.

    Parameters
    ----------
    values : ndarray of float32, (..., Y, X)
    shape : tuple of int
        (Y, X) before the halving.
    """
    rows = _double_rows(values, shape[-2])
    return np.swapaxes(_double_rows(np.swapaxes(rows, -1, -2), shape[-1]), -1, -2)


def gaussian_pyramid(values: Float, levels: int) -> list[Float]:
    """Return `values` (..., Y, X) and its halvings, `levels` + 1 arrays from fine to coarse."""
    pyramid = [values]
    for _ in range(levels):
        pyramid.append(halve_smoothly(pyramid[-1]))
    return pyramid


def laplacian_pyramid(values: Float, levels: int) -> list[Float]:
    """Split `values` (..., Y, X) into `levels` bands from fine to coarse, and what remains."""
    bands = []
    for _ in range(levels):
        coarse = halve_smoothly(values)
        bands.append(values - double_smoothly(coarse, values.shape))
        values = coarse
    return [*bands, values]


def collapse(pyramid: list[Float]) -> Float:
    """Put the bands of a Laplacian pyramid together again."""
    values = pyramid[-1]
    for band in pyramid[-2::-1]:
        values = band + double_smoothly(values, band.shape)
    return values


def levels_of(shape: tuple[int, ...], most: int) -> int:
    """Return how often (Y, X) may be halved, `most` at most, before a side is a single pixel."""
    return max(min(most, int(np.log2(max(min(shape), 1)))), 0)


def _halve_rows(values: Float) -> Float:
    width = [(0, 0)] * (values.ndim - 2) + [(2, 3), (0, 0)]
    p = np.pad(values, width, mode="edge")
    count = (values.shape[-2] + 1) // 2

    def tap(offset: int) -> Float:
        return p[..., offset : offset + 2 * count : 2, :]

    halved = 6 * tap(2)
    halved += 4 * (tap(1) + tap(3))
    halved += tap(0) + tap(4)
    halved /= 16
    return np.asarray(halved, np.float32)


def _halve_last(values: Float) -> Float:
    return np.swapaxes(_halve_rows(np.swapaxes(values, -1, -2)), -1, -2)


def _double_rows(values: Float, rows: int) -> Float:
    p = np.concatenate([values[..., :1, :], values, values[..., -1:, :]], axis=-2)
    before, here, after = p[..., :-2, :], p[..., 1:-1, :], p[..., 2:, :]
    doubled = np.empty((*values.shape[:-2], 2 * values.shape[-2], values.shape[-1]), np.float32)
    doubled[..., 0::2, :] = (before + 6 * here + after) / 8
    doubled[..., 1::2, :] = (here + after) / 2
    return doubled[..., :rows, :]
