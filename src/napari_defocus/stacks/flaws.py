"""Flaws of single planes of a focus stack: a flickering lamp, lost frames, noise, hot pixels.

A plane is compared with those beside it: whatever focus changes, it changes little by little, and
not the light that falls on the whole field. Our own rules, with wide margins: a plane that is taken
out cannot be the best one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_defocus.filters.luminance import grey_and_holes
from napari_defocus.filters.noise import PlaneStatistics

Array = npt.NDArray[Any]
Values = npt.NDArray[np.float64]
Places = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]

# Blocks across and down whose brightness is compared, in so many rows and columns at most.
BLOCKS = 16
MOST_SIDE = 1024
# Brightness, as a share of that of either plane beside it, below or above which a plane is odd, if
# so many of its blocks are all on that side.
DARK, BRIGHT = 0.7, 1.4
ALIKE = 0.9
# The noise's variance, in times that of either plane beside it. White noise differs as much from
# pixel to pixel as over two pixels; detail that optics saw, less.
NOISY = 4.0
WHITE = 0.75
NOISE_BLOCK = 16
FLATTEST = 0.1
# The median of the squares of normal numbers of variance 1.
MEDIAN = 0.4549
# A hot, or dead, pixel differs by so many times the noise, and so much of the range of grey, from
# what is around it and from the planes beside it, and these by no more than a share of that.
HOT_NOISE, HOT_RANGE, HOT_SHARE = 8.0, 0.05, 0.2
# A bead smaller than a pixel looks so in focus, too, but in a plane beside it defocus has spread
# its light: so much of it, and so many times what comes and goes at the places beside it, is within
# these distances.
SPREAD, SPREAD_NOISE, SPREAD_OVER = 0.5, 3.0, (1, 2, 3)
CONTROLS = ((9, 0), (0, 9), (9, 9), (-9, 5))
# A plane has so much less detail than those beside it, in so much of the field, where it is lost.
LOST = 0.25
# Detail of an odd plane, as a share of the lesser of those beside it: no peak, and no valley.
FILLED = 0.6


@dataclass(frozen=True)
class Flaws:
    """What is wrong: of odd planes the reason, and of others where their hot pixels are."""

    odd: dict[int, str] = field(default_factory=dict)
    hot: dict[int, Places] = field(default_factory=dict)

    def beside(self, z: int, count: int) -> tuple[int | None, int | None]:
        """Return the nearest planes before and behind plane `z` that are not odd."""
        before = next((k for k in range(z - 1, -1, -1) if k not in self.odd), None)
        behind = next((k for k in range(z + 1, count) if k not in self.odd), None)
        return before, behind

    def stand_in(self, z: int, count: int) -> int:
        """Return the plane that is shown in place of plane `z`."""
        near = [k for k in self.beside(z, count) if k is not None]
        return z if z not in self.odd or not near else min(near, key=lambda k: abs(k - z))

    def fill(self, detail: npt.NDArray[Any]) -> None:
        """Set the detail (Z, ...) of odd planes below that of those beside them."""
        for z in self.odd:
            before, behind = self.beside(z, len(detail))
            if before is None or behind is None:
                detail[z] = 0
            else:
                detail[z] = FILLED * np.minimum(detail[before], detail[behind])

    def warnings(self) -> tuple[str, ...]:
        """Say which planes are not counted, and why."""
        told = [f"plane {z} {why}; it is not counted" for z, why in sorted(self.odd.items())]
        spots = {z: len(rows) for z, (rows, _) in self.hot.items() if len(rows) >= 10}
        return (*told, *(f"plane {z} has {n} hot pixels; they are left out" for z, n in
                         sorted(spots.items())))  # fmt: skip


class FlawFinder:
    """Is shown the planes of a stack one by one, and tells at the end what is wrong with them."""

    def __init__(self) -> None:
        self._means: list[Values] = []
        self._noise: list[tuple[float, float]] = []
        self._statistics: list[PlaneStatistics] = []
        self._recent: list[Array] = []
        self._hot: dict[int, Places] = {}
        self._step = 0.0  # between whole numbers: rounding is no noise of a plane

    def add(self, plane: Array, statistics: PlaneStatistics) -> None:
        """Look at the next plane (Y, X[, C])."""
        grey, holes = grey_and_holes(plane)
        self._step = 1.0 if plane.dtype.kind in "iu" else 0.0
        grey = np.where(holes, statistics.limits[0], grey)
        self._means.append(_block_means(grey))
        self._noise.append(_white_noise(grey))
        self._statistics.append(statistics)
        self._recent = [*self._recent[-2:], grey]
        z = len(self._means) - 1
        if z == 2:
            self._look(0, 0, (1, 2))
        if z >= 2:
            self._look(z - 1, -2, (-3, -1))

    def found(self) -> Flaws:
        """Return what is wrong."""
        count = len(self._means)
        if count < 3:
            return Flaws()
        self._look(count - 1, -1, (-2, -3))
        odd = {z: why for z in range(count) for why in self._oddities(z)}
        # Where most planes are odd none is: something else changes.
        odd = odd if len(odd) <= count // 3 else {}
        return Flaws(odd, {z: at for z, at in self._hot.items() if z not in odd})

    def _oddities(self, z: int) -> Iterator[str]:
        count = len(self._means)
        beside = [k for k in (z - 1, z + 1) if 0 <= k < count]
        beside += [z - 2] * (z == count - 1) + [z + 2] * (z == 0)
        if self._noisy(z, beside):
            yield "is much noisier than the planes beside it"
        black = min(each.limits[0] for each in self._statistics)
        own, others = self._means[z] - black, [self._means[k] - black for k in beside]
        if all(_darker(own, other, DARK) for other in others):
            yield "is much darker than the planes beside it"
        if all(_darker(other, own, 1 / BRIGHT) for other in others):
            yield "is much brighter than the planes beside it"
        if self._statistics[z].constant and not any(self._statistics[k].constant for k in beside):
            yield "is blank"

    def _noisy(self, z: int, beside: Sequence[int]) -> bool:
        low, high = self._statistics[z].limits
        floor = max((high - low) / 255, self._step) ** 2 / 12
        variance, whiteness = self._noise[z]
        least = NOISY * max(floor, *(self._noise[k][0] for k in beside))
        return variance > least and whiteness > WHITE

    def _look(self, z: int, at: int, beside: tuple[int, int]) -> None:
        """Look for hot and dead pixels in a recent plane."""
        own, others = self._recent[at], [self._recent[k] for k in beside]
        low, high = self._statistics[z].limits
        # Spots count as noise where they are: the planes beside this one have as much without them.
        noise = min(_brightest_noise(self._statistics[z + k - at]) for k in (at, *beside))
        least = max(HOT_NOISE * noise, HOT_RANGE * (high - low))
        if min(own.shape) < 5 or not least > 0:
            return
        places = [
            _spots(sign * own, [sign * other for other in others], least, noise) for sign in (1, -1)
        ]
        rows, columns = (np.concatenate(each) for each in zip(*places, strict=True))
        if len(rows):
            self._hot[z] = rows, columns


def _brightest_noise(statistics: PlaneStatistics) -> float:
    """Return the standard deviation of the noise where a plane is brightest."""
    low, high = statistics.limits
    return float(np.sqrt(max(sum(statistics.noise), 0)) * (high - low)) or np.inf


def _block_means(grey: Array) -> Values:
    grey = grey[tuple(slice(None, None, -(-size // MOST_SIDE)) for size in grey.shape)]
    edges = [np.unique(np.linspace(0, n, BLOCKS, endpoint=False).astype(int)) for n in grey.shape]
    sums = np.add.reduceat(np.add.reduceat(grey.astype(np.float64), edges[0], 0), edges[1], 1)
    sides = [np.diff([*edge, size]) for edge, size in zip(edges, grey.shape, strict=True)]
    return np.asarray(sums / np.outer(*sides))


def _darker(own: Values, other: Values, share: float) -> bool:
    """Tell whether a plane is darker than another nearly everywhere, to a share of it or less."""
    return bool(own.mean() < share * other.mean() and (own < other).mean() >= ALIKE)


def _white_noise(grey: Array) -> tuple[float, float]:
    """Return the variance of the noise in the flattest blocks, and how white it is there."""
    starts = [max((size - MOST_SIDE) // 2, 0) for size in grey.shape]
    part = grey[tuple(slice(start, start + MOST_SIDE) for start in starts)]
    rows, columns = (n // NOISE_BLOCK for n in part.shape)
    if not rows * columns:
        return 0.0, 0.0
    part = part[: rows * NOISE_BLOCK, : columns * NOISE_BLOCK].astype(np.float64)
    cut = part.reshape(rows, NOISE_BLOCK, columns, NOISE_BLOCK).swapaxes(1, 2)
    blocks = cut.reshape(-1, NOISE_BLOCK, NOISE_BLOCK)
    # Medians: hot pixels are none of it.
    near, far = (
        np.median(np.square(blocks[:, :, step:] - blocks[:, :, :-step]), axis=(1, 2)) / MEDIAN
        for step in (1, 2)
    )
    flattest = np.argsort(far)[: max(int(FLATTEST * len(near)), 1)]
    variance, over_two = near[flattest].mean() / 2, far[flattest].mean() / 2
    return float(variance), float(variance / over_two) if over_two > 0 else 0.0


def _spots(own: Array, others: Sequence[Array], least: float, noise: float) -> Places:
    """Return the pixels, single or two side by side, that stand `least` out, in this plane only."""
    padded = np.pad(own, 1, "reflect")
    count = np.zeros(own.shape, np.uint8)
    for y in (0, 1, 2):
        for x in (0, 1, 2):
            if (y, x) != (1, 1):
                around = padded[y : y + own.shape[0], x : x + own.shape[1]]
                count += own - around > (1 - HOT_SHARE) * least
    above = count == 8
    above[1:-1, 1:-1] |= count[1:-1, 1:-1] == 7  # two may be side by side
    for other in others:
        above &= own - other > (1 - HOT_SHARE) * least
    rows, columns = np.nonzero(above)
    ring = _around(own, rows, columns, 2)
    ground = np.median(ring, axis=1)
    height = own[rows, columns] - ground
    lone = height > least
    for plane in (own, *others):
        near = np.sort(_around(plane, rows, columns, 1), axis=1)
        near = near[:, -2] if plane is own else np.maximum(near[:, -1], plane[rows, columns])
        level = np.median(_around(plane, rows, columns, 2), axis=1)
        lone &= near - level <= HOT_SHARE * height
    rows, columns, height = rows[lone], columns[lone], height[lone]
    spread = [_is_spread(own, other, (rows, columns), height, noise) for other in others]
    hot = ~np.any(spread, axis=0)
    return rows[hot], columns[hot]


def _is_spread(own: Array, other: Array, at: Places, height: Values, noise: float) -> Array:
    """Tell of spots whether their light lies around them in another plane: defocus moves it only.

    It has to stand out from what comes and goes elsewhere, where there is texture.
    """
    rows, columns = at
    found = np.zeros(len(rows), bool)
    if not len(rows):
        return found
    beside = [((rows + y) % own.shape[0], (columns + x) % own.shape[1]) for y, x in CONTROLS]
    controls = tuple(np.concatenate(each) for each in zip(*beside, strict=True))
    elsewhere = _gained(own, other, (controls[0], controls[1]))
    for distance, gain, others in zip(SPREAD_OVER, _gained(own, other, at), elsewhere, strict=True):
        spread = max(noise * np.sqrt(2) * (2 * distance + 1), np.median(np.abs(others)) / 0.6745)
        found |= gain + height > np.maximum(SPREAD * height, SPREAD_NOISE * spread)
    return found


def _gained(own: Array, other: Array, at: Places) -> list[Values]:
    """Return how much more light another plane has within distances of places, less its ground."""
    levels = [np.median(_around(plane, *at, SPREAD_OVER[-1] + 1), axis=1) for plane in (own, other)]
    gain = (other[at] - levels[1]) - (own[at] - levels[0])
    gains = []
    for distance in SPREAD_OVER:
        here, there = (
            (_around(plane, *at, distance) - level[:, np.newaxis]).sum(axis=1)
            for plane, level in zip((own, other), levels, strict=True)
        )
        gain = gain + there - here
        gains.append(gain)
    return gains


def _around(plane: Array, rows: Array, columns: Array, distance: int) -> Array:
    """Return the pixels at a distance around each place: (N, 8 * distance)."""
    offsets = np.mgrid[-distance : distance + 1, -distance : distance + 1].reshape(2, -1)
    offsets = offsets[:, np.abs(offsets).max(axis=0) == distance]
    y = _reflected(rows[:, np.newaxis] + offsets[0], plane.shape[0])
    x = _reflected(columns[:, np.newaxis] + offsets[1], plane.shape[1])
    return np.asarray(plane[y, x])


def _reflected(places: Array, size: int) -> Array:
    """Mirror places beyond either end of an axis about the pixel at that end."""
    return np.asarray(size - 1 - np.abs(size - 1 - np.abs(places)))


def without_spots(plane: Array, places: Places) -> Array:
    """Return a plane (Y, X[, C]) with the median of the pixels around in place of some."""
    repaired = plane.copy()
    repaired[places] = np.median(_around(plane, *places, 1), axis=1).astype(plane.dtype)
    return repaired


def lost_planes(samples: Values, noise: float, known: Flaws) -> dict[int, str]:
    """Return planes that have far less detail (Z, N) than those beside them, all over the field.

    Not where detail rises to both sides: that is how a phase object, or two layers, look.
    """
    seen = np.sqrt(np.maximum(samples.max(axis=0) - noise, 0))
    lost = {}
    for z in range(1, len(samples) - 1):
        before, behind = known.beside(z, len(samples))
        if z in known.odd or before is None or behind is None or not seen.any():
            continue
        floor = np.minimum(samples[before], samples[behind]) + noise
        dips = samples[z] + noise < LOST * floor
        level = samples.mean(axis=1)
        first, last = known.beside(before, len(samples))[0], known.beside(behind, len(samples))[1]
        # At the ends of the stack, a valley is about as high on both sides.
        left = level[before] > level[behind] / 2 if first is None else level[first] > level[before]
        right = level[behind] > level[before] / 2 if last is None else level[last] > level[behind]
        if seen[dips].sum() >= ALIKE * seen.sum() and not (left and right):
            lost[z] = "shows far less detail than the planes beside it"
    return lost
