"""What metrics score on photos with masks, and those fitted to scribbles on them."""

import numpy as np

from benchmarks.accuracy.photos import score_detection
from benchmarks.accuracy.scribbles import draw_scribbles
from napari_defocus.detection.api import DetectionConfig, detect
from napari_defocus.evaluate.baselines import pooled_laplacian
from napari_defocus.evaluate.scores import auc, score_map, score_set
from napari_defocus.filters.plane import prepare_plane
from napari_defocus.metric.fitting import FitConfig, fit_metric
from napari_defocus.metric.patches import build_patch_set
from napari_defocus.metric.response import filter_response, pool

SCRIBBLE_SHARE = 0.04
METRIC = DetectionConfig(detector="metric")


def score_metric(metric, photos):
    return score_set({p.name: score_detection(detect(p.image, metric, METRIC), p) for p in photos})


def unrefined_auc(metric, photos):
    """Return the AUC of the pooled responses to K1 and K2 alone, mean over photos."""
    planes = [prepare_plane(photo.image) for photo in photos]
    pooled = [pool(filter_response(plane, metric), plane.grey, metric.pooling) for plane in planes]
    return _mean_auc(pooled, photos)


def laplacian_auc(photos):
    """Return the AUC of the absolute Laplacian, pooled by a Gaussian, mean over photos."""
    return _mean_auc([pooled_laplacian(prepare_plane(p.image).grey) for p in photos], photos)


def _mean_auc(sharpness, photos):
    pairs = zip(sharpness, photos, strict=True)
    return float(np.mean([auc(values, ~photo.blurred) for values, photo in pairs]))


def fit_scribbles(photos, method, seed=0):
    """Fit a metric to scribbles on photos."""
    annotated = [
        (photo.name, photo.image, draw_scribbles(photo.blurred, SCRIBBLE_SHARE, seed + i))
        for i, photo in enumerate(photos)
    ]
    metric = fit_metric(build_patch_set(annotated), FitConfig(method=method))
    assert metric is not None
    return metric


def score_off_scribbles(photos, method, seed=0):
    """Fit to each photo's own scribbles and score the rest of it."""
    scores = {}
    for number, photo in enumerate(photos, seed):
        rest = draw_scribbles(photo.blurred, SCRIBBLE_SHARE, number) == 0
        found = detect(photo.image, fit_scribbles([photo], method, number))
        # As a row of pixels: the protocols look at each pixel alone.
        blur, truth, mask = (x[rest][np.newaxis] for x in (found.blur, photo.blurred, found.mask))
        scores[photo.name] = score_map(blur, truth, mask=mask)
    return score_set(scores)
