"""The linear filters of detection, by ONNX Runtime where it is installed, else by SciPy."""

from functools import lru_cache
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_defocus.core.onnx import Graph, open_session
from napari_defocus.filters import _numba as compiled

Float = npt.NDArray[np.float32]
Real = TypeVar("Real", npt.NDArray[np.float32], npt.NDArray[np.float64])
Border = Literal["symmetric", "edge"]
# Gaussians end at so many standard deviations, as SciPy's.
TRUNCATE = 4.0
# Rows that lie side by side as channels: the runtime works on eight channels at once.
ROWS = 4
# Rows that are averaged at once.
BAND = 64


def summed_squares(values: Float, kernels: npt.NDArray[np.float32]) -> Float:
    """Correlate with each kernel, and sum the squares of the responses; the border is mirrored.

    Parameters
    ----------
    values : ndarray of float32, (Y, X) or (N, Y, X)
        An image, or images one by one.
    kernels : ndarray of float32, (kernels, size, size)
        Of odd size.

    Returns
    -------
    ndarray of float32, as `values`
    """
    if values.ndim == 2:
        session = _correlation_session(kernels.astype(np.float32).tobytes(), kernels.shape)
        if session is not None:
            return _run(session, values, kernels.shape[1] // 2)
    sums = np.zeros(values.shape, np.float32)
    for kernel in kernels if values.ndim == 2 else kernels[:, np.newaxis]:
        sums += np.square(ndimage.correlate(values, kernel, mode="reflect"))
    return sums


def squared_gradient(values: Float, sigma: float) -> Float:
    """Square the gradient by derivatives of a Gaussian; the border is mirrored.

    Parameters
    ----------
    values : ndarray of float32, (Y, X) or (N, Y, X)
        An image, or images one by one.
    sigma : float
        Of the Gaussian, in pixels.

    Returns
    -------
    ndarray of float32, as `values`
    """
    if values.ndim == 2:
        session = _gradient_session(sigma)
        if session is not None:
            return _run(session, values, gaussian_radius(sigma))
    axes = (-2, -1)
    down = ndimage.gaussian_filter(values, sigma, (1, 0), truncate=TRUNCATE, axes=axes)
    across = ndimage.gaussian_filter(values, sigma, (0, 1), truncate=TRUNCATE, axes=axes)
    return np.asarray(down * down + across * across, np.float32)


def box_mean(values: Real, size: int, border: Border = "symmetric") -> Real:
    """Average over squares of an odd `size`, (Y, X).

    Each mean is summed by itself, in an order that does not depend on where an image is cut.
    """
    padded = np.pad(values, size // 2, mode=border)
    means, share = np.empty_like(values), values.dtype.type(1 / size**2)
    # Band by band, which stay in the processor's cache.
    for start in range(0, len(values), BAND):
        down = _sliding_sums(padded[start : start + BAND + size - 1], size)
        across = _sliding_sums(down.T, size).T
        np.multiply(across, share, out=means[start : start + BAND])
    return means


def _sliding_sums(values: Real, size: int) -> Real:
    """Sum `size` rows, an odd number, from each on, by sums of 2, 4, 8, ... rows."""
    count = len(values) - size + 1
    sums, width, summed = values, 1, 1
    total = values[:count]
    while summed < size:
        sums = sums[:-width] + sums[width:]
        width *= 2
        if size & width:
            total = total + sums[summed : summed + count]
            summed += width
    return total


def second_difference(values: Float) -> Float:
    """Differ twice along both axes; white noise of variance 1 keeps its variance.

    J. Immerkaer, "Fast noise variance estimation", CVIU 64(2), 1996.
    """
    padded = np.pad(values, 1, mode="symmetric")
    loops = compiled.loops()
    if loops is not None:
        return np.asarray(loops.second_difference(padded), np.float32)
    down = padded[:-2] - 2 * padded[1:-1] + padded[2:]
    across = down[:, :-2] - 2 * down[:, 1:-1] + down[:, 2:]
    return np.asarray(across / np.float32(6), np.float32)


def gaussian_radius(sigma: float) -> int:
    """Return the radius, in pixels, at which a Gaussian ends."""
    return int(TRUNCATE * sigma + 0.5)


def _run(session: Any, values: Float, margin: int) -> Float:
    """Apply a graph of `_summed_squares` to a plane, its border mirrored."""
    rows = len(values)
    pad = ((margin, margin + -rows % ROWS), (margin, margin))
    padded = np.pad(np.asarray(values, np.float32), pad, mode="symmetric")
    (found,) = session.run(None, {"grey": padded[np.newaxis, np.newaxis]})
    return np.asarray(found[:rows], np.float32)


@lru_cache(maxsize=4)
def _correlation_session(kernels: bytes, shape: tuple[int, ...]) -> Any:
    """Open the sum of the squared answers of kernels; None where the runtime is missing."""
    graph = Graph()
    grey = graph.input("grey", (1, 1, "padded_rows", "padded_columns"))
    answers = _by_rows(graph, grey, np.frombuffer(kernels, np.float32).reshape(shape))
    return _open_sum_of_squares(graph, answers, shape[0])


@lru_cache(maxsize=4)
def _gradient_session(sigma: float) -> Any:
    """Open the squared gradient by derivatives of a Gaussian; None where the runtime is missing."""
    graph = Graph()
    grey = graph.input("grey", (1, 1, "padded_rows", "padded_columns"))
    x = np.arange(-gaussian_radius(sigma), gaussian_radius(sigma) + 1)
    smooth = np.exp(-0.5 / sigma**2 * x**2)
    smooth /= smooth.sum()
    slope = smooth * x / sigma**2
    down = _by_rows(graph, grey, np.stack([smooth, slope])[:, :, np.newaxis])
    across = np.repeat(np.stack([slope, smooth])[:, np.newaxis, np.newaxis], ROWS, axis=0)
    answers = graph.node("Conv", [down, graph.tensor(across)], group=2 * ROWS)
    return _open_sum_of_squares(graph, answers, 2)


def _by_rows(graph: Graph, grey: str, kernels: npt.NDArray[Any]) -> str:
    """Correlate with kernels (K, y, x), at a stride of `ROWS` rows, to K x `ROWS` channels."""
    moved = [np.pad(kernels, ((0, 0), (y, ROWS - 1 - y), (0, 0))) for y in range(ROWS)]
    bank = np.stack(moved, axis=1).reshape(-1, 1, *moved[0].shape[1:])
    return graph.node("Conv", [grey, graph.tensor(bank)], strides=[ROWS, 1])


def _open_sum_of_squares(graph: Graph, answers: str, count: int) -> Any:
    """Sum the squares of the answers of `count` kernels, and put rows below each other again."""
    squares = graph.node("Mul", [answers, answers])
    sums = np.kron(np.ones((1, count)), np.eye(ROWS))[:, :, np.newaxis, np.newaxis]
    rows = graph.node("Conv", [squares, graph.tensor(sums)])
    turned = graph.node("Transpose", [rows], perm=[0, 2, 1, 3])
    shape = graph.node("Shape", [turned])
    columns = graph.node("Slice", [shape, graph.tensor([3]), graph.tensor([4])])
    size = graph.node("Concat", [graph.tensor([-1]), columns], axis=0)
    graph.node("Reshape", [turned, size], name="energy")
    graph.output("energy", ("rows", "columns"))
    try:
        return open_session(graph.model(), keep=False)
    except ImportError:
        return None
