"""Images that are read piece by piece: files larger than memory, Zarr on disk or behind a URL."""

import hashlib
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_defocus.core.errors import DefocusError
from napari_defocus.io.axes import check_axes, guess_axes, plane_name, planes_last
from napari_defocus.io.raster import read_image

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
    scale, translate : dict, optional
        By axis letter: the distance between two pixels, and the place of the centre of the first.
    units : dict, optional
        By axis letter, ``micrometer`` or ``second``: the unit of both. An axis whose unit is
        unknown is left out.

    Attributes
    ----------
    axes, shape
        In the standard order: leading axes, then Y and X, then S where there are colours.
    dtype : dtype
        In the byte order of the machine.

    Raises
    ------
    DefocusError
        Where the axes do not fit, there are no pixels, or they are neither integer nor float.
    """

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
        try:
            self._stored_axes = check_axes(axes, shape)
        except DefocusError as error:
            raise DefocusError(f"{name}: {error}") from None
        self.axes, order = planes_last(self._stored_axes)
        self.shape = tuple(int(shape[i]) for i in order)
        self.dtype = np.dtype(dtype).newbyteorder("=")
        self.block = block
        self.scale = dict(scale or {})
        self.translate = dict(translate or {})
        self.units = dict(units or {})
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
    def leading(self) -> Plane:
        """Sizes of the leading axes: a plane for each index of `numpy.ndindex(source.leading)`."""
        return self.shape[: self.axes.index("Y")]

    @property
    def pixel_size_um(self) -> float | None:
        """Edge of a pixel in micrometres; None where it is unknown or not square (to 1 %)."""
        x, y = self.scale.get("X", 0.0), self.scale.get("Y", 0.0)
        known = self.units.get("X") == self.units.get("Y") == "micrometer"
        return x if known and x > 0 and abs(x - y) <= 0.01 * x else None

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
        kept = [
            letter
            for letter, part in zip(self._stored_axes, selection, strict=True)
            if isinstance(part, slice)
        ]
        data = data.transpose([kept.index(letter) for letter in "YXS" if letter in kept])
        return np.ascontiguousarray(data, data.dtype.newbyteorder("="))

    def missing(self, plane: Plane = (), rows: slice = ALL, columns: slice = ALL) -> list[str]:
        """Name the chunks of a piece that are not in the store, without reading any.

        Files other than Zarr are complete, or reading them raises.
        """
        return []

    def where(self, plane: Plane) -> str:
        """Name a plane of this image in messages: ``plane Z=3 of stack.tif``."""
        name = plane_name(self.axes, plane)
        return f"plane {name} of {self.name}" if name else self.name

    def fingerprint(self) -> str:
        """Tell the content from any other, cheaply, so that a run can be resumed.

        Returns
        -------
        str
            A digest. Files: path, size and time of change. Zarr folders: metadata, and name, size
            and time of change of each chunk. Zarr behind URLs: address and metadata only, so that
            a chunk replaced there goes unnoticed. Arrays: their content; Dask: its own token.
        """
        seen = (type(self).__name__, self._stored_axes, self.shape, str(self.dtype))
        return digest([*seen, *self._identity()])

    def _selection(self, plane: Plane, rows: slice, columns: slice) -> Selection:
        """Say for each dimension as stored what is read."""
        if len(plane) != len(self.leading) or not all(
            0 <= place < size for place, size in zip(plane, self.leading, strict=True)
        ):
            raise DefocusError(
                f"{self.name} with axes {self.axes} and shape {self.shape} has no plane "
                f"{plane_name(self.axes, plane) or plane}; count from 0"
            )
        parts: dict[str, int | slice] = {
            letter: int(place) for letter, place in zip(self.axes, plane, strict=False)
        }
        sizes = dict(zip(self.axes, self.shape, strict=True))
        for letter, part in (("Y", rows), ("X", columns), ("S", ALL)):
            if letter in sizes:
                start, stop, _ = part.indices(sizes[letter])
                parts[letter] = slice(start, max(start, stop))
        return tuple(parts[letter] for letter in self._stored_axes)

    def _handle(self) -> Any:
        """Give what `_open` opens, once in each process."""
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
        """Give what makes the fingerprint."""


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


class WholeFileSource(ArraySource):
    """A file that can only be read whole, such as PNG; it stays in memory."""

    def __init__(self, path: Path, axes: str | None = None) -> None:
        image = read_image(path)
        scale = dict.fromkeys("YX", image.pixel_size_um) if image.pixel_size_um else {}
        super().__init__(
            str(path),
            axes or image.axes,
            image.data,
            scale=scale,
            units=dict.fromkeys(scale, "micrometer"),
        )
        self._path = path
        self._opened, self._array = image.data, None

    def _open(self) -> Any:
        return read_image(self._path).data

    def _identity(self) -> Iterable[str | bytes]:
        return file_identity(self._path)


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
        See `ImageSource`.
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
    chunks = getattr(array, "chunksize", None) or getattr(array, "chunks", None)
    block = (1, 1)
    if chunks is not None and len(chunks) == len(axes):
        rows, columns = (axes.upper().find(letter) for letter in "YX")
        block = (int(chunks[rows]), int(chunks[columns]))
    return ArraySource(
        name, axes, array, block=block, scale=scale, translate=translate, units=units
    )


def location(path: str | Path) -> str | Path:
    """Tell URLs, given back as text, from paths; a URL made a Path by mistake is mended."""
    # A scheme has two letters or more: C: is a drive. zip://image.zarr::/folder/file.zip is one.
    url = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/{1,2}(.*)", str(path))
    if not url:
        return Path(path)
    if url[1] == "file":
        return Path("/" + url[2].lstrip("/"))
    return f"{url[1]}://{url[2]}"


def reason(error: Exception) -> str:
    """Give the gist of another's exception in one line."""
    return " ".join(str(error).split())[:120] or type(error).__name__


def file_identity(path: Path) -> list[str]:
    """Give path, size and time of change, which tell a file's content but for deliberate tricks."""
    seen = path.stat()
    return [str(path.resolve()), str(seen.st_size), str(seen.st_mtime_ns)]


def digest(parts: Iterable[Any]) -> str:
    """Digest parts such that where one ends and the next begins counts."""
    whole = hashlib.sha256()
    for part in parts:
        content = part if isinstance(part, bytes) else str(part).encode()
        whole.update(f"{len(content)} ".encode() + content)
    return whole.hexdigest()
