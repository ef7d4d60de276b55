"""The files that maps are written to tile by tile: OME-Zarr or BigTIFF."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from napari_defocus.core.errors import DefocusError
from napari_defocus.core.progress import OnEvent, ShouldStop
from napari_defocus.io import unfinished
from napari_defocus.io.base import ImageSource
from napari_defocus.io.ngff_metadata import VERSION, write_group
from napari_defocus.io.ngff_writer import (
    build_block,
    count_levels,
    create_pyramid,
    finish_pyramid,
    open_level,
)
from napari_defocus.io.tiff_writer import create_big_tiff, finish_big_tiff, open_big_tiff
from napari_defocus.io.unfinished import partial_path
from napari_defocus.labels.classes import COLOURS
from napari_defocus.tiled.executors import Tasks
from napari_defocus.tiled.rounds import MapFile

FORMATS = ("zarr", "tif")
SUFFIXES = {"zarr": ".ome.zarr", "tif": ".tif"}


@dataclass(frozen=True)
class MapFiles:
    """The maps of one image.

    Parameters
    ----------
    out : Path
        Folder and stem: ``OUT.blur.tif``, or ``OUT.blur.ome.zarr`` with the mask as its labels.
    names : tuple of str
        ``blur`` and ``mask``, and any of ``confidence``, ``radius_px``, ``radius_error_px``.
    format : str
        ``zarr`` or ``tif``.
    """

    out: Path
    names: tuple[str, ...]
    format: str

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise DefocusError(f"format is {self.format!r}; choose one of {', '.join(FORMATS)}")

    def outputs(self) -> list[Path]:
        """List the files or folders to be."""
        inside = {"mask"} if self.format == "zarr" else set()
        return [self._path(name) for name in self.names if name not in inside]

    def check_new(self, overwrite: bool) -> None:
        """Raise DefocusError where an output exists and may not be replaced."""
        for path in self.outputs():
            unfinished.check_new(path, overwrite)

    def create(self, source: ImageSource, side: int) -> None:
        """Make all maps, empty, of the axes and place of an image, for tiles of `side` pixels."""
        colours = source.axes.endswith("S")
        form: dict[str, Any] = {
            "axes": source.axes.removesuffix("S"),
            "shape": source.shape[:-1] if colours else source.shape,
            "scale": source.scale,
            "units": source.units,
        }
        for name in self.names:
            form["dtype"] = np.uint8 if name == "mask" else np.float32
            if self.format == "tif":
                create_big_tiff(self._target(name), **form)
                continue
            create_pyramid(
                self._target(name),
                chunk=(side, side),
                translate=source.translate,
                kind="labels" if name == "mask" else "image",
                colors=_mask_colours() if name == "mask" else None,
                name=f"{self.out.name} {name}",
                **form,
            )
            if name == "mask":  # else one killed between its name and the list would not be in it
                write_group(
                    self._target(name).parent,
                    {"ome": {"version": VERSION, "labels": [name]}},
                )

    def open(self) -> dict[str, MapFile]:
        """Open those that are unfinished, by name."""
        opener: Any = open_big_tiff if self.format == "tif" else open_level
        return {
            name.removesuffix("_px"): opener(self._target(name))
            for name in self.names
            if partial_path(self._target(name)).exists()
        }

    def finish(self, tasks: Tasks, on_event: OnEvent, should_stop: ShouldStop) -> None:
        """Build coarser levels, and give those that are unfinished their names."""
        # The mask first: it lies in the folder of the blur map.
        for name in sorted(self.names, reverse=True):
            target = self._target(name)
            if not partial_path(target).exists():
                continue  # a run before this one finished it
            if self.format == "tif":
                finish_big_tiff(target)
            else:
                _build_levels(target, name, tasks, on_event, should_stop)
                finish_pyramid(target)

    def _path(self, name: str) -> Path:
        return self.out.with_name(f"{self.out.name}.{name}{SUFFIXES[self.format]}")

    def _target(self, name: str) -> Path:
        if self.format == "zarr" and name == "mask":
            return partial_path(self._path("blur")) / "labels" / "mask"
        return self._path(name)


def _build_levels(
    target: Path, name: str, tasks: Tasks, on_event: OnEvent, should_stop: ShouldStop
) -> None:
    for number in range(1, count_levels(target)):
        level = open_level(target, number)
        blocks = [block for block in level.blocks() if not level.has(block)]
        tasks.run(
            partial(build_block, target, number),
            blocks,
            f"building level {number} of the {name}",
            on_event=on_event,
            should_stop=should_stop,
        )


def _mask_colours() -> dict[int, tuple[int, int, int, int]]:
    """Give the classes' red, green, blue and alpha, 0 to 255, for viewers."""
    return {
        label: (round(255 * red), round(255 * green), round(255 * blue), 255)
        for label, (red, green, blue) in COLOURS.items()
    }
