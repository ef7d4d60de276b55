"""From a sharpness map to a mask: threshold, undecided class, small-object clean-up."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_defocus.annotation import BLURRED, SHARP, UNLABELLED, Labels
from napari_defocus.errors import DefocusError, check_range

Float = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]

RULES = ("otsu", "mean")


@dataclass(frozen=True)
class MaskConfig:
    """How a sharpness map is cut into a mask.

    Parameters
    ----------
    threshold : float or str
        Least sharpness of a sharp pixel in [0, 1], or a rule that adapts to the image: ``otsu``,
        or ``mean`` for min(1.5 x mean, 1), the rule of the paper's experiments.
    range : tuple of float
        The adapted threshold stays within it: a wholly blurred image must not be cut in two.
    smallest : int
        Sharp or blurred spots of fewer pixels are given to what surrounds them.
    """

    threshold: float | str = "otsu"
    range: tuple[float, float] = (0.3, 0.7)
    smallest: int = 100


def make_mask(sharpness: Float, undecided: Bool, config: MaskConfig | None = None) -> Labels:
    """Cut a sharpness map into a mask.

    Parameters
    ----------
    sharpness : ndarray of float32, (Y, X)
        In [0, 1], 1 = sharp.
    undecided : ndarray of bool, (Y, X)
        Pixels that cannot be judged.
    config : MaskConfig, optional
        How.

    Returns
    -------
    ndarray of uint8, (Y, X)
        0 undecided, 1 blurred, 2 sharp.

    Raises
    ------
    DefocusError
        Where the threshold is neither a number in [0, 1] nor a rule.
    """
    config = config or MaskConfig()
    sharp = sharpness >= mask_threshold(sharpness, config)
    sharp = _without_small(sharp, config.smallest)
    sharp = ~_without_small(~sharp, config.smallest)
    mask = np.where(sharp, SHARP, BLURRED).astype(np.uint8)
    mask[undecided] = UNLABELLED
    return mask


def mask_threshold(sharpness: Float, config: MaskConfig) -> float:
    """Give the threshold that `config` sets for a map, in [0, 1]."""
    if not isinstance(config.threshold, str):
        check_range("the mask's threshold", config.threshold, 0, 1)
        return float(config.threshold)
    if config.threshold not in RULES:
        raise DefocusError(
            f"the mask's threshold is {config.threshold!r}; "
            f"give a number from 0 to 1, or choose one of {', '.join(RULES)}"
        )
    adapted = otsu(sharpness) if config.threshold == "otsu" else min(1.5 * sharpness.mean(), 1.0)
    return float(np.clip(adapted, *config.range))


def otsu(values: Float) -> float:
    """Otsu's threshold (IEEE SMC 9(1), 1979); the value itself where all values are equal."""
    from skimage.filters import threshold_otsu

    low, high = float(values.min()), float(values.max())
    # As float64: values that are nearly equal leave float32 no room for 256 bins.
    return float(threshold_otsu(values.astype(np.float64))) if high > low else low


def _without_small(region: Bool, smallest: int) -> Bool:
    if smallest <= 1:
        return region
    spots, count = ndimage.label(region)
    if count <= 1 and region.sum() == region.size:
        return region
    area = np.bincount(spots.ravel(), minlength=count + 1)
    kept = area >= smallest
    kept[0] = False
    return np.asarray(kept[spots], np.bool_)
