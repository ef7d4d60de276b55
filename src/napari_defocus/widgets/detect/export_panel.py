"""Buttons that write a detection to files: polygons, shares, object scores."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from napari.components import ViewerModel
from qtpy.QtWidgets import QGroupBox

from napari_defocus.core.errors import DefocusError
from napari_defocus.widgets._shared import layers, ui
from napari_defocus.widgets._shared.dialogs import ask_to_save
from napari_defocus.widgets._shared.jobs import JobBar
from napari_defocus.widgets.detect import exports

NO_OBJECTS = "no objects are chosen; choose a labels layer as Objects"


class ExportPanel(QGroupBox):
    """Writes what lies in the viewer, as `napari-defocus export` writes what lies in files.

    `jobs` writes; `image`, `region` and `objects` return the layer that is chosen, or None.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        jobs: JobBar,
        image: Callable[[], Any],
        region: Callable[[], Any],
        objects: Callable[[], Any],
    ) -> None:
        super().__init__("Save what was detected")
        self._viewer = viewer
        self._jobs = jobs
        self._image, self._region, self._objects = image, region, objects
        self.polygons_button = ui.button(
            "Polygons…",
            "GeoJSON, as QuPath reads it: the outline of each blurred and each sharp region of the "
            "mask as it is now, with its holes.",
            lambda: self._ask("geojson", self.save_polygons),
        )
        self.shares_button = ui.button(
            "Shares…",
            "CSV: how much of the image, and of the region if one is chosen, is blurred, sharp and "
            "undecided; of stacks, in each plane.",
            lambda: self._ask("shares.csv", self.save_shares),
        )
        self.objects_button = ui.button(
            "Objects…",
            "CSV: area, blur and focus of each object; of stacks, in each plane.",
            lambda: self._ask("objects.csv", self.save_objects),
        )
        self.undecided = ui.tick_box(
            "undecided, too", "Polygons: outlines of what is undecided, too."
        )
        self.micrometres = ui.tick_box(
            "in micrometres",
            "Polygons: coordinates in micrometres, by the scale of the image layer. QuPath and "
            "Fiji take pixels.",
        )
        buttons = ui.row(self.polygons_button, self.shares_button, self.objects_button)
        ui.column(self, buttons, ui.row(self.undecided, self.micrometres), margin=True)

    def _ask(self, ending: str, write: Callable[[Path], None]) -> None:
        with self._jobs.refusing():
            # Before a file is asked for, not after.
            found = exports.find(self._viewer, self._image())
            if ending == "objects.csv" and self._objects() is None:
                raise DefocusError(NO_OBJECTS)
            kind = "GeoJSON" if ending == "geojson" else "CSV"
            ask_to_save(self, "Save", f"{found.name}.{ending}", kind, write)

    def save_polygons(self, path: Path) -> None:
        """Write the outlines of the mask's regions, in the background."""
        with self._jobs.refusing():
            found = exports.find(self._viewer, self._image())
            options = self.undecided.isChecked(), self.micrometres.isChecked()
            self._run(exports.write_polygons, path, found, *options)

    def save_shares(self, path: Path) -> None:
        """Write how much of the image and of the region is blurred, in the background."""
        with self._jobs.refusing():
            found, region = exports.find(self._viewer, self._image()), self._region()
            regions = {}
            if region is not None:
                size = found.mask.shape[-2:]
                regions[region.name] = layers.region_mask(region, self._image(), size)
            self._run(exports.write_shares, path, found, regions)

    def save_objects(self, path: Path) -> None:
        """Write the scores of the objects, in the background."""
        with self._jobs.refusing():
            found, objects = exports.find(self._viewer, self._image()), self._objects()
            if objects is None:
                raise DefocusError(NO_OBJECTS)
            self._run(exports.write_objects, path, found, exports.labels_reader(objects, found))

    def _run(self, write: Callable[..., Path], *arguments: Any) -> None:
        self._jobs.run(lambda path: self._jobs.report(f"saved to {path}"), write, *arguments)
