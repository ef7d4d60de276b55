"""A detection against hand-made labels: scores, a precision-recall plot, and where they differ."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from napari.layers import Image, Labels, Layer
from napari.viewer import Viewer
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_defocus.core.errors import DefocusError
from napari_defocus.core.progress import Stopped
from napari_defocus.detection.postprocess import Detection
from napari_defocus.evaluate.comparison import (
    DISAGREEMENTS,
    MISSED_BLUR,
    MISSED_SHARP,
    READINGS,
    Comparison,
    compare,
    read_hand_labels,
)
from napari_defocus.evaluate.report import Report
from napari_defocus.evaluate.scores import PROTOCOLS
from napari_defocus.labels.classes import BLURRED, CLASS_NAMES, SHARP
from napari_defocus.labels.classes import COLOURS as CLASS_COLOURS
from napari_defocus.plot.curves import write_report
from napari_defocus.widgets._shared import layers, ui
from napari_defocus.widgets._shared.choosers import layer_chooser
from napari_defocus.widgets._shared.dialogs import save_button
from napari_defocus.widgets._shared.jobs import JobBar
from napari_defocus.widgets._shared.layers import BLUR, DISAGREEMENT, MASK, PREVIEW
from napari_defocus.widgets._shared.plots import Plot
from napari_defocus.widgets._shared.plugin_widget import PluginWidget
from napari_defocus.widgets._shared.tables import fill_table, read_only_table

# Unlike the colours of blurred and sharp, and told apart by the colour-blind (Okabe and Ito).
COLOURS = {MISSED_BLUR: (0.80, 0.47, 0.65), MISSED_SHARP: (0.0, 0.62, 0.45)}
# Labels layers that no hand made.
MADE = (MASK, PREVIEW, DISAGREEMENT)
TABLE_HEIGHT = 230
NO_DETECTION = "there is no detection yet; run Detect on an image first"
NO_LABELS = "no labels layer is chosen; paint 1 on blurred and 2 on sharp regions"


class EvaluateWidget(PluginWidget):
    """Score a detection against labels that a person painted."""

    def __init__(self, viewer: Viewer) -> None:
        super().__init__(viewer)
        self.report: Report | None = None
        self.detection = layer_chooser(
            viewer, Image, tip="A blur map that Detect made.", results=True,
            keep=lambda layer: layers.owned(layer).get("role") == BLUR,
        )  # fmt: skip
        self.labels = layer_chooser(
            viewer, Labels, tip="What you painted, or opened, as the truth.", results=True,
            keep=lambda layer: layers.owned(layer).get("role") not in MADE,
        )  # fmt: skip
        self.reading = ui.choice(
            READINGS, READINGS[0],
            "annotation: 1 blurred, 2 sharp, 0 unlabelled. mask: 0 sharp, 255 or 1 blurred.",
        )  # fmt: skip
        self.jobs = JobBar(
            self._session.jobs, "Evaluate", "Scores the detection against the labels."
        )
        self.read_as = ui.wrapped_label()
        self.table = read_only_table(
            TABLE_HEIGHT,
            "A row for each score, explained where the mouse rests on it; beside the detection, "
            "maps that know nothing.",
        )
        self.plot = ui.tipped(
            Plot(viewer),
            "For every threshold: how much of what is called sharp (or blurred) is so "
            "(precision), and how much of it is found (recall). Dots: the best F.",
        )
        title, table = "Save the scores", "Writes the scores as a table."
        self.csv_button = save_button(self, "Save CSV…", table, self.save, "scores.csv", title)
        picture = "Writes the precision-recall plot as a picture."
        self.png_button = save_button(self, "Save PNG…", picture, self.save, "scores.png", title)
        self._results = QWidget()
        exports = ui.row(self.csv_button, self.png_button)
        results = ui.column(self._results, self.read_as, self.table, self.plot, exports)
        # Else napari puts a stretch below.
        self._results.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self._results.hide()
        chosen = ui.form(("Detection", self.detection.native), ("Labels", self.labels.native),
                      ("Read labels", self.reading))  # fmt: skip
        layout = ui.column(self, chosen, self.jobs, self._results, margin=True)
        layout.setStretchFactor(self._results, 1)
        layout.addStretch()
        for part in (self.table, self.plot):
            results.setStretchFactor(part, 1)
        self.jobs.clicked.connect(self.evaluate)

    def evaluate(self) -> None:
        """Score the chosen detection against the chosen labels, in the background."""
        blur, labels = self.detection.value, self.labels.value
        if blur is None or labels is None:
            lacking = NO_DETECTION if blur is None else NO_LABELS
            self.jobs.refuse(DefocusError(lacking))
            return
        source = layers.source_of(self._viewer, blur)
        mask: Any = layers.find_owned(self._viewer, source, MASK) if source is not None else None
        known = mask is not None and mask.data.shape == blur.data.shape
        classes = mask.data if known else np.where(np.asarray(blur.data) > 0.5, BLURRED, SHARP)
        found = Detection(blur.data, classes.astype(np.uint8, copy=False))
        painted, name = layers.full_resolution(labels), labels.name
        reading, image = self.reading.currentText(), blur.name.removesuffix(f" {BLUR}")

        def call(on_event: Any, should_stop: Any) -> tuple[Comparison, str]:
            annotation, how = read_hand_labels(np.asarray(painted), found.blur.shape, name, reading)
            if should_stop():
                raise Stopped
            return compare(found, annotation, image, mask_is_known=known), how

        self.jobs.run(lambda made: self._show(made[0], made[1], blur, source), call)

    def _show(self, made: Comparison, how: str, blur: Image, source: Layer | None) -> None:
        if blur not in self._viewer.layers:
            raise DefocusError(f"layer {blur.name!r} was deleted; its scores were dropped")
        self.report = made.report
        self.read_as.setText(f"Labels {how}; {made.labelled:.1%} of the pixels are labelled.")
        self._fill_table(made.report)
        self.plot.draw(lambda figure: _paint(figure, made.report))
        self._results.show()
        differ = made.disagreement
        of = source or blur
        layer = layers.put_labels(self._viewer, differ, of, DISAGREEMENT, labels_read=how)
        layer.colormap = layers.label_colours(COLOURS)
        layer.features = {"index": list(DISAGREEMENTS), "meaning": list(DISAGREEMENTS.values())}
        counts = {what: np.count_nonzero(differ == label) for label, what in DISAGREEMENTS.items()}
        self.jobs.report("; ".join(f"{count} pixels {what}" for what, count in counts.items()))

    def _fill_table(self, report: Report) -> None:
        columns = {
            name.replace(" ", "\n"): [scores.mean[protocol] for protocol in PROTOCOLS]
            for name, scores in {**report.methods, **report.trivial}.items()
        }
        fill_table(self.table, columns, nan="-")
        self.table.setVerticalHeaderLabels(list(PROTOCOLS))
        for line, meaning in enumerate(PROTOCOLS.values()):
            self.table.verticalHeaderItem(line).setToolTip(meaning)
            for place in range(len(columns)):
                self.table.item(line, place).setToolTip(meaning)
        self.table.resizeRowsToContents()

    # Export

    def save(self, path: Path) -> None:
        """Write the last evaluation: its scores as CSV, its precision-recall graph as PNG."""
        with self.jobs.saving(path):
            if self.report is None:
                raise DefocusError("nothing is scored yet; press Evaluate first")
            write_report(path, self.report)


def _paint(figure: Figure, report: Report) -> None:
    axes = figure.add_subplot(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    (scores,) = report.methods.values()
    for label in (SHARP, BLURRED):
        name, colour = CLASS_NAMES[label], CLASS_COLOURS[label]
        curve, trivial = (getattr(of, name) for of in (scores, report.trivial[f"all {name}"]))
        drawn, best = curve.recall > 0, int(curve.f.argmax())
        title = f"{name}, Fmax {curve.f_max:.3f}"
        axes.plot(curve.recall[drawn], curve.precision[drawn], color=colour, label=title)
        axes.plot(curve.recall[best], curve.precision[best], "o", color=colour, clip_on=False)
        share = trivial.precision[0]
        axes.axhline(share, color=colour, linestyle=":", label=f"all called {name}")
    axes.legend(loc="lower left", frameon=False)
