"""Focus scores of the planes of a stack.

A score is the mean detail of a plane, as a share of the best plane's. How sure the order is comes
from a bootstrap over blocks of the field (B. Efron, Ann. Statist. 7(1), 1979): the same scene seen
again would show other blocks of its kind. There is a best plane only where the planes differ by
more than they would if each block's details were dealt out to them by chance (a permutation test
within blocks: P. Good, "Permutation, parametric and bootstrap tests of hypotheses", 2005).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
Number = TypeVar("Number", bound=np.floating[Any])

RESAMPLINGS = 500
# There is a best plane where so few of these permutations reach what is seen,
PERMUTATIONS = 199
CHANCE = 0.005
# or where the amplitude of detail rises by so many times the noise's from plane to plane; never
# where no part of it has so many times the noise's detail.
LEAST_RISE = 2.0
LEAST_DETAIL = 2.0
# Sums in another order differ by less.
ROUNDING = 1e-9
# More samples than this are merged with those beside them.
MOST_SAMPLES = 1024
# Blocks that a field is cut into, across and down, at most, and their least side in pixels.
BLOCKS = 16
LEAST_BLOCK = 8
# Detail must rise so many times, on both sides of the plane with least, to count as a minimum.
VALLEY = 2.0
# Blocks with less detail than this share of the mean are left out.
QUIET = 0.05


@dataclass(frozen=True, eq=False)
class PlaneScores:
    """Focus scores of Z planes.

    Parameters
    ----------
    score : ndarray of float64, (Z,)
        Mean detail of each plane, less the noise's, as a share of the largest: 1 is the most,
        about 0 none.
    error : ndarray of float64, (Z,)
        Its standard error, by bootstrap.
    confidence : ndarray of float64, (Z,)
        In [0, 1], how often the plane is the best one when the field is sampled anew; they sum
        to 1, or are all 0 where there is no best plane.
    best : int or None
        The plane in focus, from 0; None where nothing is seen above the noise, or no plane has
        more of it than chance explains.
    position : float
        The same with a fraction, by a parabola through the planes beside it; nan for None.
    """

    score: Values
    error: Values
    confidence: Values
    best: int | None
    position: float

    @property
    def sure(self) -> float:
        """The confidence of the best plane; 0 where there is none."""
        return 0.0 if self.best is None else float(self.confidence[self.best])

    def told(self) -> str:
        """Say the best plane in words."""
        if self.best is None:
            return "no plane is in focus: none shows detail, or none more than the others"
        return f"plane {self.best} is in focus (confidence {self.sure:.2f})"


def plane_rows(scores: PlaneScores, where: Mapping[str, int] | None = None) -> list[dict[str, Any]]:
    """Return a row for each plane: where the stack is, plane, score, error, confidence, best."""
    return [
        {
            **(where or {}),
            "plane": z,
            "score": float(scores.score[z]),
            "error": float(scores.error[z]),
            "confidence": float(scores.confidence[z]),
            "best": int(z == scores.best),
        }
        for z in range(len(scores.score))
    ]


def blocks_of(energy: npt.NDArray[np.float32], step: int = 1) -> Values:
    """Return the mean detail in each block of a field: (Z, Y, X) to (Z, blocks).

    A sample is of `step` x `step` pixels.
    """
    least = max(LEAST_BLOCK // step, 1)
    rows, columns = (
        np.linspace(0, size, min(max(size // least, 1), BLOCKS) + 1).astype(int)
        for size in energy.shape[1:]
    )
    blocks = [
        np.add.reduceat(np.add.reduceat(plane.astype(np.float64), rows[:-1], 0), columns[:-1], 1)
        for plane in energy
    ]
    areas = np.outer(np.diff(rows), np.diff(columns))
    return np.asarray((np.stack(blocks) / areas).reshape(len(energy), -1))


def score_samples(
    samples: Values,
    extremum: str = "max",
    weights: Values | None = None,
    *,
    noise: float = 0.0,
    peak: float | None = None,
    left_out: Collection[int] = (),
) -> PlaneScores:
    """Compute the scores of planes from their mean detail at N places, (Z, N).

    `weights` are the pixels of each place (N,), all alike where not given; `noise` is the detail of
    noise, `peak` the most of any place, where the places are averaged; planes `left_out` are not
    the best one.
    """
    weights = np.ones(samples.shape[1]) if weights is None else weights
    samples, weights = _merged(samples, weights)
    rng = np.random.default_rng(0)
    count = samples.shape[1]
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLINGS) * weights
    means = (drawn @ samples.T) / np.maximum(drawn.sum(axis=1), 1e-300)[:, np.newaxis]
    mean = samples @ weights / weights.sum()
    # The variance that is seen in N samples is (N - 1) / N of that of their kind.
    means = mean + (means - mean) * np.sqrt(count / max(count - 1, 1))
    most = max(float(mean.max()), 1e-300)
    score, error = mean / most, means.std(axis=0) / most
    kept = np.array([z for z in range(len(mean)) if z not in left_out])
    none = PlaneScores(score, error, np.zeros(len(mean)), None, np.nan)
    seen = (samples.max() if peak is None else peak) > LEAST_DETAIL * noise
    if not seen or not _beyond_chance(samples[kept], extremum, weights, noise, rng):
        return none
    heights = _heights(means[:, kept], extremum)
    winners = heights >= heights.max(axis=1, keepdims=True) * (1 - ROUNDING)
    # Planes that are exactly alike share their wins.
    none.confidence[kept] = (winners / winners.sum(axis=1, keepdims=True)).mean(axis=0)
    position = best_position(mean[kept], extremum)
    best = int(kept[round(position)])
    if len(kept) < len(mean):
        position = float(np.interp(position, np.arange(len(kept)), kept))
    return replace(none, best=best, position=position)


def _merged(samples: Values, weights: Values) -> tuple[Values, Values]:
    """Merge samples (Z, N) that follow each other to `MOST_SAMPLES` at most."""
    count = len(weights)
    if count <= MOST_SAMPLES:
        return samples, weights
    starts = np.linspace(0, count, MOST_SAMPLES, endpoint=False).astype(int)
    merged = np.add.reduceat(weights, starts)
    return np.add.reduceat(samples * weights, starts, axis=1) / np.maximum(merged, 1e-300), merged


def _beyond_chance(
    samples: Values, extremum: str, weights: Values, noise: float, rng: np.random.Generator
) -> bool:
    """Tell whether the best of planes (Z, N) stands out of the noise, or of what shuffling gives.

    One sample does not tell.
    """
    if len(weights) < 2:
        return False
    mean = samples @ weights / weights.sum()
    amplitude = np.sqrt(np.maximum(mean, 0))
    rise = _heights(amplitude - amplitude.min(), extremum).max()
    if noise > 0 and rise >= LEAST_RISE * np.sqrt(noise):
        return True
    observed = _heights(mean, extremum).max() * (1 - ROUNDING)
    allowed = CHANCE * (PERMUTATIONS + 1) - 1
    reached = 0
    for _ in range(PERMUTATIONS):
        shuffled = rng.permuted(samples, axis=0) @ weights / weights.sum()
        reached += bool(_heights(shuffled, extremum).max() >= observed)
        if reached > allowed:
            return False
    return True


def _heights(scores: Values, extremum: str) -> Values:
    """Return how high the scores (..., Z) are, or how deep in a valley."""
    if extremum == "max":
        return scores
    return np.moveaxis(lower_rim(np.moveaxis(scores, -1, 0)), 0, -1) - scores


def best_position(scores: Values, extremum: str = "max") -> float:
    """Return where a curve is highest (or the deepest valley lies), with a fraction."""
    best = int(np.argmax(_heights(scores, extremum)))
    if not 0 < best < len(scores) - 1:
        return float(best)
    before, here, after = scores[best - 1 : best + 2] * (1 if extremum == "max" else -1)
    bend = before - 2 * here + after
    # Half a plane at most: the best plane stays the nearest one.
    return best + float(np.clip(0.5 * (before - after) / bend, -0.49, 0.49)) if bend < 0 else best


def lower_rim(values: npt.NDArray[Number]) -> npt.NDArray[Number]:
    """Return, for each plane, the lower of the largest values up to it and from it on: (Z, ...)."""
    before = np.maximum.accumulate(values, axis=0)
    behind = np.maximum.accumulate(values[::-1], axis=0)[::-1]
    return np.minimum(before, behind, out=before)


def phase_share(samples: Values, noise: float) -> float:
    """Return the share of the detail, in [0, 1], whose focus is a minimum.

    `samples` are the mean detail in small blocks of the field (Z, N), each of which should show one
    object, and `noise` is what remains of noise in a block.
    """
    floor = np.maximum(samples, 0) + noise
    weight = np.maximum(floor.max(axis=0) - 2 * noise, 0)
    weight = np.where(weight > QUIET * weight.mean(), np.sqrt(weight), 0)
    if len(samples) < 3 or not weight.any():
        return 0.0
    rise = (lower_rim(floor) / floor).max(axis=0)
    return float(weight[rise >= VALLEY].sum() / weight.sum())
