"""The iterative tanh update, with an exact short cut.

Zeng et al., IEEE TIP 28(5), 2019, section on the iterative updating mechanism: where the mean of a
pixel's neighbourhood is below a global threshold the pixel becomes 0, else the tanh of it; the maps
after 10, 50 and 100 iterations are weighed 0.3, 0.2 and 0.5. Ours: after each iteration the map is
divided by tanh(1), so that 1 stays 1 (tanh alone only shrinks), and the neighbourhood is 5 x 5.

Short cut. On [0, 1], tanh(x) / tanh(1) >= x: a surviving value never falls, nor does any
neighbourhood mean, unless a pixel dies. So after the first iterations only neighbours of the
pixels that died last are looked at, and values are brought up to date where they are asked for.
A pixel's fate reaches no further than `reach`, which lets parts of an image be refined alone.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_defocus.errors import DefocusError, check_range

Float = npt.NDArray[np.float32]

# A mean this much below the threshold, relatively, is still equal to it: rounding of running sums.
TIE = 1e-6
# At this distance from 1 every further iteration changes less than rounding does.
SETTLED = 1e-8
TANH_1 = np.tanh(1.0)
# Share of the pixels that may have died last for their neighbours to be looked at one by one.
FRONTIER = 0.01


@dataclass(frozen=True)
class RefinementConfig:
    """How a sharpness map is refined.

    Parameters
    ----------
    iterations : tuple of int
        Iterations after which a map is kept, rising.
    weights : tuple of float
        Weight of each kept map; they sum to 1.
    neighbourhood : int
        Side of the square whose mean decides, in pixels, odd.
    threshold : float or None
        The global threshold in [0, 1]; None for the mean of the map.
    keep : float
        Share, in [0, 1], of the unrefined map in the result. It keeps the order of pixels that
        the iterations make equal; 0 is the paper's result.
    """

    iterations: tuple[int, ...] = (10, 50, 100)
    weights: tuple[float, ...] = (0.3, 0.2, 0.5)
    neighbourhood: int = 5
    threshold: float | None = 0.5
    keep: float = 0.3


def reach(config: RefinementConfig) -> int:
    """Give the distance, in pixels, beyond which no pixel changes what becomes of another."""
    return config.neighbourhood // 2 * max(config.iterations)


def refine(sharpness: Float, config: RefinementConfig | None = None) -> Float:
    """Raise the sharp region to 1 and sink the blurred one to 0.

    Parameters
    ----------
    sharpness : ndarray of float32, (Y, X)
        Values in [0, 1], 1 = sharp.
    config : RefinementConfig, optional
        How.

    Returns
    -------
    ndarray of float32, (Y, X)
        Values in [0, 1].

    Raises
    ------
    DefocusError
        Where a setting is out of its range.
    """
    config = config or RefinementConfig()
    _check(config)
    update = _Update(sharpness, config)
    combined = config.keep * sharpness.astype(np.float64)
    weights = dict(zip(config.iterations, config.weights, strict=True))
    for iteration in range(1, max(config.iterations) + 1):
        update.iterate()
        if iteration in weights:
            combined += (1 - config.keep) * weights[iteration] * update.map()
    return np.asarray(np.clip(combined, 0, 1), np.float32)


def _check(config: RefinementConfig) -> None:
    if len(config.iterations) != len(config.weights):
        raise DefocusError(
            f"there are {len(config.iterations)} iterations and {len(config.weights)} weights; "
            "give a weight for each"
        )
    check_range("the first of the iterations", min(config.iterations, default=0), 1)
    for weight in config.weights:
        check_range("a weight", weight, 0, 1)
    check_range("neighbourhood", config.neighbourhood, 1)
    check_range("keep", config.keep, 0, 1)
    if config.threshold is not None:
        check_range("the refinement's threshold", config.threshold, 0, 1)


class _Update:
    """The iterations, each pixel brought up to date only when its value is asked for."""

    def __init__(self, sharpness: Float, config: RefinementConfig) -> None:
        threshold = sharpness.mean(dtype=float) if config.threshold is None else config.threshold
        self.limit = threshold * (1 - TIE)
        self.side = config.neighbourhood
        self.shape = sharpness.shape
        self.values = sharpness.astype(np.float64).ravel()
        self.age = np.zeros(self.values.size, np.intp)
        self.alive = self.values > 0
        self.died = np.arange(self.values.size)
        self.now = 0

    def iterate(self) -> None:
        """Let the pixels die whose neighbourhoods are too dark, and the others grow."""
        if self.died.size > FRONTIER * self.values.size:
            self._catch_up(np.flatnonzero(self.alive))
            means = ndimage.uniform_filter(
                self.values.reshape(self.shape), self.side, mode="nearest"
            )
            self.died = np.flatnonzero(self.alive & (means.ravel() < self.limit))
        elif self.died.size:
            beside = self._beside_died()
            windows = self._windows(beside)
            self._catch_up(np.unique(windows[self.alive[windows]]))
            self.died = beside[self.values[windows].mean(axis=1) < self.limit]
        self.values[self.died] = 0
        self.alive[self.died] = False
        self.now += 1

    def map(self) -> npt.NDArray[np.float64]:
        """Values after the iterations so far."""
        self._catch_up(np.flatnonzero(self.alive))
        return self.values.reshape(self.shape)

    def _catch_up(self, pixels: npt.NDArray[np.intp]) -> None:
        """Iterate the values of living pixels to the present."""
        values, age = self.values[pixels], self.age[pixels]
        moving = np.flatnonzero((age < self.now) & (values < 1 - SETTLED))
        for iteration in range(int(age[moving].min(initial=self.now)), self.now):
            due = moving[age[moving] <= iteration]
            values[due] = np.tanh(values[due]) / TANH_1
            moving = moving[values[moving] < 1 - SETTLED]
        self.values[pixels] = values
        self.age[pixels] = self.now

    def _beside_died(self) -> npt.NDArray[np.intp]:
        """Living pixels whose neighbourhood holds one that died last."""
        rows, columns = self.shape
        y, x = (axis[:, np.newaxis] - self._offsets for axis in divmod(self.died, columns))
        y, x = y[:, :, np.newaxis], x[:, np.newaxis, :]
        inside = (y >= 0) & (y < rows) & (x >= 0) & (x < columns)
        beside = np.unique((y * columns + x)[inside])
        return np.asarray(beside[self.alive[beside]], np.intp)

    def _windows(self, pixels: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """Pixels in the neighbourhood of each pixel, the border repeated, (N, side^2)."""
        rows, columns = self.shape
        y, x = (axis[:, np.newaxis] + self._offsets for axis in divmod(pixels, columns))
        y, x = np.clip(y, 0, rows - 1), np.clip(x, 0, columns - 1)
        windows = y[:, :, np.newaxis] * columns + x[:, np.newaxis, :]
        return np.asarray(windows.reshape(len(pixels), self.side**2))

    @property
    def _offsets(self) -> npt.NDArray[np.intp]:
        return np.arange(self.side) - self.side // 2
