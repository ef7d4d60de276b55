"""OME-Zarr and Zarr arrays read piece by piece, from a folder, a .zip file or a URL."""

import math
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import count, product
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.storage import FsspecStore, LocalStore, WrapperStore, ZipStore

from napari_defocus.core.errors import DefocusError, notice
from napari_defocus.io.axes import check_axes, guess_axes
from napari_defocus.io.base import (
    ImageSource,
    Plane,
    Selection,
    file_identity,
    reason,
)
from napari_defocus.io.series import choose_image

Array = NDArray[Any]
Described = tuple[zarr.Group, str, dict[str, Any]]

_METADATA = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")
# In micrometres and in seconds, by the names that OME-Zarr allows.
_METRES = {"pico": 1e-6, "nano": 1e-3, "micro": 1.0, "milli": 1e3, "centi": 1e4, "": 1e6}
_LENGTHS = {f"{prefix}meter": factor for prefix, factor in _METRES.items()}
_LENGTHS |= {"angstrom": 1e-4, "micron": 1.0, "inch": 25400.0}
_TIMES = {"nanosecond": 1e-9, "microsecond": 1e-6, "millisecond": 1e-3, "second": 1.0}
_TIMES |= {"minute": 60.0, "hour": 3600.0, "day": 86400.0}
_AXES_BEFORE_0_3 = ("t", "c", "z", "y", "x")


class MissingChunkError(RuntimeError):
    """A chunk that is not in the store; zarr itself would read it as the fill value."""


class WatchedStore(WrapperStore[Any]):
    """A store that notes which chunks were missing; none may be where it is `strict`."""

    strict = False

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self.lacking: set[str] = set()

    async def get(self, key: str, *args: Any, **options: Any) -> Any:
        """Return the content of a key."""
        content = await self._store.get(key, *args, **options)
        if content is None and key.rpartition("/")[2] not in _METADATA:
            if self.strict:
                raise MissingChunkError(key)
            self.lacking.add(key)
        return content


def open_zarr(
    place: Path | str, axes: str | None, missing: str, series: int | None = None
) -> ImageSource:
    """Open Zarr; see `napari_defocus.io.open.open_source`."""
    node = _open_node(place)
    if isinstance(node, zarr.Array):
        choose_image(str(place), [""], [node.shape], series)
        return ZarrSource(place, "", node, axes or _named_axes(node), missing)
    images = _find_images(place, node)
    titles = [str(image.get("name", "")) for _, _, image in images]
    number = choose_image(str(place), titles, [_shape(*image) for image in images], series)
    group, inside, described = images[number]
    level = described["datasets"][0]
    try:
        path = f"{inside}{level['path']}"
        array = group[level["path"]]
        letters = (axes or _letters(described.get("axes", _AXES_BEFORE_0_3))).upper()
        fits = isinstance(array, zarr.Array) and len(letters) == array.ndim
        calibration = _calibration(described, letters) if fits else {}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DefocusError(
            f"{place} has damaged OME-Zarr metadata ({reason(error)}); "
            "name one of its arrays, with axes"
        ) from error
    if not isinstance(array, zarr.Array):
        raise DefocusError(f"{place}: {path} is no array; copy the image again")
    return ZarrSource(place, path, array, letters, missing, calibration)


def count_images(place: Path | str) -> int:
    """Return how many images a Zarr holds."""
    node = _open_node(place)
    return 1 if isinstance(node, zarr.Array) else len(_find_images(place, node))


class ZarrSource(ImageSource):
    """The array at the path `inside` of a Zarr store, a folder, .zip file or URL."""

    def __init__(
        self,
        place: Path | str,
        inside: str,
        array: "zarr.Array[Any]",
        axes: str,
        missing: str,
        calibration: dict[str, Any] | None = None,
    ) -> None:
        axes = axes.upper()
        chunks = dict(zip(axes, array.chunks, strict=False))
        super().__init__(
            str(place),
            axes,
            array.shape,
            array.dtype,
            block=(int(chunks.get("Y", 1)), int(chunks.get("X", 1))),
            **(calibration or {}),
        )
        self._place, self._inside, self._strict = place, inside, missing == "error"
        self._told = isinstance(place, Path)  # else what a place lacks is seen on the way
        self._next_told = 1
        if self._told and not self._strict:
            absent, stored = _absent_chunks(array)
            if absent:
                notice(
                    f"{place}: {absent} of {stored} chunks are not stored, as of what is empty; "
                    f"they count as {array.fill_value or 0} (--missing error refuses them)"
                )

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_store": None}

    def _open(self) -> "zarr.Array[Any]":
        self._store = WatchedStore(_open_store(self._place))
        self._store.strict = self._strict
        return zarr.open_array(self._store, path=self._inside, mode="r")

    def _read(self, selection: Selection) -> Array:
        array = self._handle()
        try:
            data = np.asarray(array[selection])
            self._tell_lacking(array)
            return data
        except MissingChunkError as error:
            raise DefocusError(
                f"chunk {error} of {self.where(_plane(selection))} is missing; copy the image "
                "again, or let such chunks count as empty (--missing fill)"
            ) from error
        except MemoryError:
            raise
        except Exception as error:
            key, own = self._damaged(array, selection, error)
            raise DefocusError(
                f"chunk {key} of {self.where(_plane(selection))} cannot be read ({reason(own)}); "
                "copy the image again"
            ) from error

    def _tell_lacking(self, array: "zarr.Array[Any]") -> None:
        """Tell how many chunks were missing so far: the first, and ten times as many."""
        lacking = len(self._store.lacking)
        if not self._told and lacking >= self._next_told:
            self._next_told = 10 * lacking
            _, stored = _chunks_in_each(array)
            notice(
                f"{self._place}: as far as it was read, {lacking} of {stored} chunks are not "
                f"stored, as of what is empty; they count as {array.fill_value or 0} (--missing "
                "error refuses them)"
            )

    def _damaged(
        self, array: "zarr.Array[Any]", selection: Selection, error: Exception
    ) -> tuple[str, Exception]:
        """Find the first chunk of a selection that cannot be read, and why."""
        for key, part in _chunks(array, selection):
            try:
                array[part]
            except Exception as own:
                return key, own
        return "(no longer so)", error

    def _identity(self) -> Iterable[str | bytes]:
        yield str(self._place)
        yield self._inside
        yield repr(self._handle().metadata)
        if isinstance(self._place, Path):
            if self._place.is_file():
                yield from file_identity(self._place)
            else:
                yield from _files_in(self._place / self._inside)


def _files_in(folder: Path) -> Iterator[str]:
    """Yield relative name, size and time of change of each file, in a fixed order."""
    for parent, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            path = Path(parent, name)
            seen = path.stat()
            yield f"{path.relative_to(folder).as_posix()} {seen.st_size} {seen.st_mtime_ns}"


def _plane(selection: Selection) -> Plane:
    return tuple(part for part in selection if isinstance(part, int))


def _chunks(array: "zarr.Array[Any]", selection: Selection) -> Iterator[tuple[str, Selection]]:
    """Yield key and region of each stored chunk that a selection touches.

    Of shards, which are stored whole; a chunk that a shard lacks was left out on purpose.
    """
    sizes = array.shards or array.chunks
    touched = []
    for part, size in zip(selection, sizes, strict=True):
        window = part if isinstance(part, slice) else slice(part, part + 1)
        touched.append(range(window.start // size, -(-window.stop // size)))
    for place in product(*touched):
        key = array.metadata.encode_chunk_key(place)
        region = tuple(
            slice(i * size, (i + 1) * size) for i, size in zip(place, sizes, strict=True)
        )
        yield f"{array.path}/{key}".lstrip("/"), region


def _absent_chunks(array: "zarr.Array[Any]") -> tuple[int, int]:
    """Return how many chunks, or shards, are not stored, and how many would be."""
    in_each, total = _chunks_in_each(array)
    return total - int(array.nchunks_initialized) // in_each, total


def _chunks_in_each(array: "zarr.Array[Any]") -> tuple[int, int]:
    """Return how many chunks are stored together, and how many such there would be."""
    stored = array.shards or array.chunks
    total = math.prod(-(-size // side) for size, side in zip(array.shape, stored, strict=True))
    return math.prod(stored) // math.prod(array.chunks), total


def _open_store(place: Path | str) -> Any:
    if isinstance(place, str):
        return FsspecStore.from_url(place, read_only=True)
    if place.is_file():
        return ZipStore(place, mode="r", read_only=True)
    return LocalStore(place, read_only=True)


def _open_node(place: Path | str) -> "zarr.Array[Any] | zarr.Group":
    """Open the root, whatever it is."""
    try:
        return zarr.open(_open_store(place), mode="r")
    except FileNotFoundError as error:
        raise DefocusError(
            f"{place} holds no Zarr image; name an OME-Zarr or an image file, "
            "or check whether it was moved"
        ) from error
    except ImportError as error:
        raise DefocusError(
            f"{place} cannot be opened, a package is missing ({reason(error)}); install it"
        ) from error
    except Exception as error:  # from addresses that do not answer to broken metadata
        what = "cannot reach" if isinstance(place, str) else "cannot open"
        raise DefocusError(
            f"{what} {place} ({reason(error)}); check the address and whether the image is whole"
        ) from error


def _find_images(place: Path | str, group: zarr.Group) -> list[Described]:
    """Find the images of a group: of each its group, the path to it, and its description."""
    known = _described(group)
    if "plate" in known:
        raise DefocusError(f"{place} is a plate; name one of its fields, such as {place}/A/1/0")
    if "well" in known:
        raise DefocusError(f"{place} is a well; name one of its fields, such as {place}/0")
    if isinstance(known.get("labels"), list):
        names = ", ".join(map(str, known["labels"]))
        raise DefocusError(f"{place} lists labels; name one of them: {names}")
    groups = [(group, "")]
    if "bioformats2raw.layout" in known:
        groups = list(_numbered(group)) or groups
    found_images = [
        (owner, inside, image)
        for owner, inside in groups
        for image in _multiscales(owner)
        if isinstance(image, dict) and image.get("datasets")
    ]
    if not found_images:
        found = ", ".join(sorted(group.keys())[:10]) or "nothing"
        raise DefocusError(
            f"{place} is no OME-Zarr image; name the array in it that you mean, with axes "
            f"(it holds {found})"
        )
    return found_images


def _numbered(group: zarr.Group) -> Iterator[tuple[zarr.Group, str]]:
    """Yield the groups 0, 1, ..., and the path to each."""
    for number in count():
        inner = group.get(str(number))
        if not isinstance(inner, zarr.Group):
            return
        yield inner, f"{number}/"


def _multiscales(group: zarr.Group) -> list[Any]:
    images = _described(group).get("multiscales")
    return images if isinstance(images, list) else []


def _shape(group: zarr.Group, _: str, image: dict[str, Any]) -> tuple[int, ...]:
    """Return the shape of an image at full resolution, that of nothing where it is damaged."""
    with suppress(Exception):
        array = group[image["datasets"][0]["path"]]
        if isinstance(array, zarr.Array):
            return array.shape
    return (0,)


def _described(group: zarr.Group) -> dict[str, Any]:
    """Return what OME tells of a group: since version 0.5 it lies below a key of its own."""
    known = dict(group.attrs.asdict())
    ome = known.get("ome")
    return ome if isinstance(ome, dict) else known


def _named_axes(array: "zarr.Array[Any]") -> str:
    """Take the dimension names of Zarr 3 where they are letters, else guess."""
    names = [name or "" for name in getattr(array.metadata, "dimension_names", None) or ()]
    if all(len(name) == 1 for name in names) and {"y", "x"} <= {name.lower() for name in names}:
        return check_axes("".join(names), array.shape)
    return guess_axes(array.shape)


def _letters(axes: Iterable[Any]) -> str:
    """Make a letter of each axis: its name where that is one, else what its type says."""
    letters = ""
    for axis in axes:
        named = axis if isinstance(axis, dict) else {"name": axis}
        name, kind = str(named["name"]).upper(), str(named.get("type"))
        if len(name) > 1 or not name.isalpha():
            name = {"time": "T", "channel": "C"}.get(kind, name[:1])
        if name in letters or not name.isalpha():
            name = next(letter for letter in "QIABDEFGHJKLMNOPRUVW" if letter not in letters)
        letters += name
    return letters


def _calibration(image: dict[str, Any], axes: str) -> dict[str, Any]:
    """Read scale, position and units. They go by place, as axes may be given other letters."""
    scale, place = [1.0] * len(axes), [0.0] * len(axes)
    for owner in (image["datasets"][0], image):
        for change in owner.get("coordinateTransformations", ()):
            if change["type"] == "scale":
                scale = [a * float(b) for a, b in zip(scale, change["scale"], strict=True)]
                place = [a * float(b) for a, b in zip(place, change["scale"], strict=True)]
            elif change["type"] == "translation":
                place = [a + float(b) for a, b in zip(place, change["translation"], strict=True)]
    found: dict[str, Any] = {"scale": {}, "translate": {}, "units": {}}
    described = image.get("axes", ())
    for i, letter in enumerate(axes):
        axis = described[i] if i < len(described) else None
        unit = axis.get("unit") if isinstance(axis, dict) else None
        factor = _LENGTHS.get(unit) or _TIMES.get(unit) if isinstance(unit, str) else None
        if factor:
            found["units"][letter] = "second" if unit in _TIMES else "micrometer"
        if letter in "CS" or not 0 < scale[i] < math.inf or not math.isfinite(place[i]):
            continue
        found["scale"][letter] = scale[i] * (factor or 1)
        found["translate"][letter] = place[i] * (factor or 1)
    return found
