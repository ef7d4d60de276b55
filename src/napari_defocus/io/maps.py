"""The maps of one image as files: their names, what is in them, and how they are written."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_defocus.core.errors import DefocusError, check_new
from napari_defocus.core.tiling import plan_tiles
from napari_defocus.io.atomic import partial_path
from napari_defocus.io.grid import Grid
from napari_defocus.io.ngff_metadata import add_label_image
from napari_defocus.io.tiff_writer import BigTiff, write_image
from napari_defocus.io.writer import Array, ImageWriter, Plane, Run, in_turn
from napari_defocus.labels.classes import COLOURS

FORMATS = ("zarr", "tif")
SUFFIXES = {"zarr": ".ome.zarr", "tif": ".tif"}
SIDE = 2048
LENGTHS = ("radius", "radius_error")
"""Maps that hold lengths: in pixels, and in micrometres where the pixel size is known."""
CLASS_COLOURS = {
    label: (round(255 * red), round(255 * green), round(255 * blue), 255)
    for label, (red, green, blue) in COLOURS.items()
}
"""Red, green, blue and alpha of the classes, for viewers."""


def map_names(wanted: tuple[str, ...], grid: Grid) -> tuple[str, ...]:
    """List the names of the maps of an image: ``radius`` stands for two lengths in each unit."""
    names = ["blur", "mask", *(name for name in wanted if name != "radius")]
    if "radius" in wanted:
        units = ("px", "um") if grid.pixel_size_um else ("px",)
        names += [f"{name}_{unit}" for unit in units for name in LENGTHS]
    return tuple(names)


@dataclass(frozen=True)
class MapFiles:
    """The maps of one image: ``OUT.blur.tif``, or ``OUT.blur.ome.zarr`` with the mask as labels.

    `out` is folder and stem, `names` are those of `map_names`; maps are written in tiles of `side`.
    """

    out: Path
    names: tuple[str, ...]
    image: Grid
    format: str = "tif"
    side: int = SIDE

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
            check_new(path, overwrite)

    def create(self) -> None:
        """Begin all maps, empty."""
        for name in self.names:
            self.writer(name).create()
        if self.format == "zarr" and "mask" in self.names:
            # Now, as the name of the image is given at once to all that is in it.
            add_label_image(self._target("mask"))

    def begun(self) -> dict[str, ImageWriter]:
        """Return the writers of the unfinished ones, by name."""
        return {name: writer for name in self.names if (writer := self.writer(name)).begun}

    def open(self) -> "dict[str, MapWriter]":
        """Return what unfinished maps are written to; lengths are written in pixels."""
        begun, size = self.begun(), self.image.pixel_size_um
        found: dict[str, MapWriter] = {**begun}
        for name in LENGTHS:
            px, um = (begun.get(f"{name}_{unit}") for unit in ("px", "um"))
            if px is not None:
                found[name] = px if um is None or size is None else _InBothUnits(px, um, size)
        return found

    def finish(self, run: Run = in_turn, *, note: str = "", overwrite: bool = True) -> None:
        """Complete those that are unfinished, note how they were made, and name them."""
        # The mask first: it lies in the folder of the blur map.
        for name, writer in sorted(self.begun().items(), reverse=True):

            def run_for(
                work: Any, items: Sequence[Any], stage: str, of: str = f" of the {name}"
            ) -> None:
                run(work, items, stage + of)

            if note:
                writer.add_note(note)
            writer.finish(run_for, overwrite=overwrite)

    def save(
        self,
        maps: Mapping[str, npt.NDArray[Any]],
        may_replace: Callable[[Path], bool],
        note: str = "",
    ) -> None:
        """Write maps that are in memory, by name, lengths in pixels."""
        if self.format == "tif":
            for name, path in zip(self.names, self.outputs(), strict=True):
                data = self._values(maps, name)
                grid = self.image.without("S")
                write_image(path, data, grid, note=note, overwrite=may_replace(path))
            return
        self.create()
        for name, writer in self.begun().items():
            data = self._values(maps, name)
            for index in np.ndindex(self.image.leading):
                for tile in plan_tiles(self.image.plane_shape, self.side):
                    writer.write(index, *tile.region, data[index][tile.region])
        self.finish(note=note, overwrite=all(map(may_replace, self.outputs())))

    def writer(self, name: str) -> ImageWriter:
        """Return the writer of a map."""
        grid = self.image.without("S")
        dtype = np.uint8 if name == "mask" else np.float32
        if self.format == "tif":
            return BigTiff(self._target(name), grid, dtype)
        from napari_defocus.io.ngff_writer import Pyramid

        title, chunk = f"{self.out.name} {name}", (self.side, self.side)
        colours = CLASS_COLOURS if name == "mask" else None
        return Pyramid(self._target(name), grid, dtype, chunk, title, colours=colours)

    def _values(self, maps: Mapping[str, npt.NDArray[Any]], name: str) -> Array:
        field, _, unit = name.rpartition("_") if name.endswith(("_px", "_um")) else (name, "", "")
        size = self.image.pixel_size_um
        return in_um(maps[field], size) if unit == "um" and size else maps[field]

    def _path(self, name: str) -> Path:
        return self.out.with_name(f"{self.out.name}.{name}{SUFFIXES[self.format]}")

    def _target(self, name: str) -> Path:
        if self.format == "zarr" and name == "mask":
            return partial_path(self._path("blur")) / "labels" / "mask"
        return self._path(name)


@dataclass(frozen=True)
class _InBothUnits:
    """A map of lengths that is written in pixels and in micrometres; read back in pixels."""

    px: ImageWriter
    um: ImageWriter
    size: float

    def write(self, plane: Plane, rows: slice, columns: slice, data: Array) -> None:
        """Write a piece of both."""
        self.px.write(plane, rows, columns, data)
        self.um.write(plane, rows, columns, in_um(data, self.size))

    def read(self, plane: Plane, rows: slice, columns: slice) -> Array:
        """Read a piece in pixels."""
        return self.px.read(plane, rows, columns)


MapWriter = ImageWriter | _InBothUnits
"""What a map of an image is written to, and read from."""


def in_um(lengths: Array, pixel_size_um: float) -> Array:
    """Turn lengths in pixels into micrometres."""
    return np.asarray(lengths * np.float32(pixel_size_um))
