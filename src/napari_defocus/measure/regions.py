"""Shares of a region that are blurred and sharp, and scores of the objects of a labels image."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_defocus.core.errors import DefocusError
from napari_defocus.detection.postprocess import Detection
from napari_defocus.filters.noise import FLATTEST
from napari_defocus.filters.plane import prepare_plane
from napari_defocus.labels.classes import BLURRED, SHARP, UNLABELLED

# Standard deviation, in pixels, of the derivatives that a focus score is computed from.
FOCUS_SIGMA = 1.0
# Variance of these derivatives of white noise of variance 1: the gradient, both directions
# together, and the Laplacian.
GRADIENT_NOISE = 1 / (4 * np.pi * FOCUS_SIGMA**4)
LAPLACIAN_NOISE = 1 / (2 * np.pi * FOCUS_SIGMA**6)
# Pixels cut off an object's rim, where derivatives see what lies beside it; an object of which
# less than the share would stay keeps its rim.
RIM = 2
LEAST_INSIDE = 0.25
# An object has a focus where its squared gradient, less the noise's, is so many times the noise's.
LEAST_SIGNAL = 1.0
NO_OBJECT = "the labels hold no object: every pixel is 0"


def region_shares(mask: npt.NDArray[Any], region: npt.NDArray[np.bool_]) -> dict[str, float]:
    """Compute the shares of a region that are blurred, sharp and undecided.

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


def sharp_of_structure(shares: Mapping[str, float]) -> float:
    """Return the sharp share of what shows structure, from `region_shares`; nan where nothing."""
    decided = shares["sharp"] + shares["blurred"]
    return shares["sharp"] / decided if decided > 0 else float("nan")


def shares_text(shares: Mapping[str, float], what: str = "image") -> str:
    """Say the `region_shares` of an image, or of a region, in words."""
    if shares["sharp"] + shares["blurred"] == 0:
        return f"the {what} shows no structure"
    text = f"of the structure: {sharp_of_structure(shares):.0%} sharp"
    return f"{text}; {shares['undecided']:.0%} of the {what} shows none"


def score_objects(
    detection: Detection, objects: npt.NDArray[Any], image: npt.NDArray[Any] | None = None
) -> dict[str, npt.NDArray[Any]]:
    """Compute the blur and the focus of each object of a labels image.

    Parameters
    ----------
    detection : Detection
        Of the image with the objects.
    objects : ndarray of integers, (..., Y, X)
        0 is no object; of the detection's shape.
    image : ndarray, or array that is read plane by plane (Dask, Zarr), optional
        The image: of the objects' shape, or with another axis, of colours.

    Returns
    -------
    dict of str to ndarray, a column each
        ``index`` (the label), ``area`` (pixels), ``mean_blur``, ``blurred`` and ``undecided``
        (shares of the object in [0, 1]); with an image also ``focus``, see `focus_scores`.

    Raises
    ------
    DefocusError
        Where the shapes differ, there is no object, or the image cannot be used.
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
        raise DefocusError(NO_OBJECT)

    def mean(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        return np.asarray(ndimage.mean(values, objects, index), np.float64)

    columns: dict[str, npt.NDArray[Any]] = {
        "index": index,
        "area": np.asarray(ndimage.sum_labels(np.ones(objects.shape), objects, index), np.int64),
        "mean_blur": mean(detection.blur),
        "blurred": mean(detection.mask == BLURRED),
        "undecided": mean(detection.mask == UNLABELLED),
    }
    return columns if image is None else columns | {"focus": focus_scores(image, objects)}


def focus_scores(image: npt.NDArray[Any], objects: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Compute the focus of each object, whatever its contrast, its brightness and its size.

    The sum of the squared Laplacian over the sum of the squared gradient, both less those of the
    noise: the mean squared spatial frequency of the object's edges.

    Parameters
    ----------
    image : ndarray, or array that is read plane by plane (Dask, Zarr)
        Of the objects' shape, or with another axis, of colours.
    objects : ndarray of integers, (..., Y, X)
        0 is no object.

    Returns
    -------
    ndarray of float64, a value for each object, by rising label
        Per squared pixel, the higher the sharper, 0 or more; nan where an object has no structure
        above the noise.

    Raises
    ------
    DefocusError
        Where the shapes differ or a plane cannot be used.
    """
    shape = tuple(image.shape)
    if objects.shape not in (shape, shape[:-1]):
        raise DefocusError(
            f"the objects are {objects.shape}, the image {shape}; give the image they are in"
        )
    labels, inverse = np.unique(objects, return_inverse=True)
    which = inverse.reshape(objects.shape)
    whole, inner = np.zeros((2, 4, len(labels)))
    for index in np.ndindex(objects.shape[:-2]):
        if objects[index].any():
            energies = _energies(np.asarray(image[index]))
            inside = _off_the_rim(which[index])
            whole += _sums(energies, which[index], len(labels))
            inner += _sums(energies[:, inside], which[index][inside], len(labels))
    # Of each object the pixels, the energies of gradient and Laplacian, and the noise's variance.
    eroded = inner[0] >= LEAST_INSIDE * whole[0]
    _, gradient, laplacian, noise = np.where(eroded, inner, whole)[:, labels != 0]
    signal = gradient - GRADIENT_NOISE * noise
    detail = np.maximum(laplacian - LAPLACIAN_NOISE * noise, 0)
    enough = signal > LEAST_SIGNAL * GRADIENT_NOISE * noise
    return np.asarray(np.divide(detail, signal, out=np.full_like(signal, np.nan), where=enough))


def _energies(image: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Compute 1, squared gradient, squared Laplacian and variance of the noise, 0 in holes."""
    plane = prepare_plane(image)
    gradient = ndimage.gaussian_gradient_magnitude(plane.grey, FOCUS_SIGMA)
    laplacian = ndimage.gaussian_laplace(plane.grey, FOCUS_SIGMA)
    noise = plane.noise_variance / FLATTEST
    ones = np.ones_like(plane.grey)
    energies = np.stack([ones, gradient**2, laplacian**2, noise]) * ~plane.holes
    return np.asarray(energies, np.float32)


def _off_the_rim(which: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    """Return where all pixels up to `RIM` away are of one object; the image's rim is none."""
    extent = 2 * RIM + 1
    return np.asarray(
        ndimage.minimum_filter(which, extent) == ndimage.maximum_filter(which, extent)
    )


def _sums(
    values: npt.NDArray[np.float32], which: npt.NDArray[np.intp], count: int
) -> npt.NDArray[np.float64]:
    """Sum each row of values over each object: (rows, count)."""
    flat = which.ravel()
    return np.stack([np.bincount(flat, row.ravel(), minlength=count) for row in values])
