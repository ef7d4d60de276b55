"""How much each plane of a stack is in focus.

A score is the mean detail of a plane, as a share of the best plane's. How sure the order is comes
from a bootstrap over blocks of the field (B. Efron, Ann. Statist. 7(1), 1979): the same scene seen
again would show other blocks of its kind.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]

RESAMPLINGS = 500
# Blocks that a field is cut into, across and down, at most, and their least side in samples.
BLOCKS = 16
LEAST_BLOCK = 4
# Detail must rise so many times, on both sides of the plane with least, to count as a minimum.
VALLEY = 2.0
# Blocks with less detail than this share of the mean say nothing.
QUIET = 0.05


@dataclass(frozen=True, eq=False)
class PlaneScores:
    """How much each of Z planes is in focus.

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


def score_planes(
    energy: npt.NDArray[np.float32], extremum: str = "max", seed: int = 0
) -> PlaneScores:
    """Score planes by their detail.

    Parameters
    ----------
    energy : ndarray of float32, (Z, Y, X)
        Detail, less the noise's.
    extremum : str
        ``max`` or ``min``, see `StackConfig`.
    seed : int
        Of the bootstrap.
    """
    return score_samples(blocks_of(energy), extremum, seed)


def blocks_of(energy: npt.NDArray[np.float32]) -> Values:
    """Give the mean detail in each block of a field: (Z, Y, X) to (Z, blocks)."""
    rows, columns = (max(size // LEAST_BLOCK, 1) for size in energy.shape[1:])
    edges = [
        np.linspace(0, size, min(count, BLOCKS) + 1).astype(int)[:-1]
        for size, count in zip(energy.shape[1:], (rows, columns), strict=True)
    ]
    blocks = []
    for plane in energy:
        sums = np.add.reduceat(np.add.reduceat(plane.astype(np.float64), edges[0], 0), edges[1], 1)
        blocks.append(sums.ravel())
    heights, widths = (
        np.diff([*edge, size]) for edge, size in zip(edges, energy.shape[1:], strict=True)
    )
    return np.asarray(np.stack(blocks) / np.outer(heights, widths).ravel())


def score_samples(
    samples: Values, extremum: str = "max", seed: int = 0, weights: Values | None = None
) -> PlaneScores:
    """Score planes by samples of their detail.

    Parameters
    ----------
    samples : ndarray of float64, (Z, N)
        Mean detail at N places, N >= 1.
    extremum : str
        ``max`` or ``min``.
    seed : int
        Of the bootstrap.
    weights : ndarray of float64, (N,), optional
        Pixels of each place; all alike where not given.
    """
    weights = np.ones(samples.shape[1]) if weights is None else weights
    rng = np.random.default_rng(seed)
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
    """Give the place of the highest (or of the deepest inner) value of a curve, with a fraction."""
    planes = len(scores)
    level = scores
    best = int(np.argmax(level))
    if extremum == "min":
        depth = valley_depth(scores[:, np.newaxis])[:, 0]
        best, level = int(np.argmax(depth)), -scores
    if not 0 < best < planes - 1:
        return float(best)
    before, here, after = level[best - 1 : best + 2]
    bend = before - 2 * here + after
    # Half a plane at most: the best plane stays the nearest one.
    return best + float(np.clip(0.5 * (before - after) / bend, -0.49, 0.49)) if bend < 0 else best


def valley_depth(values: Values) -> Values:
    """Give how far each plane lies below the lower of the heights before and behind: (Z, N)."""
    before = np.maximum.accumulate(values, axis=0)
    after = np.maximum.accumulate(values[::-1], axis=0)[::-1]
    return np.asarray(np.minimum(before, after) - values)


def phase_share(samples: Values, noise: float) -> float:
    """Give the share of the detail whose focus is a minimum.

    Parameters
    ----------
    samples : ndarray of float64, (Z, N)
        Mean detail in small blocks of the field: each should show one object.
    noise : float
        What is left of noise in such a block.

    Returns
    -------
    float
        In [0, 1]; 0 where there is no detail.
    """
    floor = np.maximum(samples, 0) + noise
    weight = np.maximum(floor.max(axis=0) - 2 * noise, 0)
    weight = np.where(weight > QUIET * weight.mean(), np.sqrt(weight), 0)
    if len(samples) < 3 or not weight.any():
        return 0.0
    before = np.maximum.accumulate(floor, axis=0)
    after = np.maximum.accumulate(floor[::-1], axis=0)[::-1]
    rise = (np.minimum(before, after) / floor).max(axis=0)
    return float(weight[rise >= VALLEY].sum() / weight.sum())
