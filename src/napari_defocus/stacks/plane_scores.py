"""Focus scores of the planes of a stack.

A score is the mean detail of a plane, as a share of the best plane's. How sure the order is comes
from a bootstrap over blocks of the field (B. Efron, Ann. Statist. 7(1), 1979): the same scene seen
again would show other blocks of its kind.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
Number = TypeVar("Number", bound=np.floating[Any])

RESAMPLINGS = 500
# Blocks that a field is cut into, across and down, at most, and their least side in samples.
BLOCKS = 16
LEAST_BLOCK = 4
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
        to 1.
    best : int
        The plane in focus, from 0.
    position : float
        The same with a fraction, by a parabola through the planes beside it.
    """

    score: Values
    error: Values
    confidence: Values
    best: int
    position: float


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


def blocks_of(energy: npt.NDArray[np.float32]) -> Values:
    """Return the mean detail in each block of a field: (Z, Y, X) to (Z, blocks)."""
    rows, columns = (
        np.linspace(0, size, min(max(size // LEAST_BLOCK, 1), BLOCKS) + 1).astype(int)
        for size in energy.shape[1:]
    )
    blocks = [
        np.add.reduceat(np.add.reduceat(plane.astype(np.float64), rows[:-1], 0), columns[:-1], 1)
        for plane in energy
    ]
    areas = np.outer(np.diff(rows), np.diff(columns))
    return np.asarray((np.stack(blocks) / areas).reshape(len(energy), -1))


def score_samples(
    samples: Values, extremum: str = "max", weights: Values | None = None
) -> PlaneScores:
    """Compute the scores of planes from their mean detail at N places, (Z, N).

    `weights` are the pixels of each place (N,), all alike where not given.
    """
    weights = np.ones(samples.shape[1]) if weights is None else weights
    rng = np.random.default_rng(0)
    count = samples.shape[1]
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLINGS) * weights
    means = (drawn @ samples.T) / np.maximum(drawn.sum(axis=1), 1e-300)[:, np.newaxis]
    mean = samples @ weights / weights.sum()
    most = max(float(mean.max()), 1e-300)
    position = best_position(mean, extremum)
    best = round(position)
    winners = [round(best_position(row, extremum)) for row in means]
    confidence = np.bincount(winners, minlength=len(mean)) / len(winners)
    return PlaneScores(mean / most, means.std(axis=0) / most, confidence, best, position)


def best_position(scores: Values, extremum: str = "max") -> float:
    """Return where a curve is highest (or the deepest valley lies), with a fraction."""
    best = int(np.argmax(scores if extremum == "max" else lower_rim(scores) - scores))
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
