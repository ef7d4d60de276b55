"""What was found in a stack or series: a curve, a table, and the plane that a click leads to."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from napari.components import ViewerModel
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QAbstractItemView, QWidget
from superqt.utils import signals_blocked

from napari_defocus.core.errors import DefocusError
from napari_defocus.io.atomic import whole_file
from napari_defocus.io.tables import column_rows, write_csv
from napari_defocus.plot.curves import BEST, CURVE, draw_curve
from napari_defocus.stacks.plane_scores import PlaneScores, plane_rows
from napari_defocus.stacks.timelapse import FrameScores
from napari_defocus.widgets._shared import ui
from napari_defocus.widgets._shared.dialogs import save_button
from napari_defocus.widgets._shared.jobs import JobBar
from napari_defocus.widgets._shared.plots import Plot
from napari_defocus.widgets._shared.tables import fill_table, read_only_table
from napari_defocus.widgets.stacks.jobs import OneStack

FIELD = "field"
PICTURE_INCHES = (7.0, 4.2)
TABLE_HEIGHT = 110
PLOT_HEIGHT = 190
NOTHING_YET = "nothing is found yet; press Analyse first"


class StackResults(QWidget):
    """The focus curve of a stack, or the scores of frames, with what can be done about them."""

    # The plane or frame that the user clicked on.
    chosen = Signal(int)

    def __init__(self, viewer: ViewerModel, jobs: JobBar) -> None:
        super().__init__()
        self._jobs = jobs
        self._rows: list[dict[str, Any]] = []
        self._table_rows: list[dict[str, Any]] = []
        self._paint: Callable[[Figure], None] | None = None
        self.best: int | None = None
        self._stack: OneStack | None = None
        self.summary = ui.wrapped_label()
        self.warning = ui.wrapped_label()
        self.best_button = ui.button("Go to best plane", "", lambda: self.chosen.emit(self.best))
        self.plot = ui.tipped(
            Plot(viewer),
            "The detail of each plane, less that of noise, as a share of the best plane's; of a "
            "time series, the focus of each frame. A click shows that plane.",
        )
        self.plot.setMinimumHeight(PLOT_HEIGHT)
        self.table = read_only_table(
            TABLE_HEIGHT,
            "The best plane of each object, or the frames out of focus. A click shows that plane.",
        )
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.verticalHeader().hide()
        self.table_button = save_button(
            self, "Save table as CSV…", "The table above, as it is.", self.save_table, "table.csv"
        )
        scores = "The score of each plane or frame, with its error."
        self.csv_button = save_button(self, "Save CSV…", scores, self.save_csv, "curve.csv")
        picture = "The curve as a picture, dark on white."
        self.png_button = save_button(self, "Save PNG…", picture, self.save_png, "curve.png")
        files = ui.row(self.csv_button, self.png_button)
        layout = ui.column(self, self.summary, self.warning, self.best_button, self.plot, files,
                        self.table, self.table_button)  # fmt: skip
        layout.setStretchFactor(self.plot, 2)
        layout.setStretchFactor(self.table, 1)
        self.plot.figure.canvas.mpl_connect("button_press_event", self._clicked)
        # The one for keys, the other for a second click on the same row.
        self.table.itemSelectionChanged.connect(self._row_chosen)
        self.table.cellClicked.connect(self._row_chosen)
        self.clear()

    # What is shown

    def clear(self) -> None:
        """Show nothing."""
        self._set("", "", None, [], None)

    def show_stack(self, found: OneStack, where: Mapping[str, int]) -> None:
        """Show the curve of a stack, and the best plane of each of its objects."""
        self.best_button.setText("Go to best plane")
        scores = found.scores
        place = "".join(f"{name} {at}: " for name, at in where.items())
        text = f"{place}{scores.told()}."
        warning = "\n".join(f"⚠ {warning}." for warning in found.warnings)
        rows = plane_rows(scores, where)
        self._set(text, warning, scores.best, rows, _curves({"": scores}))
        self._stack = found
        if found.labels is not None:
            self._fill([{"label": row.pop("index")} | row for row in found.labels.rows()])

    def show_frames(self, found: FrameScores, where: Mapping[str, int]) -> None:
        """Show the scores of frames, and list those out of focus."""
        count = len(found.score)
        columns = {"frame": np.arange(count), "score": found.score, "error": found.error}
        away = np.flatnonzero(found.out_of_focus)
        text = f"{len(away)} of {count} frames {'is' if len(away) == 1 else 'are'} out of focus."
        best = int(np.nanargmax(found.score)) if np.isfinite(found.score).any() else None
        rows = column_rows({**columns, "out_of_focus": found.out_of_focus.astype(int)}, where)
        self.best_button.setText("Go to best frame")
        self._set(text, "", best, rows, lambda figure: _draw_frames(figure, found))
        self._fill(column_rows({name: values[away] for name, values in columns.items()}))

    def _set(
        self,
        text: str,
        warning: str,
        best: int | None,
        rows: list[dict[str, Any]],
        paint: Callable[[Figure], None] | None,
    ) -> None:
        self.summary.setText(text)
        self.warning.setText(warning)
        self.warning.setVisible(bool(warning))
        self.best, self._rows, self._paint = best, rows, paint
        self._stack = None
        self.plot.draw(paint or (lambda _: None))
        self._fill([])
        self.best_button.setEnabled(best is not None)
        nothing = "Nothing is seen above the noise."
        tip = nothing if best is None else "Shows the plane, or frame, that is most in focus."
        ui.tipped(self.best_button, tip)
        self.setVisible(paint is not None)

    def _fill(self, rows: list[dict[str, Any]]) -> None:
        self._table_rows = rows
        columns = {name: [line[name] for line in rows] for name in (rows[0] if rows else ())}
        with signals_blocked(self.table):
            self.table.clearSelection()
            fill_table(self.table, columns, digits=2)
        for part in (self.table, self.table_button):
            part.setVisible(bool(rows))

    # Clicks

    def _clicked(self, event: Any) -> None:
        if event.inaxes is not None and event.xdata is not None and self._rows:
            self.chosen.emit(int(np.clip(round(event.xdata), 0, len(self._rows) - 1)))

    def _row_chosen(self, *_: int) -> None:
        line = self.table.currentRow()
        if not self.table.selectedItems() or not 0 <= line < len(self._table_rows):
            return
        values = self._table_rows[line]
        plane = values.get("best_plane", values.get("frame"))
        if plane is not None:
            self.chosen.emit(plane)
        if self._stack is not None and self._stack.labels is not None:
            label = f"label {values['label']}"
            curves = {FIELD: self._stack.scores, label: self._stack.labels.scores[line]}
            self.plot.draw(_curves(curves))

    # Files

    def save_csv(self, path: Path) -> None:
        """Write the score of each plane or frame."""
        self._save_rows(path, self._rows)

    def save_table(self, path: Path) -> None:
        """Write the table: the best plane of each object, or the frames out of focus."""
        self._save_rows(path, self._table_rows)

    def _save_rows(self, path: Path, rows: list[dict[str, Any]]) -> None:
        with self._jobs.saving(path):
            if not rows:
                raise DefocusError(NOTHING_YET)
            write_csv(path, rows)

    def save_png(self, path: Path) -> None:
        """Write the curve as a picture, dark on white."""
        with self._jobs.saving(path):
            if self._paint is None:
                raise DefocusError(NOTHING_YET)
            figure = Figure(PICTURE_INCHES, layout="constrained")
            self._paint(figure)
            with whole_file(path) as temporary:
                figure.savefig(temporary, dpi=120)


def _curves(curves: Mapping[str, PlaneScores]) -> Callable[[Figure], None]:
    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        draw_curve(axes, curves)
        if len(curves) > 1:
            # Above the curves, which leave no corner free.
            labelled = zip(*axes.get_legend_handles_labels(), strict=True)
            best = {name: line for line, name in labelled if "best" in name}
            where: Any = {"loc": "lower left", "bbox_to_anchor": (0, 1)}
            axes.legend(best.values(), best, fontsize="small", frameon=False, **where)

    return paint


def _draw_frames(figure: Figure, found: FrameScores) -> None:
    axes = figure.subplots()
    frames = np.arange(len(found.score))
    look: dict[str, Any] = {"color": CURVE, "marker": "o", "markersize": 3, "linewidth": 1}
    axes.errorbar(frames, found.score, found.error, **look)
    away = found.out_of_focus & np.isfinite(found.score)
    if away.any():
        look = {"color": BEST, "markersize": 7, "label": "out of focus"}
        axes.plot(frames[away], found.score[away], "o", **look)
        axes.legend(loc="best", fontsize="small")
    axes.set(xlabel="frame", ylabel="focus, log of squared frequency")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
