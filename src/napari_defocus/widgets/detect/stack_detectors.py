"""The detectors of an image layer's planes, kept so that its stack has to teach only once."""

from typing import Any

import numpy as np
from napari.layers import Image

from napari_defocus.detection.config import DetectionConfig
from napari_defocus.detection.detectors import DetectorLike, choose_detector
from napari_defocus.detection.own_stack import StackDetectors
from napari_defocus.widgets._shared import layers


class KeptDetectors:
    """The `StackDetectors` of the layer and detector asked for last."""

    def __init__(self) -> None:
        self._key: Any = None
        self._kept: StackDetectors | None = None

    def of(self, layer: Image, given: DetectorLike, config: DetectionConfig) -> StackDetectors:
        """Return those of a layer; DefocusError where a setting cannot be used."""
        chosen = choose_detector(given, config)
        axes, size = layers.axes_of(layer), layers.pixel_size_um(layer)
        key = layer.unique_id, chosen.digest, axes, size
        if self._kept is None or key != self._key:
            data, leading = layers.full_resolution(layer), layers.leading_shape(layer)

            def read(index: layers.Index) -> Any:
                return np.asarray(data[index])

            self._key = key
            self._kept = StackDetectors(chosen, axes, leading, read, repr(layer.name), size)
        return self._kept

    def forget(self) -> None:
        """Teach anew next time: the pixels were changed."""
        self._kept = None
