"""Rows of the tables that `export` and the Detect widget write: shares of planes, object scores."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_defocus.detection.postprocess import Detection
from napari_defocus.io.tables import column_rows
from napari_defocus.measure.regions import region_shares, score_objects

Array = npt.NDArray[Any]


def share_row(
    mask: Array, pixel_size_um: float | None = None, region: npt.NDArray[np.bool_] | None = None
) -> dict[str, Any]:
    """Tell how much of a plane, or of a region of it, is blurred, sharp and undecided.

    Parameters
    ----------
    mask : ndarray of integers, (Y, X)
        0 undecided, 1 blurred, 2 sharp.
    pixel_size_um : float, optional
        Edge of a pixel.
    region : ndarray of bool, (Y, X), optional
        Not empty.

    Returns
    -------
    dict
        ``area`` (pixels), with a pixel size ``area_um2``, and the shares of `region_shares`.
    """
    inside = np.ones(mask.shape, bool) if region is None else region
    row: dict[str, Any] = {"area": int(np.count_nonzero(inside))}
    if pixel_size_um:
        row["area_um2"] = row["area"] * pixel_size_um**2
    return row | region_shares(mask, inside)


def object_rows(
    detection: Detection,
    labels: Array,
    image: Array | None = None,
    *,
    where: Mapping[str, int] | None = None,
    pixel_size_um: float | None = None,
) -> list[dict[str, Any]]:
    """Score the objects of a plane, a row each.

    Parameters
    ----------
    detection : Detection
        Of the plane.
    labels : ndarray of integers, (Y, X)
        0 is no object.
    image : ndarray, (Y, X) or (Y, X, C), optional
        The plane; with it, objects get a focus score.
    where : mapping of str to int, optional
        Place of the plane in a stack, told in each row.
    pixel_size_um : float, optional
        Edge of a pixel; with it, rows tell ``area_um2``.

    Returns
    -------
    list of dict
        See `score_objects`; empty where the plane shows no object.

    Raises
    ------
    DefocusError
        Where the shapes differ or the plane cannot be judged.
    """
    if labels.shape == detection.mask.shape and not labels.any():
        return []
    columns = score_objects(detection, labels, image)
    if pixel_size_um:
        columns = columns | {"area_um2": columns["area"] * pixel_size_um**2}
    return column_rows(columns, where)
