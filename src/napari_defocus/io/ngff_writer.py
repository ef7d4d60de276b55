"""Maps written as OME-Zarr 0.5, with all levels, block by block and by several processes at once.

All is written below `partial_path(path)` and gets its name by `finish_pyramid` when no chunk is
missing. So what bears its name is whole; each chunk is itself written whole or not at all.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_defocus.core.errors import DefocusError
from napari_defocus.io.axes import check_axes, planes_last
from napari_defocus.io.downsampling import mean, most_frequent
from napari_defocus.io.ngff_metadata import (
    VERSION,
    describe_image,
    describe_labels,
    level_shapes,
    ome_order,
    read_attributes,
    write_group,
)
from napari_defocus.io.unfinished import check_new, discard, give_name, partial_path

if TYPE_CHECKING:
    import zarr

Array = npt.NDArray[Any]
Plane = tuple[int, ...]

KINDS = ("image", "labels")
OWN = "napari-defocus"
"""The attribute that says what the pyramid is made of, beside those of OME."""


@dataclass(frozen=True)
class Block:
    """A part of a level that one task writes: one chunk.

    Parameters
    ----------
    plane : tuple of int
        Place along each leading axis.
    rows, columns : slice
        Within the level.
    """

    plane: Plane
    rows: slice
    columns: slice


def create_pyramid(
    path: Path,
    *,
    axes: str,
    shape: tuple[int, ...],
    dtype: npt.DTypeLike,
    chunk: tuple[int, int],
    scale: dict[str, float] | None = None,
    translate: dict[str, float] | None = None,
    units: dict[str, str] | None = None,
    levels: int | None = None,
    kind: str = "image",
    name: str | None = None,
    colors: dict[int, tuple[int, int, int, int]] | None = None,
    overwrite: bool = True,
    resume: bool = False,
) -> bool:
    """Make an unfinished pyramid, all of its levels empty.

    Parameters
    ----------
    path : Path
        The folder to be. Labels of an image belong into ``IMAGE/labels/NAME``, where viewers look
        for them; beside an unfinished image that is below its `partial_path`.
    axes : str
        In the standard order (`planes_last`). OME-Zarr holds at most T, one of C, S or a letter of
        unknown meaning, Z, Y and X. They are stored in this order; S becomes its channel axis.
    shape : tuple of int
        Sizes of the dimensions, in the order of `axes`.
    dtype : dtype
        Integer, float or bool.
    chunk : (int, int)
        Rows and columns of a chunk; each plane has its own chunks, colours share one. Tiles made
        of whole chunks can be written at once.
    scale, translate, units : dict, optional
        By axis letter; see `napari_defocus.io.base.ImageSource`.
    levels : int, optional
        How many; by default as many as bring rows and columns down to `ome_metadata.TOP`.
    kind : str
        ``image``: levels are means. ``labels``: they are what is most frequent.
    name : str, optional
        What viewers call it; by default the file name.
    colors : dict, optional
        Of labels, by number: red, green, blue and alpha, 0 to 255.
    overwrite : bool
        Whether a finished `path` may be replaced, in the end.
    resume : bool
        Whether an unfinished pyramid of the very same form is kept with what is written in it.

    Returns
    -------
    bool
        Whether one was kept.

    Raises
    ------
    DefocusError
        Where it cannot be written, or OME-Zarr cannot hold its axes.
    """
    check_new(path, overwrite)
    if kind not in KINDS:
        raise DefocusError(f"kind is {kind!r}; choose one of {', '.join(KINDS)}")
    axes = check_axes(axes, shape)
    if planes_last(axes)[0] != axes:
        raise DefocusError(f"axes {axes!r} must end in YX, or in YXS for colours")
    stored = ome_order(axes)
    shapes = level_shapes(axes, shape, levels)
    attributes: dict[str, Any] = {
        "ome": describe_image(
            stored, len(shapes), name or path.name, scale or {}, translate or {}, units or {}
        ),
        OWN: {
            "axes": axes,
            "shape": [int(size) for size in shape],
            "dtype": str(np.dtype(dtype)),
            "chunk": [int(size) for size in chunk],
            "kind": kind,
        },
    }
    if kind == "labels":
        is_part = path.parent.name == "labels"
        attributes["ome"]["image-label"] = describe_labels(is_part, colors)
    if resume and read_attributes(partial_path(path)) == attributes:
        return True
    discard(path)
    try:
        _create(partial_path(path), attributes, [_in_order(axes, one) for one in shapes])
    except OSError as error:
        raise DefocusError(f"cannot write {path}: {error.strerror or error}") from error
    return False


def open_level(path: Path, level: int = 0) -> "Level":
    """Open a level of an unfinished pyramid.

    Parameters
    ----------
    path : Path
        The folder to be, as it was given to `create_pyramid`.
    level : int
        From 0, the full resolution.

    Raises
    ------
    DefocusError
        Where there is no such pyramid or level.
    """
    own = (read_attributes(partial_path(path)) or {}).get(OWN)
    if own is None:
        raise DefocusError(f"{path} was not begun; create it first")
    shapes = level_shapes(own["axes"], tuple(own["shape"]), level + 1)
    folder = partial_path(path) / str(level)
    if not folder.is_dir():
        raise DefocusError(f"{path} has no level {level}")
    return Level(
        folder,
        own["axes"],
        shapes[level],
        np.dtype(own["dtype"]),
        (own["chunk"][0], own["chunk"][1]),
        own["kind"],
    )


def count_levels(path: Path) -> int:
    """Tell how many levels an unfinished pyramid has."""
    described = read_attributes(partial_path(path))
    if described is None:
        raise DefocusError(f"{path} was not begun; create it first")
    return len(described["ome"]["multiscales"][0]["datasets"])


def build_block(path: Path, level: int, block: Block) -> None:
    """Make a block of a level from the level before; its result depends on that level only.

    Memory is that of four blocks of this size and a few copies of one.

    Parameters
    ----------
    path : Path
        As it was given to `create_pyramid`.
    level : int
        From 1.
    block : Block
        One of ``open_level(path, level).blocks()``. What lies below it must be written.

    Raises
    ------
    DefocusError
        Where it cannot be read or written.
    """
    below = open_level(path, level - 1)
    rows, columns = (slice(2 * part.start, 2 * part.stop) for part in (block.rows, block.columns))
    pixels = below.read(block.plane, rows, columns)
    shrink = most_frequent if below.kind == "labels" else mean
    open_level(path, level).write(block.plane, block.rows, block.columns, shrink(pixels))


def finish_pyramid(path: Path, *, overwrite: bool = True) -> None:
    """Check that each chunk is written, and give an unfinished pyramid its name.

    Labels below an image's ``labels`` folder are added to its list.

    Raises
    ------
    DefocusError
        Where a chunk is missing, or the name cannot be given.
    """
    partial = partial_path(path)
    for number in range(count_levels(path)):
        level = open_level(path, number)
        missing = next((block for block in level.blocks() if not level.has(block)), None)
        if missing is not None:
            raise DefocusError(
                f"{path} is unfinished: level {number} lacks {level.key(missing)}; resume the run"
            )
    for leftover in partial.rglob("*.partial"):  # of writers that were killed
        leftover.unlink(missing_ok=True)
    give_name(path, overwrite)
    if path.parent.name == "labels":
        _add_to_list(path)


class Level:
    """A level of an unfinished pyramid. It can be pickled; each process opens it anew.

    Parameters
    ----------
    folder : Path
        The array's folder.
    axes : str
        In the standard order, as are `shape` and what is read and written.
    shape : tuple of int
        Sizes of the dimensions.
    dtype : dtype
        Type of the pixels.
    chunk : (int, int)
        Rows and columns of a chunk.
    kind : str
        One of `KINDS`.
    """

    def __init__(
        self,
        folder: Path,
        axes: str,
        shape: tuple[int, ...],
        dtype: "np.dtype[Any]",
        chunk: tuple[int, int],
        kind: str,
    ) -> None:
        self.folder, self.axes, self.shape = folder, axes, shape
        self.dtype, self.chunk, self.kind = dtype, chunk, kind
        self._array: zarr.Array[Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_array": None}

    @property
    def leading(self) -> Plane:
        """Sizes of the leading axes."""
        return self.shape[: self.axes.index("Y")]

    def write(self, plane: Plane, rows: slice, columns: slice, data: Array) -> None:
        """Write a piece of a plane.

        Pieces made of whole chunks may be written at once by any number of threads, processes and
        machines; others not, as a chunk is then read, changed and written back.

        Parameters
        ----------
        plane : tuple of int
            Place along each leading axis.
        rows, columns : slice
            Start and stop within the level.
        data : ndarray, (Y, X) or (Y, X, S)
            The pixels.

        Raises
        ------
        DefocusError
            Where it cannot be written, as when the disk is full; what is written stays.
        """
        if "S" in self.axes:  # stored as channels, before rows
            data = np.moveaxis(data, -1, 0)
        try:
            self._open()[self._selection(plane, rows, columns)] = np.asarray(data, self.dtype)
        except OSError as error:
            raise DefocusError(
                f"cannot write {self.folder}: {error.strerror or error}; "
                "what is written stays, resume the run"
            ) from error

    def read(self, plane: Plane, rows: slice, columns: slice) -> Array:
        """Read a piece of a plane, (Y, X) or (Y, X, S); 0 where nothing is written yet.

        Raises
        ------
        DefocusError
            Where it cannot be read.
        """
        try:
            data = np.asarray(self._open()[self._selection(plane, rows, columns)])
        except Exception as error:  # from the disk or from a decoder
            raise DefocusError(f"cannot read {self.folder}: {error}; begin the run anew") from error
        return np.moveaxis(data, 0, -1) if "S" in self.axes else data

    def blocks(self) -> Iterator[Block]:
        """List the blocks of the level, plane by plane and row by row."""
        sizes = self.shape[len(self.leading) :][:2]
        rows, columns = (
            [slice(i, min(i + step, size)) for i in range(0, size, step)]
            for size, step in zip(sizes, self.chunk, strict=True)
        )
        for plane in np.ndindex(self.leading):
            for part, other in product(rows, columns):
                yield Block(plane, part, other)

    def key(self, block: Block) -> str:
        """Name the chunk of a block, as a path below the level's folder."""
        place = dict(zip(self.axes, block.plane, strict=False)) | {
            "Y": block.rows.start // self.chunk[0],
            "X": block.columns.start // self.chunk[1],
            "S": 0,
        }
        return "/".join(["c", *(str(place[letter]) for letter in ome_order(self.axes))])

    def has(self, block: Block) -> bool:
        """Tell whether the chunk of a block is written."""
        return (self.folder / self.key(block)).is_file()

    def _selection(self, plane: Plane, rows: slice, columns: slice) -> tuple[int | slice, ...]:
        part: dict[str, int | slice] = {"Y": rows, "X": columns, "S": slice(None)}
        part |= {letter: int(i) for letter, i in zip(self.axes, plane, strict=False)}
        return tuple(part[letter] for letter in ome_order(self.axes))

    def _open(self) -> "zarr.Array[Any]":
        import zarr

        if self._array is None:
            # Empty chunks are written too: one that is not there is not yet done.
            array = zarr.open_array(self.folder, mode="r+")
            self._array = array.with_config({"write_empty_chunks": True})
        return self._array


def _in_order(axes: str, sizes: Sequence[int]) -> tuple[int, ...]:
    """Bring sizes from the standard order into that of OME."""
    return tuple(int(sizes[axes.index(letter)]) for letter in ome_order(axes))


def _create(folder: Path, attributes: dict[str, Any], shapes: list[tuple[int, ...]]) -> None:
    """Make the arrays, empty, and only then the group that says they are there."""
    import zarr
    from zarr.codecs import BloscCodec

    own = attributes[OWN]
    sizes = {"Y": own["chunk"][0], "X": own["chunk"][1]}
    if own["axes"].endswith("S"):
        sizes["S"] = own["shape"][-1]
    letters = ome_order(own["axes"])
    dtype = np.dtype(own["dtype"])
    described = attributes["ome"]["multiscales"][0]
    for shape, level in zip(shapes, described["datasets"], strict=True):
        zarr.create_array(
            folder / level["path"],
            shape=shape,
            chunks=tuple(sizes.get(letter, 1) for letter in letters),
            dtype=dtype,
            compressors=BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"),
            fill_value=0,
            dimension_names=[axis["name"] for axis in described["axes"]],
            zarr_format=3,
        )
    write_group(folder, attributes)


def _add_to_list(path: Path) -> None:
    """Add a label image to the list of those that its image has."""
    ome = (read_attributes(path.parent) or {}).get("ome", {})
    names = [name for name in ome.get("labels", []) if name != path.name]
    write_group(path.parent, {"ome": {"version": VERSION, "labels": [*names, path.name]}})
