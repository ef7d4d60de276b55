"""The hot loops, for numba to compile; importing this imports numba. See `_numba`.

They release Python's lock, so that threads run them side by side.
"""

import numpy as np
import numpy.typing as npt
from numba import njit

Float = npt.NDArray[np.float32]
Double = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]

TANH_1 = np.tanh(1.0)


@njit(nogil=True, cache=True)
def second_difference(padded: Float) -> Float:
    """Differ twice along both axes, divided by 6.

    Parameters
    ----------
    padded : ndarray of float32, (Y + 2, X + 2)
        The image with its border.

    Returns
    -------
    ndarray of float32, (Y, X)
    """
    rows, columns = padded.shape[0] - 2, padded.shape[1] - 2
    differences = np.empty((rows, columns), np.float32)
    down = np.empty(columns + 2, np.float32)
    two, six = np.float32(2), np.float32(6)
    for y in range(rows):
        above, here, below = padded[y], padded[y + 1], padded[y + 2]
        for x in range(columns + 2):
            down[x] = above[x] - two * here[x] + below[x]
        for x in range(columns):
            differences[y, x] = (down[x] - two * down[x + 1] + down[x + 2]) / six
    return differences


@njit(nogil=True, cache=True)
def count(values: Float, low: float, scale: float, bins: int) -> npt.NDArray[np.int64]:
    """Count values in bins of width 1 / `scale`, those outside in the first or last one.

    Parameters
    ----------
    values : ndarray of float32, (N,)
    low, scale : float of single precision
    bins : int

    Returns
    -------
    ndarray of int64, (bins,)
    """
    counts = np.zeros(bins, np.int64)
    last = np.float32(bins - 1)
    for value in values:
        place = min(max((value - low) * scale, np.float32(0)), last)
        counts[np.int64(place)] += 1
    return counts


@njit(nogil=True, cache=True)
def enlarge(values: Float, shares: Float) -> Float:
    """Interpolate linearly between the centres of blocks, rows first.

    Parameters
    ----------
    values : ndarray of float32, (Y, X)
    shares : ndarray of float32, (factor,)
        The share of the neighbour at each place in a block; negative of the one before.

    Returns
    -------
    ndarray of float32, (factor Y, factor X)
    """
    rows, columns = values.shape
    factor = shares.size
    enlarged = np.empty((factor * rows, factor * columns), np.float32)
    line = np.empty(columns, np.float32)
    for y in range(rows):
        above, below = values[max(y - 1, 0)], values[min(y + 1, rows - 1)]
        for i in range(factor):
            beside, share = (above, -shares[i]) if shares[i] < 0 else (below, shares[i])
            for x in range(columns):
                line[x] = values[y, x] + share * (beside[x] - values[y, x])
            wide = enlarged[factor * y + i]
            for x in range(columns):
                before, after = line[max(x - 1, 0)], line[min(x + 1, columns - 1)]
                for j in range(factor):
                    if shares[j] < 0:
                        wide[factor * x + j] = line[x] - shares[j] * (before - line[x])
                    else:
                        wide[factor * x + j] = line[x] + shares[j] * (after - line[x])
    return enlarged


@njit(nogil=True, cache=True)
def iterations_lived(
    values: Double, half: int, limit: float, most: int, settled: float
) -> npt.NDArray[np.int16]:
    """Count the iterations of the refinement that each pixel lives through.

    Parameters
    ----------
    values : ndarray of float64, (Y, X)
        In [0, 1]; overwritten.
    half : int
        Pixels of the neighbourhood to each side; beyond the border the last one is repeated.
    limit : float
        A pixel dies where the mean of its neighbourhood is below.
    most : int
        Iterations.
    settled : float
        From here on a value is not worth further iterations.

    Returns
    -------
    ndarray of int16, (Y, X)
        0 to `most`.
    """
    flat = values.ravel()
    age = np.zeros(flat.size, np.int16)
    lived = np.where(flat > 0, np.int16(most), np.int16(0))
    named = np.zeros(flat.size, np.bool_)
    died = _below(values, half, limit)
    for now in range(1, most + 1):
        for place in died:
            flat[place] = 0
            lived[place] = now - 1
        if now == most or not died.size:
            break
        if died.size * (2 * half + 1) ** 2 > flat.size:
            suspects = _below(values, half, limit)
        else:
            suspects = _beside(died, values, named, half)
        count = 0
        for place in suspects:
            if _dies(values, age, place, half, limit, now, settled):
                suspects[count] = place
                count += 1
        died = suspects[:count]
    return lived.reshape(values.shape)


@njit(nogil=True, cache=True)
def _below(values: Double, half: int, limit: float) -> Places:
    """Return the flat places of living pixels whose mean over a square is below a limit."""
    rows, columns = values.shape
    least = limit * (2 * half + 1) ** 2
    line = np.empty(columns + 2 * half)
    sums = np.empty(columns)
    below = np.empty(values.size, np.intp)
    count = 0
    for y in range(rows):
        inner = line[half : half + columns]
        inner[:] = 0
        for i in range(y - half, y + half + 1):
            inner += values[min(max(i, 0), rows - 1)]
        line[:half] = inner[0]
        line[half + columns :] = inner[columns - 1]
        sums[:] = 0
        for j in range(2 * half + 1):
            for x in range(columns):
                sums[x] += line[x + j]
        for x in range(columns):
            if sums[x] < least and values[y, x] > 0:
                below[count] = y * columns + x
                count += 1
    return below[:count].copy()


@njit(nogil=True, cache=True)
def _beside(died: Places, values: Double, named: npt.NDArray[np.bool_], half: int) -> Places:
    """Return the living pixels whose squares hold one that died last, each once."""
    rows, columns = values.shape
    beside = np.empty(min(died.size * (2 * half + 1) ** 2, values.size), np.intp)
    count = 0
    for place in died:
        y, x = divmod(place, columns)
        for i in range(max(y - half, 0), min(y + half + 1, rows)):
            for j in range(max(x - half, 0), min(x + half + 1, columns)):
                other = i * columns + j
                if values[i, j] > 0 and not named[other]:
                    named[other] = True
                    beside[count] = other
                    count += 1
    for place in beside[:count]:
        named[place] = False
    return beside[:count]


@njit(nogil=True, cache=True)
def _dies(
    values: Double,
    age: npt.NDArray[np.int16],
    place: int,
    half: int,
    limit: float,
    now: int,
    settled: float,
) -> bool:
    """Return whether the neighbourhood of a pixel is too dark after iteration `now`."""
    # Values that were not brought up to date are too small: they may be enough already.
    if _mean(values, place, half) >= limit:
        return False
    rows, columns = values.shape
    y, x = divmod(place, columns)
    for i in range(max(y - half, 0), min(y + half + 1, rows)):
        for j in range(max(x - half, 0), min(x + half + 1, columns)):
            value, other = values[i, j], i * columns + j
            for _ in range(now - age[other]):
                if value == 0 or value >= settled:
                    break
                value = np.tanh(value) / TANH_1
            values[i, j], age[other] = value, now
    return bool(_mean(values, place, half) < limit)


@njit(nogil=True, cache=True)
def _mean(values: Double, place: int, half: int) -> float:
    """Average over the square around a pixel."""
    rows, columns = values.shape
    y, x = divmod(place, columns)
    total = 0.0
    for i in range(y - half, y + half + 1):
        for j in range(x - half, x + half + 1):
            total += values[min(max(i, 0), rows - 1), min(max(j, 0), columns - 1)]
    return total / (2 * half + 1) ** 2


@njit(nogil=True, cache=True)
def interpolate(values: Float, rows: npt.NDArray[np.uint8], table: Float) -> Float:
    """Look values up in rows of a table, linearly between its columns.

    Parameters
    ----------
    values : ndarray of float32, (Y, X)
        In [0, 1]: the first column stands for 0, the last one for 1.
    rows : ndarray of uint8, (Y, X)
        The row for each value.
    table : ndarray of float32, (rows, columns)

    Returns
    -------
    ndarray of float32, (Y, X)
    """
    last = table.shape[1] - 1
    found = np.empty(values.size, np.float32)
    flat, row = values.ravel(), rows.ravel()
    for i in range(flat.size):
        place = flat[i] * np.float32(last)
        step = min(np.int64(place), last - 1)
        low, high = table[row[i], step], table[row[i], step + 1]
        found[i] = low + (place - np.float32(step)) * (high - low)
    return found.reshape(values.shape)
