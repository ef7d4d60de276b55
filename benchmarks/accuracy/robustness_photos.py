"""The checks of `robustness.py` on photos with masks: AUC as they are changed, and calibration."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.accuracy.photos import Photo, read_photos
from benchmarks.accuracy.robustness_checks import (
    Detector,
    Image8,
    Measured,
    Settings,
    Target,
    add_noise,
    eight_bit,
    resize,
)
from napari_defocus.evaluate.scores import auc
from napari_defocus.labels.classes import BLURRED
from napari_defocus.simulate.optics import through_jpeg

CALIBRATION_BINS = 10
FACTORS = (0.25, 0.5, 2)


@dataclass(frozen=True)
class Change:
    """Something done to a photo, and how much of the AUC it may cost (or shift)."""

    name: str
    target: Target
    apply: Callable[[Photo, np.random.Generator], Photo]


def photo_changes() -> list[Change]:
    """List what is done to photos."""
    level, scaled = Target("within", 0.005), Target("within", 0.02)
    return [
        *(
            _image_change(f"noise of {sigma}", Target("<", limit), partial(add_noise, sigma=sigma))
            for sigma, limit in ((5, 0.01), (10, 0.02), (20, 0.05))
        ),
        _image_change("JPEG quality 30", Target("<", 0.01), lambda x, _: through_jpeg(x, 30)),
        *(_image_change(f"brightness x {f:g}", level, partial(_brighten, f)) for f in FACTORS),
        *(_image_change(f"contrast x {f:g}", level, partial(_contrast, f)) for f in FACTORS),
        _image_change("as uint16", level, lambda x, _: x.astype(np.uint16) * 257),
        _image_change("as float32", level, lambda x, _: x / np.float32(255)),
        *(Change(f"scaled x {f:g}", scaled, partial(_scale, f)) for f in (0.5, 2)),
    ]


def _image_change(
    name: str, target: Target, change: Callable[[Image8, np.random.Generator], npt.NDArray[Any]]
) -> Change:
    return Change(name, target, lambda photo, rng: replace(photo, image=change(photo.image, rng)))


def _brighten(factor: float, image: Image8, _: np.random.Generator) -> npt.NDArray[np.float32]:
    return np.asarray(image * np.float32(factor))  # not rounded: nothing clips


def _contrast(factor: float, image: Image8, _: np.random.Generator) -> npt.NDArray[np.float32]:
    mean = np.float32(image.mean())
    return np.asarray(mean + np.float32(factor) * (image - mean))


def _scale(factor: float, photo: Photo, _: np.random.Generator) -> Photo:
    size = [round(factor * extent) for extent in photo.blurred.shape[::-1]]
    mask = Image.fromarray(photo.blurred.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
    image = eight_bit(resize(photo.image.astype(np.float32), size))
    return Photo(photo.name, image, np.asarray(mask) > 0)


def photo_auc(detector: Detector, data: Path, settings: Settings) -> Iterator[Measured]:
    """Measure the AUC on photos, and what changes of the photos do to it."""
    photos = read_photos(data / "photos")
    base = _mean_auc(detector, photos)
    yield Measured("photos: AUC", base)
    for change in photo_changes():
        changed = [
            change.apply(photo, np.random.default_rng([settings.seed, index]))
            for index, photo in enumerate(photos)
        ]
        value = _mean_auc(detector, changed) - base
        falls = change.target.kind == "<"
        row = f"photos, {change.name}: {'fall' if falls else 'change'} of AUC"
        yield Measured(row, -value if falls else value, change.target)


def _mean_auc(detector: Detector, photos: Iterable[Photo]) -> float:
    # A photo of one class alone has no AUC.
    return float(np.nanmean([auc(detector(p.image).blur, p.blurred) for p in photos]))


def calibration(detector: Detector, data: Path, _: Settings) -> Iterator[Measured]:
    """Measure how far the confidence is from the share of pixels that are right."""
    chances, rights = [], []
    for photo in read_photos(data / "photos"):
        found = detector(photo.image)
        assert found.confidence is not None
        decided = found.mask > 0
        chances.append((1 + found.confidence[decided]) / 2)
        rights.append((found.mask[decided] == BLURRED) == photo.blurred[decided])
    chance, right = np.concatenate(chances), np.concatenate(rights)
    detail = ""
    if len(right):
        detail = f"right {right.mean():.3f}, predicted {chance.mean(dtype=np.float64):.3f}"
    row = f"photos: calibration error of the confidence, {CALIBRATION_BINS} bins"
    yield Measured(row, calibration_error(chance, right), detail=detail)


def calibration_error(chance: npt.NDArray[Any], right: npt.NDArray[np.bool_]) -> float:
    """Return the mean over pixels of the gap, within a bin, of accuracy and predicted chance.

    Parameters
    ----------
    chance : (N,) ndarray
        Predicted chance of being right, in [.5, 1].
    right : (N,) ndarray of bool
        Whether it was.
    """
    if not len(chance):
        return np.nan
    bins = np.clip(((chance - 0.5) * 2 * CALIBRATION_BINS).astype(int), 0, CALIBRATION_BINS - 1)
    gap = np.bincount(bins, right.astype(float) - chance, CALIBRATION_BINS)
    return float(np.abs(gap).sum() / len(chance))
