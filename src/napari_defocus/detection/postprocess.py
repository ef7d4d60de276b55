"""From what is said of each pixel to a blur map and a mask: threshold, refine, fill, clean up.

The steps that look at a whole plane look at sums over it, so that a plane can be decided upon
region by region, with the same result.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from napari_defocus.core.devices import at_work, judging_device
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
from napari_defocus.detection.inference import Judgement
from napari_defocus.detection.refinement import reach, refine
from napari_defocus.detection.threshold import count_sharpness, cut_mask, mask_threshold
from napari_defocus.filters.histogram import Histogram
from napari_defocus.labels.annotation import Labels
from napari_defocus.metric.response import probability

Float = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]

# Log odds are counted in bins of 1 / 32.
ODDS_RANGE = (-32.0, 32.0)
ODDS_BINS = 2048


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


@dataclass(frozen=True, eq=False)
class Levels:
    """What has to be known of all levels of a plane before any is decided upon.

    Parameters
    ----------
    judged : Histogram
        Of the levels, log odds, of judged pixels.
    low, high : float
        Least and greatest level of all pixels.
    """

    judged: Histogram
    low: float
    high: float

    @classmethod
    def of(cls, judgement: Judgement) -> "Levels":
        """Count those of a plane or a part of it."""
        level = judgement.level
        counted = Histogram.of(level[judgement.judged], *ODDS_RANGE, ODDS_BINS)
        return cls(counted, float(level.min()), float(level.max()))

    def __add__(self, other: "Levels") -> "Levels":
        low, high = min(self.low, other.low), max(self.high, other.high)
        return Levels(self.judged + other.judged, low, high)


@dataclass(frozen=True, eq=False)
class Refined:
    """What has to be known of a whole refined map before it is filled and cut.

    Parameters
    ----------
    sharpness : Histogram
        Of judged pixels.
    surroundings : Surroundings
        What undecided pixels lean on.
    """

    sharpness: Histogram
    surroundings: Surroundings

    @classmethod
    def of(cls, blur: Float, judged: Bool) -> "Refined":
        """Count those of a plane or a part of it."""
        sharpness = np.float32(1) - blur
        counted = count_sharpness(sharpness[judged])
        sharpness *= judged
        return cls(counted, Surroundings.of(sharpness, judged))


def decide(judgement: Judgement, config: DetectionConfig) -> Detection:
    """Turn a judgement of a whole plane into a blur map and a mask."""
    check_config(config)
    calibrated = config.scale == "calibrated" or judgement.radius is not None
    start = start_map(judgement.level, Levels.of(judgement), config, calibrated)
    confidence = certainty(start, judgement.judged)
    with free_cores():
        blur = refined_blur(start, config)
    del start  # large planes fill the memory
    refined = Refined.of(blur, judgement.judged)
    threshold = mask_threshold(refined.sharpness, config.mask)
    if not judgement.judged.all():
        around = at_pixels(refined.surroundings.spread(), whole(blur.shape))
        blur = fill(blur, judgement.judged, around)
    return Detection(
        blur=blur,
        mask=cut_mask(np.float32(1) - blur, ~judgement.judged, threshold, config.mask.smallest),
        confidence=confidence,
        radius=judgement.radius,
        radius_error=judgement.radius_error,
    )


def start_map(level: Float, levels: Levels, config: DetectionConfig, calibrated: bool) -> Float:
    """Give the sharpness of each pixel before refinement.

    Parameters
    ----------
    level : ndarray of float32, (Y, X)
        See `Judgement`.
    levels : Levels
        Of the whole plane.
    config : DetectionConfig
        How.
    calibrated : bool
        Whether levels are log odds; else they are brought from least and greatest to [0, 1].

    Returns
    -------
    ndarray of float32, (Y, X)
        In [0, 1].
    """
    if calibrated:
        threshold = config.caution + _own_threshold(levels.judged, config)
        return probability(config.gain * (level - np.float32(threshold)))
    if levels.high <= levels.low:
        return np.zeros_like(level)
    return (level - np.float32(levels.low)) / np.float32(levels.high - levels.low)


def _own_threshold(judged: Histogram, config: DetectionConfig) -> float:
    if config.adapt == 0 or not judged.counts.any():
        return 0.0
    return float(np.clip(config.adapt * judged.otsu(), -config.reach, 0))


def refined_blur(start: Float, config: DetectionConfig) -> Float:
    """Refine a map of sharpness, and give the blur, (Y, X) in [0, 1]."""
    if not config.refine:
        return np.float32(1) - start
    with at_work(judging_device(config.device, dense=False)) as device:
        if device is not None:
            from napari_defocus.detection._torch_refinement import refine_on

            return np.float32(1) - refine_on(device, start, config.refinement)
    parts = plan_parts(start.shape, 1, side_in_proportion(start.shape))
    if len(parts) == 1:
        return np.float32(1) - refine(start, config.refinement)
    threshold = config.refinement.threshold
    if threshold is None:
        threshold = float(start.mean(dtype=np.float64))
    refinement = replace(config.refinement, threshold=threshold)

    def blur_of(part: Tile) -> Float:
        window = widen(part.region, reach(refinement), start.shape)
        return np.float32(1) - refine(start[window], refinement)[within(part.region, window)]

    blur = np.empty_like(start)
    for part, found in in_threads(blur_of, parts, alone=not cores_are_free()):
        blur[part.region] = found
    return blur


def fill(blur: Float, judged: Bool, around: Float) -> Float:
    """Let undecided pixels take the sharpness `around` them; what is filled may be filled again."""
    return np.where(judged, blur, np.float32(1) - around)


def certainty(start: Float, judged: Bool) -> Float:
    """Give the confidence, 0 undecided to 1 certain, from the map before refinement."""
    return np.where(judged, np.abs(2 * start - 1), np.float32(0))
