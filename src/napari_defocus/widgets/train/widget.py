"""Train a metric on the patch set, watch its loss, keep it."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from napari.components import ViewerModel
from napari.viewer import Viewer
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import (
    QCheckBox,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_defocus.core.errors import DefocusError
from napari_defocus.core.progress import Event
from napari_defocus.labels.classes import CLASS_NAMES
from napari_defocus.metric.fitting import FitConfig
from napari_defocus.metric.local_metric import LocalMetric, save_metric
from napari_defocus.metric.nets import TrainedNets
from napari_defocus.widgets._shared.controls import set_tips, wrapped_label
from napari_defocus.widgets._shared.dialogs import ask_metric_to_save
from napari_defocus.widgets._shared.fit_jobs import fit_patches, held_out_text, import_torch
from napari_defocus.widgets._shared.jobs import JobBar
from napari_defocus.widgets._shared.latest import Latest
from napari_defocus.widgets._shared.plots import Plot
from napari_defocus.widgets._shared.session import TRAINED, session
from napari_defocus.widgets.train.live import LiveFit
from napari_defocus.widgets.train.settings import TrainingSettings

# Curves are redrawn after so many milliseconds at the earliest.
REDRAW = 250
# Patch sets that are listed by name.
MOST_LISTED = 5
NO_PATCHES = "no patches yet; paint and add an annotation in Annotate, or open a patch set there"


class Curves:
    """Loss and accuracy of each net, drawn as they come.

    The window waits while a figure is drawn, so lines grow over what is there until they leave it.

    Parameters
    ----------
    viewer : Viewer
        Whose theme is followed.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        # Figures of each epoch, by net.
        self.history: dict[int, list[Mapping[str, float]]] = {}
        self.plot = Plot(viewer)
        self._epochs = 1
        self._limits: tuple[float, float] | None = None
        self._timer = QTimer(self.plot)
        self._timer.setSingleShot(True)
        self._timer.setInterval(REDRAW)
        self._timer.timeout.connect(self._grow)

    def clear(self, epochs: int) -> None:
        """Begin anew, with room for so many epochs."""
        self.history, self._epochs = {}, epochs
        self.plot.draw(self._paint)

    def add(self, net: int, epoch: Mapping[str, float]) -> None:
        """Add the figures of an epoch of a net."""
        self.history.setdefault(net, []).append(epoch)
        if not self._timer.isActive():
            self._timer.start()

    def _grow(self) -> None:
        drawn = self.plot.figure.axes
        if not drawn or self._limits != self._find_limits():
            self.plot.draw(self._paint)
        else:
            self.plot.add_lines(self._add_lines(*drawn))

    def _find_limits(self) -> tuple[float, float]:
        """Give the upper limit of losses and the lower one of accuracies, in coarse steps."""
        epochs = [epoch for net in self.history.values() for epoch in net]
        loss = max(max(epoch["loss"], epoch["train_loss"]) for epoch in epochs)
        accuracy = min(epoch["accuracy"] for epoch in epochs)
        return math.ceil(loss * 10 + 0.1) / 10, min(math.floor(accuracy * 10 - 0.1) / 10, 0.9)

    def _paint(self, figure: Figure) -> None:
        if not self.history:
            return
        # A layout that is fitted to its labels is slow.
        figure.set_layout_engine("none")
        margins = {"left": 0.19, "right": 0.97, "top": 0.93, "bottom": 0.14, "hspace": 0.35}
        above, below = figure.subplots(2, 1, sharex=True, gridspec_kw=margins)
        above.set_title("loss: held out, dotted training", loc="left")
        below.set_title("held-out accuracy", loc="left")
        below.set_xlabel("epoch; a colour for each net")
        below.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        below.set_xlim(0.5, self._epochs + 0.5)
        for axes in (above, below):
            axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
        self._limits = self._find_limits()
        above.set_ylim(0, self._limits[0])
        below.set_ylim(self._limits[1], 1)
        self._add_lines(above, below)

    def _add_lines(self, above: Axes, below: Axes) -> list[Line2D]:
        """Replace the lines in the axes by those of the history as it is now."""
        for line in (*above.lines, *below.lines):
            line.remove()
        lines = []
        for net, epochs in self.history.items():
            style = {"color": f"C{net % 10}", "linewidth": 1.2}
            mark = {"marker": ".", "markersize": 5}
            at = range(1, len(epochs) + 1)
            for axes, name, more in (
                (above, "train_loss", {"linestyle": ":"}),
                (above, "loss", mark),
                (below, "accuracy", mark),
            ):
                values = [epoch[name] for epoch in epochs]
                lines += axes.plot(at, values, scalex=False, scaley=False, **style, **more)
        return lines


class TrainWidget(QWidget):
    """Patches in, a metric out.

    Parameters
    ----------
    viewer : Viewer
        Given by napari.
    """

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._session = session()
        self._epochs = 1
        self.patches = wrapped_label()
        self.settings = TrainingSettings()
        self.jobs = JobBar(
            self._session.jobs, "Train", "Learns a metric from the patch set; choose it in Detect."
        )
        self.curves = Curves(viewer)
        self.live = QCheckBox("instant fit while painting")
        self.live_text = wrapped_label()
        self.save_button = QPushButton("Save metric…")
        self._set_tips()
        self._live_fit = LiveFit(viewer, self._session, self._instant_config, self)
        # Loading torch holds the window up for a moment: better now than amid a training.
        self._imports = Latest(self)
        self._imports.ask(None, import_torch)
        self._lay_out()
        self._connect()
        self._show_patches()
        self._enable_save()

    def _set_tips(self) -> None:
        held_out = (
            "Held out: patches that training does not see. AUC: of a sharp and a blurred patch, "
            "how often the metric orders them right; .5 is chance."
        )
        set_tips(
            (self.patches, "The patches that Annotate cut, small windows of each class."),
            (self.live, "Fits the instant metric again after each stroke of an annotation."),
            (self.live_text, held_out),
            (self.jobs.text, held_out),
            (self.curves.plot, "Loss, which training lowers, and the accuracy on patches that it "
                               "does not see; an epoch is one pass over the patches."),
            (self.save_button, "Writes the metric to a file, to keep and to share."),
        )  # fmt: skip

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        for part in (
            self.patches,
            self.settings,
            self.jobs,
            self.live,
            self.live_text,
            self.curves.plot,
            self.save_button,
        ):
            layout.addWidget(part)
        layout.setStretchFactor(self.curves.plot, 1)
        self.live_text.hide()

    def _connect(self) -> None:
        self.jobs.clicked.connect(self.train)
        self.jobs.progressed.connect(self._follow)
        self.live.toggled.connect(self._toggle_live)
        self.settings.changed.connect(self._refit)
        self._live_fit.fitted.connect(self._show_live)
        self._live_fit.failed.connect(self._refuse_live)
        self._session.patches_changed.connect(self._show_patches)
        self._session.metrics_changed.connect(self._enable_save)
        self.save_button.clicked.connect(self._choose_file)

    # Patches

    def _show_patches(self) -> None:
        sets = self._session.patch_sets
        if not sets:
            self.patches.setText(NO_PATCHES)
            return
        total = {
            name: sum(s.counts()[name] for s in sets.values()) for name in CLASS_NAMES.values()
        }
        images = sum(len(patch_set.sources) for patch_set in sets.values())
        lines = [f"{_counted(total)} patches of {images} image{'s' * (images > 1)}"]
        if len(sets) > 1:
            lines += [f"{name}: {_counted(s.counts())}" for name, s in sets.items()][:MOST_LISTED]
        if len(sets) > MOST_LISTED:
            lines.append(f"and {len(sets) - MOST_LISTED} more")
        self.patches.setText("\n".join(lines))

    # Training

    def train(self) -> None:
        """Train on the session's patches, in the background."""
        patch_sets = list(self._session.patch_sets.values())
        if not patch_sets:
            self.jobs.refuse(DefocusError(NO_PATCHES))
            return
        config = self.settings.config
        self._epochs = config.training.epochs
        self.curves.clear(self._epochs)
        self.jobs.run(self._keep, fit_patches, patch_sets, config)

    def _follow(self, event: Event) -> None:
        if event.values:
            self.curves.add((event.done - 1) // self._epochs, event.values)

    def _keep(self, outcome: tuple[LocalMetric, TrainedNets | None]) -> None:
        metric, self._session.nets = outcome
        self._session.add_metric(TRAINED, metric)
        self.jobs.say(f"{held_out_text(metric)}; offered in Detect as {TRAINED!r}")

    # The instant fit

    def _instant_config(self) -> FitConfig:
        return replace(self.settings.config, method="instant")

    def _toggle_live(self, on: bool) -> None:
        self.live_text.setVisible(on)
        self.live_text.clear()
        self._live_fit.switch(on)

    def _refit(self) -> None:
        if self.live.isChecked():
            self._live_fit.switch(True)

    def _show_live(self, metric: LocalMetric) -> None:
        self.live_text.setText(held_out_text(metric))
        before = self._session.metric(TRAINED) if self._has_metric() else None
        if before is None or before.digest != metric.digest:
            self._session.nets = None
            self._session.add_metric(TRAINED, metric)

    def _refuse_live(self, error: Exception) -> None:
        self.live_text.setText(f"⚠ {error or type(error).__name__}")

    # Files

    def _has_metric(self) -> bool:
        return TRAINED in self._session.metric_names

    def _enable_save(self, _: str = "") -> None:
        self.save_button.setEnabled(self._has_metric())

    def _choose_file(self) -> None:
        path = ask_metric_to_save(self)
        if path is not None:
            self.save(path)

    def save(self, path: Path) -> None:
        """Write the trained metric to a file; say so where that fails."""
        try:
            if not self._has_metric():
                raise DefocusError("there is no trained metric yet; press Train")
            save_metric(self._session.metric(TRAINED), path)
        except DefocusError as error:
            self.jobs.refuse(error)
            return
        self.jobs.say(f"saved to {path}")


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())
