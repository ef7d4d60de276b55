"""What writers of images have in common, whatever the file format."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy.typing as npt

Array = npt.NDArray[Any]
Plane = tuple[int, ...]
# Works on each item, in any order and by any process; the text names the stage for progress.
Run = Callable[[Callable[[Any], Any], Sequence[Any], str], Any]


def in_turn(work: Callable[[Any], Any], items: Sequence[Any], stage: str) -> None:
    """Work on one item after the other."""
    for item in items:
        work(item)


class ImageWriter(Protocol):
    """An image that is written piece by piece, and gets its name when all is there.

    Small when pickled; pieces that do not overlap may be written at once by threads and processes.
    """

    def create(self) -> None:
        """Begin under an unfinished name, with nothing in it; an earlier beginning is discarded."""

    @property
    def begun(self) -> bool:
        """Whether an unfinished one is there."""

    def write(self, plane: Plane, rows: slice, columns: slice, data: Array) -> None:
        """Write a piece (Y, X[, S]) of a plane; what is written stays where that fails."""

    def read(self, plane: Plane, rows: slice, columns: slice) -> Array:
        """Read a piece of a plane, (Y, X) or (Y, X, S); 0 where nothing is written yet."""

    def add_note(self, note: str) -> None:
        """Say in the metadata of the unfinished one how it was made; once, if said again."""

    def finish(self, run: Run = in_turn, *, overwrite: bool = True) -> None:
        """Complete it and give it its name; what can be shared out goes through `run`."""
