"""The iterative tanh update, with an exact short cut.

Zeng et al., IEEE TIP 28(5), 2019, section on the iterative updating mechanism: where the mean of a
pixel's neighbourhood is below a global threshold the pixel becomes 0, else the tanh of it; the maps
after 10, 50 and 100 iterations are weighed 0.3, 0.2 and 0.5. Ours: after each iteration the map is
divided by its maximum (tanh alone only shrinks it), and the neighbourhood is 5 x 5.

Short cut. On [0, m] with m <= 1, tanh(x) / tanh(m) >= x: a surviving value never falls, nor does
any neighbourhood mean, unless a pixel dies. So once an iteration kills no pixel none ever dies
again, and what remains is one function of each value alone, iterated.
"""

from collections.abc import Iterator
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
    combined = np.zeros(sharpness.shape, np.float64)
    weights = dict(zip(config.iterations, config.weights, strict=True))
    for iteration, values in enumerate(_iterates(sharpness, config), start=1):
        if iteration in weights:
            combined += weights[iteration] * values
        if iteration == max(config.iterations):
            break
    combined = config.keep * sharpness + (1 - config.keep) * combined
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


def _iterates(sharpness: Float, config: RefinementConfig) -> Iterator[npt.NDArray[np.float64]]:
    values = sharpness.astype(np.float64)
    threshold = values.mean() if config.threshold is None else config.threshold
    alive = values > 0
    while True:
        mean = ndimage.uniform_filter(values, config.neighbourhood, mode="nearest")
        survives = alive & (mean >= threshold * (1 - TIE))
        values = _rescale(np.where(survives, np.tanh(values), 0))
        yield values
        if (survives == alive).all():
            break
        alive = survives
    yield from _settle(values, alive)


def _settle(
    values: npt.NDArray[np.float64], alive: npt.NDArray[np.bool_]
) -> Iterator[npt.NDArray[np.float64]]:
    """Go on without looking at neighbours: the set of living pixels is final."""
    living = values[alive]
    while living.size and living.min() < 1 - SETTLED:
        living = np.tanh(living) / np.tanh(1.0)
        values = values.copy()
        values[alive] = living
        yield values
    while True:
        yield values


def _rescale(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    top = values.max(initial=0)
    return values / top if top > 0 else values
