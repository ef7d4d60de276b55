"""What metric and network say of each pixel, before any threshold: the costly part of detection.

A plane is judged whole or region by region, with the same answers: each region is judged from a
window as much larger as anything counts in it.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_defocus.core.devices import Device, at_work, judging_device
from napari_defocus.core.errors import NothingToJudgeError
from napari_defocus.core.progress import ShouldStop, Stopped, never_stop
from napari_defocus.core.threads import free_cores, in_threads, plan_parts
from napari_defocus.core.tiling import Region, Tile, plan_tiles, whole, widen, within
from napari_defocus.dense import detector as dense
from napari_defocus.dense.detector import DenseJudgement, judge_dense, kept_dense
from napari_defocus.detection.config import DetectionConfig
from napari_defocus.filters.noise import PlaneStatistics, ReadPart, measure_plane
from napari_defocus.filters.plane import Plane, prepare_colours, prepare_part
from napari_defocus.metric.local_metric import LocalMetric, load_metric
from napari_defocus.metric.response import alignment, filter_response, halo, pool, sharpness_odds

Float = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]

# Beside the network the metric is believed up to these log odds: beyond, microscope images whose
# own blur is wide would be lost.
METRIC_CERTAINTY = 4.0


@dataclass(frozen=True)
class Judgement:
    """What the metric says of a plane, before any threshold.

    Parameters
    ----------
    level : ndarray of float32, (Y, X)
        Log odds of being sharp or, by the paper's scale, the pooled response in [0, 1].
    judged : ndarray of bool, (Y, X)
        False where nothing can be told.
    radius, radius_error : ndarray of float32, (Y, X), or None
        See `Detection`; NaN where the plane shows nothing at all.
    """

    level: Float
    judged: Bool
    radius: Float | None = None
    radius_error: Float | None = None


def judge_plane(
    image: npt.NDArray[Any],
    metric: LocalMetric,
    config: DetectionConfig,
    should_stop: ShouldStop = never_stop,
) -> Judgement:
    """Judge one plane (Y, X) or (Y, X, C) in memory; see `judge_region`.

    Large planes are judged part by part, so that what is worked with stays small.
    """
    if should_stop():
        raise Stopped
    detector = detector_for(metric, config)
    statistics = measure_plane(image, colours=detector != "metric")
    shape = image.shape[:2]

    def judge(part: Tile) -> Judgement:
        return judge_region(
            lambda rows, columns: image[rows, columns],
            part.region,
            shape,
            statistics,
            metric,
            config,
            should_stop,
        )

    parts = plan_parts(shape, region_step(metric, config))
    if detector == "metric" and config.scale == "calibrated" and config.device in ("auto", "cpu"):
        parts = plan_tiles(shape, max(shape))  # the metric cuts a plane itself, scale by scale
    if len(parts) == 1:
        with free_cores():
            return judge(parts[0])
    names = ["level", "judged"] + ["radius", "radius_error"] * (detector != "metric")
    joined: dict[str, Any] = {
        name: np.empty(shape, np.bool_ if name == "judged" else np.float32) for name in names
    }
    with working_device(metric, config) as device:
        # The network works on all cores by itself, but on a device it waits for what they prepare.
        alone = detector != "metric" and device is None
        for part, found in in_threads(judge, parts, alone=alone):
            for name in names:
                joined[name][part.region] = getattr(found, name)
    return Judgement(**joined)


def judge_region(
    read: ReadPart,
    region: Region,
    shape: tuple[int, ...],
    statistics: PlaneStatistics,
    metric: LocalMetric,
    config: DetectionConfig,
    should_stop: ShouldStop = never_stop,
) -> Judgement:
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
        Where the plane is constant (`NothingToJudgeError`) or smaller than a filter.
    Stopped
        Where it was asked to stop.
    """
    if statistics.constant:
        raise NothingToJudgeError("the image is constant: there is nothing to judge")
    detector = detector_for(metric, config)
    window, image, plane = _window(read, region, shape, statistics, metric, detector)
    inside = within(region, window)
    holes = plane.part(*inside).holes
    with working_device(metric, config) as device:
        level, judged = _metric_says(plane, metric, inside, should_stop, device)
        if detector != "metric":
            network = kept_dense("default" if detector == "dense" else detector)
            found = judge_dense(
                prepare_colours(image, plane),
                network,
                should_stop,
                region=inside,
                colours_are=statistics.colours,
                guide=plane.grey,
                device=device,
            )
            joined = join(Judgement(level, judged), found)
            return replace(joined, judged=joined.judged & ~holes)
    if config.scale == "image":
        level = pool(filter_response(plane, metric), plane.grey, metric.pooling)[inside]
    if should_stop():
        raise Stopped
    return Judgement(level, judged & ~holes)


def working_device(
    metric: LocalMetric, config: DetectionConfig
) -> AbstractContextManager[Device | None]:
    """Hold the device that a config means for the length of a job; None is the CPU.

    Raises
    ------
    DefocusError
        Where one that is named is not there.
    """
    dense = detector_for(metric, config) != "metric"
    return at_work(judging_device(config.device, dense=dense))


def _metric_says(
    plane: Plane,
    metric: LocalMetric,
    region: Region,
    should_stop: ShouldStop,
    device: Device | None,
) -> tuple[Float, Bool]:
    if device is None:
        return sharpness_odds(plane, metric, should_stop=should_stop, region=region)
    if should_stop():
        raise Stopped
    from napari_defocus.metric._torch_response import sharpness_odds_on

    return sharpness_odds_on(device, plane, metric, region, should_stop)


def undecided(shape: Sequence[int], metric: LocalMetric, config: DetectionConfig) -> Judgement:
    """Say that nothing can be told of a plane or a part of it, of `shape` rows and columns."""
    unknown = np.full(shape, np.nan, np.float32)
    radius = None if detector_for(metric, config) == "metric" else unknown
    return Judgement(np.zeros(shape, np.float32), np.zeros(shape, bool), radius, radius)


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


def join(by_metric: Judgement, by_network: DenseJudgement) -> Judgement:
    """Average the log odds of metric and network, which err on different things.

    Where nothing shows detail the metric has no say, and the network may call sharp but not
    blurred.
    """
    odds = by_network.odds
    # On the metric's scale: the config's defaults leave the joined odds as they are.
    default = DetectionConfig()
    metric_odds = default.gain * (by_metric.level - default.caution)
    metric_odds = np.clip(metric_odds, -METRIC_CERTAINTY, METRIC_CERTAINTY)
    joined = np.where(by_metric.judged, (odds + metric_odds) / 2, odds)
    level = np.asarray(joined / default.gain + default.caution, np.float32)
    judged = by_metric.judged | (odds > 0)
    return Judgement(level, judged, by_network.radius, by_network.radius_error)
