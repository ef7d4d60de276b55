"""Train a metric on the patch set, watch its loss, save it."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from napari.viewer import Viewer

from napari_defocus.core.errors import DefocusError
from napari_defocus.core.progress import Event
from napari_defocus.labels.classes import CLASS_NAMES
from napari_defocus.metric.local_metric import LocalMetric, save_metric
from napari_defocus.widgets._shared import ui
from napari_defocus.widgets._shared.dialogs import save_metric_button
from napari_defocus.widgets._shared.fit_jobs import (
    fit_patches,
    held_out_text,
    import_early,
    offer_trained,
)
from napari_defocus.widgets._shared.jobs import JobBar, plain
from napari_defocus.widgets._shared.latest import Latest
from napari_defocus.widgets._shared.plugin_widget import PluginWidget
from napari_defocus.widgets._shared.session import TRAINED
from napari_defocus.widgets.train.curves import Curves
from napari_defocus.widgets.train.live import LiveFit
from napari_defocus.widgets.train.settings import TrainingSettings

# Patch sets that are listed by name.
MOST_LISTED = 5
NO_PATCHES = "no patches yet; paint and add an annotation in Annotate, or open a patch set there"
HELD_OUT = (
    "Held out: patches that training does not see. AUC: of a sharp and a blurred patch, how often "
    "the metric orders them right; .5 is chance."
)


class TrainWidget(PluginWidget):
    """Patches in, a metric out."""

    def __init__(self, viewer: Viewer) -> None:
        super().__init__(viewer)
        self._epochs = 1
        self.patches = ui.wrapped_label(
            "The patches that Annotate cut, small windows of each class."
        )
        self.settings = TrainingSettings()
        self.jobs = JobBar(
            self._session.jobs, "Train", "Learns a metric from the patch set; choose it in Detect."
        )
        ui.tipped(self.jobs.text, HELD_OUT)
        self.curves = Curves(viewer)
        self.live = ui.tick_box(
            "instant fit while painting",
            "Fits the instant metric again after each stroke of an annotation.",
        )
        self.live_text = ui.wrapped_label(HELD_OUT)
        self.live_text.hide()
        tip = "Writes the metric to a file, to keep and to share."
        self.save_button = save_metric_button(self, "Save metric…", tip, self.save)
        self._live_fit = LiveFit(
            viewer, self._session, lambda: replace(self.settings.config, method="instant"), self
        )
        self._imports = Latest(self)
        self._imports.request(None, plain(import_early))
        layout = ui.column(self, self.patches, self.settings, self.jobs, self.live, self.live_text,
                        self.curves, self.save_button, margin=True)  # fmt: skip
        layout.setStretchFactor(self.curves, 1)
        self.jobs.clicked.connect(self.train)
        self.jobs.progressed.connect(self._follow)
        self.live.toggled.connect(self._toggle_live)
        self.settings.changed.connect(self._refit)
        self._live_fit.fitted.connect(self._show_live)
        self._live_fit.failed.connect(lambda error: self.live_text.setText(ui.warning(error)))
        self._session.patches_changed.connect(self._show_patches)
        self._session.metrics_changed.connect(self._enable_save)
        self._show_patches()
        self._enable_save()

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
        offer = partial(offer_trained, self._session, self.jobs)
        self.jobs.run(offer, fit_patches, patch_sets, config)

    def _follow(self, event: Event) -> None:
        if event.values:
            self.curves.add((event.done - 1) // self._epochs, event.values)

    # The instant fit

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

    # Files

    def _has_metric(self) -> bool:
        return TRAINED in self._session.metric_names

    def _enable_save(self, _: str = "") -> None:
        self.save_button.setEnabled(self._has_metric())

    def save(self, path: Path) -> None:
        """Write the trained metric to a file; show why where that fails."""
        with self.jobs.saving(path):
            if not self._has_metric():
                raise DefocusError("there is no trained metric yet; press Train")
            save_metric(self._session.metric(TRAINED), path)


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())
