"""The sharpness limit: the widest blur radius that still counts as sharp.

The dense network's log odds and its blur radius order pixels almost alike, so that one number moves
the detector: photos want about 1.5 pixels, most microscopes 2 to 3.5. What is here is not in the
paper. The constants were chosen on half of CUHK-TE-1 and of szu_score; on the focus series they
were looked at.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_defocus.core.errors import DefocusError
from napari_defocus.dense.detector import RADIUS_OFFSET
from napari_defocus.dense.plane import DensePlane
from napari_defocus.io.optics import Optics

Float = npt.NDArray[np.float32]

AUTO = "auto"
# The limit, in pixels, that the network's log odds are of.
REFERENCE = 1.5
# Log odds that a limit e times as wide adds, the share of the radius in the score, and a factor on
# the network's own.
SLOPE = 9.0
RADIUS_SHARE = 0.2
GAIN = 1.5
# The automatic limit: so many times the radius that this share of the edges stays below.
TIMES_SHARPEST = 3.0
SHARPEST_SHARE = 0.05
AUTO_RANGE = (1.85, 2.8)
# Results hang on a limit that so much of the structure lies near.
NEAR = 0.2
# Radii are counted in bins of their logarithm.
RADIUS_RANGE = (0.0, 40.0)
BINS = 512
# Counts are whole, so that tiles add up to the same as the plane.
UNIT = 2**20
# Units of a limit, in micrometres.
UNITS = {"um": 1.0, "µm": 1.0, "μm": 1.0, "nm": 1e-3}


def log_radius(radius: float | Float) -> Float:
    """Return the logarithm in which the network predicts radii."""
    logarithm: Float = np.log(np.asarray(radius, np.float32) + np.float32(RADIUS_OFFSET))
    return logarithm


def score_of(plane: DensePlane) -> Float:
    """Compute the log odds that the blur of each pixel is narrower than `REFERENCE`, (Y, X)."""
    return score_from(plane.found.log_odds, log_radius(plane.radius))


def score_from(log_odds: Float, log_radii: Float) -> Float:
    """Compute the score, see `score_of`, of pixels with these log odds and `log_radius`."""
    score = (log_radius(REFERENCE) - log_radii) * np.float32(SLOPE * RADIUS_SHARE)
    score += np.float32(GAIN * (1 - RADIUS_SHARE)) * log_odds
    return score


def shift(limit: float, reference: float = REFERENCE) -> float:
    """Return what is added to log odds at one limit for those at another, both in pixels."""
    return float(SLOPE * (log_radius(limit) - log_radius(reference)))


@dataclass(frozen=True, eq=False)
class EdgeRadii:
    """How wide the blur of a plane's edges is: squared gradients summed in bins of the radius."""

    counts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, plane: DensePlane) -> "EdgeRadii":
        """Count the edges of a plane or of a part of it."""
        low, high = (float(log_radius(end)) for end in RADIUS_RANGE)
        places = log_radius(plane.radius[::2, ::2]) - np.float32(low)
        places = np.clip(places * np.float32(BINS / (high - low)), 0, BINS - 1).astype(np.intp)
        # Sums of whole numbers are exact in double precision.
        weights = np.rint(plane.edges.ravel() * np.float64(UNIT))
        return cls(np.bincount(places.ravel(), weights, BINS).astype(np.int64))

    @classmethod
    def none(cls) -> "EdgeRadii":
        """Return those of a plane without edges."""
        return cls(np.zeros(BINS, np.int64))

    def __add__(self, other: "EdgeRadii") -> "EdgeRadii":
        return EdgeRadii(self.counts + other.counts)

    @property
    def sharpest(self) -> float:
        """Radius, in pixels, of the sharpest structure; nan where there are no edges."""
        total = int(self.counts.sum())
        if total == 0:
            return float("nan")
        place = int(np.searchsorted(self.counts.cumsum(), SHARPEST_SHARE * total))
        return float(_radii(np.array([place + 0.5]))[0])

    def share_near(self, limit: float) -> float:
        """Return the share of the edges whose radius is within `NEAR` of a limit, relatively."""
        radii, total = _radii(np.arange(BINS) + 0.5), int(self.counts.sum())
        near = np.abs(radii - limit) <= NEAR * limit
        return float(self.counts[near].sum() / total) if total else 0.0


def _radii(places: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    low, high = (float(log_radius(end)) for end in RADIUS_RANGE)
    return np.exp(low + places * (high - low) / BINS) - RADIUS_OFFSET


def limit_of(limit: float | str, edges: EdgeRadii) -> float:
    """Return the limit of a plane in pixels: `limit` itself or, for ``auto``, by its edges."""
    if limit != AUTO:
        return float(limit)
    sharpest = edges.sharpest
    if np.isnan(sharpest):
        return AUTO_RANGE[0]
    return float(np.clip(TIMES_SHARPEST * sharpest, *AUTO_RANGE))


def limit_by_objective(optics: Optics | None, pixel_size: float | None) -> float | None:
    """Return the limit, in pixels, by the width of a point in focus; None where it is not known.

    `pixel_size` is in micrometres. Where pixels are wider than a point, they set the limit.
    """
    if optics is None or optics.point_um is None or not pixel_size:
        return None
    return max(TIMES_SHARPEST * optics.point_um / pixel_size, AUTO_RANGE[0])


def check_limit(limit: float | str) -> None:
    """Check a limit as `DetectionConfig` takes it.

    Raises
    ------
    DefocusError
        Where it is no width.
    """
    if isinstance(limit, str):
        parse_limit(limit)
    elif not 0 < limit < float("inf"):
        raise DefocusError(f"the limit is {limit}; give pixels above 0, or auto")


def parse_limit(text: str) -> float | str:
    """Read a limit as the command line takes it: ``auto``, ``2.5``, ``2.5px`` or ``0.8um``.

    Raises
    ------
    DefocusError
        Where it is none of these.
    """
    given = text.strip()
    if given == AUTO:
        return AUTO
    unit = next((unit for unit in UNITS if given.endswith(unit)), "")
    number = given.removesuffix(unit) if unit else given.removesuffix("px")
    try:
        value = float(number)
    except ValueError:
        value = float("nan")
    if not 0 < value < float("inf"):
        raise DefocusError(
            f"the limit is {text!r}; give pixels such as 2.5, micrometres such as 0.8um, or auto"
        )
    return f"{value:g}{unit}" if unit else value


def limit_in_pixels(limit: float | str, pixel_size: float | None) -> float | str:
    """Turn a limit in micrometres into pixels of this size, in micrometres; others stay.

    Raises
    ------
    DefocusError
        Where it is needed, but the pixel size is not known.
    """
    parsed = parse_limit(limit) if isinstance(limit, str) else limit
    if not isinstance(parsed, str) or parsed == AUTO:
        return parsed
    unit = next(unit for unit in UNITS if parsed.endswith(unit))
    if not pixel_size:
        raise DefocusError(
            f"the limit is {limit}, but the size of a pixel is not known; give pixels, such as 2.5"
        )
    return float(parsed.removesuffix(unit)) * UNITS[unit] / pixel_size
