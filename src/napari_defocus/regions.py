"""Blur of regions: how much of one is blurred, and a score for each object of a labels image."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_defocus.annotation import BLURRED, SHARP, UNLABELLED
from napari_defocus.detection import Detection
from napari_defocus.errors import DefocusError


def region_shares(mask: npt.NDArray[Any], region: npt.NDArray[np.bool_]) -> dict[str, float]:
    """Shares of a region that are blurred, sharp and undecided.

    Parameters
    ----------
    mask : ndarray of uint8, (..., Y, X)
        0 undecided, 1 blurred, 2 sharp.
    region : ndarray of bool, (Y, X)
        Not empty.

    Returns
    -------
    dict of str to float
        ``blurred``, ``sharp``, ``undecided``; they sum to 1.
    """
    inside = mask[..., region]
    classes = {"blurred": BLURRED, "sharp": SHARP, "undecided": UNLABELLED}
    return {name: float((inside == label).mean()) for name, label in classes.items()}


def score_objects(detection: Detection, objects: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
    """Score each object of a labels image.

    Parameters
    ----------
    detection : Detection
        Of the image that the objects are in.
    objects : ndarray of integers, (..., Y, X)
        0 is no object; of the detection's shape.

    Returns
    -------
    dict of str to ndarray, a column each
        ``index`` (the label), ``area`` (pixels), ``mean_blur``, ``blurred`` and ``undecided``
        (shares of the object in [0, 1]).

    Raises
    ------
    DefocusError
        Where the shapes differ or there is no object.
    """
    objects = np.asarray(objects)
    if objects.shape != detection.mask.shape:
        raise DefocusError(
            f"the objects are {objects.shape}, the detection {detection.mask.shape}; "
            "give labels of the image's own size"
        )
    index = np.unique(objects)
    index = index[index != 0]
    if not index.size:
        raise DefocusError("the labels hold no object: every pixel is 0")

    def mean(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        return np.asarray(ndimage.mean(values, objects, index), np.float64)

    return {
        "index": index,
        "area": np.asarray(ndimage.sum_labels(np.ones(objects.shape), objects, index), np.int64),
        "mean_blur": mean(detection.blur),
        "blurred": mean(detection.mask == BLURRED),
        "undecided": mean(detection.mask == UNLABELLED),
    }
