"""Which fields of a folder of results, or of the open layers, are in focus: a table and a page."""

import math
from pathlib import Path

from napari.layers import Labels, Layer
from napari.viewer import Viewer
from qtpy.QtCore import Qt, QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QFileDialog, QHeaderView

from napari_defocus.data.results import read_results
from napari_defocus.report.fields import VERDICTS, Field, Results, Thresholds
from napari_defocus.report.page import write_report
from napari_defocus.widgets._shared import ui
from napari_defocus.widgets._shared.jobs import JobBar, plain
from napari_defocus.widgets._shared.plugin_widget import PluginWidget
from napari_defocus.widgets._shared.tables import fill_table, read_only_table
from napari_defocus.widgets.report.layers import OpenMask, open_masks, write_results

PAGE = "report.html"
TABLE_HEIGHT = 260
OPEN_LAYERS = "The masks among the open layers."


class ReportWidget(PluginWidget):
    """List the fields of a folder or of the open layers, the worst first; write the report."""

    def __init__(self, viewer: Viewer) -> None:
        super().__init__(viewer)
        self.folder: Path | None = None  # None: the open layers
        self._layers: dict[str, Labels] = {}
        self.fields: list[Field] = []
        self.page: Path | None = None
        given = Thresholds()
        self.choose_button = ui.button(
            "Folder of results…",
            "What detection wrote: NAME.mask.tif and napari-defocus.json.",
            self._ask,
        )
        self.layers_button = ui.button(
            "Open layers",
            "The masks that Detect made here, or that were opened with their images.",
            lambda: self.choose(None),
        )
        self.chosen = ui.wrapped_label()
        self.chosen.setText(OPEN_LAYERS)
        self.in_focus = ui.number(
            0, 100, round(100 * given.in_focus),
            "From this sharp share of its structure on a field is in focus.", suffix=" %",
        )  # fmt: skip
        self.out_of_focus = ui.number(
            0, 100, round(100 * given.out_of_focus),
            "Below this sharp share a field is out of focus, and soft from it on.", suffix=" %",
        )  # fmt: skip
        self.jobs = JobBar(
            self._session.jobs,
            "Report",
            f"Lists the fields, and writes {PAGE} and fields.csv: into the folder of results, or, "
            "of the open layers, into a temporary one.",
        )
        self.table = read_only_table(
            TABLE_HEIGHT, "The fields, the worst first. A double click opens one, with its mask."
        )
        self.table.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.open_button = ui.button(
            "Open the page", "Shows the report in the web browser.", self._show_page
        )
        self.open_button.setEnabled(False)
        settings = ui.form(
            ("In focus from", self.in_focus), ("Out of focus below", self.out_of_focus)
        )
        sources = ui.row(self.choose_button, self.layers_button)
        layout = ui.column(
            self, sources, self.chosen, settings, self.jobs, self.table, self.open_button,
            margin=True,
        )  # fmt: skip
        layout.setStretchFactor(self.table, 1)
        self.jobs.clicked.connect(self.report)
        self.table.cellDoubleClicked.connect(self.open_field)

    def choose(self, folder: Path | None) -> None:
        """Take a folder of results; None takes the open layers."""
        self.folder = folder
        self.chosen.setText(OPEN_LAYERS if folder is None else str(folder))
        self.jobs.forget_refusal()

    def report(self) -> None:
        """List the fields and write the page, in the background."""
        with self.jobs.refusing():
            thresholds = Thresholds(self.in_focus.value() / 100, self.out_of_focus.value() / 100)
            masks = [] if self.folder else open_masks(self._viewer)
            self.jobs.run(self._receive, plain(_report), self.folder, masks, thresholds)

    def open_field(self, row: int, column: int = 0) -> None:
        """Show image, blur map and mask of a row, opened where they are not, at its plane."""
        field = self.fields[row]
        with self.jobs.refusing():
            shown = self._layers.get(field.mask)
            if shown is None or shown not in self._viewer.layers:
                for made in (Layer.create(*layer) for layer in read_results(field.mask)):
                    if made.name not in self._viewer.layers:
                        self._viewer.add_layer(made)
                    shown = self._viewer.layers[made.name]  # the last is the mask
            assert shown is not None
            for name in (shown.name.removesuffix(" mask"), shown.name):  # above all others
                if name in self._viewer.layers:
                    self._viewer.layers[name].visible = True
                    self._viewer.layers.move(self._viewer.layers.index(name), -1)
            self._viewer.layers.selection.active = shown
            middle = [(part.start + part.stop) / 2 for part in field.region]
            point = shown.data_to_world((*field.plane, *middle))
            self._viewer.dims.set_point(range(len(point)), point)
            if field.tiled:
                self._viewer.camera.center = point[-2:]

    def _ask(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder of results")
        if folder:
            self.choose(Path(folder))

    def _show_page(self) -> None:
        QDesktopServices.openUrl(QUrl.fromLocalFile(str(self.page)))

    def _receive(self, found: tuple[list[Field], Thresholds, Path, dict[str, Labels]]) -> None:
        fields, thresholds, self.page, self._layers = found
        self.fields = sorted(
            fields, key=lambda field: math.inf if math.isnan(field.sharp) else field.sharp
        )
        verdicts = [thresholds.judge(field) for field in self.fields]
        columns = {
            "verdict": verdicts,
            "sharp": [field.sharp for field in self.fields],
            "field": [field.title for field in self.fields],
        }
        fill_table(self.table, columns, digits=2, nan="")
        self.table.horizontalHeader().setSectionResizeMode(2, QHeaderView.ResizeMode.Stretch)
        for row, field in enumerate(self.fields):  # elided in the middle: the ends tell names apart
            self.table.item(row, 2).setToolTip(field.title)
        self.open_button.setEnabled(True)
        told = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in VERDICTS)
        self.jobs.report(f"of {len(fields)} fields: {told}")


def _report(
    folder: Path | None, masks: list[OpenMask], thresholds: Thresholds
) -> tuple[list[Field], Thresholds, Path, dict[str, Labels]]:
    place = write_results(masks) if folder is None else folder
    results, page = Results(place), place / PAGE
    write_report(results, page, thresholds, title="" if folder else "Focus of the open layers")
    own = {str(place / f"{one.name}.mask.tif"): one.layer for one in masks}
    return results.fields(), thresholds, page, own
