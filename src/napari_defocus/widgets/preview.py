"""A live preview of the plane on screen: the metric is applied once, thresholds as they move."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from qtpy.QtCore import QObject, Signal

from napari_defocus.detection import Detection, DetectionConfig, Judgement, decide, judge_plane
from napari_defocus.events import OnEvent, ShouldStop
from napari_defocus.metric import LocalMetric
from napari_defocus.widgets.jobs import Job

# Larger planes are previewed at every second (third, ...) pixel.
MOST_PIXELS = 300_000


class Preview(QObject):
    """Works in the background; of requests that come faster than answers only the last counts."""

    ready = Signal(object)
    failed = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self._job: Job | None = None
        self._waiting: tuple[Any, ...] | None = None
        self._key: tuple[Any, ...] | None = None
        self._judgement: Judgement | None = None

    def ask(
        self,
        key: tuple[Any, ...],
        read: Callable[[], Any],
        metric: LocalMetric,
        config: DetectionConfig,
    ) -> None:
        """Ask for a preview.

        Parameters
        ----------
        key : tuple
            Names the plane; while it, the metric and the scale stay, only thresholds are redone.
        read : callable
            Gives the plane, (Y, X) or (Y, X, C).
        metric, config
            See `detect`.
        """
        request = ((*key, metric.digest, config.scale), read, metric, config)
        if self._job is not None:
            self._waiting = request
            return
        self._start(request)

    def stop(self) -> None:
        """Drop what is asked for."""
        self._waiting = None
        if self._job is not None:
            self._job.quit()

    def _start(self, request: tuple[Any, ...]) -> None:
        key, read, metric, config = request
        judgement = self._judgement if key == self._key else None
        self._job = Job(_preview, judgement, read, metric, config)
        self._job.returned.connect(lambda result: self._receive(key, result))
        self._job.errored.connect(self.failed)
        self._job.finished.connect(self._next)
        self._job.start()

    def _receive(self, key: tuple[Any, ...], result: Any) -> None:
        if result is None:
            return
        judgement, detection, step = result
        self._key, self._judgement = key, judgement
        self.ready.emit((key, detection, step))

    def _next(self) -> None:
        self._job = None
        if self._waiting is not None:
            request, self._waiting = self._waiting, None
            self._start(request)


def _preview(
    judgement: Judgement | None,
    read: Callable[[], Any],
    metric: LocalMetric,
    config: DetectionConfig,
    on_event: OnEvent,
    should_stop: ShouldStop,
) -> tuple[Judgement, Detection, int]:
    if judgement is None:
        judgement = judge_plane(read(), metric, config, should_stop)
    step = 1
    while judgement.level[::step, ::step].size > MOST_PIXELS:
        step += 1
    reduced = Judgement(judgement.level[::step, ::step], judgement.judged[::step, ::step])
    smallest = config.mask.smallest // step**2
    config = replace(config, mask=replace(config.mask, smallest=smallest))
    return judgement, decide(reduced, config), step
