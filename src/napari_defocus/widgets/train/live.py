"""The instant fit as the user paints: patches of the session and of annotations on screen."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Labels, Layer
from qtpy.QtCore import QObject, Signal

from napari_defocus.core.errors import DefocusError
from napari_defocus.core.progress import track
from napari_defocus.metric.fitting import FitConfig, instant_metric
from napari_defocus.metric.local_metric import LocalMetric
from napari_defocus.metric.patches import PatchConfig, PatchSet, build_patch_set, merge_patch_sets
from napari_defocus.widgets._shared import layers
from napari_defocus.widgets._shared.latest import Latest
from napari_defocus.widgets._shared.session import Session
from napari_defocus.widgets._shared.targets import ANNOTATION, Target
from napari_defocus.widgets._shared.ui import debounced

# Wait this long, in milliseconds, after a stroke.
DEBOUNCE = 500


class LiveFit(QObject):
    """Fits a metric again after each stroke, while it is switched on.

    To the annotations in a viewer and the patches of the session, by the settings that `config`
    returns.
    """

    # The metric of the last stroke, or why there is none.
    fitted = Signal(object)
    failed = Signal(object)

    def __init__(
        self,
        viewer: ViewerModel,
        session: Session,
        config: Callable[[], FitConfig],
        parent: QObject,
    ) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._session = session
        self._config = config
        self._on = False
        self._latest = Latest(self)
        self._latest.ready.connect(self._receive)
        self._latest.failed.connect(self.failed)
        self._timer = debounced(self, DEBOUNCE, self._fit_now)
        session.patches_changed.connect(self._request)
        viewer.layers.events.inserted.connect(self._watch_new)
        viewer.layers.events.removed.connect(self._request)
        for layer in viewer.layers:
            self._watch(layer)

    def switch(self, on: bool) -> None:
        """Start or stop to follow."""
        self._on = on
        if on:
            self._request()
        else:
            self._timer.stop()
            self._latest.stop()

    def _watch_new(self, event: Any) -> None:
        self._watch(event.value)

    def _watch(self, layer: Layer) -> None:
        if isinstance(layer, Labels):
            # `paint` comes after strokes, `set_data` after undo, redo and new data.
            for event in (layer.events.paint, layer.events.set_data):
                event.connect(self._request)

    def _request(self, _: Any = None) -> None:
        # Qt may have deleted the timer before Python has.
        with suppress(RuntimeError):
            if self._on:
                self._timer.start()

    def _fit_now(self) -> None:
        self._latest.request(None, _fit, self._targets(), self._session.patch_sets, self._config())

    def _targets(self) -> list[Target]:
        """Copy what is painted now, with the image planes below it."""
        targets = []
        for layer in self._viewer.layers:
            note, source = layers.owned(layer), layers.source_of(self._viewer, layer)
            if note.get("role") == ANNOTATION and source is not None:
                index = tuple(note.get("index", ()))
                targets.append(Target(source, index, np.array(layer.data)))
        return targets

    def _receive(self, _: Any, metric: LocalMetric) -> None:
        if self._on:
            self.fitted.emit(metric)


def _fit(
    targets: list[Target], patch_sets: dict[str, PatchSet], config: FitConfig, **listeners: Any
) -> LocalMetric:
    """Fit to the patches of what is painted, and to those of images that are not on screen."""
    cut = next(iter(patch_sets.values())).config if patch_sets else PatchConfig()
    parts = dict(patch_sets)
    for number in track("cutting patches", len(targets), **listeners):
        target = targets[number]
        if target.labels.any():
            plane = target.read()
            parts[target.name] = build_patch_set([(target.name, plane, target.labels)], cut)
    if not parts:
        raise DefocusError("nothing is painted yet; paint blurred and sharp regions in Annotate")
    return instant_metric(merge_patch_sets(list(parts.values())), config)
