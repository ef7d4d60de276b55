"""TIFF read piece by piece: pixels in one piece are mapped, strips and tiles decoded as needed.

tifffile's own store for zarr does the same, but decodes tiles one after another (a tile of a tiled
file took 2 to 3 times as long with two threads), copies a whole plane to read a tile of pixels in
one piece (50 ms for 0.5), reads lost strips as zeros, and needs zarr, which takes a second to
import. A compressed file of one strip is decoded whole for each tile, there as here.
"""

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_defocus.core.errors import DefocusError, notice
from napari_defocus.io.axes import planes_last
from napari_defocus.io.base import (
    ALL,
    ImageSource,
    Plane,
    Selection,
    decoding,
    file_identity,
    reason,
)
from napari_defocus.io.grid import UNITS
from napari_defocus.io.series import choose_image
from napari_defocus.io.tiff_metadata import (
    absent_files,
    calibration,
    channels_named,
    check_chain,
    check_pages,
    check_series,
    has_alpha,
    lies_elsewhere,
    optics,
    quiet_tifffile,
    true_colours,
)

Array = NDArray[Any]
Page = tifffile.TiffPage | tifffile.TiffFrame


def open_tiff(
    path: Path, axes: str | None = None, as_stored: bool = False, series: int | None = None
) -> "TiffSource":
    """Open a TIFF; see `napari_defocus.io.open.open_source`."""
    with decoding(path), quiet_tifffile(), tifffile.TiffFile(path) as tif:
        check_chain(tif)
        # The first level of a series, the full resolution, is the series itself.
        shapes = [_without_samples(each) for each in tif.series]
        titles = [each.name for each in tif.series]
        number = choose_image(str(path), titles, shapes, series)
        chosen = tif.series[number]
        if not chosen.size:
            raise DefocusError(f"{path} has no pixels (size {chosen.shape}); export it again")
        check_series(tif, chosen)
        if lies_elsewhere(tif):
            notice(f"{path} is a part of an image in several files; only its own planes are read")
        return TiffSource(path, axes, tif, number, as_stored)


def count_images(path: Path) -> int:
    """Return how many images a TIFF holds."""
    with decoding(path), quiet_tifffile(), tifffile.TiffFile(path) as tif:
        return len(tif.series)


def _is_regular(series: tifffile.TiffPageSeries) -> bool:
    """Check whether the last dimensions of a series are those of each page."""
    page = series.keyframe.shape
    shape = series.get_shape(squeeze=True)
    pages = math.prod(shape[: len(shape) - len(page)])
    in_pages = shape[-len(page) :] == page and len(series) == pages
    return getattr(series, "transform", None) is None and (
        in_pages or series.dataoffset is not None
    )


class TiffSource(ImageSource):
    """A series of a TIFF at full resolution.

    Axes of size 1 may be left out. With `as_stored`, for labels, palettes and MinIsWhite stay.
    """

    def __init__(
        self,
        path: Path,
        axes: str | None,
        tif: tifffile.TiffFile,
        number: int = 0,
        as_stored: bool = False,
    ) -> None:
        series = tif.series[number]
        page = series.keyframe
        shape = tuple(series.get_shape(squeeze=True))
        own = channels_named(series.get_axes(squeeze=True), shape, page)
        stored = _without_ones(axes, series) if axes else own
        _tell_samples(path, page, stored)
        scale = calibration(tif, number)
        if len(stored) == len(own):  # else the axes are refused below
            scale = {
                new.upper(): scale[o] for new, o in zip(stored, own, strict=True) if o in scale
            }
        super().__init__(
            str(path),
            stored,
            shape,
            series.dtype,
            scale=scale,
            units={letter: UNITS[letter] for letter in scale if letter in UNITS},
        )
        self.optics = optics(tif, number)
        self._path, self._number = path, number
        self._whole: Array | None = None
        self._keeps_table = as_stored or bool(tif.is_imagej)
        self._is_regular = _is_regular(series)
        if self._is_regular:
            steps = _steps(series)
            y, x = (self.stored_axes.index(letter) for letter in "YX")
            self.block = (steps[y], steps[x])
        self._find_colours(page)
        self._files = sorted(
            {Path(part.parent.filehandle.path) for part in series if part is not None}
            if series.is_multifile
            else {path}
        )

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_whole": None}

    def _find_colours(self, page: tifffile.TiffPage) -> None:
        """Learn from one pixel what a palette makes of it, and what is no colour of it."""
        plane_axes = self.axes[len(self.leading) :]
        pixel = np.zeros((1, 1, *self.shape[len(self.leading) + 2 :]), self.dtype)
        pixel, axes = true_colours(pixel, plane_axes, page, self._keeps_table)
        shape = self.shape[: len(self.leading) + 2] + pixel.shape[2:]
        self.grid = replace(self.grid, axes=self.axes.removesuffix("S") + axes[2:], shape=shape)
        self.dtype = pixel.dtype

    def read(self, plane: Plane = (), rows: slice = ALL, columns: slice = ALL) -> Array:
        """Read a piece of a plane; see `ImageSource.read`."""
        return self._coloured(super().read(plane, rows, columns), "YXS")

    def read_whole(self) -> Array:
        """Read all planes; see `ImageSource.read_whole`."""
        with decoding(self._path), quiet_tifffile():
            series = self._handle().series[self._number]
            self._check_pages(series)
            standard, order = planes_last(self.stored_axes)
            data = series.asarray(squeeze=True).transpose(order)
            return np.ascontiguousarray(
                self._coloured(data, standard), self.dtype.newbyteorder("=")
            )

    def _coloured(self, data: Array, axes: str) -> Array:
        page = self._handle().series[self._number].keyframe
        return true_colours(data, axes[: data.ndim], page, self._keeps_table)[0]

    def _open(self) -> tifffile.TiffFile:
        with quiet_tifffile():
            tif = tifffile.TiffFile(self._path)
            assert tif.series[self._number].keyframe is not None
        return tif

    def _identity(self) -> Iterable[str | bytes]:
        yield from (part for path in self._files for part in file_identity(path))
        if self._number:
            yield f"series {self._number}"

    def _check_pages(self, series: tifffile.TiffPageSeries, plane: Plane | None = None) -> None:
        """Raise where pages are missing; DefocusError where the file that holds them is."""
        try:
            check_pages(series)
        except ValueError as error:
            absent = absent_files(series)
            if not absent:
                raise
            what = self.name if plane is None else self.where(plane)
            raise DefocusError(
                f"planes of {what} lie in {', '.join(absent)}, which is not beside it; "
                "copy all files of the image into one folder, under their own names"
            ) from error

    def _read(self, selection: Selection) -> Array:
        with quiet_tifffile():
            tif = self._handle()
            series = tif.series[self._number]
            shape = tuple(series.get_shape(squeeze=True))
            if not self._is_regular:  # such as mosaics, which tifffile puts together
                with self._lock:
                    if self._whole is None:
                        self._whole = series.asarray(squeeze=True)
                return np.asarray(self._whole[selection])
            if series.dataoffset is not None:
                dtype = np.dtype(tif.byteorder + series.dtype.char)
                return mapped(self._path, dtype, series.dataoffset, shape, selection)
            return self._read_pages(series, shape, selection)

    def _read_pages(
        self, series: tifffile.TiffPageSeries, shape: tuple[int, ...], selection: Selection
    ) -> Array:
        """Read from each page that the selection touches; mostly it is one."""
        first = len(shape) - len(series.keyframe.shape)
        places = [
            range(part.start, part.stop) if isinstance(part, slice) else (part,)
            for part in selection[:first]
        ]
        pieces = []
        for place in product(*places):
            index = int(np.ravel_multi_index(place, shape[:first])) if place else 0
            with self._lock:  # pages are loaded from the file as they are first asked for
                page = series[index]
            if page is None:
                self._check_pages(series, tuple(p for p in selection if isinstance(p, int)))
                raise ValueError("its page is missing")
            pieces.append(_read_page(page, selection[first:]))
        lengths = [len(part) for part in places if isinstance(part, range)]
        whole = np.stack(pieces) if len(pieces) > 1 else pieces[0]  # one is not copied
        return whole.reshape(*lengths, *pieces[0].shape)


def _without_samples(series: tifffile.TiffPageSeries) -> tuple[int, ...]:
    """Return the shape of a series, less its colours."""
    named = zip(series.get_axes(squeeze=True), series.get_shape(squeeze=True), strict=True)
    return tuple(size for letter, size in named if letter != "S")


def _tell_samples(path: Path, page: tifffile.TiffPage, axes: str) -> None:
    """Tell what becomes of samples beside the colours that are not said to be alpha."""
    count, is_colour = page.samplesperpixel, page.photometric == tifffile.PHOTOMETRIC.RGB
    colours = 3 if is_colour else 1
    if count <= colours or (count == colours + 1 and has_alpha(page)):
        return
    if "S" in axes.upper() and count == colours + 1:
        told = "it is left out"
    elif is_colour:
        told = f"all {count} are taken as channels"
    else:
        return
    notice(f"{path} does not say that sample {count} of {count} alone is alpha: {told}")


def _without_ones(axes: str, series: tifffile.TiffPageSeries) -> str:
    """Drop the letters of sizes that tifffile drops, where axes are given for more dimensions."""
    letters, sizes = series.get_axes(squeeze=False), series.get_shape(squeeze=False)
    kept = series.get_axes(squeeze=True)
    if len(axes) == len(kept):
        return axes
    if len(axes) == len(letters):
        # By letter and size: several axes may be called Q.
        left = iter(zip(kept, series.get_shape(squeeze=True), strict=True))
        wanted = next(left, None)
        result = ""
        for new, stored in zip(axes, zip(letters, sizes, strict=True), strict=True):
            if stored == wanted:
                result += new
                wanted = next(left, None)
        return result
    # OME-TIFF has dimensions of size 1 that nobody wrote: leading ones go by letter.
    ones = {letter for letter, size in zip(letters, sizes, strict=True) if size == 1} - set(kept)
    plane = re.search("[YX].*", axes.upper())
    leading = axes[: plane.start()] if plane else axes
    result = "".join(a for a in leading if a.upper() not in ones) + axes[len(leading) :]
    return result if len(result) == len(kept) else axes


def _steps(series: tifffile.TiffPageSeries) -> list[int]:
    """Return what is read at once at least, for each dimension of the series."""
    page = series.keyframe
    first = len(series.get_shape(squeeze=True)) - len(page.shape)
    if series.dataoffset is not None or page.is_memmappable:
        return [1] * (first + len(page.shape))
    return [1] * first + [_segment(page)[place] for place in _places(page)]


def _key(page: Page) -> tifffile.TiffPage:
    """Return the page that describes others of its form."""
    assert page.keyframe is not None
    return page.keyframe


def _dtype_in_file(page: Page) -> np.dtype[Any]:
    return np.dtype(page.parent.byteorder + np.dtype(_key(page).dtype).char)


def _places(page: Page) -> list[int]:
    """Return where a page's dimensions are in its segments: planar samples, Z, Y, X, samples."""
    known = {"Z": 1, "Y": 2, "X": 3}
    axes = _key(page).axes
    return [known.get(letter, 0 if i == 0 else 4) for i, letter in enumerate(axes)]


def _segment(page: Page) -> tuple[int, int, int, int, int]:
    """Return the size of a strip or tile, in the order of `_places`."""
    key = _key(page)
    samples = key.shaped[4]
    if key.is_tiled:
        return 1, key.tiledepth, key.tilelength, key.tilewidth, samples
    return 1, 1, min(key.rowsperstrip, key.imagelength), key.imagewidth, samples


def mapped(
    path: Path, dtype: np.dtype[Any], start: int, shape: tuple[int, ...], selection: Selection
) -> Array:
    """Copy out of pixels in one piece; what stayed mapped would count as memory in use."""
    if start + math.prod(shape) * dtype.itemsize > path.stat().st_size:
        raise ValueError("pixels are missing, the file is cut short")
    return np.array(np.memmap(path, dtype, "r", start, shape)[selection])


def _read_page(page: Page, selection: Selection) -> Array:
    """Read a part of a page: mapped, or made of the strips or tiles it touches."""
    path = Path(page.parent.filehandle.path)
    if page.is_memmappable:
        dtype = _dtype_in_file(page)
        return mapped(path, dtype, page.dataoffsets[0], page.shape, selection)
    window = [slice(0, size) for size in page.shaped]
    for place, part in zip(_places(page), selection, strict=True):
        window[place] = part if isinstance(part, slice) else slice(part, part + 1)
    piece = np.zeros(
        [part.stop - part.start for part in window], _dtype_in_file(page).newbyteorder("=")
    )
    for start, segment in _segments(path, page, window):
        inside, outside = [], []
        for low, size, part in zip(start, (1, *segment.shape), window, strict=True):
            begin, end = max(low, part.start), min(low + size, part.stop)
            inside.append(slice(begin - low, end - low))
            outside.append(slice(begin - part.start, end - part.start))
        piece[tuple(outside)] = segment[None][tuple(inside)]
    piece = piece.reshape([piece.shape[place] for place in _places(page)])
    return piece[tuple(ALL if isinstance(part, slice) else 0 for part in selection)]


def _segments(
    path: Path, page: Page, window: list[slice]
) -> Iterator[tuple[tuple[int, ...], Array]]:
    """Decode the strips or tiles in a window: where each begins, and its pixels."""
    key = _key(page)
    steps = _segment(page)
    grid = [-(-size // step) for size, step in zip(key.shaped, steps, strict=True)]
    touched = [
        range(part.start // step, -(-part.stop // step))
        for part, step in zip(window, steps, strict=True)
    ]
    options = {}
    if key.compression in (6, 7, 34892, 33007):  # JPEG in its forms
        options = {"jpegtables": page.jpegtables, "jpegheader": key.jpegheader}
    with path.open("rb") as file:  # a handle of its own for each thread
        for place in product(*touched):
            index = int(np.ravel_multi_index(place, grid))
            name = f"{'tile' if key.is_tiled else 'strip'} {index}"
            start, size = page.dataoffsets[index], page.databytecounts[index]
            file.seek(start)
            content = file.read(size)
            if start <= 0 or not 0 < len(content) == size:
                raise ValueError(f"the pixels of {name} are missing")
            try:
                segment, corner, _ = key.decode(content, index, **options)
                assert segment is not None
            except Exception as error:
                raise ValueError(f"{name} is damaged: {reason(error)}") from error
            yield corner, segment
