"""Look at a metric: its kernels, their principal components, and how many of them it takes."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from napari.viewer import Viewer
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import (
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_defocus.core.errors import DefocusError
from napari_defocus.core.progress import OnEvent, ShouldStop
from napari_defocus.labels.classes import BLURRED, COLOURS, SHARP
from napari_defocus.metric.fitting import FitConfig, metric_from_nets
from napari_defocus.metric.local_metric import (
    LocalMetric,
    choose_components,
    principal_components,
    save_metric,
)
from napari_defocus.metric.nets import PACKAGED, TrainedNets, load_nets
from napari_defocus.widgets._shared import layers
from napari_defocus.widgets._shared.controls import set_tips, share_tips
from napari_defocus.widgets._shared.dialogs import ask_metric_to_open, ask_metric_to_save
from napari_defocus.widgets._shared.latest import Latest
from napari_defocus.widgets._shared.plots import Plot
from napari_defocus.widgets._shared.session import session
from napari_defocus.widgets.detect.settings import MetricChooser

ROLE = "components"
# Between a metric's name and its number of components.
VARIANT = ", K = "
SHOWN_COMPONENTS = 8
SHOWN_RATIOS = 16
MOST_KERNELS = 128
# Wait this long, in milliseconds, for the next step of the spin box.
DEBOUNCE = 200
KEPT_CALIBRATION = (
    "the patches it was calibrated on are not at hand: the threshold is kept, and may be off"
)

Float = npt.NDArray[np.float32]


class KernelsWidget(QWidget):
    """Kernel PCA of a metric.

    Parameters
    ----------
    viewer : Viewer
        Given by napari.
    """

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self._session = session()
        self._latest = Latest(self)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(DEBOUNCE)
        # What is chosen, and what it is with the chosen number of components.
        self._chosen: LocalMetric | None = None
        self.shown: LocalMetric | None = None
        self.metric_chooser = MetricChooser()
        self.open_button = QPushButton("Open…")
        self.components = QSpinBox()
        self.text = QLabel()
        self.text.setWordWrap(True)
        self.plot = Plot(viewer)
        self.layer_button = QPushButton("As image layer")
        self.save_button = QPushButton("Save…")
        self._set_tips()
        self._lay_out()
        share_tips(self)
        self._connect()
        self._show_metrics()

    def _set_tips(self) -> None:
        set_tips(
            (self.metric_chooser, "The metric to look at."),
            (self.open_button, "Opens the file of a metric, such as Train saves."),
            (self.components, "How many principal components the metric takes as its filters; the "
                              "paper takes two."),
            (self.plot, "Above, what the nets learnt; then the directions in which their kernels "
                        "differ most, those of the metric in colour; below, the share of the "
                        "differences that each explains."),
            (self.layer_button, "Adds all components as a stack of small images."),
            (self.save_button, "Writes the metric, with this K, to a file."),
        )  # fmt: skip

    def _lay_out(self) -> None:
        metric = QHBoxLayout()
        metric.addWidget(self.metric_chooser, 1)
        metric.addWidget(self.open_button)
        form = QFormLayout()
        form.addRow("Metric", metric)
        form.addRow("Components K", self.components)
        buttons = QHBoxLayout()
        buttons.addWidget(self.layer_button)
        buttons.addWidget(self.save_button)
        layout = QVBoxLayout(self)
        layout.addLayout(form)
        layout.addWidget(self.text)
        layout.addWidget(self.plot, 1)
        layout.addLayout(buttons)

    def _connect(self) -> None:
        self.metric_chooser.currentIndexChanged.connect(self._choose)
        self.open_button.clicked.connect(self._choose_file_to_open)
        self.components.valueChanged.connect(self._request)
        self.layer_button.clicked.connect(self.add_layer)
        self.save_button.clicked.connect(self._choose_file_to_save)
        self._timer.timeout.connect(self._change_components)
        self._latest.ready.connect(self._publish)
        self._latest.failed.connect(self._refuse)
        self._session.metrics_changed.connect(self._show_metrics)

    # The metric

    def _show_metrics(self, changed: str = "") -> None:
        # What this widget itself makes of a metric is not listed beside it.
        names = tuple(name for name in self._session.metric_names if VARIANT not in name)
        if VARIANT not in changed:
            self.metric_chooser.show_names(names, changed)

    def _choose(self, _: int = 0) -> None:
        try:
            metric = self._session.metric(self.metric_chooser.name)
        except DefocusError as error:
            self._refuse(error)
            return
        if metric is self._chosen:
            return
        self._latest.stop()
        self._timer.stop()
        self._chosen = metric
        self.components.blockSignals(True)
        self.components.setRange(1, len(principal_components(metric).components))
        self.components.setValue(len(metric.filters))
        self.components.blockSignals(False)
        self._show(metric)

    def _show(self, metric: LocalMetric, note: str = "") -> None:
        self.shown = metric
        scores = metric.record.get("held_out", {})
        lines = [_origin(metric)]
        if "auc" in scores:
            lines.append(f"held out: AUC {scores['auc']:.3f}, accuracy {scores['accuracy']:.1%}")
        if note:
            lines.append(f"⚠ {note}")
        self.text.setText("\n".join(lines))
        self.plot.draw(lambda figure: _paint(figure, metric))

    def _refuse(self, error: Exception) -> None:
        self.text.setText(f"⚠ {error or type(error).__name__}")

    # The number of components

    def _request(self, _: int = 0) -> None:
        self._timer.start()

    def _change_components(self) -> None:
        metric, count = self._chosen, self.components.value()
        if metric is not None and self.shown is not None and count != len(self.shown.filters):
            nets = self._session.nets
            self._latest.ask((metric, count), _with_components, metric, count, nets)

    def _publish(self, key: tuple[LocalMetric, int], outcome: tuple[LocalMetric, bool]) -> None:
        metric, recalibrated = outcome
        if key != (self._chosen, self.components.value()):
            return
        self._show(metric, "" if recalibrated else KEPT_CALIBRATION)
        own = metric is self._chosen
        variant = "" if own else f"{VARIANT}{len(metric.filters)}"
        self._session.add_metric(f"{self.metric_chooser.name}{variant}", metric)

    # Layers and files

    def add_layer(self) -> None:
        """Show all components as an image layer; renew the one of this metric, if there."""
        metric = self.shown
        if metric is None:
            self._refuse(DefocusError("no metric is chosen"))
            return
        data = principal_components(metric).components
        largest = float(np.abs(data).max())
        name = f"{self.metric_chooser.currentText()} {ROLE}"
        note = {"role": ROLE, "metric": self.metric_chooser.name, "metric_digest": metric.digest}
        layer = self._own_layer()
        if layer is None:
            layer = self._viewer.add_image(data, name=name, metadata={layers.KEY: note})
        else:
            layer.data = data
            layer.metadata = {**layer.metadata, layers.KEY: note}
        layer.contrast_limits = (-largest, largest)

    def _own_layer(self) -> layers.Image | None:
        for layer in self._viewer.layers:
            note = layers.owned(layer)
            if note.get("role") == ROLE and note.get("metric") == self.metric_chooser.name:
                return layer
        return None

    def _choose_file_to_open(self) -> None:
        path = ask_metric_to_open(self)
        if path is not None:
            self.use_metric_file(path)

    def use_metric_file(self, path: Path) -> None:
        """Choose the metric of a file; say so where it cannot be used."""
        try:
            self._session.open_metric(path)
        except DefocusError as error:
            self._refuse(error)

    def _choose_file_to_save(self) -> None:
        path = ask_metric_to_save(self)
        if path is not None:
            self.save(path)

    def save(self, path: Path) -> None:
        """Write the metric, with the chosen number of components, to a file."""
        try:
            if self.shown is None:
                raise DefocusError("no metric is chosen")
            save_metric(self.shown, path)
        except DefocusError as error:
            self._refuse(error)
            return
        self.text.setText(f"saved to {path}")


def _with_components(
    metric: LocalMetric,
    count: int,
    nets: TrainedNets | None,
    on_event: OnEvent,
    should_stop: ShouldStop,
) -> tuple[LocalMetric, bool]:
    """Give a metric another number of components; tells whether it was calibrated anew."""
    if count == len(metric.filters):
        return metric, True
    for made_of in (lambda: nets, lambda: load_nets(PACKAGED["default"])):
        found = made_of()
        if found is not None and _made_of(metric, found):
            config = FitConfig(components=count, pooling=metric.pooling)
            return metric_from_nets(found, config), True
    return choose_components(metric, count), False


def _made_of(metric: LocalMetric, nets: TrainedNets) -> bool:
    return np.array_equal(metric.kernels.reshape(len(metric.kernels), -1), nets.kernels)


# Pictures


def _origin(metric: LocalMetric) -> str:
    size = f"{metric.size} x {metric.size}"
    if metric.record.get("method") == "instant":
        return f"instant fit, filters of {size}"
    return f"{len(metric.kernels)} kernels of {size}"


def _paint(figure: Figure, metric: LocalMetric) -> None:
    pca = principal_components(metric)
    count = len(metric.filters)
    kernels, components, ratios = figure.subplots(3, 1, height_ratios=(4, 1.6, 2.4))
    instant = metric.record.get("method") == "instant"
    what = "filters of the fit" if instant else "kernels, in whitened space"
    shown = metric.kernels[:MOST_KERNELS]
    of = f" of {len(metric.kernels)}" if len(metric.kernels) > len(shown) else ""
    kernels.set_title(f"{len(shown)}{of} {what}", loc="left")
    _paint_tiles(kernels, shown, int(np.ceil(np.sqrt(len(shown)))))
    kernels.set_axis_off()
    first = pca.components[:SHOWN_COMPONENTS]
    components.set_title("components", loc="left")
    _paint_tiles(components, first, SHOWN_COMPONENTS)
    _label_tiles(components, len(first), metric.size, count)
    _paint_ratios(ratios, pca.explained_variance_ratio, count)


def _paint_tiles(axes: Axes, pictures: Float, columns: int) -> None:
    """Draw pictures side by side, each with its own contrast around 0."""
    largest = np.abs(pictures).max(axis=(1, 2), keepdims=True)
    scaled = pictures / np.maximum(largest, np.finfo(np.float32).tiny)
    rows = -(-len(pictures) // columns)
    side = pictures.shape[-1]
    tiles = np.full((rows * columns, side + 1, side + 1), np.nan, np.float32)
    tiles[: len(pictures), :side, :side] = scaled
    mosaic = tiles.reshape(rows, columns, side + 1, side + 1).swapaxes(1, 2)
    mosaic = mosaic.reshape(rows * (side + 1), columns * (side + 1))[:-1, :-1]
    axes.imshow(mosaic, cmap="gray", vmin=-1, vmax=1, interpolation="nearest")


def _label_tiles(axes: Axes, shown: int, side: int, count: int) -> None:
    """Write K1, K2, ... below the tiles, those that the metric takes in colour."""
    axes.set_xticks(np.arange(shown) * (side + 1) + (side - 1) / 2)
    axes.set_xticklabels([f"K{index + 1}" for index in range(shown)])
    axes.set_yticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_facecolor("none")
    for label in axes.get_xticklabels()[:count]:
        label.set(color=COLOURS[SHARP], fontweight="bold")


def _paint_ratios(axes: Axes, ratio: Float, count: int) -> None:
    shown = ratio[:SHOWN_RATIOS]
    at = np.arange(1, len(shown) + 1)
    colours = [COLOURS[SHARP if index <= count else BLURRED] for index in at]
    axes.set_title(f"explained variance: {ratio[:count].sum():.0%} by K1-K{count}", loc="left")
    axes.bar(at, shown, color=colours)
    axes.plot(at, np.cumsum(shown), color="gray", marker=".", markersize=4, linewidth=1)
    axes.set_ylim(0, 1)
    axes.set_xticks(at[::2] if len(at) > SHOWN_COMPONENTS else at)
    axes.set_xlabel("component; line: cumulative")
