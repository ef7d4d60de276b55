"""Look at a metric: its kernels, their principal components, and how many of them it takes."""

from pathlib import Path

import numpy as np
from napari.viewer import Viewer
from qtpy.QtWidgets import QSpinBox
from superqt.utils import signals_blocked

from napari_defocus.core.errors import DefocusError
from napari_defocus.metric.fitting import FitConfig, metric_from_nets
from napari_defocus.metric.kernel_pca import is_turned
from napari_defocus.metric.local_metric import (
    LocalMetric,
    choose_components,
    principal_components,
    save_metric,
)
from napari_defocus.metric.nets import PACKAGED, TrainedNets, load_nets
from napari_defocus.widgets._shared import layers, ui
from napari_defocus.widgets._shared.choosers import NameChooser
from napari_defocus.widgets._shared.dialogs import ask_metric_to_open, save_metric_button
from napari_defocus.widgets._shared.jobs import plain
from napari_defocus.widgets._shared.latest import Latest
from napari_defocus.widgets._shared.plots import Plot
from napari_defocus.widgets._shared.plugin_widget import PluginWidget
from napari_defocus.widgets.kernels.pictures import paint_metric

ROLE = "components"
NO_METRIC = "no metric is chosen"
# Between a metric's name and its number of components.
VARIANT = ", K = "
# Wait this long, in milliseconds, for the next step of the spin box.
DEBOUNCE = 200
ONE_MEASURE = "K2 is K1 turned by 90°: together one measure, in all directions"
KEPT_CALIBRATION = (
    "the patches it was calibrated on are not at hand: the threshold is kept, and may be off"
)


class KernelsWidget(PluginWidget):
    """Kernel PCA of a metric."""

    def __init__(self, viewer: Viewer) -> None:
        super().__init__(viewer)
        self._latest = Latest(self)
        self._timer = ui.debounced(self, DEBOUNCE, self._change_components)
        # What is chosen, and what it is with the chosen number of components.
        self._chosen: LocalMetric | None = None
        self.shown: LocalMetric | None = None
        self.metric_chooser = ui.tipped(NameChooser(), "The metric to look at.")
        self.open_button = ui.button(
            "Open…",
            "Opens the file of a metric, such as Train saves.",
            lambda: ask_metric_to_open(self, self.use_metric_file),
        )
        self.components = ui.tipped(
            QSpinBox(),
            "How many principal components the metric takes as its filters; the paper takes two. "
            "Components of equal share are pairs, one filter and the same turned.",
        )
        self.text = ui.wrapped_label()
        self.plot = ui.tipped(
            Plot(viewer),
            "Above, what the nets learnt; then the components of their kernels, those of the "
            "metric in colour; below, the share of each.",
        )
        self.layer_button = ui.button(
            "As image layer", "Adds all components as a stack of small images.", self.add_layer
        )
        tip = "Writes the metric, with this K, to a file."
        self.save_button = save_metric_button(self, "Save…", tip, self.save)
        metric = ui.row(self.metric_chooser, self.open_button)
        metric.setStretch(0, 1)
        settings = ui.form(("Metric", metric), ("Components K", self.components))
        buttons = ui.row(self.layer_button, self.save_button)
        layout = ui.column(self, settings, self.text, self.plot, buttons, margin=True)
        layout.setStretchFactor(self.plot, 1)
        self.metric_chooser.currentIndexChanged.connect(self._choose)
        self.components.valueChanged.connect(lambda: self._timer.start())
        self._latest.ready.connect(self._publish)
        self._latest.failed.connect(self._refuse)
        self._session.metrics_changed.connect(self._show_metrics)
        self._show_metrics()

    # The metric

    def _show_metrics(self, changed: str = "") -> None:
        # What this widget itself makes of a metric is not listed beside it.
        names = tuple(name for name in self._session.metric_names if VARIANT not in name)
        if VARIANT not in changed:
            self.metric_chooser.show_names(names, changed)

    def _choose(self, _: int = 0) -> None:
        with ui.refusing(self._refuse):
            metric = self._session.metric(self.metric_chooser.name)
            if metric is not self._chosen:
                self._look_at(metric)

    def _look_at(self, metric: LocalMetric) -> None:
        self._latest.stop()
        self._timer.stop()
        self._chosen = metric
        with signals_blocked(self.components):
            self.components.setRange(1, len(principal_components(metric).components))
            self.components.setValue(len(metric.filters))
        self._show(metric)

    def _show(self, metric: LocalMetric, note: str = "") -> None:
        self.shown = metric
        scores = metric.record.get("held_out", {})
        lines = [_origin(metric)]
        if len(metric.filters) == 2 and is_turned(*metric.filters):
            lines.append(ONE_MEASURE)
        if "auc" in scores:
            lines.append(f"held out: AUC {scores['auc']:.3f}, accuracy {scores['accuracy']:.1%}")
        if note:
            lines.append(f"⚠ {note}")
        self.text.setText("\n".join(lines))
        self.plot.draw(lambda figure: paint_metric(figure, metric))

    def _refuse(self, error: Exception) -> None:
        self.text.setText(ui.warning(error))

    # The number of components

    def _change_components(self) -> None:
        metric, count = self._chosen, self.components.value()
        if metric is not None and self.shown is not None and count != len(self.shown.filters):
            nets = self._session.nets
            self._latest.request((metric, count), plain(_with_components), metric, count, nets)

    def _publish(self, key: tuple[LocalMetric, int], outcome: tuple[LocalMetric, bool]) -> None:
        metric, recalibrated = outcome
        if key != (self._chosen, self.components.value()):
            return
        self._show(metric, "" if recalibrated else KEPT_CALIBRATION)
        variant = "" if metric is self._chosen else f"{VARIANT}{len(metric.filters)}"
        self._session.add_metric(f"{self.metric_chooser.name}{variant}", metric)

    # Layers and files

    def add_layer(self) -> None:
        """Show all components as an image layer; renew the one of this metric, if there."""
        metric = self.shown
        if metric is None:
            self._refuse(DefocusError(NO_METRIC))
            return
        data = principal_components(metric).components
        largest = float(np.abs(data).max())
        name = f"{self.metric_chooser.currentText()} {ROLE}"
        note = {"role": ROLE, "metric": self.metric_chooser.name}
        layer = layers.find(self._viewer, **note)
        note["metric_digest"] = metric.digest
        if layer is None:
            layer = self._viewer.add_image(data, name=name, metadata={layers.KEY: note})
        else:
            layer.data = data
            layer.metadata = {**layer.metadata, layers.KEY: note}
        layer.contrast_limits = (-largest, largest)

    def use_metric_file(self, path: Path) -> None:
        """Choose the metric of a file; show why where it cannot be used."""
        with ui.refusing(self._refuse):
            self._session.open_metric(path)

    def save(self, path: Path) -> None:
        """Write the metric, with the chosen number of components, to a file."""
        with ui.refusing(self._refuse):
            if self.shown is None:
                raise DefocusError(NO_METRIC)
            save_metric(self.shown, path)
            self.text.setText(f"saved to {path}")


def _with_components(
    metric: LocalMetric, count: int, nets: TrainedNets | None
) -> tuple[LocalMetric, bool]:
    """Return a metric with another number of components, and whether it was calibrated anew."""
    if count == len(metric.filters):
        return metric, True
    for made_of in (lambda: nets, lambda: load_nets(PACKAGED["default"])):
        found = made_of()
        if found is not None and _made_of(metric, found):
            config = FitConfig(components=count, pooling=metric.pooling)
            return metric_from_nets(found, config), True
    # As the paper has it there is no calibration to be off.
    return choose_components(metric, count), metric.literal


def _made_of(metric: LocalMetric, nets: TrainedNets) -> bool:
    return np.array_equal(metric.kernels.reshape(len(metric.kernels), -1), nets.kernels)


def _origin(metric: LocalMetric) -> str:
    size = f"{metric.size} x {metric.size}"
    if metric.record.get("method") == "instant":
        return f"instant fit, filters of {size}"
    return f"{len(metric.kernels)} kernels of {size}"
