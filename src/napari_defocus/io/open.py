"""One way from a file, folder or URL to an image: what it is decides which reader opens it."""

from pathlib import Path

from napari_defocus.core.errors import DefocusError
from napari_defocus.io.base import ImageSource, WholeFileSource, location
from napari_defocus.io.folder import FolderSource
from napari_defocus.io.tiff import open_tiff

MISSING = ("error", "fill")
ZARR_FILES = ("zarr.json", ".zgroup", ".zarray")


def open_source(
    path: str | Path, axes: str | None = None, *, missing: str = "error"
) -> ImageSource:
    """Open an image to be read piece by piece.

    Parameters
    ----------
    path : str or Path
        TIFF (BigTIFF, OME-TIFF, ImageJ, pyramids: the full resolution), OME-Zarr 0.1 to 0.5 (the
        first image, full resolution), a Zarr array, or PNG, JPEG and BMP, which are read whole.
        Zarr may lie in a folder, in a .zip file, or behind any URL that fsspec knows.
    axes : str, optional
        A letter for each dimension as stored, where the file does not say or is wrong. Without,
        a dimension of size 1 of a TIFF does not count.
    missing : str
        What a chunk is that a Zarr does not hold. ``error``: a lost one; reading it raises.
        ``fill``: one that its writer left out as it holds nothing but the fill value; some writers
        do so, and no file tells the two apart.

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
    place = location(path)
    if isinstance(place, str) or place.is_dir() or _starts_with(place, b"PK\x03\x04"):
        from napari_defocus.io.zarr import open_zarr  # which takes a while to import

        return open_zarr(place, axes, missing)
    if _starts_with(place, b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return open_tiff(place, axes)
    return WholeFileSource(place, axes)


def open_stack_source(place: str | Path, axes: str | None = None) -> ImageSource:
    """Open a stack: a file, a Zarr, or a folder of equally sized images.

    Parameters
    ----------
    place : str or Path
        See `open_source`; of a folder of images, each is a plane, in the order of the numbers in
        their names.
    axes : str, optional
        A letter for each dimension as stored, where the file does not say; of a folder, the first
        is along the files.

    Raises
    ------
    DefocusError
        Where there is no such file, it cannot be read, or its axes are unknown.
    """
    path = location(place)
    if isinstance(path, Path) and path.is_dir() and not is_zarr(path):
        return FolderSource(path, axes)
    return open_source(place, axes)


def is_zarr(folder: Path) -> bool:
    """Tell whether a folder is a Zarr array or group."""
    return any((folder / name).exists() for name in ZARR_FILES)


def _starts_with(path: Path, *starts: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4).startswith(starts)
    except OSError:
        return False  # `read_image` says why
