"""Learn a profile from evidence: logistic regression that starts from the network's own answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from napari_defocus.core.errors import DefocusError
from napari_defocus.dense.detector import cached_dense
from napari_defocus.profile.evidence import Evidence
from napari_defocus.profile.limit import AUTO_RANGE, TIMES_SHARPEST, shift
from napari_defocus.profile.profile import Profile

Float = npt.NDArray[np.float32]
Double = npt.NDArray[np.float64]

# Limits that a profile may start from, in pixels.
LIMITS = np.geomspace(1.0, 8.0, 61)
# Pull of the limit towards the automatic one, and of the weights towards nothing.
LIMIT_PULL = 2.0
WEIGHT_PULL = (4.0, 0.4)
# A stroke counts as so many independent blocks at most: its pixels look alike.
BLOCKS_A_SOURCE = 400
# It is learnt from about so many blocks, at most, or from those that count of each source.
MOST_BLOCKS = 8000
# Share of what was taught that a profile must answer as taught, of each source of some size.
HOLDS = 0.95
SOME_BLOCKS = 20
# Newton's method: steps at most, and where it ends.
MOST_STEPS = 50
SMALLEST_STEP = 1e-5


@dataclass(frozen=True)
class Taught:
    """A profile, and how it answers what it was taught.

    Parameters
    ----------
    profile : Profile
        The profile.
    holds : float
        Share of all blocks of pixels that come out as taught.
    agreement : mapping of str to float
        The same of each source that has more than a few.
    """

    profile: Profile
    holds: float
    agreement: Mapping[str, float]

    @property
    def disagreeing(self) -> list[str]:
        """Sources of which less than `HOLDS` comes out as taught, worst first."""
        low = [name for name, share in self.agreement.items() if share < HOLDS]
        return sorted(low, key=lambda name: self.agreement[name])


def teach(
    evidence: Evidence, record: Mapping[str, Any] | None = None, *, held_out: bool = True
) -> Taught:
    """Learn a profile.

    First the limit that fits the evidence best, then what the features add to the network's log
    odds. Both are held back, so that little evidence moves the detector a little; the hold is eased
    until what was taught holds.

    Parameters
    ----------
    evidence : Evidence
        Of one class or of both.
    record : mapping, optional
        What else to keep in the profile's card.
    held_out : bool
        Whether to score it by sources that are kept from it, for the card; takes most of the time.

    Raises
    ------
    DefocusError
        Where there is no evidence.
    """
    if not len(evidence.sharp):
        raise DefocusError("there is nothing to learn from: paint on structure first")
    taken = evidence.thinned(max(BLOCKS_A_SOURCE, MOST_BLOCKS // len(evidence.names)))
    weights = _weights(taken)
    for pull in WEIGHT_PULL:
        found = _fit(taken, weights, pull)
        right = (_answer(evidence, *found) > 0) == evidence.sharp
        agreement = {
            name: float(right[evidence.source == index].mean())
            for index, name in enumerate(evidence.names)
            if (evidence.source == index).sum() >= SOME_BLOCKS
        }
        if min(agreement.values(), default=right.mean()) >= HOLDS:
            break
    limit, slopes, bias = found
    kept = {
        "blurred": int((~evidence.sharp).sum()),
        "sharp": int(evidence.sharp.sum()),
        "sources": len(evidence.names),
        "held_out": _held_out(taken, weights, pull) if held_out else {},
    }
    profile = Profile(
        slopes.astype(np.float32), bias, limit, cached_dense().digest, {**kept, **(record or {})}
    )
    return Taught(profile, float(right.mean()), agreement)


def _weights(evidence: Evidence) -> Double:
    """Weigh blocks: sources count by their size up to a bound, the classes alike."""
    size = np.bincount(evidence.source, minlength=len(evidence.names)).astype(float)
    each = np.minimum(size, BLOCKS_A_SOURCE) / np.maximum(size, 1)
    weights = each[evidence.source]
    sums = [weights[evidence.sharp == side].sum() for side in (False, True)]
    if min(sums) > 0:
        mean = sum(sums) / 2
        weights *= np.where(evidence.sharp, mean / sums[1], mean / sums[0])
    return np.asarray(weights)


def _fit(evidence: Evidence, weights: Double, pull: float) -> tuple[float, Double, float]:
    """Return limit, weights and bias."""
    sign = np.where(evidence.sharp, 1.0, -1.0)
    limit = _limit(evidence, weights, sign)
    offset = np.asarray(evidence.score + shift(limit), np.float64)
    inputs = evidence.inputs.astype(np.float64)
    mean, spread = inputs.mean(axis=0), inputs.std(axis=0) + 1e-3
    inputs = (inputs - mean) / spread

    found = _newton(np.column_stack([inputs, np.ones(len(inputs))]), offset, sign, weights, pull)
    slopes = found[:-1] / spread
    return limit, slopes, float(found[-1] - slopes @ mean)


def _newton(inputs: Double, offset: Double, sign: Double, weights: Double, pull: float) -> Double:
    """Minimise the logistic loss of ``offset + inputs @ values``, which has one minimum."""

    def loss(values: Double) -> tuple[float, Double]:
        margin = np.asarray(sign * (offset + inputs @ values), np.float64)
        return float(pull / 2 * values @ values - weights @ special.log_expit(margin)), margin

    values = np.zeros(inputs.shape[1])
    now, margin = loss(values)
    for _ in range(MOST_STEPS):
        wrong = special.expit(-margin)
        slope = pull * values - inputs.T @ (weights * sign * wrong)
        curved = (weights * wrong * (1 - wrong))[:, np.newaxis] * inputs
        step = np.linalg.solve(inputs.T @ curved + pull * np.eye(len(values)), slope)
        while (after := loss(values - step))[0] > now and np.abs(step).max() > SMALLEST_STEP:
            step /= 2
        if np.abs(step).max() <= SMALLEST_STEP:
            break
        values = values - step
        now, margin = after
    return values


def _limit(evidence: Evidence, weights: Double, sign: Double) -> float:
    """Return the limit that fits best, near the automatic one."""
    known = [width for width in evidence.sharpest if np.isfinite(width)]
    expected = np.clip(TIMES_SHARPEST * min(known, default=1.0), *AUTO_RANGE)
    shifts = np.array([shift(limit) for limit in LIMITS])
    margins = sign[:, np.newaxis] * (evidence.score[:, np.newaxis] + shifts)
    losses = -(weights[:, np.newaxis] * special.log_expit(margins)).sum(axis=0)
    away = np.array([shift(limit, float(expected)) for limit in LIMITS])
    return float(LIMITS[np.argmin(losses + LIMIT_PULL * away**2)])


def _answer(evidence: Evidence, limit: float, slopes: Double, bias: float) -> Double:
    return np.asarray(evidence.score + shift(limit) + evidence.inputs @ slopes + bias)


def _held_out(evidence: Evidence, weights: Double, pull: float) -> dict[str, float]:
    """Score what profiles that a source was kept from answer about it, by source."""
    folds = min(len(evidence.names), 5)
    shares: dict[bool, list[float]] = {False: [], True: []}
    for fold in range(folds if folds > 2 else 0):
        out = evidence.source % folds == fold
        if not out.any() or len(np.unique(evidence.sharp[~out])) < 2:
            continue
        part = Evidence(
            evidence.inputs[~out], evidence.score[~out], evidence.sharp[~out],
            evidence.source[~out], evidence.names, evidence.sharpest,
        )  # fmt: skip
        found = _fit(part, weights[~out], pull)
        right = (_answer(evidence, *found) > 0) == evidence.sharp
        for side in shares:
            chosen = out & (evidence.sharp == side)
            if chosen.any():
                shares[side].append(float(right[chosen].mean()))
    names = {False: "blurred_right", True: "sharp_right"}
    return {names[side]: round(float(np.mean(found)), 3) for side, found in shares.items() if found}
