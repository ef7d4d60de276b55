"""Photos with hand-made masks, and what detectors and fitted metrics score on them.

A folder of them holds ``images`` and ``masks`` (255 = blurred) of the same stems.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.accuracy.scribbles import draw_scribbles
from napari_defocus.detection.api import Detection, DetectionConfig, detect
from napari_defocus.evaluate.baselines import pooled_laplacian
from napari_defocus.evaluate.scores import MapScores, SetScores, auc, score_map, score_set
from napari_defocus.filters.plane import prepare_plane
from napari_defocus.io.folder import IMAGE_SUFFIXES
from napari_defocus.io.open import read_image
from napari_defocus.metric.fitting import FitConfig, fit_metric
from napari_defocus.metric.local_metric import LocalMetric
from napari_defocus.metric.patches import build_patch_set
from napari_defocus.metric.response import filter_response, pool

SCRIBBLE_SHARE = 0.04
METRIC = DetectionConfig(detector="metric")


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo and its mask."""

    name: str
    image: npt.NDArray[Any]
    blurred: npt.NDArray[np.bool_]


def images_in(folder: Path) -> list[Path]:
    """List the images of a folder, none where there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)


def read_photos(folder: Path) -> list[Photo]:
    masks = {path.stem: path for path in (folder / "masks").iterdir()}
    return [
        Photo(p.stem, read_image(p).data, read_image(masks[p.stem]).data >= 128)
        for p in images_in(folder / "images")
    ]


def score_metric(metric: LocalMetric, photos: list[Photo]) -> SetScores:
    return score_set({p.name: score_detection(detect(p.image, metric, METRIC), p) for p in photos})


def score_detection(detection: Detection, photo: Photo) -> MapScores:
    return score_map(detection.blur, photo.blurred, mask=detection.mask)


def unrefined_auc(metric: LocalMetric, photos: list[Photo]) -> float:
    """Return the AUC of the pooled responses to K1 and K2 alone, mean over photos."""
    planes = [prepare_plane(photo.image) for photo in photos]
    pooled = [pool(filter_response(plane, metric), plane.grey, metric.pooling) for plane in planes]
    return _mean_auc(pooled, photos)


def laplacian_auc(photos: list[Photo]) -> float:
    """Return the AUC of the absolute Laplacian, pooled by a Gaussian, mean over photos."""
    return _mean_auc([pooled_laplacian(prepare_plane(p.image).grey) for p in photos], photos)


def _mean_auc(sharpness: Iterable[npt.NDArray[Any]], photos: list[Photo]) -> float:
    pairs = zip(sharpness, photos, strict=True)
    return float(np.mean([auc(values, ~photo.blurred) for values, photo in pairs]))


def fit_scribbles(photos: list[Photo], method: str, seed: int = 0) -> LocalMetric:
    """Fit a metric to scribbles on photos."""
    annotated = [
        (photo.name, photo.image, draw_scribbles(photo.blurred, SCRIBBLE_SHARE, seed + i))
        for i, photo in enumerate(photos)
    ]
    metric = fit_metric(build_patch_set(annotated), FitConfig(method=method))
    assert metric is not None
    return metric


def score_off_scribbles(photos: list[Photo], method: str, seed: int = 0) -> SetScores:
    """Fit to each photo's own scribbles and score the rest of it."""
    scores = {}
    for number, photo in enumerate(photos, seed):
        rest = draw_scribbles(photo.blurred, SCRIBBLE_SHARE, number) == 0
        found = detect(photo.image, fit_scribbles([photo], method, number))
        # As a row of pixels: the protocols look at each pixel alone.
        blur, truth, mask = (x[rest][np.newaxis] for x in (found.blur, photo.blurred, found.mask))
        scores[photo.name] = score_map(blur, truth, mask=mask)
    return score_set(scores)
