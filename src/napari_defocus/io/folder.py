"""Folders of images: the images in them, and a folder as focus stacks, each image a plane."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_defocus.core.errors import DefocusError, explained, notice
from napari_defocus.io import vendor
from napari_defocus.io.base import ImageSource, Selection, file_identity, location
from napari_defocus.io.names import arrange, natural_key
from napari_defocus.io.open import is_zarr, open_source, read_image

# Slides that are TIFF, under their own names.
SLIDE_SUFFIXES = (".svs", ".ndpi", ".scn", ".bif", ".qptiff", ".lsm", ".btf")
IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"),
    *SLIDE_SUFFIXES,
    *vendor.SUFFIXES,
)
_MAPS = (
    *("blur", "mask", "confidence", "altitude", "provenance"),
    *(f"{name}_{unit}" for name in ("radius", "radius_error") for unit in ("px", "um")),
)
# What detection and stacks write beside images; an all-in-focus image is an image, but no plane.
OUTPUT_ENDINGS = (
    *(f".{name}{ending}" for name in _MAPS for ending in (".tif", ".ome.zarr")),
    ".overview.png",
    ".planes.png",
)
FUSED_ENDING = ".fused.tif"
# Files that nobody takes for images.
_OTHER_SUFFIXES = {
    *(".csv", ".json", ".geojson", ".txt", ".md", ".xml", ".html", ".log", ".yaml", ".toml"),
    *(".safetensors", ".npz", ".py", ".ini", ".db", ".pdf"),
}
# Files that are named where they are left out.
MOST_NAMED = 5


def find_images(inputs: Sequence[Path]) -> list[Path]:
    """List the images that files and folders stand for.

    Parameters
    ----------
    inputs : sequence of Path
        Files and Zarrs are kept as they are. A folder stands for the image files and Zarrs in it,
        sorted by name, without subfolders, hidden files and our own outputs (`OUTPUT_ENDINGS`);
        a `Notice` tells what else is left out.

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
        if path.is_dir() and not is_zarr(path):
            found |= dict.fromkeys(_images_in(path))
        elif path.exists():
            _tell_result(path)
            found[path] = None
        else:
            raise DefocusError(f"{path} does not exist; check its name")
    return list(found)


def _images_in(folder: Path, planes: bool = False) -> list[Path]:
    """List the images of a folder, of `planes` only files that are no results; tell the others."""
    with explained(folder, "read"):
        entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    results: list[Path] = []
    images: list[Path] = []
    others: list[Path] = []
    endings = (*OUTPUT_ENDINGS, FUSED_ENDING) if planes else OUTPUT_ENDINGS
    for path in entries:
        if path.name.lower().endswith(endings):
            results.append(path)
        elif path.is_dir():
            (images if is_zarr(path) and not planes else others).append(path)
        elif path.name.lower().endswith(IMAGE_SUFFIXES):
            images.append(path)
        elif path.suffix.lower() not in _OTHER_SUFFIXES:
            others.append(path)
    if not images:
        raise DefocusError(
            f"{folder} holds no images: no PNG, TIFF, CZI or alike; name another folder"
        )
    images, same = _once_a_slide(images)
    left_out = [f"{same} files that are parts of slides in several"] * bool(same)
    left_out += [f"{len(results)} results of earlier runs"] * (planes and bool(results))
    if others:
        more = ", ..." * (len(others) > MOST_NAMED)
        shown = ", ".join(path.name for path in others[:MOST_NAMED])
        kind = "that are no planes" if planes else "of other kinds"
        left_out.append(f"{len(others)} {kind} ({shown}{more})")
    if left_out:
        notice(f"{folder}: left out are {' and '.join(left_out)}")
    return images


def _once_a_slide(images: list[Path]) -> tuple[list[Path], int]:
    """Keep the first file of each slide in several; return them, and how many were others."""
    kept: dict[Any, Path] = {}
    for path in images:
        kept.setdefault(vendor.dicom_series(path) or path, path)
    return list(kept.values()), len(images) - len(kept)


def _tell_result(path: Path) -> None:
    """Tell that a file that was named is no image of its own."""
    if path.name.lower().endswith(OUTPUT_ENDINGS):
        notice(f"{path} is by its name a result of an earlier run; it is taken as an image")


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
        their names. Where names tell channels, times or positions, it is several stacks.
    axes : str, optional
        A letter for each dimension as stored, where the file does not say; of a folder, the first
        are along the files.
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
    if isinstance(path, Path):
        _tell_result(path)
    return open_source(place, axes, series=series)


class FolderSource(ImageSource):
    """Images of a folder, along Z where neither `axes` nor their names say anything else."""

    def __init__(self, folder: Path, axes: str | None = None) -> None:
        images = sorted(_images_in(folder, planes=True), key=lambda path: natural_key(path.name))
        first = read_image(images[0])
        if axes is None and "Z" in first.axes:
            raise DefocusError(f"{folder} is a folder of stacks ({first.axes}); name its files")
        along = axes.upper()[: max(len(axes) - first.data.ndim, 1)] if axes else None
        layout = arrange(str(folder), [path.name for path in images], along)
        self.files = [folder / name for name in layout.names]
        self._files_along = layout.sizes
        self._first, self._expected = images[0].name, (first.data.shape, first.data.dtype)
        super().__init__(
            str(folder),
            axes or layout.axes + first.axes,
            (*layout.sizes, *first.data.shape),
            first.data.dtype,
            scale=dict(first.grid.scale),
            units=dict(first.grid.units),
        )

    def _open(self) -> None:
        return None

    def _read(self, selection: Selection) -> npt.NDArray[Any]:
        count = len(self._files_along)
        along, inside = selection[:count], selection[count:]
        places = tuple(place for place in along if isinstance(place, int))
        if len(places) < count:  # the axes say that files are along Y or X
            raise DefocusError(f"{self.name}: the first of the axes is along the files; give Z")
        file = self.files[int(np.ravel_multi_index(places, self._files_along))]
        data = read_image(file).data
        shape, dtype = self._expected
        if (data.shape, data.dtype) != (shape, dtype):
            raise DefocusError(
                f"{file} is {describe_plane(data.shape, data.dtype)}, {self._first} "
                f"{describe_plane(shape, dtype)}; the planes of a stack are all alike: take out or "
                "convert the odd one"
            )
        return data[tuple(inside)]

    def _identity(self) -> Iterable[str]:
        for file in self.files:
            yield from file_identity(file)


def describe_plane(shape: tuple[int, ...], dtype: np.dtype[Any]) -> str:
    """Name size, number type and colours of a plane for messages."""
    size = f"{shape[1]} x {shape[0]} {dtype}"
    return size if len(shape) == 2 else f"{size} of {shape[2]} colours"
