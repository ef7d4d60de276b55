"""Files as microscopes write them, read by kept libraries, which belong to the extra ``formats``.

CZI, ND2 and more come by bioio and its plugins, LIF by liffile (bioio-lif loses wavelengths), whole
slides that are no TIFF by OpenSlide. Slides that are TIFF (SVS, NDPI, SCN, BIF) need none of them.
"""

import logging
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from napari_defocus.core.errors import DefocusError
from napari_defocus.io.base import ImageSource, Selection, file_identity, reason
from napari_defocus.io.grid import MICROMETER
from napari_defocus.io.optics import Optics, optics_of
from napari_defocus.io.series import choose_image

Array = npt.NDArray[Any]

# By the plugin that reads them.
BIOIO = {
    ".czi": "bioio-czi",
    ".nd2": "bioio-nd2",
    ".dv": "bioio-dv",
    ".r3d": "bioio-dv",
    ".sldy": "bioio-sldy",
    ".ims": "bioio-bioformats",
    ".oib": "bioio-bioformats",
    ".oif": "bioio-bioformats",
    ".oir": "bioio-bioformats",
    ".vsi": "bioio-bioformats",
}
OPENSLIDE = (".mrxs", ".dcm", ".vms", ".vmu", ".svslide")
LIF = ".lif"
SUFFIXES = (*BIOIO, LIF, *OPENSLIDE)
# Axes of LIF files that are no letters: emission and excitation wavelength, and parts of a mosaic.
_LIF_LETTERS = {"\u03bb": "L", "\u039b": "E"}
EXTRA = "pip install 'napari-defocus[formats]'"
# Axes of one pixel are left out, as of TIFF.
_OPTIONAL = "TCZ"
# Tiles of a slide are read in squares of so many pixels, at least.
_SLIDE_BLOCK = 512
_SLIDE_CACHE = 2**23
_LOCK = threading.RLock()
OPEN_S = 120.0


def is_vendor(path: Path) -> bool:
    """Check whether a file is one that these libraries read, by its name."""
    return path.suffix.lower() in SUFFIXES


def open_vendor(path: Path, axes: str | None, series: int | None) -> ImageSource:
    """Open a file of a microscope's own format.

    Raises
    ------
    DefocusError
        Where the library that reads it is not installed, or it cannot be read.
    """
    if path.suffix.lower() in OPENSLIDE:
        source: ImageSource = SlideSource(path, axes)
        choose_image(str(path), [""], [source.shape], series)
        return source
    kind = LifSource if path.suffix.lower() == LIF else BioioSource
    return kind(path, axes, series)


def count_images(path: Path) -> int:
    """Return how many images a file holds."""
    if path.suffix.lower() in OPENSLIDE:
        return 1
    with _reading(path):
        if path.suffix.lower() == LIF:
            return len(_lif(path).images)
        return len(_bioio(path).scenes)


class BioioSource(ImageSource):
    """An image that a plugin of bioio reads, piece by piece as far as the plugin can."""

    def __init__(self, path: Path, axes: str | None, series: int | None) -> None:
        self._path, self._series = path, 0
        with _reading(path):
            image = _bioio(path)
            titles, shapes = list(map(str, image.scenes)), []
            for number in range(len(titles)):
                image.set_scene(number)
                shapes.append(tuple(image.shape))
            self._series = choose_image(str(path), titles, shapes, series)
            image.set_scene(self._series)
            order, shape, dtype = str(image.dims.order), tuple(image.shape), image.dtype
            pixels = image.physical_pixel_sizes
            steps = {"X": pixels.X, "Y": pixels.Y, "Z": pixels.Z}
            chunks = dict(zip(order, image.dask_data.chunksize, strict=True))
            self.optics = _optics(image)
        kept = [k for k, letter in enumerate(order) if shape[k] > 1 or letter not in _OPTIONAL]
        self._order = "".join(order[k] for k in kept)
        scale = {k: float(step) for k, step in steps.items() if step and step > 0}
        super().__init__(
            str(path),
            axes or self._order,
            tuple(shape[k] for k in kept),
            dtype,
            block=(chunks.get("Y", 1), chunks.get("X", 1)),
            scale=scale,
            units=dict.fromkeys(scale, MICROMETER),
        )

    def _open(self) -> Any:
        with _reading(self._path):
            image = _bioio(self._path)
            image.set_scene(self._series)
            index = tuple(
                slice(None) if letter in self._order else 0 for letter in str(image.dims.order)
            )
            data = image.dask_data[index]
            # CZI stores blue first, and bioio-czi gives it as stored.
            is_czi = self._path.suffix.lower() == ".czi"
            return data[..., ::-1] if is_czi and self._order.endswith("S") else data

    def _read(self, selection: Selection) -> Array:
        with self._lock:  # handles of the plugins are not made for several threads
            return np.array(self._handle()[selection].compute(scheduler="synchronous"))

    def _identity(self) -> Iterable[str]:
        return [*file_identity(self._path), str(self._series)]


class LifSource(ImageSource):
    """An image of a LIF file, read frame by frame."""

    def __init__(self, path: Path, axes: str | None, series: int | None) -> None:
        self._path = path
        with _reading(path):
            images = list(_lif(path).images)
            shapes = [tuple(image.shape) for image in images]
            self._series = choose_image(str(path), [i.name for i in images], shapes, series)
            image = images[self._series]
            self._codes = tuple(image.dims)
            self.optics = optics_of(image.xml_element)
            scale = {}
            for letter in "XYZ":
                places = image.coords.get(letter, ())
                if len(places) > 1:
                    scale[letter] = abs(float(places[1] - places[0])) * 1e6
        own = "".join(_LIF_LETTERS.get(code, code) for code in self._codes)
        frames = image.shape[-2:] if own.endswith("YX") else (1, 1)
        super().__init__(
            str(path),
            axes or own,
            image.shape,
            image.dtype,
            block=frames,
            scale=scale,
            units=dict.fromkeys(scale, MICROMETER),
        )

    def _open(self) -> Any:
        with _reading(self._path):
            return list(_lif(self._path).images)[self._series]

    def _read(self, selection: Selection) -> Array:
        inside = len("YXS") if self._codes[-1] == "S" else len("YX")
        outer, inner = selection[:-inside], selection[-inside:]
        with self._lock:
            image = self._handle()
            if any(isinstance(part, slice) for part in outer):  # a scan across the frames
                return np.array(image.asarray()[selection])
            codes = dict(zip(self._codes, outer, strict=False))
            return np.array(image.frame(**codes)[inner])

    def _identity(self) -> Iterable[str]:
        return [*file_identity(self._path), str(self._series)]


class SlideSource(ImageSource):
    """The full resolution of a whole slide, by OpenSlide."""

    def __init__(self, path: Path, axes: str | None) -> None:
        self._path = path
        with _reading(path):
            slide = _openslide(path)
            columns, rows = slide.dimensions
            told = dict(slide.properties)
            slide.close()

        def number(name: str) -> float | None:
            with suppress(KeyError, ValueError):
                return float(told[f"openslide.{name}"]) or None
            return None

        self.optics = Optics(magnification=number("objective-power"))
        steps = {"X": number("mpp-x"), "Y": number("mpp-y")}
        scale = {letter: step for letter, step in steps.items() if step}
        super().__init__(
            str(path),
            axes or "YXS",
            (rows, columns, 3),
            np.uint8,
            block=(_SLIDE_BLOCK, _SLIDE_BLOCK),
            scale=scale,
            units=dict.fromkeys(scale, MICROMETER),
        )

    def _open(self) -> Any:
        with _reading(self._path):
            return _openslide(self._path)

    def _read(self, selection: Selection) -> Array:
        parts = dict(zip(self.stored_axes, selection, strict=True))
        rows, columns = parts["Y"], parts["X"]
        assert isinstance(rows, slice)
        assert isinstance(columns, slice)
        width = columns.stop - columns.start
        whole = np.empty((rows.stop - rows.start, width, 3), np.uint8)
        for top in range(rows.start, rows.stop, _SLIDE_BLOCK):
            size = width, min(_SLIDE_BLOCK, rows.stop - top)
            with self._lock:
                rgba = np.asarray(self._handle().read_region((columns.start, top), 0, size))
            part = whole[top - rows.start :][: size[1]]
            part[...] = rgba[..., :3]
            part[rgba[..., 3] == 0] = 255  # what was not scanned; a slide's ground is white
        return whole

    def _identity(self) -> Iterable[str]:
        return file_identity(self._path)


def _bioio(path: Path) -> Any:
    """Open a file with bioio."""
    plugin = BIOIO[path.suffix.lower()]
    try:
        from bioio import BioImage
    except ImportError as error:
        raise _missing(path, f"bioio and {plugin}") from error
    try:
        return _in_time(lambda: BioImage(path))
    except Exception as error:
        if type(error).__name__ == "UnsupportedFileFormatError" and not _has(plugin):
            raise DefocusError(
                f"{path} needs {plugin}, which is not installed; pip install {plugin}, or export "
                "it as OME-TIFF"
            ) from error
        raise


def _has(plugin: str) -> bool:
    from importlib.util import find_spec

    return find_spec(plugin.replace("-", "_")) is not None


def _lif(path: Path) -> Any:
    try:
        from liffile import LifFile
    except ImportError as error:
        raise _missing(path, "liffile") from error
    return _in_time(lambda: LifFile(path))


def _openslide(path: Path) -> Any:
    try:
        from openslide import OpenSlide, OpenSlideCache
    except ImportError as error:
        raise _missing(path, "OpenSlide") from error
    slide = _in_time(lambda: OpenSlide(path))
    slide.set_cache(OpenSlideCache(_SLIDE_CACHE))
    return slide


def _missing(path: Path, what: str) -> DefocusError:
    return DefocusError(f"{path} needs {what}: {EXTRA}, or export it as OME-TIFF")


def _in_time(open_file: Callable[[], Any]) -> Any:
    """Open a file, but not for ever: on foreign bytes a library may hang."""
    done: list[Any] = []
    failed: list[Exception] = []

    def work() -> None:
        try:
            done.append(open_file())
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=work, daemon=True)  # else the program would wait for it
    thread.start()
    thread.join(OPEN_S)
    if failed:
        raise failed[0]
    if not done:
        raise TimeoutError(f"the library has not opened it after {OPEN_S:.0f} seconds")
    return done[0]


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Say what to do where a library cannot read a file: it may raise anything."""
    try:
        with _quiet():
            yield
    except DefocusError:
        raise
    except Exception as error:
        raise DefocusError(
            f"{path} is damaged, encrypted, cut short or not supported ({reason(error)}); "
            "copy it again, or export it as OME-TIFF"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the libraries' doubts about metadata from the terminal; one thread at a time."""
    with _LOCK, warnings.catch_warnings():
        before = logging.root.manager.disable
        logging.disable(logging.ERROR)
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(before)


def _optics(image: Any) -> Optics:
    """Read the optics: of the file's own XML, else of what the plugin makes OME of."""
    channels: tuple[str, ...] = ()
    with suppress(Exception):  # metadata of any form; the pixels are good without it
        channels = tuple(map(str, image.channel_names or ()))
    found = Optics(channels)
    with suppress(Exception):
        if isinstance(image.metadata, ElementTree.Element):
            found = optics_of(image.metadata, channels)
    if found.na is None:
        with suppress(Exception):
            found = optics_of(ElementTree.fromstring(image.ome_metadata.to_xml()), channels)
    return found
