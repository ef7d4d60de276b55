"""From image values to grey ones: luminance, holes, contrast stretch."""

from collections.abc import Iterable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_defocus.core.errors import DefocusError

Float = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]
Number = TypeVar("Number", bound=np.floating[Any])

# Rec. 709 luminance, as scikit-image's rgb2gray.
LUMINANCE = np.array([0.2125, 0.7154, 0.0721], np.float32)
LUMINANCE.setflags(write=False)


def grey_and_holes(image: npt.NDArray[Any]) -> tuple[npt.NDArray[np.float64], Bool]:
    """Return luminance, and which pixels have none.

    Raises
    ------
    DefocusError
        Where the array is no image, or empty.
    """
    image = np.asarray(image)
    if image.dtype.kind not in "buif":
        raise DefocusError(f"the image holds {image.dtype} values; give numbers")
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[-1] not in (1, 2, 3, 4)):
        raise DefocusError(
            f"an image of shape {image.shape} is neither (Y, X) nor (Y, X, 1 to 4 channels)"
        )
    if image.size == 0:
        raise DefocusError(f"the image is empty, its shape is {image.shape}")
    values = image.astype(np.float64)
    if image.ndim == 2:
        grey, alpha = values, None
    else:
        colours = (image.shape[-1] - 1) // 2 * 2 + 1
        grey = values[..., 0] if colours == 1 else values[..., :3] @ LUMINANCE.astype(np.float64)
        alpha = values[..., -1] if image.shape[-1] in (2, 4) else None
    holes = ~np.isfinite(grey)
    if alpha is not None:
        holes |= alpha <= 0
    return grey, holes


def why_only_holes(parts: Iterable[npt.NDArray[Any]]) -> str:
    """Say why an image, given in parts, has no pixel that counts."""
    if any(part.ndim == 3 and np.isfinite(part[..., 0]).any() for part in parts):
        return (
            "every pixel of the image is transparent (its alpha is 0): there is nothing to detect; "
            "leave the alpha out where it means something else"
        )
    return "the image has no finite pixel: there is nothing to detect"


def fill_holes(values: npt.NDArray[Number], holes: Bool) -> npt.NDArray[Number]:
    """Return holes the value of the nearest pixel that is none."""
    if not holes.any() or holes.all():
        return values
    nearest = ndimage.distance_transform_edt(holes, return_distances=False, return_indices=True)
    return np.asarray(values[tuple(nearest)])


def is_constant(low: float, high: float) -> bool:
    """Return whether values from `low` to `high` differ by rounding alone."""
    return high - low <= abs(high) * 1e-12


def stretch(values: npt.NDArray[np.float64], low: float, high: float) -> Float:
    """Scale values so that `low` becomes 0 and `high` 1."""
    if is_constant(low, high):
        return np.zeros(values.shape, np.float32)
    # Beyond the percentiles lie glints and dead pixels; they must not outshine the rest.
    stretched = np.asarray((values - low) * (1 / (high - low)), np.float32)
    return np.clip(stretched, -0.5, 1.5, out=stretched)
