"""Run the metric and the dense network on a plane: log odds of being sharp, before any threshold.

This is the costly part of detection. A plane is predicted whole or region by region, with the same
result: each region is read with a margin as wide as the filters and the network see.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_defocus.core.devices import inference_device
from napari_defocus.core.errors import NoDetailError
from napari_defocus.core.progress import ShouldStop, Stopped, never_stop
from napari_defocus.core.threads import MOST_PIXELS, free_cores, side_by_side
from napari_defocus.core.tiling import Region, whole, widen, within
from napari_defocus.dense import inference as dense
from napari_defocus.dense.detector import cached_dense
from napari_defocus.dense.inference import DensePrediction, predict_dense
from napari_defocus.detection.config import DetectionConfig
from napari_defocus.filters import _numba as compiled
from napari_defocus.filters.noise import PlaneStatistics, ReadPart, measure_plane
from napari_defocus.filters.plane import Plane, PlaneColours, prepare_part
from napari_defocus.metric.local_metric import LocalMetric, load_metric
from napari_defocus.metric.response import alignment, filter_response, halo, pool, predict_log_odds

Float = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]

# Beside the network, the metric's log odds are clipped to this: with more, microscope images whose
# own blur is wide would be lost.
METRIC_CERTAINTY = 4.0


@dataclass(frozen=True)
class Prediction:
    """The prediction for a plane, before any threshold.

    Parameters
    ----------
    score : ndarray of float32, (Y, X)
        Log odds of being sharp or, by the paper's scale, the pooled response in [0, 1].
    valid : ndarray of bool, (Y, X)
        False where there is no detail to go by.
    radius, radius_error : ndarray of float32, (Y, X), or None
        See `Detection`; NaN where the plane is constant.
    calibrated : bool
        Whether scores are log odds.
    """

    score: Float
    valid: Bool
    radius: Float | None = None
    radius_error: Float | None = None
    calibrated: bool = True


def predict_plane(
    image: npt.NDArray[Any],
    metric: LocalMetric,
    config: DetectionConfig,
    should_stop: ShouldStop = never_stop,
    *,
    radius: bool = True,
) -> Prediction:
    """Predict one plane (Y, X) or (Y, X, C) in memory; see `predict_region`."""
    if should_stop():
        raise Stopped
    statistics = measure_plane(image, colours=detector_for(metric, config) != "metric")
    shape = image.shape[:2]
    with free_cores():
        return predict_region(
            lambda rows, columns: image[rows, columns],
            whole(shape),
            shape,
            statistics,
            metric,
            config,
            should_stop,
            radius=radius,
        )


def predict_region(
    read: ReadPart,
    region: Region,
    shape: tuple[int, ...],
    statistics: PlaneStatistics,
    metric: LocalMetric,
    config: DetectionConfig,
    should_stop: ShouldStop = never_stop,
    *,
    radius: bool = True,
) -> Prediction:
    """Predict a region of a plane, from a window with the margin that it needs.

    Of the settings only `detector`, `scale` and `device` are used.

    Parameters
    ----------
    read : callable
        Returns rows and columns of the plane, (Y, X) or (Y, X, C).
    region : tuple of slice
        Rows and columns; each begins at a multiple of `region_step`, and ends at one or with the
        plane.
    shape, statistics
        Of the whole plane.
    metric, config, should_stop, radius
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
    detector = detector_for(metric, config)
    window, image, plane = _window(read, region, shape, statistics, metric, detector)
    inside = within(region, window)
    holes = plane.part(*inside).holes
    device = inference_device(config.device, dense=detector != "metric")

    def by_metric() -> tuple[Float, Bool]:
        return predict_log_odds(plane, metric, should_stop=should_stop, region=inside)

    if detector != "metric":
        by_network = partial(
            predict_dense,
            PlaneColours(image, plane),
            cached_dense(detector),
            should_stop,
            region=inside,
            colours_are=statistics.colours,
            guide=plane.grey,
            device=device,
            radius=radius,
        )
        if holes.size <= MOST_PIXELS:
            (score, valid), found = side_by_side(by_metric, by_network)
        else:  # each uses all cores by itself
            (score, valid), found = by_metric(), by_network()
        combined = combine_predictions(Prediction(score, valid), found)
        return replace(combined, valid=combined.valid & ~holes)
    compiled.expect(holes.size)
    score, valid = by_metric()
    if config.scale == "image":
        score = pool(filter_response(plane, metric), plane.grey, metric.pooling)[inside]
    if should_stop():
        raise Stopped
    return Prediction(score, valid & ~holes, calibrated=config.scale == "calibrated")


def undecided(
    shape: Sequence[int], metric: LocalMetric, config: DetectionConfig, *, radius: bool = True
) -> Prediction:
    """Return the prediction for a plane, or a part of `shape`, without any detail."""
    score, valid = np.zeros(shape, np.float32), np.zeros(shape, bool)
    by_metric = detector_for(metric, config) == "metric"
    calibrated = not by_metric or config.scale == "calibrated"
    unknown = None if by_metric or not radius else np.full(shape, np.nan, np.float32)
    return Prediction(score, valid, unknown, unknown, calibrated)


def region_step(metric: LocalMetric, config: DetectionConfig) -> int:
    """Return the step, in pixels, of the grid on which regions begin."""
    own = alignment(metric)
    return own if detector_for(metric, config) == "metric" else int(np.lcm(own, dense.TILE))


def _window(
    read: ReadPart,
    region: Region,
    shape: tuple[int, ...],
    statistics: PlaneStatistics,
    metric: LocalMetric,
    detector: str,
) -> tuple[Region, npt.NDArray[Any], Plane]:
    """Read a region with the margin that its prediction needs."""
    margin = halo(metric) if detector == "metric" else max(halo(metric), dense.HALO)
    # Holes take the value of the nearest pixel, which is no farther than the predicted pixel.
    for wide in (margin, 2 * margin):
        window = widen(region, wide, shape, alignment(metric))
        image = read(*window)
        plane = prepare_part(image, statistics)
        if not plane.holes.any() or window == whole(shape):
            break
    return window, image, plane


def detector_for(metric: LocalMetric, config: DetectionConfig) -> str:
    """Return the detector to use with a metric: ``auto`` resolved to metric or dense."""
    if config.detector != "auto":
        return config.detector
    own = metric.digest != _default_digest()
    return "metric" if own or config.scale == "image" or not find_spec("onnxruntime") else "dense"


@lru_cache(maxsize=1)
def _default_digest() -> str:
    return load_metric().digest


def combine_predictions(by_metric: Prediction, by_network: DensePrediction) -> Prediction:
    """Average the log odds of metric and network, which err on different things.

    Pixels without detail take the network's alone, and are valid only where these say sharp.
    """
    network_log_odds = by_network.log_odds
    # On the metric's scale, so that the config's defaults leave the average as it is.
    default = DetectionConfig()
    metric_log_odds = default.gain * (by_metric.score - default.caution)
    metric_log_odds = np.clip(metric_log_odds, -METRIC_CERTAINTY, METRIC_CERTAINTY)
    log_odds = np.where(by_metric.valid, (network_log_odds + metric_log_odds) / 2, network_log_odds)
    score = np.asarray(log_odds / default.gain + default.caution, np.float32)
    valid = by_metric.valid | (network_log_odds > 0)
    return Prediction(score, valid, by_network.radius, by_network.radius_error)
