"""Planes in memory on all cores: large ones part by part, small ones step beside step."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from napari_defocus.core.tiling import Tile, plan_tiles

Item = TypeVar("Item")
Result = TypeVar("Result")
Other = TypeVar("Other")

# Planes of more pixels are worked in parts of this side or the next that fits.
MOST_PIXELS = 2**21
SIDE = 1024
FEW_CORES = 4

# Off in threads that were started for parts or tiles: they have the cores already.
_cores_are_free: ContextVar[bool] = ContextVar("cores_are_free", default=False)


def plan_parts(shape: Sequence[int], step: int, side: int = SIDE) -> list[Tile]:
    """Cut a plane of `shape` into parts whose sides are multiples of `step`."""
    if shape[0] * shape[1] <= MOST_PIXELS:
        return plan_tiles(shape, max(*shape, 1))
    return plan_tiles(shape, -(-side // step) * step)


def side_in_proportion(shape: Sequence[int]) -> int:
    """Return the side of parts that need a wide margin: larger for larger planes.

    With few cores they may be larger: few are in memory at once.
    """
    return max(SIDE if cores() > FEW_CORES else 2 * SIDE, max(shape) // 4)


def in_threads(
    work: Callable[[Item], Result],
    parts: Sequence[Item],
    *,
    alone: bool = False,
    at_once: int | None = None,
) -> Iterator[tuple[Item, Result]]:
    """Do `work` on parts, `at_once` or one for each core, and yield results in the parts' order.

    `alone` is one after the other, for work that uses all cores by itself.
    """
    if alone or len(parts) == 1:
        for part in parts:
            yield part, work(part)
        return
    with ThreadPoolExecutor(at_once or cores()) as pool:
        yield from zip(parts, pool.map(work, parts), strict=True)


def cores_are_free() -> bool:
    """Return whether steps of this thread may use all cores, see `free_cores`."""
    return _cores_are_free.get()


@contextmanager
def free_cores() -> Iterator[None]:
    """Let steps within use all cores: nothing else is worked on."""
    token = _cores_are_free.set(cores() > 1)
    try:
        yield
    finally:
        _cores_are_free.reset(token)


def side_by_side(first: Callable[[], Result], second: Callable[[], Other]) -> tuple[Result, Other]:
    """Do two pieces of work at once within `free_cores`, else one after the other."""
    if not cores_are_free():
        return first(), second()
    with ThreadPoolExecutor(1) as pool:
        beside = pool.submit(first)
        found = second()
        return beside.result(), found


def cores() -> int:
    """Count the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
