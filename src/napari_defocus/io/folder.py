"""Folders of images: the images in them, and a folder as one focus stack, each a plane, by name."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_defocus.core.errors import DefocusError, explained
from napari_defocus.io import vendor
from napari_defocus.io.base import ImageSource, Selection, file_identity, location
from napari_defocus.io.open import is_zarr, open_source, read_image

# Slides that are TIFF, under their own names.
SLIDE_SUFFIXES = (".svs", ".ndpi", ".scn", ".bif", ".qptiff", ".lsm", ".btf")
IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"),
    *SLIDE_SUFFIXES,
    *vendor.SUFFIXES,
)
# What detection and stacks write beside images; an all-in-focus image is an image.
OUTPUT_ENDINGS = (
    *(f".{name}.tif" for name in ("blur", "mask", "confidence", "altitude", "provenance")),
    *(f".{name}_{unit}.tif" for name in ("radius", "radius_error") for unit in ("px", "um")),
    ".overview.png",
)


def find_images(inputs: Sequence[Path]) -> list[Path]:
    """List the images that files and folders stand for.

    Parameters
    ----------
    inputs : sequence of Path
        Files are kept as they are. A folder stands for the image files in it, sorted by name,
        without subfolders, hidden files and our own outputs (`OUTPUT_ENDINGS`).

    Returns
    -------
    list of Path
        In the order of `inputs`, each path once.

    Raises
    ------
    DefocusError
        Where a path does not exist, or a folder has no images or cannot be read.
    """
    found: dict[Path, None] = {}
    for path in inputs:
        if path.is_dir():
            found |= dict.fromkeys(_images_in(path))
        elif path.exists():
            found[path] = None
        else:
            raise DefocusError(f"{path} does not exist; check its name")
    return list(found)


def _images_in(folder: Path) -> list[Path]:
    with explained(folder, "read"):
        names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    images = [folder / name for name in names if is_image(name)]
    if not images:
        raise DefocusError(
            f"{folder} holds no images, such as PNG, TIFF or CZI; name another folder"
        )
    return images


def is_image(name: str) -> bool:
    """Check whether a file of this name is an image, not hidden and none of our own outputs."""
    lower = name.lower()
    return (
        lower.endswith(IMAGE_SUFFIXES)
        and not lower.endswith(OUTPUT_ENDINGS)
        and not name.startswith(".")
    )


def open_stack_source(
    place: str | Path, axes: str | None = None, *, series: int | None = None
) -> ImageSource:
    """Open a stack: a file, a Zarr, or a folder of equally sized images.

    Parameters
    ----------
    place : str or Path
        See `open_source`; of a folder of images, each is a plane, in the order of the numbers in
        their names.
    axes : str, optional
        A letter for each dimension as stored, where the file does not say; of a folder, the first
        is along the files.
    series : int, optional
        See `open_source`.

    Raises
    ------
    DefocusError
        Where there is no such file, it cannot be read, or its axes are unknown.
    """
    path = location(place)
    if isinstance(path, Path) and path.is_dir() and not is_zarr(path):
        return FolderSource(path, axes)
    return open_source(place, axes, series=series)


class FolderSource(ImageSource):
    """Images of a folder, along Z where `axes` says nothing else."""

    def __init__(self, folder: Path, axes: str | None = None) -> None:
        self.files = sorted(find_images([folder]), key=lambda path: natural_key(path.name))
        first = read_image(self.files[0])
        self._expected = first.data.shape, first.data.dtype
        super().__init__(
            str(folder),
            axes or "Z" + first.axes,
            (len(self.files), *first.data.shape),
            first.data.dtype,
            scale=dict(first.grid.scale),
            units=dict(first.grid.units),
        )

    def _open(self) -> None:
        return None

    def _read(self, selection: Selection) -> npt.NDArray[Any]:
        along, *inside = selection
        if isinstance(along, slice):  # the axes say that files are along Y or X
            raise DefocusError(f"{self.name}: the first of the axes is along the files; give Z")
        file = self.files[along]
        data = read_image(file).data
        shape, dtype = self._expected
        if (data.shape, data.dtype) != (shape, dtype):
            raise DefocusError(
                f"{file} is {describe_plane(data.shape, data.dtype)}, {self.files[0].name} "
                f"{describe_plane(shape, dtype)}; the planes of a stack are all alike: take out or "
                "convert the odd one"
            )
        return data[tuple(inside)]

    def _identity(self) -> Iterable[str]:
        for file in self.files:
            yield from file_identity(file)


def natural_key(name: str) -> list[tuple[int, str]]:
    """Give a key that sorts names as people do: plane 2 before plane 10."""
    parts = re.split(r"(\d+)", name.lower())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def describe_plane(shape: tuple[int, ...], dtype: np.dtype[Any]) -> str:
    """Name size, number type and colours of a plane for messages."""
    size = f"{shape[1]} x {shape[0]} {dtype}"
    return size if len(shape) == 2 else f"{size} of {shape[2]} colours"
