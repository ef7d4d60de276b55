"""From a sharpness map to a mask: threshold, undecided class, small-object clean-up."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_defocus.core.errors import DefocusError
from napari_defocus.core.settings import Allowed, Settings
from napari_defocus.filters.histogram import Histogram
from napari_defocus.labels.classes import BLURRED, SHARP, UNLABELLED, Labels

Float = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]

RULES = ("otsu", "mean")
# Of the histogram that thresholds are found in.
BINS = 1024
# Pixels counted at once: NumPy counts in a copy of 8 bytes a pixel.
AT_ONCE = 2**22


@dataclass(frozen=True)
class MaskConfig(Settings):
    """Settings of the mask.

    Parameters
    ----------
    threshold : float or str
        Least sharpness of a sharp pixel in [0, 1], or a rule that adapts to the image: ``otsu``,
        or ``mean`` for min(1.5 x mean, 1), which tests of such maps often use. (The paper says
        "the adaptive threshold" and not which.)
    range : tuple of float
        The adapted threshold stays within it: a wholly blurred image must not be cut in two.
    smallest : int
        Sharp or blurred spots of fewer pixels take the class around them.
    """

    threshold: float | str = "otsu"
    range: tuple[float, float] = (0.3, 0.7)
    smallest: int = 100

    _allowed: ClassVar[Allowed] = {"threshold": (0, 1), "range": (0, 1), "smallest": (0, 2**31)}
    _called: ClassVar[dict[str, str]] = {
        "threshold": "the mask's threshold",
        "range": "an end of the mask's range",
    }

    def _check(self) -> None:
        if isinstance(self.threshold, str) and self.threshold not in RULES:
            raise DefocusError(
                f"the mask's threshold is {self.threshold!r}; "
                f"give a number from 0 to 1, or choose one of {', '.join(RULES)}"
            )
        if self.range[0] > self.range[1]:
            raise DefocusError(
                f"the mask's range is {self.range[0]:g} to {self.range[1]:g}; give the lower first"
            )


def cut_mask(sharpness: Float, undecided: Bool, threshold: float, smallest: int) -> Labels:
    """Compute a mask, 0 undecided, 1 blurred, 2 sharp, from a sharpness map (Y, X) in [0, 1].

    Pixels of at least `threshold` are sharp, and those of `undecided` have no class. Spots of fewer
    than `smallest` pixels take the class around them: first sharp ones, then blurred ones.
    """
    sharp = sharpness >= np.float32(threshold)
    sharp = _without_small(sharp, smallest)
    sharp = ~_without_small(~sharp, smallest)
    mask = np.where(sharp, np.uint8(SHARP), np.uint8(BLURRED))
    mask[undecided] = UNLABELLED
    return mask


def halo(config: MaskConfig) -> int:
    """Return the distance, in pixels, beyond which no pixel changes the class of another."""
    return 2 * config.smallest


def count_sharpness(sharpness: Float) -> Histogram:
    """Count values in [0, 1] for `mask_threshold`."""
    return Histogram.of(sharpness, 0.0, 1.0, BINS)


def mask_threshold(sharpness: Histogram, config: MaskConfig) -> float:
    """Return the threshold, in [0, 1], for a map of which valid pixels have this histogram."""
    if not isinstance(config.threshold, str):
        return float(config.threshold)
    if not sharpness.counts.any():
        return float(np.mean(config.range))
    adapted = sharpness.otsu() if config.threshold == "otsu" else min(1.5 * sharpness.mean, 1.0)
    return float(np.clip(adapted, *config.range))


def _without_small(region: Bool, smallest: int) -> Bool:
    if smallest <= 1 or region.all():
        return region
    spots, count = ndimage.label(region)
    flat, area = spots.ravel(), np.zeros(count + 1, np.intp)
    for start in range(0, flat.size, AT_ONCE):
        area += np.bincount(flat[start : start + AT_ONCE], minlength=count + 1)
    large = area >= smallest
    large[0] = False
    return np.asarray(large[spots], np.bool_)
