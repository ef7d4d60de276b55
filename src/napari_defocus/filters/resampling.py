"""Smaller and larger by whole factors, the same wherever in an image a window begins."""

from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_defocus.filters import _numba as compiled

Float = npt.NDArray[np.float32]


def block_mean(values: npt.NDArray[Any], factor: int) -> Float:
    """Average blocks of `factor` x `factor` pixels; blocks over the border repeat the last pixel.

    Parameters
    ----------
    values : ndarray, (Y, X)
        Floats.
    factor : int
        1 or more.
    """
    if factor == 1:
        return np.asarray(values, np.float32)
    pad = [(0, -size % factor) for size in values.shape]
    if any(after for _, after in pad):
        values = np.pad(values, pad, mode="edge")
    # Row by row, column by column: the order of a sum does not depend on the array's size.
    rows = reduce(np.add, (values[start::factor] for start in range(factor)))
    sums = reduce(np.add, (rows[:, start::factor] for start in range(factor)))
    return np.asarray(sums / np.float32(factor**2), np.float32)


def enlarge(values: Float, factor: int) -> Float:
    """Interpolate linearly between the centres of blocks, (Y, X) to (factor Y, factor X)."""
    if factor == 1:
        return values
    # The share of the neighbour at each place in a block; negative of the one before.
    shares = ((np.arange(factor) + 0.5) / factor - 0.5).astype(np.float32)
    loops = compiled.loops()
    if loops is not None:
        return np.asarray(loops.enlarge(np.ascontiguousarray(values), shares), np.float32)
    rows_enlarged = _enlarge_rows(values, shares)
    return np.ascontiguousarray(_enlarge_rows(rows_enlarged.T, shares).T)


def _enlarge_rows(values: Float, shares: Float) -> Float:
    before = np.concatenate([values[:1], values[:-1]])
    after = np.concatenate([values[1:], values[-1:]])
    enlarged = np.empty((len(shares) * len(values), *values.shape[1:]), np.float32)
    for place, share in enumerate(shares):
        beside = before if share < 0 else after
        enlarged[place :: len(shares)] = values + abs(share) * (beside - values)
    return enlarged
