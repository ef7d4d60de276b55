"""Files as microscopes write them, read by kept libraries, which belong to the extra ``formats``.

CZI comes by pylibCZIrw (bioio-czi wraps it, and fails on some real files), ND2 and more by bioio
and its plugins, LIF by liffile (bioio-lif loses wavelengths), whole slides that are no TIFF by
OpenSlide. Slides that are TIFF (SVS, NDPI, SCN, BIF, QPTIFF) need none of them.
"""

import re
from contextlib import suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from napari_defocus.core.errors import DefocusError
from napari_defocus.io.base import ImageSource, Plane
from napari_defocus.io.czi import CziSource, count_scenes
from napari_defocus.io.foreign import ForeignSource, ask, missing, reading
from napari_defocus.io.optics import Optics, optics_of
from napari_defocus.io.series import choose_image

Array = npt.NDArray[Any]

# By the plugin that reads them.
BIOIO = {
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
CZI, LIF = ".czi", ".lif"
SUFFIXES = (*BIOIO, CZI, LIF, *OPENSLIDE)
# Begin as a TIFF, which holds a preview: the image lies in other files, beside it.
NOT_TIFF = (".vsi",)
# The element (0020,000E) of DICOM, with its length.
_SERIES_UID = re.compile(rb"\x20\x00\x0e\x00UI..([0-9.]+)", re.DOTALL)
# Axes of LIF files that are no letters: emission and excitation wavelength, and parts of a mosaic.
_LIF_LETTERS = {"\u03bb": "L", "\u039b": "E"}
# Axes of one pixel are left out, as of TIFF.
_OPTIONAL = "TCZ"
# A slide is read in squares of so many pixels, and as much as a row of them is kept of its tiles:
# few are decoded twice, and all takes less memory than what is read.
_SQUARE = 256


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
    suffix = path.suffix.lower()
    if suffix in OPENSLIDE:
        return SlideSource(path, axes, series)
    kind = {CZI: CziSource, LIF: LifSource}.get(suffix, BioioSource)
    return kind(path, axes, series)


def count_images(path: Path) -> int:
    """Return how many images a file holds."""
    suffix = path.suffix.lower()
    if suffix in OPENSLIDE:
        return 1
    if suffix == CZI:
        return count_scenes(path)
    return len(ask(path, lambda: _lif(path).images if suffix == LIF else _bioio(path).scenes))


def dicom_series(path: Path) -> bytes | None:
    """Return what the files of one DICOM slide, its levels and label, have in common."""
    if path.suffix.lower() != ".dcm":
        return None
    with suppress(OSError), path.open("rb") as file:
        found = _SERIES_UID.search(file.read(2**16))
        return found and found[1]
    return None


class BioioSource(ForeignSource):
    """An image that a plugin of bioio reads, piece by piece as far as the plugin can."""

    def __init__(self, path: Path, axes: str | None, series: int | None) -> None:
        image = ask(path, lambda: _bioio(path))

        def scenes() -> tuple[list[str], list[tuple[int, ...]]]:
            shapes = []
            for number in range(len(image.scenes)):
                image.set_scene(number)
                shapes.append(tuple(image.shape))
            return list(map(str, image.scenes)), shapes

        titles, shapes = ask(path, scenes)
        chosen = choose_image(str(path), titles, shapes, series)

        def look() -> tuple[Any, ...]:
            image.set_scene(chosen)
            chunks = dict(zip(image.dims.order, image.dask_data.chunksize, strict=True))
            return str(image.dims.order), image.dtype, chunks, _steps(image), _optics(image, chosen)

        order, dtype, chunks, steps, self.optics = ask(path, look)
        shape = shapes[chosen]
        kept = [k for k, letter in enumerate(order) if shape[k] > 1 or letter not in _OPTIONAL]
        self._order = "".join(order[k] for k in kept)
        super().__init__(
            path,
            chosen,
            axes,
            self._order,
            tuple(shape[k] for k in kept),
            dtype,
            block=(chunks.get("Y", 1), chunks.get("X", 1)),
            scale=steps,
        )

    def _open(self) -> Any:
        with reading(self._path):
            image = _bioio(self._path)
            image.set_scene(self._series)
            index = (
                slice(None) if letter in self._order else 0 for letter in str(image.dims.order)
            )
            return image.dask_data[tuple(index)]

    def _piece(self, handle: Any, place: Plane, rows: slice, columns: slice) -> Array:
        return np.array(handle[(*place, rows, columns)].compute(scheduler="synchronous"))


class LifSource(ForeignSource):
    """An image of a LIF file, read frame by frame; of a scan along XZ these are no planes."""

    def __init__(self, path: Path, axes: str | None, series: int | None) -> None:
        images = ask(path, lambda: list(_lif(path).images))
        shapes = ask(path, lambda: [tuple(image.shape) for image in images])
        chosen = choose_image(str(path), [image.name for image in images], shapes, series)
        image = images[chosen]
        self._codes = tuple(image.dims)
        self.optics = optics_of(image.xml_element)
        scale = {}
        for letter in "XYZ":
            places = image.coords.get(letter, ())
            if len(places) > 1:
                scale[letter] = abs(float(places[1] - places[0])) * 1e6
        own = "".join(_LIF_LETTERS.get(code, code) for code in self._codes)
        sizes = dict(zip(own, image.shape, strict=True))
        at_once = own.removesuffix("S")[-2:]
        rows, columns = (sizes[letter] if letter in at_once else 1 for letter in "YX")
        super().__init__(
            path, chosen, axes, own, image.shape, image.dtype, block=(rows, columns), scale=scale
        )

    def _open(self) -> Any:
        with reading(self._path):
            return list(_lif(self._path).images)[self._series]

    def _piece(self, handle: Any, place: Plane, rows: slice, columns: slice) -> Array:
        return np.array(handle.frame(**dict(zip(self._codes, place, strict=False)))[rows, columns])


class SlideSource(ForeignSource):
    """The full resolution of a whole slide, by OpenSlide."""

    def __init__(self, path: Path, axes: str | None = None, series: int | None = None) -> None:
        def look() -> tuple[int, int, dict[str, str]]:
            with _openslide(path) as slide:
                return *slide.dimensions, dict(slide.properties)

        columns, rows, told = ask(path, look)

        def number(*names: str) -> float | None:
            found = (value for name, value in told.items() if name.endswith(names))
            with suppress(ValueError):
                return float(next(found, "")) or None
            return None

        self.optics = Optics(
            na=number("ObjectiveLensNumericalAperture"),
            magnification=number("openslide.objective-power"),
        )
        steps = {letter: number(f"openslide.mpp-{letter.lower()}") for letter in "XY"}
        shape = rows, columns, 3
        super().__init__(
            path,
            choose_image(str(path), [""], [shape], series),
            axes,
            "YXS",
            shape,
            np.uint8,
            block=(_SQUARE, _SQUARE),
            scale={letter: step for letter, step in steps.items() if step},
        )

    def _open(self) -> Any:
        with reading(self._path):
            return _openslide(self._path)

    def _piece(self, handle: Any, place: Plane, rows: slice, columns: slice) -> Array:
        from openslide import OpenSlideCache

        height, width = rows.stop - rows.start, columns.stop - columns.start
        handle.set_cache(OpenSlideCache(4 * _SQUARE * width))
        whole = np.empty((height, width, 3), np.uint8)
        for top, left in np.ndindex(-(-height // _SQUARE), -(-width // _SQUARE)):
            part = whole[top * _SQUARE :][:_SQUARE, left * _SQUARE :][:, :_SQUARE]
            place = columns.start + left * _SQUARE, rows.start + top * _SQUARE
            rgba = np.asarray(handle.read_region(place, 0, part.shape[1::-1]))
            part[...] = rgba[..., :3]
            part[rgba[..., 3] == 0] = 255  # what was not scanned; a slide's ground is white
        return whole


def _bioio(path: Path) -> Any:
    """Open a file with bioio."""
    plugin = BIOIO[path.suffix.lower()]
    try:
        from bioio import BioImage
    except ImportError as error:
        raise missing(path, f"bioio and {plugin}") from error
    try:
        return BioImage(path)
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
        raise missing(path, "liffile") from error
    return LifFile(path)


def _openslide(path: Path) -> Any:
    try:
        from openslide import OpenSlide
    except ImportError as error:
        raise missing(path, "OpenSlide") from error
    return OpenSlide(path)


def _steps(image: Any) -> dict[str, float]:
    """Return the steps along the axes, in micrometres."""
    pixels = image.physical_pixel_sizes
    steps = {"X": pixels.X, "Y": pixels.Y, "Z": pixels.Z}
    return {letter: float(step) for letter, step in steps.items() if step and step > 0}


def _optics(image: Any, number: int) -> Optics:
    """Read the optics: of the file's own XML, else of what the plugin makes OME of."""
    channels: tuple[str, ...] = ()
    with suppress(Exception):  # metadata of any form; the pixels are good without it
        channels = tuple(map(str, image.channel_names or ()))
    found = Optics(channels)
    with suppress(Exception):
        if isinstance(image.metadata, ElementTree.Element):
            found = optics_of(image.metadata, channels, number)
    if found.na is None:
        with suppress(Exception):
            ome = ElementTree.fromstring(image.ome_metadata.to_xml())
            found = optics_of(ome, channels, number)
    return found
