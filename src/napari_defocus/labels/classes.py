"""The classes of pixels: their labels and colours, and annotations in them."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_defocus.core.errors import DefocusError

UNLABELLED = 0
BLURRED = 1
SHARP = 2
CLASS_NAMES = {BLURRED: "blurred", SHARP: "sharp"}
# Blue and orange are told apart by people who do not see red and green.
COLOURS = {BLURRED: (0.0, 0.45, 0.70), SHARP: (0.90, 0.62, 0.0)}

Labels = npt.NDArray[np.uint8]


def check_annotation(labels: npt.NDArray[Any], shape: tuple[int, ...], name: str) -> Labels:
    """Check an annotation against its image.

    Parameters
    ----------
    labels : ndarray of integers or bool, (Y, X)
        0 unlabelled, 1 blurred, 2 sharp.
    shape : tuple of int
        (Y, X) of the image.
    name : str
        The image's name, for messages.

    Returns
    -------
    ndarray of uint8, (Y, X)

    Raises
    ------
    DefocusError
        Where the shape differs, another label is found, or nothing is painted.
    """
    labels = np.asarray(labels)
    if labels.shape != tuple(shape):
        raise DefocusError(
            f"{name}: the annotation is {labels.shape}, the image {tuple(shape)}; "
            "paint on a labels layer of the image's own size"
        )
    if labels.dtype.kind not in "bui":
        raise DefocusError(f"{name}: the annotation holds {labels.dtype} values, not labels")
    found = np.unique(labels)
    strange = found[(found < UNLABELLED) | (found > SHARP)]
    if strange.size:
        raise DefocusError(
            f"{name}: the annotation has label {strange[0]}; "
            "use 1 for blurred, 2 for sharp, 0 for unlabelled"
        )
    if not found.any():
        raise DefocusError(
            f"{name}: nothing is painted; paint label 1 on blurred and 2 on sharp regions"
        )
    return labels.astype(np.uint8)


def annotation_from_mask(mask: npt.NDArray[Any]) -> Labels:
    """Turn a truth mask (Y, X), bright = blurred and dark = sharp, into an annotation.

    A mask whose values exceed 1 is split at half of 255, a bool or 0/1 mask at one half.
    """
    mask = np.asarray(mask)
    half = 0.5 if mask.dtype == np.bool_ or mask.max(initial=0) <= 1 else 127.5
    return np.where(mask > half, BLURRED, SHARP).astype(np.uint8)


def annotation_from_detection(mask: npt.NDArray[Any], margin: int = 4) -> Labels:
    """Turn a detected mask into an annotation to correct.

    Parameters
    ----------
    mask : ndarray of integers, (Y, X)
        0 undecided, 1 blurred, 2 sharp.
    margin : int
        Pixels this near to an outline, in rows and columns, stay unlabelled: detected outlines
        are doubtful.

    Returns
    -------
    ndarray of uint8, (Y, X)
        0 unlabelled, 1 blurred, 2 sharp.

    Raises
    ------
    DefocusError
        Where the mask is no plane.
    """
    mask = np.asarray(mask)
    if mask.ndim != 2:
        raise DefocusError(f"the mask is {mask.shape}; give one plane (Y, X) of it")
    annotation = np.zeros(mask.shape, np.uint8)
    width = 2 * margin + 1
    for label in (BLURRED, SHARP):
        # The image's own border is no outline.
        inside = ndimage.minimum_filter(mask == label, width, mode="nearest")
        annotation[inside] = label
    return annotation
