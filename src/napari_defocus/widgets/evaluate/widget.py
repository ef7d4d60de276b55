"""A detection against hand-made labels: scores, a precision-recall plot, and where they differ."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from napari.layers import Image, Labels, Layer
from napari.utils.colormaps import DirectLabelColormap
from napari.viewer import Viewer
from qtpy.QtWidgets import (
    QComboBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

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
from napari_defocus.labels.classes import BLURRED, SHARP
from napari_defocus.labels.classes import COLOURS as CLASS_COLOURS
from napari_defocus.widgets._shared import layers
from napari_defocus.widgets._shared.choosers import layer_chooser
from napari_defocus.widgets._shared.controls import set_tips, share_tips
from napari_defocus.widgets._shared.dialogs import ask_to_save
from napari_defocus.widgets._shared.jobs import JobBar
from napari_defocus.widgets._shared.layers import BLUR, DISAGREEMENT, MASK, PREVIEW
from napari_defocus.widgets._shared.plots import Plot
from napari_defocus.widgets._shared.session import session

# Unlike the colours of blurred and sharp, and told apart by the colour-blind (Okabe and Ito).
COLOURS = {MISSED_BLUR: (0.80, 0.47, 0.65), MISSED_SHARP: (0.0, 0.62, 0.45)}


class EvaluateWidget(QWidget):
    """Score a detection against labels that a person painted.

    Parameters
    ----------
    viewer : Viewer
        Given by napari.
    """

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self.report: Report | None = None
        self.detection = layer_chooser(viewer, Image, results=True, keep=_is_blur_map)
        self.labels = layer_chooser(viewer, Labels, results=True, keep=_is_hand_made)
        self.reading = QComboBox()
        self.reading.addItems(READINGS)
        self.jobs = JobBar(session().jobs, "Evaluate", "Scores the detection against the labels.")
        self.read_as = QLabel()
        self.read_as.setWordWrap(True)
        self.table = QTableWidget()
        self.table.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        self.table.setMinimumHeight(230)
        self.plot = Plot(viewer)
        self.csv_button = QPushButton("Save CSV…")
        self.png_button = QPushButton("Save PNG…")
        self._results = QWidget()
        self._set_tips()
        self._lay_out()
        share_tips(self)
        self.jobs.clicked.connect(self.evaluate)
        self.csv_button.clicked.connect(lambda: self._choose_file("csv"))
        self.png_button.clicked.connect(lambda: self._choose_file("png"))

    def _set_tips(self) -> None:
        set_tips(
            (self.detection.native, "A blur map that Detect made."),
            (self.labels.native, "What you painted, or opened, as the truth."),
            (self.reading, "annotation: 1 blurred, 2 sharp, 0 not judged. mask: 0 sharp, 255 or 1 "
                           "blurred."),
            (self.table, "A row for each score, explained where the mouse rests on it; beside the "
                         "detection, maps that know nothing."),
            (self.plot, "For every threshold: how much of what is called sharp (or blurred) is so "
                        "(precision), and how much of it is found (recall). Dots: the best F."),
            (self.csv_button, "Writes the scores as a table."),
            (self.png_button, "Writes the precision-recall plot as a picture."),
        )  # fmt: skip

    def _lay_out(self) -> None:
        form = QFormLayout()
        form.addRow("Detection", self.detection.native)
        form.addRow("Labels", self.labels.native)
        form.addRow("Read labels", self.reading)
        exports = QHBoxLayout()
        exports.addWidget(self.csv_button)
        exports.addWidget(self.png_button)
        results = QVBoxLayout(self._results)
        results.setContentsMargins(0, 0, 0, 0)
        results.addWidget(self.read_as)
        results.addWidget(self.table, 1)
        results.addWidget(self.plot, 1)
        results.addLayout(exports)
        # Else napari puts a stretch below.
        self._results.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self._results.hide()
        layout = QVBoxLayout(self)
        layout.addLayout(form)
        layout.addWidget(self.jobs)
        layout.addWidget(self._results, 1)
        layout.addStretch()

    def evaluate(self) -> None:
        """Score the chosen detection against the chosen labels, in the background."""
        blur, labels = self.detection.value, self.labels.value
        try:
            if blur is None:
                raise DefocusError("there is no detection yet; run Detect on an image first")
            if labels is None:
                raise DefocusError(
                    "no labels layer is chosen; paint 1 on blurred and 2 on sharp regions"
                )
        except DefocusError as error:
            self.jobs.refuse(error)
            return
        source = self._source(blur)
        mask = layers.find_owned(self._viewer, source, MASK) if source is not None else None
        has_mask = mask is not None and mask.data.shape == blur.data.shape
        found = Detection(blur.data, mask.data if has_mask else _cut(blur.data))
        painted = labels.data[0] if labels.multiscale else labels.data
        reading, name = self.reading.currentText(), labels.name
        image = blur.name.removesuffix(f" {BLUR}")

        def call(on_event: Any, should_stop: Any) -> tuple[Comparison, str]:
            annotation, how = read_hand_labels(np.asarray(painted), found.blur.shape, name, reading)
            if should_stop():
                raise Stopped
            return compare(found, annotation, image, mask_is_known=has_mask), how

        self.jobs.run(lambda result: self._show(*result, blur, source), call)

    def _source(self, blur: Layer) -> Layer | None:
        """Find the image that a blur map is of."""
        wanted = layers.owned(blur).get("source_id")
        return next((layer for layer in self._viewer.layers if layer.unique_id == wanted), None)

    def _show(self, made: Comparison, how: str, blur: Image, source: Layer | None) -> None:
        if blur not in self._viewer.layers:
            raise DefocusError(f"layer {blur.name!r} was deleted; its scores were dropped")
        self.report = made.report
        self.read_as.setText(f"Labels {how}; {made.judged:.1%} of the pixels are judged.")
        self._fill_table(made.report)
        self.plot.draw(lambda figure: _paint(figure, made.report))
        self._results.show()
        layer = layers.put_labels(
            self._viewer, made.disagreement, source or blur, DISAGREEMENT, labels_read=how
        )
        colours: dict[int | None, Any] = {None: (0, 0, 0, 0), 0: (0, 0, 0, 0)}
        layer.colormap = DirectLabelColormap(color_dict=colours | COLOURS)
        layer.features = {"index": list(DISAGREEMENTS), "meaning": list(DISAGREEMENTS.values())}
        counts = [np.count_nonzero(made.disagreement == label) for label in DISAGREEMENTS]
        parts = zip(counts, DISAGREEMENTS.values(), strict=True)
        self.jobs.say("; ".join(f"{count} pixels {what}" for count, what in parts))

    def _fill_table(self, report: Report) -> None:
        columns = {**report.methods, **report.trivial}
        self.table.setColumnCount(len(columns))
        self.table.setHorizontalHeaderLabels([name.replace(" ", "\n") for name in columns])
        self.table.setRowCount(len(PROTOCOLS))
        self.table.setVerticalHeaderLabels(list(PROTOCOLS))
        for row, (protocol, meaning) in enumerate(PROTOCOLS.items()):
            self.table.verticalHeaderItem(row).setToolTip(meaning)
            for column, scores in enumerate(columns.values()):
                value = scores.mean[protocol]
                item = QTableWidgetItem("-" if np.isnan(value) else f"{value:.3f}")
                item.setToolTip(meaning)
                self.table.setItem(row, column, item)
        self.table.resizeColumnsToContents()
        self.table.resizeRowsToContents()

    # Export

    def _choose_file(self, kind: str) -> None:
        path = ask_to_save(self, "Save the scores", f"scores.{kind}", kind.upper())
        if path is not None:
            self._write(path)

    def save_csv(self, path: Path) -> None:
        """Write the scores of the last evaluation as a table."""
        self._write(path)

    def save_png(self, path: Path) -> None:
        """Write the precision-recall graph of the last evaluation as a picture."""
        self._write(path)

    def _write(self, path: Path) -> None:
        if self.report is None:
            self.jobs.refuse(DefocusError("nothing is scored yet; press Evaluate first"))
            return
        try:
            self.report.write(path)
        except DefocusError as error:
            self.jobs.refuse(error)
            return
        self.jobs.say(f"saved to {path}")


def _is_blur_map(layer: Layer) -> bool:
    return layers.owned(layer).get("role") == BLUR


def _is_hand_made(layer: Layer) -> bool:
    return layers.owned(layer).get("role") not in (MASK, PREVIEW, DISAGREEMENT)


def _cut(blur: Any) -> Any:
    """Give the classes of a blur map whose mask is gone."""
    return np.where(np.asarray(blur) > 0.5, BLURRED, SHARP).astype(np.uint8)


def _paint(figure: Figure, report: Report) -> None:
    axes = figure.add_subplot(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    (scores,) = report.methods.values()
    trivial = {"sharp": report.trivial["all sharp"].sharp}
    trivial["blurred"] = report.trivial["all blurred"].blurred
    for name, curve, label in (
        ("sharp", scores.sharp, SHARP),
        ("blurred", scores.blurred, BLURRED),
    ):
        drawn, best, colour = curve.recall > 0, int(curve.f.argmax()), CLASS_COLOURS[label]
        axes.plot(
            curve.recall[drawn],
            curve.precision[drawn],
            color=colour,
            label=f"{name}, Fmax {curve.f_max:.3f}",
        )
        axes.plot(curve.recall[best], curve.precision[best], "o", color=colour, clip_on=False)
        share = trivial[name].precision[0]
        axes.axhline(share, color=colour, linestyle=":", label=f"all called {name}")
    axes.legend(loc="lower left", frameon=False)
