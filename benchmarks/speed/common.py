"""What the timings share: pictures to work on, the unit, cores, and a median."""

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage import data

# Scale of the plain Laplacian's pooling.
LAPLACIAN_SIGMA = 10.0
Image = npt.NDArray[Any]


def picture(megapixels: float) -> Image:
    """Render a grey picture of 7:5 with so many pixels, uint8."""
    rows = round((megapixels * 1e6 * 5 / 7) ** 0.5)
    columns = round(rows * 7 / 5)
    tile = np.concatenate([data.camera(), data.grass(), data.gravel(), data.brick()], axis=1)
    image = np.tile(tile, (-(-rows // tile.shape[0]), -(-columns // tile.shape[1])))
    image = image[:rows, :columns].astype(np.float32)
    image[rows // 2 :] = ndimage.gaussian_filter(image[rows // 2 :], 4)
    return noisy(image)


def colours(shape: tuple[int, int]) -> Image:
    """Return a photo, side by side with itself, its right half out of focus, uint8."""
    photo = data.coffee().astype(np.float32)
    tiled = np.tile(photo, (shape[0] // 400 + 1, shape[1] // 600 + 1, 1))[: shape[0], : shape[1]]
    middle = shape[1] // 2
    tiled[:, middle:] = ndimage.gaussian_filter(tiled[:, middle:], (3, 3, 0))
    return noisy(tiled)


def noisy(image: Image) -> Image:
    """Add light noise, and round."""
    image += np.random.default_rng(0).normal(0, 2, image.shape).astype(np.float32)
    return np.clip(np.round(image), 0, 255).astype(np.uint8)


def pooled_laplacian(floats: Image) -> Image:
    """The unit of what is timed."""
    return ndimage.gaussian_filter(np.abs(ndimage.laplace(floats)), LAPLACIAN_SIGMA)


@contextmanager
def on_cores(count: int) -> Iterator[None]:
    """Let this process use so many cores, where the system can be told."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(sorted(before)[:count]))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def seconds_of(work: Callable[[], Any]) -> float:
    """Time a piece of work once."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def median_seconds(work: Callable[[], Any], repeats: int) -> float:
    """Time a piece of work some times, slow work three times."""
    work()  # what is loaded or tabulated once is not counted
    times: list[float] = []
    while len(times) < repeats and (len(times) < 3 or sum(times) < 20):
        times.append(seconds_of(work))
    return statistics.median(times)
