"""Maps written as BigTIFF, tile by tile and by several processes of one machine at once.

The file is written under `partial_path(path)` and gets its name by `finish_big_tiff`. Pixels lie in
it in one piece, uncompressed, so that each writer knows where its own go. Which of them are written
the file does not tell; whoever writes it keeps account.
"""

import json
import math
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from napari_defocus.core.errors import DefocusError
from napari_defocus.io.atomic import whole_file, write_json
from napari_defocus.io.axes import AXES, check_axes, planes_last
from napari_defocus.io.base import Selection
from napari_defocus.io.tiff import mapped
from napari_defocus.io.unfinished import check_new, discard, give_name, partial_path

Array = npt.NDArray[Any]
Plane = tuple[int, ...]

_STRIP = 4 * 2**20  # bytes: some readers refuse a strip of gigabytes
_OME_TYPES = ("b1", "i1", "i2", "i4", "u1", "u2", "u4", "f4", "f8")
# The attributes of OME that hold the scale of an axis.
_SIZES = {"X": "PhysicalSizeX", "Y": "PhysicalSizeY", "Z": "PhysicalSizeZ", "T": "TimeIncrement"}


def create_big_tiff(
    path: Path,
    *,
    axes: str,
    shape: tuple[int, ...],
    dtype: npt.DTypeLike,
    scale: dict[str, float] | None = None,
    units: dict[str, str] | None = None,
    overwrite: bool = True,
    resume: bool = False,
) -> bool:
    """Make an unfinished BigTIFF of zeros: an OME-TIFF where OME knows axes and number type.

    Parameters
    ----------
    path : Path
        The file to be; ``.ome.tif`` is the usual ending.
    axes : str
        In the standard order (`planes_last`).
    shape : tuple of int
        Sizes of the dimensions.
    dtype : dtype
        Integer or float; bool is stored as uint8.
    scale, units : dict, optional
        By axis letter, see `napari_defocus.io.base.ImageSource`; those without unit are left out,
        as TIFF has none.
    overwrite : bool
        Whether a finished `path` may be replaced, in the end.
    resume : bool
        Whether an unfinished file of the very same form is kept with what is written in it.

    Returns
    -------
    bool
        Whether one was kept.

    Raises
    ------
    DefocusError
        Where it cannot be written, or the disk has no room for it.
    """
    check_new(path, overwrite)
    axes = check_axes(axes, shape)
    if planes_last(axes)[0] != axes:
        raise DefocusError(f"axes {axes!r} must end in YX, or in YXS for colours")
    dtype = np.dtype(np.uint8 if np.dtype(dtype) == bool else dtype).newbyteorder("<")
    known = {
        letter: float(step) for letter, step in (scale or {}).items() if letter in (units or {})
    }
    form: dict[str, Any] = {
        "axes": axes,
        "shape": [int(size) for size in shape],
        "dtype": dtype.str,
        "scale": known,
    }
    kept = _read_form(path)
    if resume and kept is not None and kept == form | {"start": kept["start"]}:
        return True
    _form_path(path).unlink(missing_ok=True)  # first: it vouches for the file
    discard(path)
    _check_room(path, math.prod(form["shape"]) * dtype.itemsize)
    with whole_file(partial_path(path)) as temporary:
        start = _write_empty(temporary, axes, form["shape"], dtype, known)
    write_json(_form_path(path), form | {"start": start})
    return False


def open_big_tiff(path: Path) -> "BigTiff":
    """Open an unfinished BigTIFF for writing.

    Parameters
    ----------
    path : Path
        The file to be, as it was given to `create_big_tiff`.

    Raises
    ------
    DefocusError
        Where there is none.
    """
    form = _read_form(path)
    if form is None:
        raise DefocusError(f"{path} was not begun; create it first")
    shape, dtype = tuple(form["shape"]), np.dtype(form["dtype"])
    return BigTiff(partial_path(path), form["axes"], shape, dtype, form["start"])


def finish_big_tiff(path: Path, *, overwrite: bool = True) -> None:
    """Flush an unfinished BigTIFF to the disk and give it its name.

    Raises
    ------
    DefocusError
        Where that cannot be done.
    """
    open_big_tiff(path)
    give_name(path, overwrite)
    _form_path(path).unlink()


@dataclass(frozen=True)
class BigTiff:
    """An unfinished BigTIFF; it can be pickled.

    Parameters
    ----------
    file : Path
        Where it is written.
    axes : str
        In the standard order.
    shape : tuple of int
        Sizes of the dimensions.
    dtype : dtype
        Type of the pixels in the file.
    start : int
        Place of the first pixel in it, in bytes.
    """

    file: Path
    axes: str
    shape: tuple[int, ...]
    dtype: "np.dtype[Any]"
    start: int

    @property
    def leading(self) -> Plane:
        """Sizes of the leading axes."""
        return self.shape[: self.axes.index("Y")]

    def write(self, plane: Plane, rows: slice, columns: slice, data: Array) -> None:
        """Write a piece of a plane.

        Pieces that do not overlap may be written at once by any number of threads and processes of
        one machine. Network file systems may lose pixels where several machines write one file.

        Parameters
        ----------
        plane : tuple of int
            Place along each leading axis.
        rows, columns : slice
            Start and stop.
        data : ndarray, (Y, X) or (Y, X, S)
            The pixels.

        Raises
        ------
        DefocusError
            Where it cannot be written, as when the disk is full; what is written stays.
        """
        height, width, *samples = self.shape[len(self.leading) :]
        data = np.ascontiguousarray(data, self.dtype)
        expected = (rows.stop - rows.start, columns.stop - columns.start, *samples)
        if data.shape != expected:
            raise ValueError(f"{data.shape} pixels for a piece of {expected}")
        pixel = math.prod(samples) * self.dtype.itemsize
        first = int(np.ravel_multi_index(plane, self.leading)) * height if plane else 0
        if data.shape[1] == width:  # whole rows lie one behind the other
            data = data.reshape(1, -1)
        try:
            # Not through a map: a full disk would end the process.
            with self.file.open("rb+", buffering=0) as file:
                for i, row in enumerate(data, start=rows.start):
                    place = ((first + i) * width + columns.start) * pixel
                    file.seek(self.start + place)
                    _write_all(file, row)
        except OSError as error:
            raise DefocusError(
                f"cannot write {self.file}: {error.strerror or error}; "
                "what is written stays, resume the run"
            ) from error

    def read(self, plane: Plane, rows: slice, columns: slice) -> Array:
        """Read a piece of a plane, (Y, X) or (Y, X, S); 0 where nothing is written yet."""
        selection: Selection = (*(int(place) for place in plane), rows, columns)
        data = mapped(self.file, self.dtype, self.start, self.shape, selection)
        return data.astype(self.dtype.newbyteorder("="), copy=False)


def _check_room(path: Path, size: int) -> None:
    """Raise DefocusError where the disk has less than `size` bytes left."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(path.parent).free
    except OSError as error:
        raise DefocusError(f"cannot write {path}: {error.strerror or error}") from error
    if size > free:
        raise DefocusError(
            f"{path} needs {size / 2**30:.1f} GiB, the disk has {free / 2**30:.1f}; make room, "
            "or write OME-Zarr, which is compressed"
        )


def _form_path(path: Path) -> Path:
    """Name the file beside an unfinished one that says what is in it, and that it was begun."""
    partial = partial_path(path)
    return partial.with_name(f"{partial.name}.json")


def _read_form(path: Path) -> dict[str, Any] | None:
    """Read what an unfinished file holds; None where none was begun."""
    try:
        form = json.loads(_form_path(path).read_text(encoding="utf-8"))
        return form if isinstance(form, dict) and partial_path(path).is_file() else None
    except (OSError, ValueError):
        return None


def _write_empty(
    path: Path, axes: str, shape: list[int], dtype: "np.dtype[Any]", scale: dict[str, float]
) -> int:
    """Write the metadata, leave room for the pixels, and tell where they begin."""
    is_ome = set(axes) <= set(AXES) and dtype.str[1:] in _OME_TYPES
    metadata: dict[str, Any] = {"axes": axes}
    if is_ome:
        metadata |= {_SIZES[letter]: step for letter, step in scale.items() if letter in _SIZES}
        # The same in each run, so that equal results have equal bytes.
        form = f"{axes} {shape} {dtype.str} {scale}"
        metadata["UUID"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, form)}"
    options: dict[str, Any] = {}
    if "X" in scale and "Y" in scale:
        options["resolution"] = (1e4 / scale["X"], 1e4 / scale["Y"])
        options["resolutionunit"] = "CENTIMETER"
    if axes.endswith("S"):
        options["planarconfig"] = "contig"
    is_rgb = axes.endswith("S") and shape[-1] in (3, 4)
    row = math.prod(shape[axes.index("X") :]) * dtype.itemsize
    written = tifffile.imwrite(
        path,
        shape=shape,
        dtype=dtype,
        byteorder="<",
        bigtiff=True,
        ome=is_ome,
        photometric="rgb" if is_rgb else "minisblack",
        rowsperstrip=max(1, _STRIP // row),
        metadata=metadata,
        returnoffset=True,
        **options,
    )
    assert written is not None
    return int(written[0])


def _write_all(file: Any, row: Array) -> None:
    left = row.data.cast("B")
    while left:  # the system may take less than it is given, of gigabytes always
        left = left[file.write(left) :]
