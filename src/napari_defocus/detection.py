"""Detection, the main job: an image in, a blur map and a mask out."""

import math
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_defocus.annotation import UNLABELLED, Labels
from napari_defocus.dense import DenseJudgement, judge_dense, kept_dense
from napari_defocus.errors import DefocusError, check_range
from napari_defocus.events import (
    Event,
    OnEvent,
    ShouldStop,
    Stopped,
    ignore_event,
    never_stop,
)
from napari_defocus.masking import MaskConfig, make_mask, otsu
from napari_defocus.metric import LocalMetric, load_metric
from napari_defocus.plane import prepare_colours, prepare_plane
from napari_defocus.refinement import RefinementConfig, refine
from napari_defocus.sharpness import (
    filter_response,
    guided_filter,
    pool,
    probability,
    sharpness_odds,
)

Float = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]

DETECTORS = ("auto", "metric", "dense")
SCALES = ("calibrated", "image")
# Widest Gaussian, in pixels, over which judged regions lend their sharpness to undecided ones.
FILL_SIGMAS = (4, 8, 16, 32, 64, 128, 256)
# Beside the network the metric is believed up to these log odds: beyond, microscope images whose
# own blur is wide would be lost.
METRIC_CERTAINTY = 4.0
# The network's map is drawn to the outlines of the image within so many pixels, where their
# variance is far above the second figure.
OUTLINE_RADIUS = 6
OUTLINE_EPSILON = 1e-3


@dataclass(frozen=True)
class DetectionConfig:
    """How defocus is detected; the widget and the command line share these defaults.

    Parameters
    ----------
    detector : str
        ``metric``: the local metric. ``dense``: the metric and a network that sees the surroundings
        too; it needs torch. Or the path of a dense detector's file. ``auto``: the dense one, but
        the metric where that is one's own, where `scale` is the paper's, and where torch is
        missing.
    scale : str
        ``calibrated``: the metric's own scale, learnt from its training patches, so that images
        compare. ``image``: the paper's, each image from its least response to its largest.
    adapt : float
        Share, in [0, 1], of the way from the metric's threshold down to the image's own (Otsu's),
        for images softer than those the metric learnt from. The threshold never rises: a wholly
        sharp image has one of its own too.
    reach : float
        Furthest that `adapt` may lower the threshold, in log odds. It keeps a wholly blurred image
        blurred.
    caution : float
        Log odds above even that a pixel needs to be called sharp.
    gain : float
        Steepness of the map around the threshold; 1 takes the odds of a single patch as they are.
    refine : bool
        Whether the tanh refinement runs.
    refinement : RefinementConfig
        How.
    mask : MaskConfig
        How the mask is cut.
    """

    detector: str = "auto"
    scale: str = "calibrated"
    adapt: float = 0.7
    reach: float = 2.0
    caution: float = 1.0
    gain: float = 2.0
    refine: bool = True
    refinement: RefinementConfig = field(default_factory=RefinementConfig)
    mask: MaskConfig = field(default_factory=MaskConfig)


@dataclass(frozen=True)
class Detection:
    """What was detected in an image.

    Parameters
    ----------
    blur : ndarray of float32, (..., Y, X)
        In [0, 1], 1 = blurred.
    mask : ndarray of uint8, (..., Y, X)
        0 undecided, 1 blurred, 2 sharp.
    confidence : ndarray of float32, (..., Y, X), or None
        In [0, 1]: 0 undecided, 1 certain. `detect` always gives it.
    radius, radius_error : ndarray of float32, (..., Y, X), or None
        Radius, in pixels, of the disc as wide as the blur, and its mean absolute error; from the
        dense detector alone.
    """

    blur: Float
    mask: Labels
    confidence: Float | None = None
    radius: Float | None = None
    radius_error: Float | None = None

    @property
    def sharpness(self) -> Float:
        """1 - blur: the quantity L of the paper."""
        return np.float32(1) - self.blur


def detect(
    image: npt.NDArray[Any],
    metric: LocalMetric | str | Path = "default",
    config: DetectionConfig | None = None,
    *,
    axes: str | None = None,
    on_event: OnEvent = ignore_event,
    should_stop: ShouldStop = never_stop,
) -> Detection:
    """Detect defocus.

    Parameters
    ----------
    image : ndarray, or array that is read plane by plane (Dask, Zarr)
        (Y, X), (Y, X, C) with C = 3 or 4 colours, or, with `axes`, more planes of such; any real,
        integer or bool type. The result does not depend on the type that holds a picture.
    metric : LocalMetric, str or Path
        The metric, its file or its name.
    config : DetectionConfig, optional
        How.
    axes : str, optional
        A letter for each axis, ending in ``YX`` or, for colours, ``YXS``: "ZYX", "TYXS". Leading
        axes are worked through plane by plane.
    on_event : callable
        Told after each plane.
    should_stop : callable
        Asked before each plane and between its steps.

    Returns
    -------
    Detection

    Raises
    ------
    DefocusError
        Where the image cannot be judged, or the metric cannot be read.
    Stopped
        Where it was asked to stop.
    """
    if not isinstance(metric, LocalMetric):
        metric = load_metric(metric)
    config = config or DetectionConfig()
    _check(config)
    if not hasattr(image, "shape"):
        image = np.asarray(image)
    leading = image.shape[: image.ndim - _plane_axes(image, axes)]
    planes = []
    for done, index in enumerate(np.ndindex(leading), start=1):
        judgement = judge_plane(np.asarray(image[index]), metric, config, should_stop)
        planes.append(decide(judgement, config))
        on_event(Event("detecting", done, math.prod(leading)))
    if not planes:
        raise DefocusError(f"the image is empty, its shape is {image.shape}")
    return _stack(planes, leading)


def _stack(planes: list[Detection], leading: tuple[int, ...]) -> Detection:
    """Put the detections of planes together, along `leading` axes."""

    def stacked(name: str) -> Any:
        parts = [getattr(plane, name) for plane in planes]
        return None if parts[0] is None else np.stack(parts).reshape(leading + parts[0].shape)

    return Detection(**{part.name: stacked(part.name) for part in fields(Detection)})


def _plane_axes(image: npt.NDArray[Any], axes: str | None) -> int:
    if axes is None:
        if image.ndim == 2 or (image.ndim == 3 and image.shape[-1] in (1, 2, 3, 4)):
            return image.ndim
        raise DefocusError(
            f"which axes an image of shape {image.shape} has cannot be told; "
            "say so with axes, for instance ZYX"
        )
    if len(axes) != image.ndim:
        raise DefocusError(f"axes {axes!r} do not fit an image of shape {image.shape}")
    if not axes.endswith(("YX", "YXS")):
        raise DefocusError(f"axes {axes!r} must end in YX, or in YXS for colours")
    return 3 if axes.endswith("YXS") else 2


def _check(config: DetectionConfig) -> None:
    if config.detector not in DETECTORS and not Path(config.detector).is_file():
        raise DefocusError(
            f"the detector is {config.detector!r}; choose one of {', '.join(DETECTORS)}, "
            "or give the file of a dense one"
        )
    if config.scale not in SCALES:
        raise DefocusError(f"scale is {config.scale!r}; choose one of {', '.join(SCALES)}")
    check_range("adapt", config.adapt, 0, 1)
    check_range("reach", config.reach, 0, 1000)
    check_range("caution", config.caution, -1000, 1000)
    check_range("gain", config.gain, 0, 1000)


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
        See `Detection`.
    """

    level: Float
    judged: Bool
    radius: Float | None = None
    radius_error: Float | None = None


def detect_plane(
    image: npt.NDArray[Any], metric: LocalMetric, config: DetectionConfig
) -> Detection:
    """Detect defocus in one plane (Y, X) or (Y, X, C); see `detect`."""
    return decide(judge_plane(image, metric, config), config)


def judge_plane(
    image: npt.NDArray[Any],
    metric: LocalMetric,
    config: DetectionConfig,
    should_stop: ShouldStop = never_stop,
) -> Judgement:
    """Apply the metric to one plane (Y, X) or (Y, X, C): the costly part of `detect`.

    Of the settings only `detector` and `scale` count here.

    Raises
    ------
    DefocusError, Stopped
        As `detect`.
    """
    if should_stop():
        raise Stopped
    plane = prepare_plane(image)
    if plane.grey.max() <= plane.grey.min():
        raise DefocusError("the image is constant: there is nothing to judge")
    level, judged = sharpness_odds(plane, metric, should_stop=should_stop)
    detector = detector_for(metric, config)
    if detector != "metric":
        dense = kept_dense("default" if detector == "dense" else detector)
        found = judge_dense(prepare_colours(image, plane), dense, should_stop)
        outlined = guided_filter(found.odds, plane.grey, OUTLINE_RADIUS, OUTLINE_EPSILON)
        joined = join(Judgement(level, judged), replace(found, odds=outlined))
        return replace(joined, judged=joined.judged & ~plane.holes)
    if config.scale == "image":
        level = _to_unit(pool(filter_response(plane, metric), plane.grey, metric.pooling))
    if should_stop():
        raise Stopped
    return Judgement(level, judged & ~plane.holes)


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


def decide(judgement: Judgement, config: DetectionConfig) -> Detection:
    """Turn a judgement into a blur map and a mask: threshold, refine, fill, clean up."""
    _check(config)
    judged = judgement.judged
    sharpness = judgement.level
    if config.scale == "calibrated" or judgement.radius is not None:
        threshold = config.caution + _own_threshold(judgement.level, judged, config)
        sharpness = probability(config.gain * (judgement.level - threshold))
    certainty = np.abs(2 * sharpness - 1)
    if config.refine:
        sharpness = refine(sharpness, config.refinement)
    sharpness = _fill(sharpness, judged)
    mask = make_mask(sharpness, ~judged, config.mask)
    return Detection(
        blur=np.float32(1) - sharpness,
        mask=mask,
        confidence=np.where(mask == UNLABELLED, 0, certainty).astype(np.float32),
        radius=judgement.radius,
        radius_error=judgement.radius_error,
    )


def _own_threshold(odds: Float, judged: Bool, config: DetectionConfig) -> float:
    if config.adapt == 0 or not judged.any():
        return 0.0
    return float(np.clip(config.adapt * otsu(odds[judged]), -config.reach, 0))


def _to_unit(response: Float) -> Float:
    low, high = response.min(), response.max()
    return (response - low) / (high - low) if high > low else np.zeros_like(response)


def _fill(sharpness: Float, judged: Bool) -> Float:
    """Let undecided pixels take the sharpness of the nearest judged ones; 0.5 far from any."""
    if judged.all():
        return sharpness
    filled = np.full_like(sharpness, 0.5)
    known, weight = sharpness * judged, judged.astype(np.float32)
    for sigma in sorted(FILL_SIGMAS, reverse=True):
        near = ndimage.gaussian_filter(weight, sigma)
        trust = np.clip(10 * near, 0, 1)
        average = ndimage.gaussian_filter(known, sigma) / np.maximum(near, 1e-6)
        filled += trust * (average - filled)
    return np.where(judged, sharpness, np.clip(filled, 0, 1)).astype(np.float32)
