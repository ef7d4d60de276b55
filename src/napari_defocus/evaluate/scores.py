"""How well a map separates blurred from sharp: the published protocols, each by its name.

Figures differ by protocol as much as by method. So every protocol has a name, both polarities are
scored, and trivial maps, constants, are scored beside the map in question.

A truth is a boolean array, True = blurred. A map is a blur map in [0, 1], 1 = blurred, unless
``sharpness=True`` says that 1 = sharp. Scores are taken pixel by pixel, so arrays may have any
shape; to score a part of an image pass its pixels: ``score_map(blur_map[part], blurred[part])``.

References
----------
Achanta et al., "Frequency-tuned salient region detection", CVPR 2009.
Shi, Xu, Jia, "Discriminative blur detection features", CVPR 2014 (CUHK).
Golestaneh, Karam, "Spatially-varying blur detection based on multiscale fused and sorted
transform coefficients of gradient magnitudes", CVPR 2017 (HiFST).
Jin et al., "Depth and DOF cues make a better defocus blur detector", ICME 2023 (D-DFFNet).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_defocus.core.errors import DefocusError

Array = NDArray[Any]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

BETA2 = 0.3
"""beta^2 of F: below 1, precision counts more than recall (Achanta et al. 2009)."""
LEVELS = 256
"""Thresholds of a precision-recall curve: the levels of an 8 bit map (Shi et al. 2014)."""

PROTOCOLS: Mapping[str, str] = MappingProxyType(
    {
        "Fmax": "sharp positive: highest F of the mean precision and mean recall, 256 levels",
        "Fadaptive": "sharp positive: F at the threshold min(1.5 x mean sharpness, 1) (HiFST)",
        "Fsharp@.5": "sharp positive: F of the pixels with sharpness >= 0.5",
        "Fimage": "sharp positive: highest F of each image at its own best of 256 levels",
        "Fmax blur": "blurred positive: highest F of the mean precision and recall, 256 levels",
        "Fadaptive blur": "blurred positive: F at the threshold min(1.5 x mean blur, 1)",
        "Fblur@.5": "blurred positive: F of the pixels with sharpness < 0.5 (D-DFFNet's table)",
        "IoU(otsu)": "sharp region: intersection over union above Otsu's threshold of sharpness",
        "IoU(mask)": "sharp region: intersection over union of the mask written beside the map",
        "IoU blur@.5": "blurred region: intersection over union of the pixels of sharpness < 0.5",
        "MAE": "mean absolute difference of map and truth (the same for both polarities)",
        "AUC": "area under the ROC curve, exact with ties (the same for both polarities)",
    }
)
"""Name and definition of every score. All are means over images, but for Fmax and Fmax blur."""
SET_PROTOCOLS = ("Fmax", "Fmax blur")
"""Scores that only a set has: of one image alone, Fmax is its Fimage."""
TRIVIAL_MAPS: Mapping[str, float] = MappingProxyType(
    {"all blurred": 1.0, "all sharp": 0.0, "constant .5": 0.5}
)
"""Name and constant blur of the trivial maps."""

_ROUNDING = 1e-6  # a map may leave [0, 1] by so much: the rounding of float32
_FLAT = 1e-9  # a range too small for the bins of Otsu's histogram


@dataclass(frozen=True, eq=False)
class Curve:
    """Precision and recall at 256 thresholds.

    Parameters
    ----------
    precision, recall : (256,) ndarray of float64
        In [0, 1]. Entry k is of the threshold k / 255: values of at least it count as positive.
        Where nothing reaches it both are 0.
    """

    precision: Floats
    recall: Floats

    @property
    def f(self) -> Floats:
        """F at every threshold, (256,) in [0, 1]."""
        return _f_measure(self.precision, self.recall)

    @property
    def f_max(self) -> float:
        """Highest F in [0, 1]."""
        return float(self.f.max())


@dataclass(frozen=True, eq=False)
class MapScores:
    """Scores of one map against one truth.

    Parameters
    ----------
    values : mapping of str to float
        Score by protocol: all of `PROTOCOLS` but `SET_PROTOCOLS`. nan where undefined.
    sharp, blurred : Curve
        Precision and recall with the sharp, or the blurred region as the positive class.
    """

    values: Mapping[str, float]
    sharp: Curve
    blurred: Curve


@dataclass(frozen=True, eq=False)
class SetScores:
    """Scores of one method on a set of images.

    Parameters
    ----------
    images : mapping of str to MapScores
        Scores by name of the image.
    mean : mapping of str to float
        Every protocol of `PROTOCOLS`. An image where a score is undefined (nan) is left out of
        that mean; nan where no image has the score.
    interval : mapping of str to (float, float)
        Ends of the 95 % interval of the mean: percentile bootstrap over images. nan for one image.
    sharp, blurred : Curve
        Mean precision and mean recall, from which Fmax and Fmax blur are taken.
    """

    images: Mapping[str, MapScores]
    mean: Mapping[str, float]
    interval: Mapping[str, tuple[float, float]]
    sharp: Curve
    blurred: Curve


def score_map(
    values: Array, blurred: Bools, *, sharpness: bool = False, mask: Array | None = None
) -> MapScores:
    """Compute the scores of one map against one truth by every protocol.

    Parameters
    ----------
    values : (Y, X) ndarray
        Blur map in [0, 1], 1 = blurred; any other shape will do too.
    blurred : (Y, X) ndarray of bool
        The truth, True = blurred.
    sharpness : bool
        Whether `values` is a sharpness map instead, 1 = sharp.
    mask : (Y, X) ndarray of int, optional
        What `iou_mask` takes; without it IoU(mask) is nan.

    Returns
    -------
    MapScores
        F and IoU are 0 without a hit, also where the truth has no positive pixel. AUC is nan where
        the truth has only one class. A constant map has no IoU(otsu) but 0.

    Raises
    ------
    DefocusError
        Where shapes differ, the truth is not boolean, the map is empty, not finite or not in
        [0, 1], or the mask holds anything but 0, 1 and 2.
    """
    given, blurred = _checked(values, blurred), np.asarray(blurred)
    sharp = ~blurred
    sharp_map, blur_map = (given, 1 - given) if sharpness else (1 - given, given)
    sharp_curve = precision_recall(sharp_map, sharp)
    found_blurred = sharp_map < 0.5
    scores = {
        "Fadaptive": _f_adaptive(sharp_map, sharp),
        "Fsharp@.5": _f_score(~found_blurred, sharp),
        "Fimage": sharp_curve.f_max,
        "Fadaptive blur": _f_adaptive(blur_map, blurred),
        "Fblur@.5": _f_score(found_blurred, blurred),
        "IoU(otsu)": _iou_otsu(sharp_map, sharp),
        "IoU(mask)": np.nan if mask is None else iou_mask(mask, blurred),
        "IoU blur@.5": _iou(found_blurred, blurred),
        "MAE": float(np.abs(sharp_map - sharp).mean()),
        # of the map as it was given: 1 - x would tie values below the rounding of 1
        "AUC": auc(given, sharp if sharpness else blurred),
    }
    return MapScores(scores, sharp_curve, precision_recall(blur_map, blurred))


def _checked(values: Array, blurred: Bools) -> Floats:
    """Return a map as float64 in [0, 1]; check it and its truth."""
    values, blurred = np.asarray(values), np.asarray(blurred)
    if blurred.dtype != np.bool_:
        raise DefocusError(f"the truth is {blurred.dtype}: give a boolean array, True = blurred")
    if values.dtype.kind not in "bfiu":
        raise DefocusError(f"the map is {values.dtype}: give real numbers from 0 to 1")
    _check_size("map", values.shape, blurred.shape)
    if values.size == 0:
        raise DefocusError("the map has no pixels: give a map of at least one")
    given = values.astype(np.float64)
    low, high = given.min(), given.max()
    if not np.isfinite([low, high]).all():  # nan and infinity both reach an extreme
        raise DefocusError("the map holds values that are not finite: mend its nan and inf")
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        raise DefocusError(
            f"the map's values leave [0, 1], from {low:.6g} to {high:.6g}: scale it to [0, 1]"
        )
    return given.clip(0, 1)


def _check_size(what: str, shape: tuple[int, ...], truth: tuple[int, ...]) -> None:
    """Check that a map or mask is as large as its truth."""
    if shape != truth:
        raise DefocusError(
            f"sizes differ, {what} {shape} and truth {truth}: give the {what} at the truth's size"
        )


def precision_recall(values: Floats, positive: Bools) -> Curve:
    """Compute precision and recall of a map in 8 bit, at each of its 256 levels.

    `values` are in [0, 1], high where the `positive` class is expected, of the same shape. Recall
    is 0 throughout where no pixel is positive.
    """
    levels = np.rint(values * (LEVELS - 1)).astype(np.intp)
    found, hits = _at_least(levels.ravel()), _at_least(levels[positive])
    return Curve(hits / np.maximum(found, 1), hits / max(int(hits[0]), 1))


def _at_least(levels: NDArray[np.intp]) -> NDArray[np.intp]:
    """Count the values that reach each level."""
    return np.bincount(levels, minlength=LEVELS)[::-1].cumsum()[::-1]


def auc(values: Array, positive: Bools) -> float:
    """Compute the area under the ROC curve: the chance that a positive pixel has the higher value.

    Counted over all pairs (Mann and Whitney), a tie as one half: exact, without levels. `values`
    are high where the `positive` class is expected. It is .5 for a constant map, and nan where the
    truth has only one class; `score_set` leaves such images out of the mean.
    """
    inside, outside = np.sort(values[positive]), np.sort(values[~positive])
    if inside.size == 0 or outside.size == 0:
        return np.nan
    below = np.searchsorted(outside, inside, side="left").sum(dtype=np.int64)
    not_above = np.searchsorted(outside, inside, side="right").sum(dtype=np.int64)
    return float(below + not_above) / 2 / inside.size / outside.size


def iou_mask(mask: Array, blurred: Bools) -> float:
    """Compute intersection over union of the sharp region of a mask: the protocol IoU(mask).

    Parameters
    ----------
    mask : (Y, X) ndarray of int
        0 undecided, 1 blurred, 2 sharp.
    blurred : (Y, X) ndarray of bool
        The truth, True = blurred.

    Returns
    -------
    float
        In [0, 1]; undecided pixels count as not sharp.

    Raises
    ------
    DefocusError
        Where the shapes differ or a value is none of 0, 1 and 2.
    """
    mask = np.asarray(mask)
    _check_size("mask", mask.shape, blurred.shape)
    if mask.dtype.kind not in "iu" or not np.isin(mask, (0, 1, 2)).all():
        raise DefocusError("the mask may hold only 0 undecided, 1 blurred, 2 sharp: write it so")
    return _iou(mask == 2, ~blurred)


def _f_measure(precision: Floats, recall: Floats) -> Floats:
    """Compute F from precision and recall, 0 where both are 0."""
    weighted = np.asarray(BETA2 * precision + recall)
    product: Floats = np.asarray((1 + BETA2) * precision * recall)
    return np.divide(product, weighted, out=np.zeros_like(product), where=weighted > 0)


def _f_score(found: Bools, positive: Bools) -> float:
    """Compute F of a binary map, 0 without a hit."""
    hits = np.count_nonzero(found & positive)
    # precision = hits / found and recall = hits / positive, multiplied out
    weighted = BETA2 * np.count_nonzero(positive) + np.count_nonzero(found)
    return (1 + BETA2) * hits / weighted if hits else 0.0


def _f_adaptive(values: Floats, positive: Bools) -> float:
    """Compute F at min(1.5 mean, 1): a constant map finds all at 0 and 1, and nothing between."""
    return _f_score(values >= min(1.5 * values.mean(), 1.0), positive)


def _iou(found: Bools, positive: Bools) -> float:
    """Compute intersection over union, 0 where both are empty."""
    union = np.count_nonzero(found | positive)
    return np.count_nonzero(found & positive) / union if union else 0.0


def _iou_otsu(values: Floats, positive: Bools) -> float:
    """Compute the IoU above Otsu's threshold; a constant map has none and so finds nothing."""
    from skimage.filters import threshold_otsu

    if values.max() - values.min() < _FLAT:
        return 0.0
    return _iou(values > threshold_otsu(values), positive)


def trivial_scores(blurred: Bools) -> dict[str, MapScores]:
    """Compute the scores of the `TRIVIAL_MAPS`, by name, for a truth, True = blurred.

    One half counts as sharp at the threshold 0.5.
    """
    maps = {name: np.full(blurred.shape, blur) for name, blur in TRIVIAL_MAPS.items()}
    return {name: score_map(values, blurred) for name, values in maps.items()}


def score_set(images: Mapping[str, MapScores]) -> SetScores:
    """Compute the mean scores of several images, given by name, and their intervals.

    The bootstrap has a fixed seed: the same images give the same intervals.

    Raises
    ------
    DefocusError
        Where there is no image.
    """
    if not images:
        raise DefocusError("no image was scored: give at least one map with its truth")
    rows, count = list(images.values()), len(images)
    mean = {name: float(values[0]) for name, values in _means(rows, np.ones((1, count))).items()}
    draws = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), 1000)
    interval = {name: _interval(values) for name, values in _means(rows, draws).items()}
    if count == 1:  # no estimate of how images differ
        interval = dict.fromkeys(mean, (np.nan, np.nan))
    sharp = _mean_curve(row.sharp for row in rows)
    blurred = _mean_curve(row.blurred for row in rows)
    return SetScores(dict(images), mean, interval, sharp, blurred)


def _mean_curve(curves: Iterable[Curve]) -> Curve:
    """Average precision and recall at each threshold."""
    precision, recall = np.mean([(curve.precision, curve.recall) for curve in curves], axis=0)
    return Curve(precision, recall)


def _means(rows: list[MapScores], weights: Array) -> dict[str, Floats]:
    """Return every protocol's mean for each row of weights, (N, images), summing to images."""
    means: dict[str, Floats] = {}
    for name in PROTOCOLS:
        if name in SET_PROTOCOLS:
            curves = [row.blurred if name == "Fmax blur" else row.sharp for row in rows]
            precision = weights @ np.array([curve.precision for curve in curves]) / len(rows)
            recall = weights @ np.array([curve.recall for curve in curves]) / len(rows)
            means[name] = _f_measure(precision, recall).max(axis=1)
        else:
            scores = np.array([row.values[name] for row in rows])
            defined = ~np.isnan(scores)
            total = weights[:, defined].sum(axis=1)
            summed = weights[:, defined] @ scores[defined]
            means[name] = np.where(total > 0, summed / np.maximum(total, 1), np.nan)
    return means


def _interval(means: Floats) -> tuple[float, float]:
    """Return the 2.5 % and 97.5 % points, nan where no mean is defined."""
    defined = means[~np.isnan(means)]
    low, high = np.quantile(defined, (0.025, 0.975)) if defined.size else (np.nan, np.nan)
    return float(low), float(high)
