"""What metric and network say of each pixel, before any threshold: the costly part of detection.

A plane is judged whole or region by region, with the same answers: each region is judged from a
window as much larger as anything counts in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_defocus.core.devices import inference_device
from napari_defocus.core.errors import NoDetailError
from napari_defocus.core.progress import ShouldStop, Stopped, never_stop
from napari_defocus.core.threads import free_cores, in_threads, plan_parts
from napari_defocus.core.tiling import Region, Tile, plan_tiles, whole, widen, within
from napari_defocus.dense import inference as dense
from napari_defocus.dense.detector import cached_dense
from napari_defocus.dense.inference import DensePrediction, predict_dense
from napari_defocus.detection.config import DetectionConfig
from napari_defocus.filters.noise import PlaneStatistics, ReadPart, measure_plane
from napari_defocus.filters.plane import Plane, prepare_colours, prepare_part
from napari_defocus.metric.local_metric import LocalMetric, load_metric
from napari_defocus.metric.response import alignment, filter_response, halo, pool, predict_log_odds

Float = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]

# Beside the network the metric is believed up to these log odds: beyond, microscope images whose
# own blur is wide would be lost.
METRIC_CERTAINTY = 4.0


@dataclass(frozen=True)
class Prediction:
    """What the metric says of a plane, before any threshold.

    Parameters
    ----------
    score : ndarray of float32, (Y, X)
        Log odds of being sharp or, by the paper's scale, the pooled response in [0, 1].
    valid : ndarray of bool, (Y, X)
        False where nothing can be told.
    radius, radius_error : ndarray of float32, (Y, X), or None
        See `Detection`; NaN where the plane shows nothing at all.
    """

    score: Float
    valid: Bool
    radius: Float | None = None
    radius_error: Float | None = None


def predict_plane(
    image: npt.NDArray[Any],
    metric: LocalMetric,
    config: DetectionConfig,
    should_stop: ShouldStop = never_stop,
) -> Prediction:
    """Judge one plane (Y, X) or (Y, X, C) in memory; see `predict_region`.

    Large planes are judged part by part, so that what is worked with stays small.
    """
    if should_stop():
        raise Stopped
    detector = detector_for(metric, config)
    statistics = measure_plane(image, colours=detector != "metric")
    shape = image.shape[:2]

    def predict(part: Tile) -> Prediction:
        return predict_region(
            lambda rows, columns: image[rows, columns],
            part.region,
            shape,
            statistics,
            metric,
            config,
            should_stop,
        )

    parts = plan_parts(shape, region_step(metric, config))
    if detector == "metric" and config.scale == "calibrated":
        parts = plan_tiles(shape, max(shape))  # the metric cuts a plane itself, scale by scale
    if len(parts) == 1:
        with free_cores():
            return predict(parts[0])
    names = ["score", "valid"] + ["radius", "radius_error"] * (detector != "metric")
    joined: dict[str, Any] = {
        name: np.empty(shape, np.bool_ if name == "valid" else np.float32) for name in names
    }
    # The network works on all cores by itself, but on a device it waits for what they prepare.
    alone = detector != "metric" and inference_device(config.device, dense=True) is None
    for part, found in in_threads(predict, parts, alone=alone):
        for name in names:
            joined[name][part.region] = getattr(found, name)
    return Prediction(**joined)


def predict_region(
    read: ReadPart,
    region: Region,
    shape: tuple[int, ...],
    statistics: PlaneStatistics,
    metric: LocalMetric,
    config: DetectionConfig,
    should_stop: ShouldStop = never_stop,
) -> Prediction:
    """Judge a region of a plane, from as much of its surroundings as counts.

    Of the settings only `detector`, `scale` and `device` count here.

    Parameters
    ----------
    read : callable
        Gives rows and columns of the plane, (Y, X) or (Y, X, C).
    region : tuple of slice
        Rows and columns; each begins at a multiple of `region_step`, and ends at one or with the
        plane.
    shape : tuple of int
        Rows and columns of the plane.
    statistics : PlaneStatistics
        Of the whole plane.
    metric, config
        See `detect`.
    should_stop : callable
        Asked between the steps.

    Raises
    ------
    DefocusError
        Where the plane is constant (`NoDetailError`) or smaller than a filter.
    Stopped
        Where it was asked to stop.
    """
    if statistics.constant:
        raise NoDetailError("the image is constant: there is nothing to judge")
    detector = detector_for(metric, config)
    window, image, plane = _window(read, region, shape, statistics, metric, detector)
    inside = within(region, window)
    holes = plane.part(*inside).holes
    device = inference_device(config.device, dense=detector != "metric")
    score, valid = predict_log_odds(plane, metric, should_stop=should_stop, region=inside)
    if detector != "metric":
        network = cached_dense("default" if detector == "dense" else detector)
        found = predict_dense(
            prepare_colours(image, plane),
            network,
            should_stop,
            region=inside,
            colours_are=statistics.colours,
            guide=plane.grey,
            device=device,
        )
        joined = join(Prediction(score, valid), found)
        return replace(joined, valid=joined.valid & ~holes)
    if config.scale == "image":
        score = pool(filter_response(plane, metric), plane.grey, metric.pooling)[inside]
    if should_stop():
        raise Stopped
    return Prediction(score, valid & ~holes)


def undecided(shape: Sequence[int], metric: LocalMetric, config: DetectionConfig) -> Prediction:
    """Say that nothing can be told of a plane or a part of it, of `shape` rows and columns."""
    unknown = np.full(shape, np.nan, np.float32)
    radius = None if detector_for(metric, config) == "metric" else unknown
    return Prediction(np.zeros(shape, np.float32), np.zeros(shape, bool), radius, radius)


def region_step(metric: LocalMetric, config: DetectionConfig) -> int:
    """Give what rows and columns of regions begin at multiples of, in pixels."""
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
    """Read what counts for a region."""
    margin = halo(metric) if detector == "metric" else max(halo(metric), dense.HALO)
    # Holes take the value of the nearest pixel: it is no farther than the pixel that is judged.
    for wide in (margin, 2 * margin):
        window = widen(region, wide, shape, alignment(metric))
        image = read(*window)
        plane = prepare_part(image, statistics)
        if not plane.holes.any() or window == whole(shape):
            break
    return window, image, plane


def detector_for(metric: LocalMetric, config: DetectionConfig) -> str:
    """Give the detector that a config means beside a metric: what ``auto`` stands for."""
    if config.detector != "auto":
        return config.detector
    own = metric.digest != _default_digest()
    return "metric" if own or config.scale == "image" or not find_spec("torch") else "dense"


@lru_cache(maxsize=1)
def _default_digest() -> str:
    return load_metric().digest


def join(by_metric: Prediction, by_network: DensePrediction) -> Prediction:
    """Average the log odds of metric and network, which err on different things.

    Where nothing shows detail the metric has no say, and the network may call sharp but not
    blurred.
    """
    log_odds = by_network.log_odds
    # On the metric's scale: the config's defaults leave the joined odds as they are.
    default = DetectionConfig()
    metric_log_odds = default.gain * (by_metric.score - default.caution)
    metric_log_odds = np.clip(metric_log_odds, -METRIC_CERTAINTY, METRIC_CERTAINTY)
    joined = np.where(by_metric.valid, (log_odds + metric_log_odds) / 2, log_odds)
    score = np.asarray(joined / default.gain + default.caution, np.float32)
    valid = by_metric.valid | (log_odds > 0)
    return Prediction(score, valid, by_network.radius, by_network.radius_error)
