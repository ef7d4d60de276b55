"""Halving images and labels for the levels of a pyramid."""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def mean(pixels: Array) -> Array:
    """Halve rows and columns of (Y, X[, S]) by means; NaN is no pixel, integers are rounded."""
    four = _four(pixels)
    if pixels.dtype.kind != "f":
        return np.asarray(np.rint(four.mean(0, dtype=np.float64)), pixels.dtype)
    known = ~np.isnan(four)
    total = np.where(known, four, 0).sum(0, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        return np.asarray(total / known.sum(0), pixels.dtype)


def most_frequent(labels: Array) -> Array:
    """Halve rows and columns by the most frequent of 2 x 2 labels; of equals, the first."""
    four = _four(labels)
    votes = np.stack([(four == one).sum(0, dtype=np.uint8) for one in four])
    return np.asarray(np.take_along_axis(four, votes.argmax(0)[None], 0)[0])


def _four(pixels: Array) -> Array:
    """Stack the four pixels of each 2 x 2, the last row and column doubled where they are odd."""
    odd = [(0, size % 2) for size in pixels.shape[:2]] + [(0, 0)] * (pixels.ndim - 2)
    even = np.pad(pixels, odd, "edge")
    return np.stack([even[i::2, j::2] for i in (0, 1) for j in (0, 1)])
