"""A live preview of the plane on screen: predicted once, postprocessed as sliders move."""

from typing import Any

from qtpy.QtCore import QObject, Signal

from napari_defocus.core.progress import OnEvent, ShouldStop
from napari_defocus.detection.config import DetectionConfig, check_config
from napari_defocus.detection.detectors import settle
from napari_defocus.detection.inference import Prediction, predict_plane
from napari_defocus.detection.own_stack import StackDetectors
from napari_defocus.detection.postprocess import Detection
from napari_defocus.widgets._shared.latest import Latest
from napari_defocus.widgets._shared.reduced import postprocess_reduced, preview_step, reduced


class Preview(QObject):
    """Works in the background; of requests that come faster than answers only the last counts.

    Signals
    -------
    ready : (key, Detection, int)
        The preview of every so many pixels.
    failed : Exception
        Why there is none.
    """

    ready = Signal(object)
    failed = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self._key: tuple[Any, ...] | None = None
        self._prediction: Prediction | None = None
        self._edition = 0
        self._latest = Latest(self)
        self._latest.ready.connect(self._receive)
        self._latest.failed.connect(self.failed)

    def request(
        self,
        key: tuple[Any, ...],
        index: tuple[int, ...],
        detectors: StackDetectors,
        config: DetectionConfig,
    ) -> None:
        """Request a preview.

        Parameters
        ----------
        key : tuple
            Names the plane; while it, the detector and the scale stay, only thresholds are redone.
        index : tuple of int
            Of the plane.
        detectors : StackDetectors
            Of the image.
        config : DetectionConfig
            See `detect`.
        """
        check_config(config)
        key = (*key, self._edition, detectors.chosen.digest, config.scale)
        self._latest.request(key, self._preview, key, index, detectors, config)

    def prediction(self, key: tuple[Any, ...]) -> Prediction | None:
        """Return the latest prediction where it is of the plane of a key."""
        current = self._key is not None and self._key[: len(key) + 1] == (*key, self._edition)
        return self._prediction if current else None

    def stop(self) -> None:
        """Drop all requests."""
        self._latest.stop()

    def forget(self) -> None:
        """Predict the plane anew next time: its pixels were changed."""
        self._edition += 1

    def _receive(self, key: tuple[Any, ...], result: tuple[Prediction, Detection, int]) -> None:
        prediction, detection, step = result
        self._key, self._prediction = key, prediction
        self.ready.emit((key, detection, step))

    def _preview(
        self, key: tuple[Any, ...], *arguments: Any, **callbacks: Any
    ) -> tuple[Prediction, Detection, int]:
        """Work in the background, one call at a time: the prediction does not change under it."""
        prediction = self._prediction if key == self._key else None
        return _preview(prediction, *arguments, **callbacks)


def _preview(
    prediction: Prediction | None,
    index: tuple[int, ...],
    detectors: StackDetectors,
    config: DetectionConfig,
    on_event: OnEvent,
    should_stop: ShouldStop,
) -> tuple[Prediction, Detection, int]:
    detector = detectors.at(index, should_stop)
    config = settle(config, detector, detectors.pixel_size)
    if prediction is None:
        prediction = predict_plane(detectors.read(index), detector, config, should_stop)
    step = preview_step(prediction.score.shape)
    return prediction, postprocess_reduced(reduced(prediction, step), config, step), step
