"""Images written as OME-Zarr 0.5, with all levels, block by block and by several processes at once.

All is written below an unfinished name, and gets its name when no chunk is missing. So what bears
its name is whole; each chunk is itself written whole or not at all.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_defocus.core.errors import DefocusError, explained
from napari_defocus.io.atomic import discard, finish, partial_path
from napari_defocus.io.downsampling import mean, most_frequent
from napari_defocus.io.grid import Grid
from napari_defocus.io.ngff_metadata import (
    Colours,
    add_label_image,
    add_note,
    describe_image,
    describe_labels,
    level_grids,
    ome_order,
    write_group,
)
from napari_defocus.io.writer import Plane, Run, in_turn

if TYPE_CHECKING:
    import zarr

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Block:
    """A part of a level that one task writes: one chunk."""

    plane: Plane
    rows: slice
    columns: slice


@dataclass(frozen=True)
class Pyramid:
    """An image or labels with coarser levels, each half as large as the one before.

    Labels of an image belong into ``IMAGE/labels/NAME``; beside an unfinished image that is below
    its `partial_path`. OME-Zarr holds at most T, one of C, S or a letter of unknown meaning, Z, Y
    and X, in this order. Each plane has chunks of its own, colours share one; tiles of whole chunks
    can be written at once. Levels of an image are means, those of labels (which have `colours`) are
    what is most frequent.
    """

    path: Path
    grid: Grid
    dtype: npt.DTypeLike
    chunk: tuple[int, int]
    name: str | None = None
    levels: int | None = None
    colours: Colours | None = None

    @property
    def begun(self) -> bool:
        """Whether an unfinished one is there."""
        return (partial_path(self.path) / "zarr.json").is_file()  # which is written last

    @cached_property
    def grids(self) -> list[Grid]:
        """The grid of each level."""
        return level_grids(self.grid, self.levels)

    def create(self) -> None:
        """Make an unfinished pyramid, all of its levels empty."""
        described = describe_image(self.grids, self.name or self.path.name)
        if self.colours is not None:
            is_part = self.path.parent.name == "labels"
            described["image-label"] = describe_labels(is_part, self.colours)
        discard(self.path)
        with explained(self.path):
            self._create(described)

    def level(self, number: int) -> "Level":
        """Open a level for reading and writing; 0 is the full resolution."""
        if not self.begun:
            raise DefocusError(f"{self.path} was not begun; create it first")
        if number >= len(self.grids):
            raise DefocusError(f"{self.path} has no level {number}")
        folder = partial_path(self.path) / str(number)
        return Level(folder, self.grids[number], np.dtype(self.dtype), self.chunk)

    def write(self, plane: Plane, rows: slice, columns: slice, data: Array) -> None:
        """Write a piece of a plane at full resolution; see `Level.write`."""
        self._full.write(plane, rows, columns, data)

    def read(self, plane: Plane, rows: slice, columns: slice) -> Array:
        """Read a piece of a plane at full resolution; see `Level.read`."""
        return self._full.read(plane, rows, columns)

    def build_block(self, number: int, block: Block) -> None:
        """Make a block of a level, from 1 on, of four such blocks of the level before."""
        below = self.level(number - 1)
        rows, columns = (
            slice(2 * part.start, 2 * part.stop) for part in (block.rows, block.columns)
        )
        pixels = below.read(block.plane, rows, columns)
        shrink = mean if self.colours is None else most_frequent
        self.level(number).write(block.plane, block.rows, block.columns, shrink(pixels))

    def add_note(self, note: str) -> None:
        """Add an attribute; see `ImageWriter.add_note`."""
        add_note(partial_path(self.path), note)

    def finish(self, run: Run = in_turn, *, overwrite: bool = True) -> None:
        """Build the coarser levels, check that no chunk is missing, and name the folder."""
        for number in range(len(self.grids)):
            level = self.level(number)
            missing = [block for block in level.blocks() if not level.has(block)]
            if missing and number == 0:
                key = level.key(missing[0])
                raise DefocusError(
                    f"{self.path} is unfinished: level 0 lacks {key}; resume the run"
                )
            if number:
                run(partial(self.build_block, number), missing, f"building level {number}")
        for leftover in partial_path(self.path).rglob("*.partial"):  # of writers that were killed
            leftover.unlink(missing_ok=True)
        finish(self.path, overwrite)
        if self.path.parent.name == "labels":
            add_label_image(self.path)

    @cached_property
    def _full(self) -> "Level":
        return self.level(0)

    def _create(self, described: dict[str, Any]) -> None:
        """Make the arrays, empty, and only then the group that says they are there."""
        import zarr
        from zarr.codecs import BloscCodec

        axes = self.grid.axes
        letters = ome_order(axes)
        sizes = {"Y": self.chunk[0], "X": self.chunk[1]}
        if axes.endswith("S"):
            sizes["S"] = self.grid.shape[-1]
        image = described["multiscales"][0]
        folder = partial_path(self.path)
        for grid, level in zip(self.grids, image["datasets"], strict=True):
            zarr.create_array(
                folder / level["path"],
                shape=tuple(grid.shape[axes.index(letter)] for letter in letters),
                chunks=tuple(sizes.get(letter, 1) for letter in letters),
                dtype=np.dtype(self.dtype),
                compressors=BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"),
                fill_value=0,
                dimension_names=[axis["name"] for axis in image["axes"]],
                zarr_format=3,
            )
        write_group(folder, described)


class Level:
    """A level of an unfinished pyramid, in its folder; each process opens it anew."""

    def __init__(
        self, folder: Path, grid: Grid, dtype: "np.dtype[Any]", chunk: tuple[int, int]
    ) -> None:
        self.folder, self.grid, self.dtype, self.chunk = folder, grid, dtype, chunk
        self._array: zarr.Array[Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_array": None}

    def write(self, plane: Plane, rows: slice, columns: slice, data: Array) -> None:
        """Write a piece of the level; see `ImageWriter.write`.

        Only pieces of whole chunks may be written at once: others are read and written back.
        """
        if "S" in self.grid.axes:  # stored as channels, before rows
            data = np.moveaxis(data, -1, 0)
        with explained(self.folder, so="; what is written stays, resume the run"):
            self._open()[self._selection(plane, rows, columns)] = np.asarray(data, self.dtype)

    def read(self, plane: Plane, rows: slice, columns: slice) -> Array:
        """Read a piece of the level; see `ImageWriter.read`."""
        try:
            data = np.asarray(self._open()[self._selection(plane, rows, columns)])
        except Exception as error:  # from the disk or from a decoder
            raise DefocusError(f"cannot read {self.folder}: {error}; begin the run anew") from error
        return np.moveaxis(data, 0, -1) if "S" in self.grid.axes else data

    def blocks(self) -> Iterator[Block]:
        """List the blocks of the level, plane by plane and row by row."""
        rows, columns = (
            [slice(i, min(i + step, size)) for i in range(0, size, step)]
            for size, step in zip(self.grid.plane_shape, self.chunk, strict=True)
        )
        for plane in np.ndindex(self.grid.leading):
            for part, other in product(rows, columns):
                yield Block(plane, part, other)

    def key(self, block: Block) -> str:
        """Name the chunk of a block, as a path below the level's folder."""
        place = dict(zip(self.grid.axes, block.plane, strict=False)) | {
            "Y": block.rows.start // self.chunk[0],
            "X": block.columns.start // self.chunk[1],
            "S": 0,
        }
        return "/".join(["c", *(str(place[letter]) for letter in ome_order(self.grid.axes))])

    def has(self, block: Block) -> bool:
        """Check whether the chunk of a block is written."""
        return (self.folder / self.key(block)).is_file()

    def _selection(self, plane: Plane, rows: slice, columns: slice) -> tuple[int | slice, ...]:
        part: dict[str, int | slice] = {"Y": rows, "X": columns, "S": slice(None)}
        part |= {letter: int(i) for letter, i in zip(self.grid.axes, plane, strict=False)}
        return tuple(part[letter] for letter in ome_order(self.grid.axes))

    def _open(self) -> "zarr.Array[Any]":
        import zarr

        if self._array is None:
            # Empty chunks are written too: one that is not there is not yet done.
            array = zarr.open_array(self.folder, mode="r+")
            self._array = array.with_config({"write_empty_chunks": True})
        return self._array
