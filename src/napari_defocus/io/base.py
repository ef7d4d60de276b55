"""Images that are read plane by plane and piece by piece, wherever they are.

A source is a file, a Zarr on disk or behind a URL, or an array in memory.
"""

import hashlib
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import url2pathname

import numpy as np
import numpy.typing as npt

from napari_defocus.core.errors import DefocusError, about
from napari_defocus.io.axes import (
    check_as_told,
    check_axes,
    guess_axes,
    plane_name,
    planes_last,
)
from napari_defocus.io.grid import Grid
from napari_defocus.io.optics import Optics

Array = npt.NDArray[Any]
# An index or a slice with start and stop for each dimension as stored.
Selection = tuple[int | slice, ...]
Plane = tuple[int, ...]

ALL = slice(None)


class ImageSource(ABC):
    """An image that is read plane by plane and piece by piece.

    Several threads may read at once. A source is small when pickled: it carries the path and the
    axes, and each process opens the file anew when it first reads. Arrays in memory are carried
    whole.

    Parameters
    ----------
    name : str
        File or URL, for messages.
    axes : str
        A letter for each dimension as stored, in any order; see `napari_defocus.io.axes`.
    shape : tuple of int
        The sizes of the dimensions as stored.
    dtype : dtype
        Type of the pixels.
    block : (int, int)
        Rows and columns that are read together at least: reading less costs as much.
    scale, translate, units : dict, optional
        By axis letter; see `napari_defocus.io.grid.Grid`.

    Attributes
    ----------
    grid : Grid
        Axes and sizes in the standard order, and the calibration.
    stored_axes : str
        The letters of the dimensions as stored.
    dtype : dtype
        In the byte order of the machine.
    optics : Optics
        What the file tells of objective and channels.
    well : str
        The well of a plate, where the file tells it.

    Raises
    ------
    DefocusError
        Where the axes do not fit, there are no pixels, or they are neither integer nor float.
    """

    optics = Optics()
    well = ""

    def __init__(
        self,
        name: str,
        axes: str,
        shape: tuple[int, ...],
        dtype: npt.DTypeLike,
        *,
        block: tuple[int, int] = (1, 1),
        scale: dict[str, float] | None = None,
        translate: dict[str, float] | None = None,
        units: dict[str, str] | None = None,
    ) -> None:
        self.name = name
        with about(name):
            self.stored_axes = check_axes(axes, shape)
        standard, order = planes_last(self.stored_axes)
        self.grid = Grid(
            standard,
            tuple(shape[i] for i in order),
            dict(scale or {}),
            dict(translate or {}),
            dict(units or {}),
        )
        self.dtype = np.dtype(dtype).newbyteorder("=")
        self.block = block
        self._lock = threading.RLock()
        self._opened: Any = None
        if 0 in self.shape:
            raise DefocusError(f"{name} has no pixels (size {self.shape}); export it again")
        if self.dtype.kind not in "buif":
            raise DefocusError(
                f"{name} holds {self.dtype} pixels; convert them to integer or float"
            )

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.RLock())

    @property
    def axes(self) -> str:
        """Letters of the dimensions in the standard order."""
        return self.grid.axes

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the dimensions in the standard order."""
        return self.grid.shape

    @property
    def leading(self) -> Plane:
        """Sizes of the leading axes: a plane for each index of `numpy.ndindex(source.leading)`."""
        return self.grid.leading

    @property
    def pixel_size_um(self) -> float | None:
        """Edge of a pixel in micrometres; None where it is unknown or not square (to 1 %)."""
        return self.grid.pixel_size_um

    def read(self, plane: Plane = (), rows: slice = ALL, columns: slice = ALL) -> Array:
        """Read a piece of a plane: of the file only the chunks that it touches.

        Parameters
        ----------
        plane : tuple of int
            Place along each leading axis, from 0.
        rows, columns : slice
            Without steps; what lies outside of the image is left out, as NumPy does.

        Returns
        -------
        ndarray, (Y, X) or (Y, X, S)
            In the byte order of the machine; the caller may change it.

        Raises
        ------
        DefocusError
            Naming the plane, and the chunk where there are any, that is missing or damaged.
        """
        selection = self._selection(plane, rows, columns)
        sizes = [part.stop - part.start for part in selection if isinstance(part, slice)]
        try:
            data = self._read(selection) if all(sizes) else np.empty(sizes, self.dtype)
        except DefocusError:
            raise
        except MemoryError as error:
            raise DefocusError(
                f"{self.where(plane)} does not fit into memory; read smaller tiles"
            ) from error
        except Exception as error:  # on broken bytes the decoders raise nearly anything
            raise DefocusError(
                f"{self.where(plane)} cannot be read ({reason(error)}); copy the image again"
            ) from error
        check_as_told(self.where(plane), data.shape, sizes)
        kept = [
            letter
            for letter, part in zip(self.stored_axes, selection, strict=True)
            if isinstance(part, slice)
        ]
        data = data.transpose([kept.index(letter) for letter in "YXS" if letter in kept])
        return np.ascontiguousarray(data, data.dtype.newbyteorder("="))

    def read_whole(self) -> Array:
        """Read all planes, in the standard order; see `read`.

        Raises
        ------
        DefocusError
            Where they do not fit into memory, or one cannot be read.
        """
        try:
            whole = np.empty(self.shape, self.dtype)
        except MemoryError as error:
            raise no_room(self.name) from error
        for index in np.ndindex(self.leading):
            whole[index] = self.read(index)
        return whole

    def where(self, plane: Plane) -> str:
        """Name a plane of this image in messages: ``plane Z=3 of stack.tif``."""
        name = plane_name(self.axes, plane)
        return f"plane {name} of {self.name}" if name else self.name

    def fingerprint(self) -> str:
        """Return what tells the content from any other, cheaply, so that a run can be resumed.

        Returns
        -------
        str
            A digest. Files: path, size and time of change. Zarr folders: metadata, and name, size
            and time of change of each chunk. Zarr behind URLs: address and metadata only, so that
            a chunk replaced there goes unnoticed. Arrays: their content; Dask: its own token.
        """
        seen = (type(self).__name__, self.stored_axes, self.shape, str(self.dtype))
        return digest([*seen, *self._identity()])

    def _selection(self, plane: Plane, rows: slice, columns: slice) -> Selection:
        """Return for each dimension as stored what is read."""
        if len(plane) != len(self.leading) or not all(
            0 <= place < size for place, size in zip(plane, self.leading, strict=True)
        ):
            raise DefocusError(
                f"{self.name} with axes {self.axes} and shape {self.shape} has no plane "
                f"{plane_name(self.axes, plane) or plane}; count from 0"
            )
        parts: dict[str, int | slice] = dict(zip(self.axes, map(int, plane), strict=False))
        sizes = dict(zip(self.axes, self.shape, strict=True))
        for letter, part in (("Y", rows), ("X", columns), ("S", ALL)):
            if letter in sizes:
                start, stop, _ = part.indices(sizes[letter])
                parts[letter] = slice(start, max(start, stop))
        return tuple(parts[letter] for letter in self.stored_axes)

    def _handle(self) -> Any:
        """Return what `_open` opens, once in each process."""
        with self._lock:
            if self._opened is None:
                self._opened = self._open()
            return self._opened

    @abstractmethod
    def _open(self) -> Any:
        """Open what is read from."""

    @abstractmethod
    def _read(self, selection: Selection) -> Array:
        """Read the slices of `selection`, in stored order, without the dimensions it indexes."""

    @abstractmethod
    def _identity(self) -> Iterable[str | bytes]:
        """Return what makes the fingerprint."""


class ArraySource(ImageSource):
    """An array in memory, or one that computes what is sliced out; see `array_source`."""

    def __init__(self, name: str, axes: str, array: Any, **options: Any) -> None:
        super().__init__(name, axes, tuple(array.shape), array.dtype, **options)
        self._array = array

    def _open(self) -> Any:
        return self._array

    def _read(self, selection: Selection) -> Array:
        piece = self._handle()[selection]
        if hasattr(piece, "dask"):  # in this thread: tiles are what runs in parallel
            piece = piece.compute(scheduler="synchronous")
        return np.array(piece)

    def _identity(self) -> Iterable[str | bytes]:
        if hasattr(self._array, "dask"):
            return [str(self._array.name)]
        return (self.read(plane).tobytes() for plane in np.ndindex(self.leading))


def array_source(
    array: Any,
    axes: str | None = None,
    *,
    scale: dict[str, float] | None = None,
    translate: dict[str, float] | None = None,
    units: dict[str, str] | None = None,
    name: str = "the image",
) -> ImageSource:
    """Treat an array (NumPy, Dask, Zarr, h5py) as a source; only what is read is computed.

    Parameters
    ----------
    array : array
        With `shape`, `dtype` and slicing.
    axes : str, optional
        A letter for each dimension; may be left out for planes and colour planes only.
    scale, translate, units : dict, optional
        See `napari_defocus.io.grid.Grid`.
    name : str
        For messages.

    Raises
    ------
    DefocusError
        Where the axes do not fit or cannot be told, or pixels are neither integer nor float.
    """
    if not hasattr(array, "shape"):
        array = np.asarray(array)
    axes = axes or guess_axes(tuple(array.shape))
    chunks = getattr(array, "chunksize", None) or getattr(array, "chunks", None) or ()
    sizes = dict(zip(axes.upper(), chunks, strict=False))
    block = (int(sizes.get("Y", 1)), int(sizes.get("X", 1)))
    return ArraySource(
        name, axes, array, block=block, scale=scale, translate=translate, units=units
    )


def location(path: str | Path) -> str | Path:
    """Return a URL as text and anything else as a Path; a URL made a Path by mistake is mended."""
    # A scheme has two letters or more: C: is a drive. zip://image.zarr::/folder/file.zip is one.
    url = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/{1,2}(.*)", str(path))
    if not url:
        return Path(path)
    if url[1] == "file":
        return Path(url2pathname("/" + url[2].removeprefix("localhost/").lstrip("/")))
    return f"{url[1]}://{url[2]}"


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Say what to do where a file is broken: on such bytes decoders raise nearly anything."""
    try:
        yield
    except DefocusError:
        raise
    except MemoryError as error:
        raise no_room(str(path)) from error
    except Exception as error:
        raise DefocusError(
            f"{path} is damaged, cut short or not supported ({reason(error)}); "
            "copy it again, or export it as PNG or uncompressed TIFF"
        ) from error


def no_room(name: str) -> DefocusError:
    """Return the error of an image that is larger than memory."""
    return DefocusError(f"{name} does not fit into memory; crop it or save it in parts")


def reason(error: Exception) -> str:
    """Return the gist of another's exception in one line."""
    return " ".join(str(error).split())[:120] or type(error).__name__


def file_identity(path: Path) -> list[str]:
    """Return path, size and time of change: another content has others, but for tricks."""
    seen = path.stat()
    return [str(path.resolve()), str(seen.st_size), str(seen.st_mtime_ns)]


def digest(parts: Iterable[Any]) -> str:
    """Return a digest of parts, such that where one ends and the next begins counts."""
    whole = hashlib.sha256()
    for part in parts:
        content = part if isinstance(part, bytes) else str(part).encode()
        whole.update(f"{len(content)} ".encode() + content)
    return whole.hexdigest()
