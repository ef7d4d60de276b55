"""A folder of images as one focus stack: each a plane, by name."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_defocus.core.errors import DefocusError
from napari_defocus.io.base import ImageSource, Selection, file_identity
from napari_defocus.io.raster import find_images, read_image


class FolderSource(ImageSource):
    """Images of a folder, along Z where `axes` says nothing else."""

    def __init__(self, folder: Path, axes: str | None = None) -> None:
        self.files = sorted(find_images([folder]), key=lambda path: natural_key(path.name))
        first = read_image(self.files[0])
        scale = dict.fromkeys("YX", first.pixel_size_um) if first.pixel_size_um else {}
        self._expected = first.data.shape, first.data.dtype
        super().__init__(
            str(folder),
            axes or "Z" + first.axes,
            (len(self.files), *first.data.shape),
            first.data.dtype,
            scale=scale,
            units=dict.fromkeys(scale, "micrometer"),
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
                f"{file} is {_said(data.shape, data.dtype)}, {self.files[0].name} "
                f"{_said(shape, dtype)}; the planes of a stack are all alike: take out or convert "
                "the odd one"
            )
        return data[tuple(inside)]

    def _identity(self) -> Iterable[str]:
        for file in self.files:
            yield from file_identity(file)


def natural_key(name: str) -> list[tuple[int, str]]:
    """Give a key that sorts names as people do: plane 2 before plane 10."""
    parts = re.split(r"(\d+)", name.lower())
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def _said(shape: tuple[int, ...], dtype: np.dtype[Any]) -> str:
    size = f"{shape[1]} x {shape[0]} {dtype}"
    return size if len(shape) == 2 else f"{size} of {shape[2]} colours"
