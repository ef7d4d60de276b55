"""Rectangles of a plane: tiles that share out the work, and the windows around them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

# Rows and columns of a rectangle.
Region = tuple[slice, slice]


@dataclass(frozen=True)
class Tile:
    """One tile of a plane: its place in the grid of tiles, and its rows and columns."""

    row: int
    column: int
    region: Region


def plan_tiles(shape: Sequence[int], side: int) -> list[Tile]:
    """Cut a plane into tiles of `side` pixels, row by row; the last may be smaller."""
    rows, columns = shape
    tops, lefts = range(0, rows, side), range(0, columns, side)
    return [
        Tile(i, j, (slice(y, min(y + side, rows)), slice(x, min(x + side, columns))))
        for (i, y), (j, x) in product(enumerate(tops), enumerate(lefts))
    ]


def whole(shape: Sequence[int]) -> Region:
    """Return all of a plane of `shape`."""
    return slice(0, shape[0]), slice(0, shape[1])


def widen(region: Region, margin: int, shape: Sequence[int], step: int = 1) -> Region:
    """Add `margin` pixels or more, as far as a plane goes; inside it, up to multiples of `step`."""
    rows, columns = (
        slice(
            max(part.start - margin, 0) // step * step,
            min(-(-(part.stop + margin) // step) * step, size),
        )
        for part, size in zip(region, shape, strict=False)
    )
    return rows, columns


def within(region: Region, window: Region) -> Region:
    """Return where `region` lies in what was cut out at `window`."""
    rows, columns = (
        slice(part.start - outer.start, part.stop - outer.start)
        for part, outer in zip(region, window, strict=True)
    )
    return rows, columns


def shifted(region: Region, window: Region) -> Region:
    """Return where a region of what was cut out at `window` lies in the plane."""
    rows, columns = (
        slice(outer.start + part.start, outer.start + part.stop)
        for part, outer in zip(region, window, strict=True)
    )
    return rows, columns


def overlap(one: Region, other: Region) -> Region | None:
    """Return what two regions share; None where they share nothing."""
    rows, columns = (
        slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(one, other, strict=True)
    )
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return None
    return rows, columns
