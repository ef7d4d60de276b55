"""TIFF: images in memory at once, and BigTIFF piece by piece, by several processes at once."""

import json
import math
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import numpy.typing as npt
import tifffile

from napari_defocus.core.errors import DefocusError, explained
from napari_defocus.io.atomic import discard, finish, partial_path, whole_file
from napari_defocus.io.axes import AXES
from napari_defocus.io.base import Selection
from napari_defocus.io.grid import Grid
from napari_defocus.io.tiff import mapped
from napari_defocus.io.writer import Plane, Run, in_turn

Array = npt.NDArray[Any]

_STRIP = 4 * 2**20  # bytes: some readers refuse a strip of gigabytes
_OME_TYPES = ("b1", "i1", "i2", "i4", "u1", "u2", "u4", "f4", "f8")
# What ImageJ's and our own description call how an image was made.
NOTE = "note"
# The attributes of OME that hold the scale of an axis.
_SIZES = {"X": "PhysicalSizeX", "Y": "PhysicalSizeY", "Z": "PhysicalSizeZ", "T": "TimeIncrement"}


def write_tiff(
    path: Path,
    data: Array,
    *,
    axes: str,
    pixel_size_um: float | None = None,
    overwrite: bool = True,
) -> None:
    """Write a map, mask or stack of square pixels such that Fiji and napari see its axes and scale.

    Parameters
    ----------
    path : Path
        The file to be.
    data : array
        Blur maps are float32 in [0, 1], masks uint8.
    axes : str
        A letter for each axis of `data`, "YX" or "YXS" at the end.
    pixel_size_um : float, optional
        Edge of a pixel in micrometres.
    overwrite : bool
        Whether an existing `path` may be replaced.

    Raises
    ------
    DefocusError
        Where `path` cannot be written.
    """
    write_image(path, data, Grid.square(axes, data.shape, pixel_size_um), overwrite=overwrite)


def write_image(
    path: Path, data: Array, grid: Grid, *, note: str = "", overwrite: bool = True
) -> None:
    """Write an image that is in memory as TIFF.

    One plane of uint8, uint16 or float32, or RGB of uint8, becomes an ImageJ TIFF with deflate
    compression. A stack of these is an ImageJ TIFF without compression, as Fiji reads ImageJ
    stacks in one piece only. Anything else is a compressed TIFF, with OME's metadata where
    ImageJ cannot hold order or scale of the axes.

    Parameters
    ----------
    path : Path
        The file to be.
    data : array
        The pixels.
    grid : Grid
        Their axes and calibration; ImageJ and OME have no place for `translate`.
    note : str
        How it was made, for its description; without =.
    overwrite : bool
        Whether an existing `path` may be replaced.

    Raises
    ------
    DefocusError
        Where `path` cannot be written.
    """
    axes, known = grid.axes, _known(grid)
    is_rgb = axes.endswith("S") and data.shape[-1] in (3, 4)
    leading = axes[: len(grid.leading)]
    in_order = leading == "".join(letter for letter in "TZC" if letter in leading)
    is_imagej = (
        in_order
        and data.dtype in ((np.uint8,) if "S" in axes else (np.uint8, np.uint16, np.float32))
        and ("S" not in axes or is_rgb)
        and data.nbytes < 2**31  # ImageJ knows no BigTIFF
        and ("Z" not in known or "X" in known)  # both are in one unit
    )
    metadata: dict[str, Any] = {"axes": axes} | ({NOTE: note} if note else {})
    options = _sample_options(axes, data.shape)
    fits_ome = set(axes) <= set(AXES) and data.dtype.str[1:] in _OME_TYPES
    is_ome = not is_imagej and fits_ome and not (in_order and known.keys() <= set("XY"))
    if is_imagej:
        if "X" in known:
            options["resolution"] = (1 / known["X"], 1 / known["Y"])
            metadata["unit"] = "um"
        names = {"Z": "spacing", "T": "finterval"}
        metadata |= {names[letter]: known[letter] for letter in names if letter in known}
    else:
        options |= _resolution(known)
        if is_ome:
            metadata |= _ome_metadata(grid, data.dtype) | {"Description": note or None}
    if not is_imagej or data.size == math.prod(data.shape[len(leading) :]):
        options["compression"] = "zlib"
    with whole_file(path, overwrite) as temporary:
        tifffile.imwrite(
            temporary, data, imagej=is_imagej, ome=is_ome, metadata=metadata, **options
        )


def _sample_options(axes: str, shape: tuple[int, ...]) -> dict[str, Any]:
    """Return how tifffile is told of colours and alpha."""
    if not axes.endswith("S"):
        return {"photometric": "minisblack"}
    options: dict[str, Any] = {"photometric": "rgb" if shape[-1] in (3, 4) else "minisblack"}
    alpha = {"extrasamples": ("unassalpha",)} if shape[-1] in (2, 4) else {}
    return options | {"planarconfig": "contig"} | alpha


def _known(grid: Grid) -> dict[str, float]:
    """Return the scale that TIFF can hold: X and Y together, or neither."""
    known = grid.known_scale()
    if not {"X", "Y"} <= known.keys():
        known = {letter: step for letter, step in known.items() if letter not in "XY"}
    return known


def _ome_metadata(grid: Grid, dtype: "np.dtype[Any]") -> dict[str, Any]:
    """Return the scale, and an identifier that is the same in each run, as are the bytes."""
    known = _known(grid)
    form = f"{grid.axes} {list(grid.shape)} {dtype.str} {known}"
    identifier = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, form)}"
    return {"UUID": identifier, **{_SIZES[letter]: step for letter, step in known.items()}}


def _resolution(known: Mapping[str, float]) -> dict[str, Any]:
    if "X" not in known:
        return {}
    return {"resolution": (1e4 / known["X"], 1e4 / known["Y"]), "resolutionunit": "CENTIMETER"}


@dataclass(frozen=True)
class BigTiff:
    """An image written as BigTIFF, piece by piece, by several processes of one machine at once.

    An OME-TIFF where OME knows axes and number type. Pixels lie in one piece, uncompressed, so that
    each writer knows where its own go; who writes keeps account of them. Bool is stored as uint8.
    """

    path: Path
    grid: Grid
    pixels: npt.DTypeLike

    @property
    def file(self) -> Path:
        """Where it is written."""
        return partial_path(self.path)

    @property
    def dtype(self) -> "np.dtype[Any]":
        """Type of the pixels in the file."""
        dtype = np.dtype(self.pixels)
        return (np.dtype(np.uint8) if dtype.kind == "b" else dtype).newbyteorder("<")

    @property
    def begun(self) -> bool:
        """Whether an unfinished one is there."""
        return self.file.is_file()

    @cached_property
    def _start(self) -> int:
        """Place of the first pixel in the file, in bytes."""
        if not self.begun:
            raise DefocusError(f"{self.path} was not begun; create it first")
        with tifffile.TiffFile(self.file) as tif:
            return int(tif.pages.first.dataoffsets[0])

    def create(self) -> None:
        """Make an unfinished BigTIFF of zeros; DefocusError where the disk has no room for it."""
        discard(self.path)
        self.__dict__.pop("_start", None)
        _check_room(self.path, math.prod(self.grid.shape) * self.dtype.itemsize)
        with whole_file(self.file) as temporary:
            self._write_empty(temporary)

    def finish(self, run: Run = in_turn, *, overwrite: bool = True) -> None:
        """Flush it to the disk and give it its name; see `ImageWriter.finish`."""
        if not self.begun:
            raise DefocusError(f"{self.path} was not begun; create it first")
        finish(self.path, overwrite)

    def add_note(self, note: str) -> None:
        """Add to the description; see `ImageWriter.add_note`."""
        try:
            with tifffile.TiffFile(self.file, mode="r+") as tif:
                tag = tif.pages.first.tags["ImageDescription"]
                said = str(tag.value)
                if not tif.is_ome:
                    tag.overwrite(json.dumps(json.loads(said) | {NOTE: note}).encode())
                elif "<Description>" not in said:
                    described = f"<Description>{escape(note)}</Description><Pixels"
                    tag.overwrite(said.replace("<Pixels", described, 1).encode())
        except OSError as error:
            raise DefocusError(
                f"cannot write {self.file}: {error.strerror or error}; "
                "what is written stays, resume the run"
            ) from error

    def _write_empty(self, path: Path) -> None:
        """Write the metadata, and leave room for the pixels."""
        axes, shape, known = self.grid.axes, self.grid.shape, _known(self.grid)
        is_ome = set(axes) <= set(AXES) and self.dtype.str[1:] in _OME_TYPES
        metadata: dict[str, Any] = {"axes": axes}
        if is_ome:
            metadata |= _ome_metadata(self.grid, self.dtype)
        options = _resolution(known) | _sample_options(axes, shape)
        row = math.prod(shape[axes.index("X") :]) * self.dtype.itemsize
        tifffile.imwrite(
            path,
            shape=shape,
            dtype=self.dtype,
            byteorder="<",
            bigtiff=True,
            ome=is_ome,
            rowsperstrip=max(1, _STRIP // row),
            metadata=metadata,
            **options,
        )

    def write(self, plane: Plane, rows: slice, columns: slice, data: Array) -> None:
        """Write a piece of a plane; network file systems may lose pixels of several machines."""
        height, width, *samples = self.grid.shape[len(self.grid.leading) :]
        data = np.ascontiguousarray(data, self.dtype)
        expected = (rows.stop - rows.start, columns.stop - columns.start, *samples)
        if data.shape != expected:
            raise ValueError(f"{data.shape} pixels for a piece of {expected}")
        pixel = math.prod(samples) * self.dtype.itemsize
        first = int(np.ravel_multi_index(plane, self.grid.leading)) * height if plane else 0
        if data.shape[1] == width:  # whole rows lie one behind the other
            data = data.reshape(1, -1)
        with (
            explained(self.file, so="; what is written stays, resume the run"),
            # Not through a map: a full disk would end the process.
            self.file.open("rb+", buffering=0) as file,
        ):
            for i, row in enumerate(data, start=rows.start):
                place = ((first + i) * width + columns.start) * pixel
                file.seek(self._start + place)
                _write_all(file, row)

    def read(self, plane: Plane, rows: slice, columns: slice) -> Array:
        """Read a piece of a plane; see `ImageWriter.read`."""
        selection: Selection = (*(int(place) for place in plane), rows, columns)
        data = mapped(self.file, self.dtype, self._start, self.grid.shape, selection)
        return data.astype(self.dtype.newbyteorder("="), copy=False)


def _check_room(path: Path, size: int) -> None:
    """Raise DefocusError where the disk has less than `size` bytes left."""
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(path.parent).free
    if size > free:
        raise DefocusError(
            f"{path} needs {size / 2**30:.1f} GiB, the disk has {free / 2**30:.1f}; make room, "
            "or write OME-Zarr, which is compressed"
        )


def _write_all(file: Any, row: Array) -> None:
    left = row.data.cast("B")
    while left:  # the system may take less than it is given, of gigabytes always
        left = left[file.write(left) :]
