"""What `robustness.py` measures on photos with masks: AUC as they are changed, and calibration."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Change:
    """Something done to a photo, and how much of the AUC it may cost (or shift)."""

    name: str
    target: Target
    apply: Callable[[Photo, np.random.Generator], Photo]


def photo_changes() -> list[Change]:
    """Give what is done to photos."""
    noise = [
        Change(f"noise of {sigma}", Target("<", limit), _on_image(add_noise, sigma))
        for sigma, limit in ((5, 0.01), (10, 0.02), (20, 0.05))
    ]
    jpeg = Change("JPEG quality 30", Target("<", 0.01), _on_image(_compress, 30))
    level = Target("within", 0.005)
    brightness = [
        Change(f"brightness x {factor:g}", level, _on_image(_brighten, factor))
        for factor in (0.25, 0.5, 2)
    ]
    contrast = [
        Change(f"contrast x {factor:g}", level, _on_image(_contrast, factor))
        for factor in (0.25, 0.5, 2)
    ]
    types = [
        Change("as uint16", level, _on_image(lambda x, _, f: x.astype(np.uint16) * f, 257)),
        Change("as float32", level, _on_image(lambda x, _, f: x / np.float32(f), 255)),
    ]
    scales = [
        Change(f"scaled x {factor:g}", Target("within", 0.02), _scaler(factor))
        for factor in (0.5, 2)
    ]
    return [*noise, jpeg, *brightness, *contrast, *types, *scales]


def _on_image(
    change: Callable[[Any, np.random.Generator, Any], npt.NDArray[Any]], amount: float
) -> Callable[[Photo, np.random.Generator], Photo]:
    return lambda photo, rng: Photo(photo.name, change(photo.image, rng, amount), photo.blurred)


def _compress(image: Image8, _: np.random.Generator, quality: int) -> Image8:
    return through_jpeg(image, quality)


def _brighten(image: Image8, _: np.random.Generator, factor: float) -> npt.NDArray[np.float32]:
    return np.asarray(image * np.float32(factor))  # not rounded: nothing clips


def _contrast(image: Image8, _: np.random.Generator, factor: float) -> npt.NDArray[np.float32]:
    mean = np.float32(image.mean())
    return np.asarray(mean + np.float32(factor) * (image - mean))


def _scaler(factor: float) -> Callable[[Photo, np.random.Generator], Photo]:
    def scaled(photo: Photo, _: np.random.Generator) -> Photo:
        size = [round(factor * extent) for extent in photo.blurred.shape[::-1]]
        mask = Image.fromarray(photo.blurred.astype(np.uint8)).resize(
            size, Image.Resampling.NEAREST
        )
        image = eight_bit(resize(photo.image.astype(np.float32), size))
        return Photo(photo.name, image, np.asarray(mask) > 0)

    return scaled


def photo_auc(detector: Detector, data: Path, settings: Settings) -> Iterator[Measured]:
    """Measure the AUC on photos, and what changes of the photos do to it."""
    photos = read_photos(data)
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
    for photo in read_photos(data):
        found = detector(photo.image)
        assert found.confidence is not None
        decided = found.mask > 0
        chances.append((1 + found.confidence[decided]) / 2)
        rights.append((found.mask[decided] == BLURRED) == photo.blurred[decided])
    chance, right = np.concatenate(chances), np.concatenate(rights)
    told = (
        f"right {right.mean():.3f}, told {chance.mean(dtype=np.float64):.3f}" if len(right) else ""
    )
    row = f"photos: calibration error of the confidence, {CALIBRATION_BINS} bins"
    yield Measured(row, calibration_error(chance, right), detail=told)


def calibration_error(chance: npt.NDArray[Any], right: npt.NDArray[np.bool_]) -> float:
    """Mean over pixels of how far, within a bin, accuracy is from the chance that was told.

    Parameters
    ----------
    chance : (N,) ndarray
        Told chance of being right, in [.5, 1].
    right : (N,) ndarray of bool
        Whether it was.
    """
    if not len(chance):
        return np.nan
    bins = np.clip(((chance - 0.5) * 2 * CALIBRATION_BINS).astype(int), 0, CALIBRATION_BINS - 1)
    gap = np.bincount(bins, right.astype(float) - chance, CALIBRATION_BINS)
    return float(np.abs(gap).sum() / len(chance))
