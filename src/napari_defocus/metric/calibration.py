"""Fit the scale of a metric's scores to annotated patches."""

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_defocus.filters.contrast import gradient_noise, without_noise
from napari_defocus.filters.linear import squared_gradient, summed_squares
from napari_defocus.labels.classes import SHARP
from napari_defocus.metric.local_metric import Calibration, LocalMetric
from napari_defocus.metric.patches import PatchSet
from napari_defocus.metric.response import combine

Float = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]

# The guided filter widens the Gaussian it follows; a patch is weighed by the wider one.
WIDENING = 1.5
# See `calibrate`.
IMAGE_WEIGHT = 10.0
BASE_WEIGHT = 100.0
# Log odds above even that detection asks of a sharp pixel, unless it is told otherwise.
CAUTION = 1.0
# Where less of either class comes out as annotated, of so many patches at least, they contradict
# the base.
CONTRADICTED = 0.6
ENOUGH = 32
# Where less of what was annotated comes out so, it is said.
LEAST_HELD = 0.9
# Above this held-out AUC a metric orders the classes rightly, and only its threshold is off.
TOLD_APART = 0.95
# Keeps the slope finite where the classes are wholly apart.
RIDGE = 0.01


def patch_scores(patch_set: PatchSet, metric: LocalMetric) -> Float:
    """Compute the score at the centre of each patch, (N,): log odds before calibration."""
    pooling = metric.pooling
    noise, factor = patch_set.noise[:, np.newaxis, np.newaxis], pooling.noise_factor
    response = without_noise(summed_squares(patch_set.patches, metric.filters), noise, factor)
    gradient = squared_gradient(patch_set.patches, pooling.contrast_sigma)
    contrast = without_noise(gradient, noise * gradient_noise(pooling.contrast_sigma), factor)
    weights = _window(patch_set.config.size, WIDENING * pooling.sigma)

    def pooled(values: Float) -> Float:
        return np.asarray(
            ((values**pooling.power) * weights).sum(axis=(1, 2)) ** (1 / pooling.power), np.float32
        )

    return combine(pooled(response), pooled(contrast), pooling)


def weighted_parts(training: PatchSet, base: PatchSet | None) -> list[tuple[PatchSet, float]]:
    """Return the patches to learn from, and the weight of each set: see `calibrate`."""
    parts = [(training, IMAGE_WEIGHT * len(np.unique(training.source)))]
    return parts if base is None else [*parts, (base, BASE_WEIGHT)]


def _window(size: int, sigma: float) -> Float:
    offset = np.arange(size) - (size - 1) / 2
    weights = np.exp(-(offset[:, np.newaxis] ** 2 + offset**2) / (2 * sigma**2))
    return np.asarray(weights / weights.sum(), np.float32)


def calibrate(
    metric: LocalMetric,
    training: PatchSet,
    validation: PatchSet,
    base: PatchSet | None = None,
) -> LocalMetric:
    """Fit the calibration of a metric to patches of both classes; record held-out scores.

    Patches of one image overlap and look alike: together they count as `IMAGE_WEIGHT` patches, and
    those of the base as `BASE_WEIGHT`. So a few annotated images shift the calibration and do not
    throw it over. Where they contradict the base, see `CONTRADICTED`, and more hold without it,
    they rule. The metric is then of their scale alone, see `LocalMetric.halvings`; so it is
    where they were cut from halved images, which the base knows less of.
    """
    from sklearn.metrics import roc_auc_score

    own, rest = _scored(training, metric), _scored(validation, metric)
    (_, weight), *others = weighted_parts(training, base)
    known_before = [(*_scored(part, metric), its_weight) for part, its_weight in others]
    calibration = _logistic([(*own, weight), *known_before])
    found, holds = calibration, _held(calibration, *own)
    halvings = training.config.halvings or None
    enough = min(training.counts().values()) >= ENOUGH
    known = LEAST_HELD if training.config.halvings else CONTRADICTED
    if base is not None and enough and holds < known:
        by_own = _even_with_caution([own])
        if (held := _held(by_own, *own)) > holds:
            found, holds, halvings = by_own, held, training.config.halvings
            # All that was annotated, since it differs from place to place.
            calibration = _even_with_caution([own, rest])
    scores, sharp = rest
    held_out = {
        "patches": len(validation),
        "accuracy": round(float(((scores > found.threshold) == sharp).mean()), 4),
        "auc": round(float(roc_auc_score(sharp, scores)), 4),
        "holds": round(_held(found, scores, sharp), 4),
    }
    record: dict[str, Any] = {
        **metric.record,
        "calibrated_on": training.counts(),
        "patch_config": asdict(training.config),
        "sources": len(training.sources),
        "held_out": held_out,
        "holds": round(holds, 4),
    }
    return replace(metric, calibration=calibration, record=record, halvings=halvings)


def _scored(patch_set: PatchSet, metric: LocalMetric) -> tuple[Float, Bool]:
    """Return the scores of patches, and which are sharp."""
    return patch_scores(patch_set, metric), patch_set.labels == SHARP


def _even_with_caution(sides: list[tuple[Float, Bool]]) -> Calibration:
    """Fit to what was annotated, even where detection asks for more: no margin was annotated."""
    found = _logistic([(*side, len(side[0])) for side in sides])
    return replace(found, threshold=found.threshold - CAUTION / found.slope)


def _logistic(parts: list[tuple[Float, Bool, float]]) -> Calibration:
    """Fit to parts: scores, which are sharp, and the weight of all of the part."""
    from sklearn.linear_model import LogisticRegression

    scores, sharp = (np.concatenate(each) for each in list(zip(*parts, strict=True))[:2])
    weights = np.concatenate([np.full(len(part), weight / len(part)) for part, _, weight in parts])
    model = LogisticRegression(C=1 / RIDGE, class_weight="balanced")
    model.fit(scores[:, np.newaxis], sharp, sample_weight=weights)
    # A slope that is not positive would turn the metric upside down; keep it weak instead.
    slope = max(float(model.coef_[0, 0]), 0.1)
    return Calibration(threshold=-float(model.intercept_[0]) / slope, slope=slope)


def _held(calibration: Calibration, scores: Float, sharp: Bool) -> float:
    """Return the share that comes out as it was annotated, of the class that fares worse."""
    holds = (calibration.slope * (scores - calibration.threshold) > CAUTION) == sharp
    return float(min(holds[sharp].mean(), holds[~sharp].mean()))


def advice(metric: LocalMetric) -> str | None:
    """Return what to do where a metric does not hold what was annotated, by its record."""
    holds = metric.record.get("holds", 1.0)
    if holds >= LEAST_HELD:
        return None
    if metric.record.get("held_out", {}).get("auc", 0.0) >= TOLD_APART:
        why = "the patches of its base weigh against them; choose base none, or"
    else:
        why = "the metric cannot tell them apart;"
    return (
        f"of one class only {holds:.0%} of the annotated patches come out as annotated: {why} "
        "teach a profile, in Annotate or by fit without --method"
    )
