"""One way in: from a file, folder, URL or array to an image."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_defocus.core.errors import DefocusError
from napari_defocus.io import tiff, vendor
from napari_defocus.io.base import ImageSource, location
from napari_defocus.io.grid import Grid
from napari_defocus.io.raster import RasterSource
from napari_defocus.io.series import choose_image
from napari_defocus.io.tiff import open_tiff
from napari_defocus.io.vendor import NOT_TIFF, is_vendor, open_vendor

MISSING = ("error", "fill")
TIFF_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
ZARR_FILES = ("zarr.json", ".zgroup", ".zarray")


@dataclass(frozen=True, eq=False)
class ImageFile:
    """An image and what its file tells about it.

    Parameters
    ----------
    data : array
        The pixels, in the number type of the file.
    grid : Grid
        Their axes and calibration.
    path : Path
        Where it was read.
    """

    data: NDArray[Any]
    grid: Grid
    path: Path

    @property
    def axes(self) -> str:
        """A letter for each axis of `data`: leading axes, "YX", and "S" for colours.

        Two samples are grey and alpha, three RGB, four RGBA. T is time, Z depth, C channel; I, Q
        and others are pages of unknown meaning.
        """
        return self.grid.axes

    @property
    def pixel_size_um(self) -> float | None:
        """Edge of a square pixel in micrometres; None where the file does not tell it."""
        return self.grid.pixel_size_um


def open_source(
    path: str | Path,
    axes: str | None = None,
    *,
    missing: str = "fill",
    series: int | None = None,
) -> ImageSource:
    """Open an image to be read piece by piece.

    Parameters
    ----------
    path : str or Path
        TIFF (BigTIFF, OME-TIFF, ImageJ, pyramids: the full resolution), OME-Zarr 0.1 to 0.5 (full
        resolution), a Zarr array, or PNG, JPEG, BMP and WebP, which are read whole;
        with the extra ``formats`` CZI, ND2, LIF and other formats of microscopes and slides.
        Zarr may lie in a folder, in a .zip file, or behind any URL that fsspec knows.
    axes : str, optional
        A letter for each dimension as stored, where the file does not say or is wrong. Without,
        a dimension of size 1 of a TIFF does not count.
    missing : str
        What a chunk is that a Zarr does not hold. ``fill``: one that its writer left out as it
        holds nothing but the fill value, as most do; a `Notice` tells of them. ``error``: a lost
        one; reading it raises. No file tells the two apart.
    series : int, optional
        Which image, from 0, of a file that holds several; without, the first of the largest, which
        a `Notice` tells.

    Returns
    -------
    ImageSource

    Raises
    ------
    DefocusError
        Where it is missing, cannot be reached, is damaged, is no image, or has unknown axes.
    """
    if missing not in MISSING:
        raise DefocusError(f"missing is {missing!r}; choose one of {', '.join(MISSING)}")
    return _open(path, axes, missing, series=series)


def _open(
    path: str | Path,
    axes: str | None,
    missing: str = "fill",
    as_stored: bool = False,
    series: int | None = None,
) -> ImageSource:
    """Open an image; with `as_stored` its numbers count, not the colours they stand for."""
    place = location(path)
    head = b"" if isinstance(place, str) or place.is_dir() else _first_bytes(place)
    if not head or head.startswith(b"PK\x03\x04"):
        from napari_defocus.io.zarr import open_zarr  # which takes a while to import

        return open_zarr(place, axes, missing, series)
    assert isinstance(place, Path)
    if _is_tiff(place, head):
        return open_tiff(place, axes, as_stored, series)
    if is_vendor(place):
        return open_vendor(place, axes, series)
    source = RasterSource(place, axes, as_stored)
    choose_image(str(place), [""], [source.shape], series)
    return source


def count_images(path: str | Path) -> int:
    """Return how many images a file or Zarr holds, for the `series` of `open_source`."""
    place = location(path)
    head = b"" if isinstance(place, str) or place.is_dir() else _first_bytes(place)
    if not head or head.startswith(b"PK\x03\x04"):
        from napari_defocus.io import zarr

        return zarr.count_images(place)
    if _is_tiff(Path(place), head):
        return tiff.count_images(Path(place))
    return vendor.count_images(Path(place)) if is_vendor(Path(place)) else 1


def _is_tiff(path: Path, head: bytes) -> bool:
    return head in TIFF_HEADS and path.suffix.lower() not in NOT_TIFF


def series_of(path: str | Path, series: int | None) -> int | None:
    """Return the `series` for a file beside an image: it counts where that holds several, too."""
    return series if series is not None and count_images(path) > 1 else None


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            head = file.read(4)
    except FileNotFoundError as error:
        raise DefocusError(f"{path} does not exist; check its name") from error
    except OSError as error:
        raise DefocusError(f"cannot read {path}: {error.strerror or error}") from error
    if not head:
        raise DefocusError(f"{path} is empty; copy or export it again")
    return head


def is_zarr(place: str | Path) -> bool:
    """Check whether a place is a Zarr: a URL, or a folder with an array or a group."""
    if isinstance(place, str):
        return True
    return place.is_dir() and any((place / name).exists() for name in ZARR_FILES)


def read_image(
    path: str | Path, axes: str | None = None, *, series: int | None = None
) -> ImageFile:
    """Read an image or stack whole: `open_source`, and all of its planes.

    Palettes are applied and MinIsWhite TIFFs inverted, but for the look-up tables of ImageJ,
    whose pixels are measured values. CMYK JPEGs become RGB. Of a pyramid the full resolution is
    read, of several images the first of the largest. The pixel grid stays as stored: EXIF and
    TIFF orientation are not applied, as in napari and scikit-image. In place of Pillow's limit,
    PNG, JPEG, BMP and WebP may have up to 2 gigapixels.

    Parameters
    ----------
    path : str or Path
        See `open_source`.
    axes : str, optional
        A letter for each dimension as stored, where the file does not tell them.
    series : int, optional
        Which image, from 0, of a file that holds several.

    Returns
    -------
    ImageFile
        Pixels (bool, integer or float, as stored) in the standard order, and their grid.

    Raises
    ------
    DefocusError
        Where the file is missing, empty, damaged, cut short, has no pixels or is not supported.
    """
    source = _open_file(path, axes, series=series)
    return ImageFile(source.read_whole(), source.grid, Path(path))


def _open_file(
    path: str | Path,
    axes: str | None = None,
    as_stored: bool = False,
    series: int | None = None,
) -> ImageSource:
    place = location(path)
    if isinstance(place, Path) and place.is_dir() and not is_zarr(place):
        raise DefocusError(f"{path} is a folder; name an image file")
    return _open(path, axes, as_stored=as_stored, series=series)


def read_labels(path: Path, *, series: int | None = None) -> NDArray[Any]:
    """Read an annotation or mask: one whole number a pixel, from PNG, BMP or TIFF.

    Parameters
    ----------
    path : Path
        The label file. The numbers count, not their display: a palette gives its indices, and
        MinIsWhite is not inverted.
    series : int, optional
        Which image, from 0, where the file holds several.

    Returns
    -------
    array of int, shape (Y, X)
        The integers as stored; bool becomes uint8 with 0 and 1, whole floats become int32.

    Raises
    ------
    DefocusError
        As `read_image`, and where the file is a colour image, a stack or holds fractions.
    """
    source = _open_file(path, as_stored=True, series=series_of(path, series))
    labels, axes = source.read_whole(), source.axes
    if axes.endswith("S"):
        raise DefocusError(
            f"{path} is a colour image, labels are one whole number a pixel; "
            "save it as a grey or palette image"
        )
    if axes != "YX":
        raise DefocusError(f"{path} is a stack ({axes}), labels are one plane; save that plane")
    if labels.dtype.kind == "b":
        return labels.astype(np.uint8)
    if labels.dtype.kind == "f":
        # NaN compares as False, so it is refused too.
        if not np.all((np.abs(labels) < 2**31) & (labels == np.rint(labels))):
            raise DefocusError(f"{path} holds fractions, labels are whole numbers; convert it")
        return labels.astype(np.int32)
    return labels
