"""Reading TIFF as microscopes and cameras write it, and telling when pixels are missing."""

import logging
import math
import re
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_defocus.core.errors import DefocusError
from napari_defocus.io.optics import Optics, optics_of

_PRINT_UM = 20.0  # pixels per centimetre are a microscope's only where finer than a printer's
_FOREIGN_COLOURS = {
    tifffile.PHOTOMETRIC[name]
    for name in ("SEPARATED", "CIELAB", "ICCLAB", "ITULAB", "CFA", "LOGL", "LOGLUV")
}
_UM = {"nm": 1e-3, "um": 1.0, "micron": 1.0, "microns": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6}
_NDPI_LENS = 65421
_SECONDS = {"ns": 1e-9, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}


@contextmanager
def quiet_tifffile() -> Iterator[None]:
    """Keep tifffile's warnings about broken files from the terminal, for this thread."""
    thread = threading.get_ident()

    def from_elsewhere(record: logging.LogRecord) -> bool:
        return record.thread != thread

    logger = logging.getLogger("tifffile")
    logger.addFilter(from_elsewhere)
    try:
        yield
    finally:
        logger.removeFilter(from_elsewhere)


def check_chain(tif: tifffile.TiffFile) -> None:
    """Raise ValueError where the chain of pages is cut, or closes to a circle without end."""
    file, form = tif.filehandle, tif.tiff
    if form.version == 42 and file.size >= 2**31:
        return  # vendors' stacks of many gigabytes may do without a chain
    offset, seen = tif.pages.first.offset, set[int]()
    while offset:
        if offset in seen:
            raise ValueError("its pages form a circle")
        seen.add(offset)
        try:
            file.seek(offset)
            (tags,) = struct.unpack(form.tagnoformat, file.read(form.tagnosize))
            file.seek(offset + form.tagnosize + tags * form.tagsize)
            (offset,) = struct.unpack(form.offsetformat, file.read(form.offsetsize))
        except (OSError, OverflowError, struct.error) as error:
            raise ValueError("pages are missing") from error


def check_series(tif: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> None:
    """Raise ValueError where an ImageJ stack, which has one page only, lacks planes or pixels."""
    planes = (tif.imagej_metadata or {}).get("images", 1)
    if series.size < planes * series.keyframe.imagelength * series.keyframe.imagewidth:
        raise ValueError(f"some of its {planes} planes are missing")
    start = series.dataoffset  # of pixels in one piece
    if start is not None and start + series.nbytes > tif.filehandle.size:
        raise ValueError("pixels are missing")


def check_pages(series: tifffile.TiffPageSeries) -> None:
    """Raise ValueError where pages or pixels are missing, which tifffile drops or reads as 0."""
    if series.dataoffset is None and not all(page and is_complete(page) for page in series):
        raise ValueError("pixels are missing")


def is_complete(page: tifffile.TiffPage | tifffile.TiffFrame) -> bool:
    """Check whether all strips or tiles of a page lie within the file."""
    size = page.parent.filehandle.size
    if page.is_contiguous:
        return bool(page.dataoffsets[0] + page.nbytes <= size)
    count = math.prod(page.chunked)
    if min(len(page.dataoffsets), len(page.databytecounts)) < count:
        return False
    segments = zip(page.dataoffsets, page.databytecounts, strict=False)
    return all(start > 0 and length > 0 and start + length <= size for start, length in segments)


def absent_files(series: tifffile.TiffPageSeries) -> list[str]:
    """List the files of a multi-file OME-TIFF that are not beside it."""
    tif = series.keyframe.parent
    with suppress(Exception):  # foreign metadata of any form
        described = ElementTree.fromstring(tif.ome_metadata or "")
        names = {part.attrib["FileName"] for part in described.findall(".//{*}UUID[@FileName]")}
        folder = Path(tif.filehandle.dirname)
        return sorted(name for name in names if not (folder / name).exists())
    return []


def lies_elsewhere(tif: tifffile.TiffFile) -> bool:
    """Check whether a file is one of several of an image, and another describes it."""
    return bool(tif.is_ome) and "<BinaryOnly" in (tif.ome_metadata or "")


def has_alpha(page: tifffile.TiffPage) -> bool:
    """Check whether the last sample of a page is said to be alpha."""
    return bool(page.extrasamples) and int(page.extrasamples[-1]) in (1, 2)


def channels_named(axes: str, shape: tuple[int, ...], page: tifffile.TiffPage) -> str:
    """Call samples S only where they are a colour, C where they are channels of a measurement."""
    s = axes.rfind("S")
    is_grey = page.photometric in (
        tifffile.PHOTOMETRIC.MINISWHITE,
        tifffile.PHOTOMETRIC.MINISBLACK,
    )
    if s < 0 or shape[s] - has_alpha(page) == (1 if is_grey else 3):
        return axes
    return axes[:s] + ("Q" if "C" in axes else "C") + axes[s + 1 :]


def true_colours(
    data: NDArray[Any], axes: str, page: tifffile.TiffPage, keeps_table: bool
) -> tuple[NDArray[Any], str]:
    """Turn MinIsWhite and palettes into grey or RGB, unless the numbers count as they are.

    A sample beside the colours that is no alpha goes.
    """
    kinds, kind = tifffile.PHOTOMETRIC, page.photometric
    is_table = not axes.endswith("S") and not keeps_table
    if is_table and kind == kinds.MINISWHITE and data.dtype.kind in "bu":
        return data ^ data.dtype.type(2**page.bitspersample - 1), axes
    if is_table and kind == kinds.PALETTE and page.colormap is not None:
        table = page.colormap
        levels = table // 256 if table.max() > 255 else table  # some writers use 8 bit levels
        return levels.astype(np.uint8).T[data.astype(np.intp)], axes + "S"
    is_jpeg = page.compression in tifffile.TIFF.IMAGE_COMPRESSIONS  # these decode to RGB
    if kind in _FOREIGN_COLOURS or (kind == kinds.YCBCR and not is_jpeg):
        name = "CMYK (SEPARATED)" if kind == kinds.SEPARATED else kinds(kind).name
        raise DefocusError(
            f"{page.parent.filehandle.path} holds {name} pixels, which are neither grey nor RGB; "
            "convert it to RGB"
        )
    if axes.endswith("S") and data.shape[-1] in (2, 4) and not has_alpha(page):
        return data[..., :-1], axes
    return data, axes


def optics(tif: tifffile.TiffFile, number: int = 0) -> Optics:
    """Read objective and channels: of OME, of a slide scanner's text or XML, of Hamamatsu's tag."""
    page = tif.pages.first
    # Foreign metadata of any form; the pixels are good without it.
    with suppress(Exception):
        if tif.is_svs:
            (power,) = re.findall(r"\bAppMag\s*=\s*([\d.]+)", page.description)[:1]
            return Optics(magnification=float(power))
        if tif.is_ndpi:
            return Optics(magnification=float(page.tags[_NDPI_LENS].value))
        return optics_of(ElementTree.fromstring(tif.ome_metadata or page.description), image=number)
    return Optics()


def calibration(tif: tifffile.TiffFile, number: int = 0) -> dict[str, float]:
    """Read the scales that OME, ImageJ, Aperio or tags give for certain, in um and seconds."""
    scale = {}
    for letter in "XYZT":
        # Foreign metadata of any form; the pixels are good without it.
        with suppress(Exception):
            step = (_ome_step if tif.is_ome else _tag_step)(tif, number, letter)
            if 0 < step < math.inf:
                scale[letter] = step
    return scale


def _ome_step(tif: tifffile.TiffFile, number: int, letter: str) -> float:
    pixels = ElementTree.fromstring(tif.ome_metadata or "").findall(".//{*}Pixels")[number]
    page = tif.series[number].keyframe
    sizes = int(pixels.attrib["SizeX"]), int(pixels.attrib["SizeY"])
    assert sizes == (page.imagewidth, page.imagelength)  # else of another image
    if letter == "T":
        unit = _SECONDS[pixels.attrib.get("TimeIncrementUnit", "s")]
        return float(pixels.attrib["TimeIncrement"]) * unit
    name = f"PhysicalSize{letter}"
    return float(pixels.attrib[name]) * _unit_um(pixels.attrib.get(f"{name}Unit", "um"))


def _tag_step(tif: tifffile.TiffFile, number: int, letter: str) -> float:
    page = tif.series[number].keyframe
    if tif.is_svs:  # of the slide itself, not of its label, nor of reduced images
        assert number == 0
        found = re.search(r"\bMPP\s*=\s*([\d.]+)", page.description) if letter in "XY" else None
        assert found
        return float(found[1])
    of_imagej = tif.imagej_metadata or {}
    if letter == "T":
        return float(of_imagej["finterval"])
    if letter == "Z":
        return float(of_imagej["spacing"]) * _unit_um(str(of_imagej["unit"]))
    tags = page.tags
    pixels, units = tags[f"{letter}Resolution"].value
    if tif.is_imagej:
        return float(units / pixels) * _unit_um(str(of_imagej["unit"]))
    step = float(units / pixels) * 1e4
    if tags["ResolutionUnit"].value != tifffile.RESUNIT.CENTIMETER or step > _PRINT_UM:
        raise ValueError("a print density")
    return step


def _unit_um(name: str) -> float:
    # Micro sign, Greek mu, and the micro sign as ImageJ escapes it.
    for micro in ("\u00b5", "\u03bc", "\\u00B5"):
        name = name.replace(micro, "u")
    return _UM[name]
