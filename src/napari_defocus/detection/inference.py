"""Run the metric and the dense network on a plane: log odds of being sharp, before any threshold.

This is the costly part of detection. A plane is predicted whole or region by region, with the same
result: each region is read with a margin as wide as the filters and the network see.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_defocus.core.devices import inference_device
from napari_defocus.core.errors import NoDetailError
from napari_defocus.core.progress import ShouldStop, Stopped, never_stop
from napari_defocus.core.threads import free_cores
from napari_defocus.core.tiling import Region, whole, widen, within
from napari_defocus.dense import inference as dense
from napari_defocus.dense.detector import cached_dense
from napari_defocus.dense.plane import MARGIN, predict_part
from napari_defocus.detection.config import DetectionConfig
from napari_defocus.detection.detectors import Detector
from napari_defocus.filters import _numba as compiled
from napari_defocus.filters.noise import PlaneStatistics, ReadPart, measure_plane
from napari_defocus.filters.plane import Plane, prepare_part
from napari_defocus.metric import zeng2019
from napari_defocus.metric.local_metric import LocalMetric
from napari_defocus.metric.response import alignment, filter_response, halo, pool, predict_log_odds
from napari_defocus.profile.limit import EdgeRadii, score_of

Float = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Prediction:
    """The prediction for a plane, before any threshold.

    Parameters
    ----------
    score : ndarray of float32, (Y, X)
        Log odds of being sharp, by the network at the limit `limit.REFERENCE`; or, by the scale of
        the image, the metric's response.
    valid : ndarray of bool, (Y, X)
        False where there is no structure to go by.
    radius, radius_error : ndarray of float32, (Y, X), or None
        See `Detection`; NaN where the plane is constant.
    edges : EdgeRadii or None
        How wide the blur of edges is; by the network alone.
    calibrated : bool
        Whether scores are log odds.
    """

    score: Float
    valid: Bool
    radius: Float | None = None
    radius_error: Float | None = None
    edges: EdgeRadii | None = None
    calibrated: bool = True


def predict_plane(
    image: npt.NDArray[Any],
    detector: Detector,
    config: DetectionConfig,
    should_stop: ShouldStop = never_stop,
    *,
    radius: bool = True,
) -> Prediction:
    """Predict one plane (Y, X) or (Y, X, C) in memory; see `predict_region`."""
    if should_stop():
        raise Stopped
    statistics = measure_plane(image, colours=detector.network is not None)
    shape = image.shape[:2]
    with free_cores():
        return predict_region(
            lambda rows, columns: image[rows, columns],
            whole(shape),
            shape,
            statistics,
            detector,
            config,
            should_stop,
            radius=radius,
        )


def predict_region(
    read: ReadPart,
    region: Region,
    shape: tuple[int, ...],
    statistics: PlaneStatistics,
    detector: Detector,
    config: DetectionConfig,
    should_stop: ShouldStop = never_stop,
    *,
    radius: bool = True,
) -> Prediction:
    """Predict a region of a plane, from a window with the margin that it needs.

    Of the settings only `scale` and `device` are used.

    Parameters
    ----------
    read : callable
        Returns rows and columns of the plane, (Y, X) or (Y, X, C).
    region : tuple of slice
        Rows and columns; each begins at a multiple of `region_step`, and ends at one or with the
        plane.
    shape, statistics
        Of the whole plane.
    detector : Detector
        What predicts it.
    config, should_stop, radius
        See `detect`.

    Raises
    ------
    DefocusError
        Where the plane is constant (`NoDetailError`) or smaller than a filter.
    Stopped
        Where `should_stop` answered yes.
    """
    if statistics.constant:
        raise NoDetailError("the image is constant: there is nothing to detect")
    window, image, plane = _window(read, region, shape, statistics, detector)
    inside = within(region, window)
    device = inference_device(config.device, dense=detector.network is not None)
    if detector.network is None:
        return _by_metric(plane, inside, detector.metric, config, should_stop)
    predicted = predict_part(
        image,
        plane,
        inside,
        statistics,
        cached_dense(detector.network),
        should_stop,
        device=device,
        features=detector.profile is not None,
        errors=radius,
    )
    score, edges = score_of(predicted), EdgeRadii.of(predicted)
    if detector.profile is not None:
        score = detector.profile.correct(score, predicted)
    found = predicted.found
    wide = found.radius if radius else None
    return Prediction(score, predicted.seen, wide, found.radius_error, edges)


def _by_metric(
    plane: Plane,
    inside: Region,
    metric: LocalMetric,
    config: DetectionConfig,
    should_stop: ShouldStop,
) -> Prediction:
    holes = plane.part(*inside).holes
    if metric.literal:
        score = zeng2019.response(plane.grey, metric.filters)[inside]
        return Prediction(score, ~holes, calibrated=False)
    compiled.expect(plane.grey.size)
    score, valid = predict_log_odds(plane, metric, should_stop=should_stop, region=inside)
    if config.scale == "image":
        score = pool(filter_response(plane, metric), plane.grey, metric.pooling)[inside]
    if should_stop():
        raise Stopped
    return Prediction(score, valid & ~holes, calibrated=config.scale == "calibrated")


def undecided(
    shape: Sequence[int], detector: Detector, config: DetectionConfig, *, radius: bool = True
) -> Prediction:
    """Return the prediction for a plane, or a part of `shape`, without any detail."""
    score, valid = np.zeros(shape, np.float32), np.zeros(shape, bool)
    if detector.network is None:
        return Prediction(score, valid, calibrated=config.scale == "calibrated")
    unknown = np.full(shape, np.nan, np.float32) if radius else None
    return Prediction(score, valid, unknown, unknown, EdgeRadii.none())


def region_step(detector: Detector) -> int:
    """Return the step, in pixels, of the grid on which regions begin."""
    return alignment(detector.metric) if detector.network is None else dense.TILE


def _window(
    read: ReadPart,
    region: Region,
    shape: tuple[int, ...],
    statistics: PlaneStatistics,
    detector: Detector,
) -> tuple[Region, npt.NDArray[Any], Plane]:
    """Read a region with the margin that its prediction needs."""
    margin = halo(detector.metric) if detector.network is None else MARGIN
    if detector.literal:
        margin = max(margin, zeng2019.halo(detector.metric.filters))
    # Holes take the value of the nearest pixel, which is no farther than the predicted pixel.
    for wide in (margin, 2 * margin):
        window = widen(region, wide, shape, alignment(detector.metric))
        image = read(*window)
        plane = prepare_part(image, statistics)
        if not plane.holes.any() or window == whole(shape):
            break
    return window, image, plane
