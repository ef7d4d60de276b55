"""Previews of large planes: every second (third, ...) pixel is enough to see."""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np

from napari_defocus.detection.config import DetectionConfig
from napari_defocus.detection.inference import Prediction
from napari_defocus.detection.postprocess import Detection, postprocess

MOST_PIXELS = 200_000


def preview_step(shape: Sequence[int], most: int | None = None) -> int:
    """Return n where every n-th pixel of a plane is previewed, `MOST_PIXELS` by default."""
    step, most = 1, most or MOST_PIXELS
    while -(-shape[0] // step) * -(-shape[1] // step) > most:
        step += 1
    return step


def reduced(prediction: Prediction, step: int) -> Prediction:
    """Take every step-th pixel."""
    parts: dict[str, Any] = {
        part.name: getattr(prediction, part.name) for part in fields(Prediction)
    }
    for name, part in parts.items():
        if isinstance(part, np.ndarray):
            parts[name] = part[::step, ::step]
    return Prediction(**parts)


def postprocess_reduced(prediction: Prediction, config: DetectionConfig, step: int) -> Detection:
    """Postprocess what `reduced` took."""
    smallest = config.mask.smallest // step**2
    return postprocess(prediction, replace(config, mask=replace(config.mask, smallest=smallest)))
