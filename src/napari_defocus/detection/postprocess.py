"""From a prediction to a blur map and a mask: threshold, refine, fill, clean up.

The steps that need a whole plane use sums over it, so that a plane can be processed region by
region, with the same result.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_defocus.core.threads import (
    cores_are_free,
    free_cores,
    in_threads,
    plan_parts,
    side_in_proportion,
)
from napari_defocus.core.tiling import Tile, whole, widen, within
from napari_defocus.detection.config import DetectionConfig, check_config
from napari_defocus.detection.fill import Surroundings, at_pixels
from napari_defocus.detection.inference import Prediction
from napari_defocus.detection.refinement import halo, refine
from napari_defocus.detection.threshold import count_sharpness, cut_mask, mask_threshold
from napari_defocus.filters.histogram import Histogram
from napari_defocus.labels.classes import Labels
from napari_defocus.metric.response import probability
from napari_defocus.profile.limit import EdgeRadii, limit_of, shift

Float = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]

# Log odds are counted in bins of 1 / 32.
LOG_ODDS_RANGE = (-32.0, 32.0)
LOG_ODDS_BINS = 2048
# With more of its structure near the sharpness limit, the answer for a plane hangs on it.
MOST_NEAR = 0.5


@dataclass(frozen=True)
class Detection:
    """The result of detection.

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
    limit, sharpest, near_limit : ndarray of float64, (...), or None
        Of each plane, in pixels: the sharpness limit that was used, and the blur radius of the
        sharpest structure, nan where there is none; and the share of the structure that is within
        a fifth of the limit, which a small change of it calls otherwise; from the dense detector
        alone.
    note : str
        What was learnt from the image before it was judged, in a line; mostly nothing.
    """

    blur: Float
    mask: Labels
    confidence: Float | None = None
    radius: Float | None = None
    radius_error: Float | None = None
    limit: npt.NDArray[np.float64] | None = None
    sharpest: npt.NDArray[np.float64] | None = None
    near_limit: npt.NDArray[np.float64] | None = None
    note: str = ""

    @property
    def sharpness(self) -> Float:
        """1 - blur: 1 where it is sharp."""
        return np.float32(1) - self.blur


@dataclass(frozen=True, eq=False)
class ScoreStatistics:
    """Statistics of a plane's scores: a histogram of the valid pixels', and the range of all.

    `edges` are those of the network's prediction, None by the metric.
    """

    valid: Histogram
    low: float
    high: float
    edges: EdgeRadii | None = None

    @classmethod
    def of(cls, prediction: Prediction) -> "ScoreStatistics":
        """Count those of a plane or a part of it."""
        score = prediction.score
        counted = Histogram.of(score[prediction.valid], *LOG_ODDS_RANGE, LOG_ODDS_BINS)
        return cls(counted, float(score.min()), float(score.max()), prediction.edges)

    def __add__(self, other: "ScoreStatistics") -> "ScoreStatistics":
        low, high = min(self.low, other.low), max(self.high, other.high)
        edges = None if self.edges is None or other.edges is None else self.edges + other.edges
        return ScoreStatistics(self.valid + other.valid, low, high, edges)

    @property
    def filled(self) -> bool:
        """Whether undecided pixels take the sharpness around them; the network's log odds do."""
        return self.edges is None

    def limit(self, config: DetectionConfig) -> float | None:
        """Return the sharpness limit of the plane, in pixels; None by the metric."""
        return None if self.edges is None else limit_of(config.limit, self.edges)

    def near_limit(self, config: DetectionConfig) -> float:
        """Return the share of the structure near the limit, see `Detection`."""
        limit = self.limit(config)
        return 0.0 if limit is None or self.edges is None else self.edges.share_near(limit)


@dataclass(frozen=True, eq=False)
class RefinedStatistics:
    """Statistics of a refined map: a histogram of the valid pixels, and their sums in cells.

    The sums are None where undecided pixels are not filled by them.
    """

    sharpness: Histogram
    surroundings: Surroundings | None

    @classmethod
    def of(cls, blur: Float, valid: Bool, *, filled: bool) -> "RefinedStatistics":
        """Count those of a plane or a part of it."""
        sharpness = np.float32(1) - blur
        counted = count_sharpness(sharpness if valid.all() else sharpness[valid])
        if not filled:
            return cls(counted, None)
        sharpness *= valid
        return cls(counted, Surroundings.of(sharpness, valid))


@dataclass(frozen=True, eq=False)
class Limits:
    """The sharpness limit of each plane, and what it was taken from; as in `Detection`."""

    limit: npt.NDArray[np.float64]
    sharpest: npt.NDArray[np.float64]
    near_limit: npt.NDArray[np.float64]

    @classmethod
    def of(cls, found: Detection) -> "Limits | None":
        """Return those of a detection; None by the metric."""
        parts = found.limit, found.sharpest, found.near_limit
        return None if any(part is None for part in parts) else cls(*parts)  # type: ignore[arg-type]

    def __str__(self) -> str:
        low, high = float(self.limit.min()), float(self.limit.max())
        width = f"{low:.1f}" if high - low < 0.05 else f"{low:.1f} to {high:.1f}"
        if np.isnan(self.sharpest).all():
            return f"sharp up to {width} px"
        sharpest = float(np.nanmin(self.sharpest))
        text = f"sharp up to {width} px: the sharpest structure is {sharpest:.1f} px wide"
        near = float(self.near_limit.max())
        hangs = f"; {near:.0%} of the structure is near that limit: the answer hangs on it"
        return text + hangs * (near > MOST_NEAR)

    def as_record(self) -> dict[str, Any]:
        """Return what a run record says of them, plane by plane."""
        sharpest = [None if np.isnan(r) else round(float(r), 3) for r in self.sharpest.flat]
        near = self.near_limit.ravel().round(3).tolist()
        limit = self.limit.ravel().round(3).tolist()
        return {"limit_px": limit, "sharpest_px": sharpest, "near_limit": near}


def postprocess(prediction: Prediction, config: DetectionConfig) -> Detection:
    """Compute blur map and mask from the prediction of a whole plane."""
    check_config(config)
    scores = ScoreStatistics.of(prediction)
    start = initial_sharpness(prediction.score, scores, config, prediction.calibrated)
    confidence = confidence_of(start, prediction.valid, by_network=scores.edges is not None)
    with free_cores():
        blur = refined_blur(start, config)
    del start  # large planes fill the memory
    refined = RefinedStatistics.of(blur, prediction.valid, filled=scores.filled)
    threshold = mask_threshold(refined.sharpness, config.mask)
    if refined.surroundings is not None and not prediction.valid.all():
        around = at_pixels(refined.surroundings.spread(), whole(blur.shape))
        blur = fill(blur, prediction.valid, around)
    return Detection(
        blur=blur,
        mask=cut_mask(np.float32(1) - blur, ~prediction.valid, threshold, config.mask.smallest),
        confidence=confidence,
        radius=prediction.radius,
        radius_error=prediction.radius_error,
        limit=None if scores.edges is None else np.array(scores.limit(config)),
        sharpest=None if scores.edges is None else np.array(scores.edges.sharpest),
        near_limit=None if scores.edges is None else np.array(scores.near_limit(config)),
    )


def initial_sharpness(
    score: Float, scores: ScoreStatistics, config: DetectionConfig, calibrated: bool
) -> Float:
    """Compute the sharpness of each pixel before refinement, (Y, X) in [0, 1].

    `scores` are the statistics of the whole plane, and `calibrated` is whether scores are log odds;
    if not, their range becomes [0, 1].
    """
    limit = scores.limit(config)
    if limit is not None:
        return probability(score + np.float32(shift(limit)))
    if calibrated:
        threshold = config.caution + _adapted_threshold(scores.valid, config)
        return probability(config.gain * (score - np.float32(threshold)))
    if scores.high <= scores.low:
        return np.zeros_like(score)
    return (score - np.float32(scores.low)) / np.float32(scores.high - scores.low)


def _adapted_threshold(valid: Histogram, config: DetectionConfig) -> float:
    if config.adapt == 0 or not valid.counts.any():
        return 0.0
    return float(np.clip(config.adapt * valid.otsu(), -config.reach, 0))


def refined_blur(start: Float, config: DetectionConfig) -> Float:
    """Refine a map of sharpness, and return the blur, (Y, X) in [0, 1]."""
    if not config.refine:
        return np.float32(1) - start
    parts = plan_parts(start.shape, 1, side_in_proportion(start.shape))
    if len(parts) == 1:
        return np.float32(1) - refine(start, config.refinement)
    threshold = config.refinement.threshold
    if threshold is None:
        threshold = float(start.mean(dtype=np.float64))
    refinement = replace(config.refinement, threshold=threshold)

    def blur_of(part: Tile) -> Float:
        window = widen(part.region, halo(refinement), start.shape)
        return np.float32(1) - refine(start[window], refinement)[within(part.region, window)]

    blur = np.empty_like(start)
    for part, found in in_threads(blur_of, parts, alone=not cores_are_free()):
        blur[part.region] = found
    return blur


def fill(blur: Float, valid: Bool, around: Float) -> Float:
    """Return the blur map with pixels that are not valid set to the sharpness `around` them."""
    return np.where(valid, blur, np.float32(1) - around)


def confidence_of(start: Float, valid: Bool, *, by_network: bool) -> Float:
    """Compute the confidence, 0 undecided to 1 certain, from the map before refinement.

    The network is right as often as half its log odds say. The half is of annotated photos: the
    likelihood is greatest at .4 of them on train_szu and at .6 on a quarter of CUHK-TE-1.
    """
    certain = np.abs(2 * start - 1)
    if by_network:  # of log odds x, tanh(x / 2) becomes tanh(x / 4)
        certain /= 1 + np.sqrt(1 - certain * certain)
    return np.where(valid, certain, np.float32(0))
