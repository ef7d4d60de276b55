"""Which fields of a folder of results are in focus: a table, and the report as a page."""

import math
from pathlib import Path

from napari.layers import Layer
from napari.viewer import Viewer
from qtpy.QtCore import QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QFileDialog

from napari_defocus.core.errors import DefocusError
from napari_defocus.data.results import read_results
from napari_defocus.report.fields import VERDICTS, Field, Results, Thresholds
from napari_defocus.report.page import write_report
from napari_defocus.widgets._shared import ui
from napari_defocus.widgets._shared.jobs import JobBar, plain
from napari_defocus.widgets._shared.plugin_widget import PluginWidget
from napari_defocus.widgets._shared.tables import fill_table, read_only_table

PAGE = "report.html"
TABLE_HEIGHT = 260
NO_FOLDER = "no folder is chosen; choose one that detection wrote to, with NAME.mask.tif"


class ReportWidget(PluginWidget):
    """List the fields of a folder of results, the worst first, and write the report."""

    def __init__(self, viewer: Viewer) -> None:
        super().__init__(viewer)
        self.folder: Path | None = None
        self.fields: list[Field] = []
        self.page: Path | None = None
        given = Thresholds()
        self.choose_button = ui.button(
            "Folder of results…",
            "What detection wrote: NAME.mask.tif and napari-defocus.json.",
            self._ask,
        )
        self.chosen = ui.wrapped_label()
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
            f"Lists the fields, and writes {PAGE} and fields.csv into the folder.",
        )
        self.table = read_only_table(
            TABLE_HEIGHT, "The fields, the worst first. A double click opens one, with its mask."
        )
        self.open_button = ui.button(
            "Open the page", "Shows the report in the web browser.", self._show_page
        )
        self.open_button.setEnabled(False)
        settings = ui.form(
            ("In focus from", self.in_focus), ("Out of focus below", self.out_of_focus)
        )
        layout = ui.column(
            self, self.choose_button, self.chosen, settings, self.jobs, self.table,
            self.open_button, margin=True,
        )  # fmt: skip
        layout.setStretchFactor(self.table, 1)
        self.jobs.clicked.connect(self.report)
        self.table.cellDoubleClicked.connect(self.open_field)

    def choose(self, folder: Path) -> None:
        """Take a folder of results."""
        self.folder = folder
        self.chosen.setText(str(folder))
        self.jobs.forget_refusal()

    def report(self) -> None:
        """List the fields and write the page, in the background."""
        with self.jobs.refusing():
            if self.folder is None:
                raise DefocusError(NO_FOLDER)
            thresholds = Thresholds(self.in_focus.value() / 100, self.out_of_focus.value() / 100)
            self.jobs.run(self._receive, plain(_report), self.folder, thresholds)

    def open_field(self, row: int, column: int = 0) -> None:
        """Open image, blur map and mask of a row, at its plane."""
        field = self.fields[row]
        with self.jobs.refusing():
            for made in (Layer.create(*layer) for layer in read_results(field.mask)):
                if made.name not in self._viewer.layers:
                    self._viewer.add_layer(made)
            for axis, place in enumerate(field.plane):
                self._viewer.dims.set_current_step(axis, place)

    def _ask(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder of results")
        if folder:
            self.choose(Path(folder))

    def _show_page(self) -> None:
        QDesktopServices.openUrl(QUrl.fromLocalFile(str(self.page)))

    def _receive(self, found: tuple[list[Field], Thresholds, Path]) -> None:
        fields, thresholds, self.page = found
        self.fields = sorted(
            fields, key=lambda field: math.inf if math.isnan(field.sharp) else field.sharp
        )
        verdicts = [thresholds.judge(field) for field in self.fields]
        columns = {
            "verdict": verdicts,
            "sharp": [field.sharp for field in self.fields],
            "field": [field.title for field in self.fields],
            "structure": [field.structure for field in self.fields],
        }
        fill_table(self.table, columns, digits=2, nan="")
        self.open_button.setEnabled(True)
        told = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in VERDICTS)
        self.jobs.report(f"of {len(fields)} fields: {told}")


def _report(folder: Path, thresholds: Thresholds) -> tuple[list[Field], Thresholds, Path]:
    results, page = Results(folder), folder / PAGE
    write_report(results, page, thresholds)
    return results.fields(), thresholds, page
