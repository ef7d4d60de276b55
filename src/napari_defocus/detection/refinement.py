"""The iterative tanh update, with an exact short cut.

Zeng et al., IEEE TIP 28(5), 2019, section on the iterative updating mechanism: where the mean of a
pixel's neighbourhood is below a global threshold the pixel becomes 0, else the tanh of it; the maps
after 10, 50 and 100 iterations are weighed 0.3, 0.2 and 0.5. Ours: after each iteration the map is
divided by tanh(1), so that 1 stays 1 (tanh alone only shrinks; `growing` False leaves it so), the
neighbourhood of 5 x 5, and the share of the unrefined map that is kept.

Short cut, where the map grows. On [0, 1], tanh(x) / tanh(1) >= x: a surviving value never falls,
nor does any neighbourhood mean, unless a pixel dies. So after the first iteration only neighbours
of the pixels that died last are looked at, and values are updated where they are needed. No pixel
depends on one beyond `halo`, so that parts of an image can be refined alone.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from napari_defocus.core.errors import DefocusError
from napari_defocus.core.settings import Allowed, Settings
from napari_defocus.filters import _numba as compiled
from napari_defocus.filters.linear import box_mean

Float = npt.NDArray[np.float32]

# Ages are counted in 16 bits.
MOST_ITERATIONS = 2**15 - 1
LARGEST_NEIGHBOURHOOD = 1001
# Weights that sum to 1 but for rounding, or for digits that were not given (.333 three times).
WEIGHTS_OFF = 2e-3

# A mean this much below the threshold, relatively, is still equal to it: rounding of sums.
TIE = 1e-6
# Means in single precision are off by less, relatively.
ROUNDING = 1e-5
# At this distance from 1 every further iteration changes less than rounding does.
SETTLED = 1e-8
TANH_1 = np.tanh(1.0)
# Growth is tabulated at so many steps from 0 to 1, but for values where it is too steep.
STEPS = 2**14
STEEP_BELOW = 0.05
# Share of the pixels that may have died last for their neighbours to be looked at one by one.
FRONTIER = 0.01
# So few places are sorted rather than marked in a map.
FEW = 2**10
# Values are looked at after so many iterations: whether all have settled.
SETTLING = 8


@dataclass(frozen=True)
class RefinementConfig(Settings):
    """Settings of the refinement.

    Parameters
    ----------
    iterations : tuple of int
        Iterations whose maps are combined, rising.
    weights : tuple of float
        Weight of each of these maps; they sum to 1.
    neighbourhood : int
        Side of the square whose mean is compared with the threshold, in pixels, odd.
    threshold : float or None
        The global threshold in [0, 1]; None for the mean of the map.
    keep : float
        Share, in [0, 1], of the unrefined map in the result. It keeps the order of pixels that
        the iterations make equal. The paper knows no such share.
    growing : bool
        Whether each iteration divides by tanh(1), so that what survives rises towards 1. If not,
        the paper's tanh alone: no value is ever above what it was.
    """

    iterations: tuple[int, ...] = (10, 50, 100)
    weights: tuple[float, ...] = (0.3, 0.2, 0.5)
    neighbourhood: int = 5
    threshold: float | None = 0.5
    keep: float = 0.3
    growing: bool = True

    _allowed: ClassVar[Allowed] = {
        "iterations": (1, MOST_ITERATIONS),
        "weights": (0, 1),
        "neighbourhood": (1, LARGEST_NEIGHBOURHOOD),
        "threshold": (0, 1),
        "keep": (0, 1),
    }
    _called: ClassVar[dict[str, str]] = {
        "iterations": "one of the iterations",
        "weights": "a weight",
        "threshold": "the refinement's threshold",
    }

    def _check(self) -> None:
        if len(self.iterations) != len(self.weights) or not self.iterations:
            raise DefocusError(
                f"there are {len(self.iterations)} iterations and {len(self.weights)} weights; "
                "give one or more, and a weight for each"
            )
        if any(later <= earlier for earlier, later in pairwise(self.iterations)):
            raise DefocusError(f"the iterations are {_listed(self.iterations)}; give them rising")
        if abs(sum(self.weights) - 1) > WEIGHTS_OFF:
            raise DefocusError(
                f"the weights {_listed(self.weights)} sum to {sum(self.weights):g}; "
                "give some that sum to 1"
            )
        if self.neighbourhood % 2 == 0:
            raise DefocusError(
                f"neighbourhood is {self.neighbourhood}; give an odd side, which has a middle pixel"
            )


def halo(config: RefinementConfig) -> int:
    """Return the distance, in pixels, beyond which no pixel depends on another."""
    return config.neighbourhood // 2 * max(config.iterations)


def refine(sharpness: Float, config: RefinementConfig | None = None) -> Float:
    """Raise the sharp region of a sharpness map (Y, X) in [0, 1] to 1, the blurred to 0."""
    config = config or RefinementConfig()
    if not config.growing:
        return _refine_by_tanh_alone(sharpness, config)
    outlived = _checkpoints_outlived(sharpness, config)
    grown = _weighted_growth(sharpness, outlived, config)
    refined = np.float32(config.keep) * sharpness + np.float32(1 - config.keep) * grown
    return np.asarray(np.clip(refined, 0, 1), np.float32)


def _refine_by_tanh_alone(sharpness: Float, config: RefinementConfig) -> Float:
    """Run every iteration: values fall, so that pixels may die at any of them."""
    limit = _limit(sharpness, config)
    weight_after = dict(zip(config.iterations, config.weights, strict=True))
    values = np.array(sharpness, np.float64, order="C")
    flat, refined = values.ravel(), config.keep * values
    alive = np.flatnonzero(flat)
    for iteration in range(1, max(config.iterations) + 1):
        dark = box_mean(values, config.neighbourhood, "edge").ravel()[alive] < limit
        flat[alive[dark]] = 0
        alive = alive[~dark]
        flat[alive] = np.tanh(flat[alive])
        if iteration in weight_after:
            refined += (1 - config.keep) * weight_after[iteration] * values
        if not alive.size:
            break
    # The weights sum to 1 but for rounding.
    return np.minimum(refined.astype(np.float32), sharpness)


def _limit(sharpness: Float, config: RefinementConfig) -> float:
    """Return the mean below which a pixel becomes 0."""
    threshold = sharpness.mean(dtype=float) if config.threshold is None else config.threshold
    return float(threshold) * (1 - TIE)


def _checkpoints_outlived(sharpness: Float, config: RefinementConfig) -> npt.NDArray[np.uint8]:
    """Count, for each pixel, the combined iterations after which it lives."""
    lived = _iterations_lived(sharpness, config)
    outlived = np.zeros(lived.shape, np.uint8)
    for iteration in config.iterations:
        outlived += lived >= iteration
    return outlived


def _iterations_lived(sharpness: Float, config: RefinementConfig) -> npt.NDArray[np.int16]:
    """Count the iterations that each pixel lives through."""
    limit, most = _limit(sharpness, config), max(config.iterations)
    loops = compiled.loops()
    if loops is None:
        return _Update(sharpness, config.neighbourhood, limit).iterations_lived(most)
    half = config.neighbourhood // 2
    lived = loops.iterations_lived(sharpness.astype(np.float64), half, limit, most, 1 - SETTLED)
    return np.asarray(lived, np.int16)


def _weighted_growth(
    sharpness: Float, outlived: npt.NDArray[np.uint8], config: RefinementConfig
) -> Float:
    """Sum the weighted values after the combined iterations that each pixel outlived."""
    table = _growth_table(config.iterations, config.weights)
    loops = compiled.loops()
    look_up = _interpolate if loops is None else loops.interpolate
    grown = look_up(sharpness, outlived, table)
    steep = np.flatnonzero((sharpness < STEEP_BELOW) & (outlived > 0))
    if steep.size:
        exact = _growth(sharpness.ravel()[steep], config.iterations, config.weights)
        grown.ravel()[steep] = exact[outlived.ravel()[steep], np.arange(steep.size)]
    return np.asarray(grown, np.float32)


def _interpolate(values: Float, rows: npt.NDArray[np.uint8], table: Float) -> Float:
    """Look values in [0, 1] up in rows of a table, linearly between its columns."""
    last = table.shape[1] - 1
    place = values * np.float32(last)
    step = np.minimum(place.astype(np.int32), last - 1)
    # One row of the table for each count, one after the other.
    entry = step + rows * np.int32(last + 1)
    low, high = table.ravel().take(entry), table.ravel().take(entry + 1)
    return np.asarray(low + (place - step.astype(np.float32)) * (high - low), np.float32)


@lru_cache(maxsize=8)
def _growth_table(iterations: tuple[int, ...], weights: tuple[float, ...]) -> Float:
    """Tabulate `_growth` between 0 and 1, (combined iterations + 1, STEPS + 1)."""
    table = _growth(np.linspace(0, 1, STEPS + 1), iterations, weights)
    return np.asarray(table, np.float32)


def _growth(
    start: npt.NDArray[Any], iterations: tuple[int, ...], weights: tuple[float, ...]
) -> npt.NDArray[np.float64]:
    """Return the weighted sums over the first 0, 1, 2, ... combined iterations of living pixels."""
    values = start.astype(np.float64)
    sums = [np.zeros_like(values)]
    weight_after = dict(zip(iterations, weights, strict=True))
    for iteration in range(1, max(iterations) + 1):
        values = np.tanh(values) / TANH_1
        if iteration in weight_after:
            sums.append(sums[-1] + weight_after[iteration] * values)
    return np.stack(sums)


def _listed(numbers: tuple[float, ...]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)


class _Update:
    """The iterations, each pixel updated only when its value is needed."""

    def __init__(self, sharpness: Float, side: int, limit: float) -> None:
        self.limit = limit
        self.side = side
        self.shape = sharpness.shape
        self.values = sharpness.astype(np.float64).ravel()
        self.age = np.zeros(self.values.size, np.int16)
        self.alive = self.values > 0
        self.marked = np.zeros(self.values.size, np.bool_)
        self.now = 0

    def iterations_lived(self, most: int) -> npt.NDArray[np.int16]:
        """Iterate, and count for each pixel the iterations that it lives through, (Y, X)."""
        lived = np.where(self.alive, np.int16(most), np.int16(0))
        died = self._below()
        while died.size and self.now < most:
            self.values[died] = 0
            self.alive[died] = False
            lived[died] = self.now
            self.now += 1
            died = self._die_next(died)
        return lived.reshape(self.shape)

    def _die_next(self, died: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """Return living pixels whose neighbourhoods fell below the threshold."""
        # Values that were not updated are too small: what is not below them is above for certain.
        if died.size > FRONTIER * self.values.size:
            suspects = self._below()
        else:
            suspects = self._living(self._windows(died))
        windows = self._windows(suspects)
        unsure = np.flatnonzero(self.values[windows].mean(axis=0) < self.limit)
        suspects, windows = suspects[unsure], windows[:, unsure]
        # No value is above 1: with so few that live, it is below for certain.
        dark = self.alive[windows].mean(axis=0) < self.limit
        unsure = np.flatnonzero(~dark)
        windows = windows[:, unsure]
        self._catch_up(self._living(windows))
        dark[unsure] = self.values[windows].mean(axis=0) < self.limit
        return np.asarray(suspects[dark])

    def _below(self) -> npt.NDArray[np.intp]:
        """Return living pixels whose neighbourhoods may be below the threshold."""
        values: Float = self.values.reshape(self.shape).astype(np.float32)
        limit = self.limit
        if self.now:  # each value is due for an iteration at least
            np.tanh(values, out=values)
            values /= np.float32(TANH_1)
            limit *= 1 + ROUNDING
        means = box_mean(values, self.side, "edge").ravel()
        return np.flatnonzero(self.alive & (means < np.float32(limit)))

    def _catch_up(self, pixels: npt.NDArray[np.intp]) -> None:
        """Update the values of living pixels to the present iteration."""
        values, age = self.values[pixels], self.age[pixels]
        for since in np.flatnonzero(np.bincount(age)):
            due = np.flatnonzero((age == since) & (values < 1 - SETTLED))
            moving = values[due]
            for iteration in range(since, self.now):
                if iteration % SETTLING == 0 and not (moving < 1 - SETTLED).any():
                    break
                np.tanh(moving, out=moving)
                moving /= TANH_1
            values[due] = moving
        self.values[pixels] = values
        self.age[pixels] = self.now

    def _living(self, pixels: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """Return each living pixel once, in order."""
        pixels = pixels[self.alive[pixels]]
        if pixels.size < FEW:
            return np.unique(pixels)
        self.marked[pixels] = True
        once = np.flatnonzero(self.marked)
        self.marked[once] = False
        return once

    def _windows(self, pixels: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """Return the neighbourhood of each pixel, the border repeated, (side^2, N)."""
        rows, columns = np.divmod(pixels, self.shape[1])
        shifts = np.arange(self.side)[:, np.newaxis] - self.side // 2
        rows = np.clip(rows + shifts, 0, self.shape[0] - 1) * self.shape[1]
        columns = np.clip(columns + shifts, 0, self.shape[1] - 1)
        return np.asarray(rows[:, np.newaxis] + columns).reshape(self.side**2, -1)
