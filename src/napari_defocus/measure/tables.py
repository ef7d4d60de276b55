"""Rows of the tables that `export` and the Detect widget write: shares of planes, object scores."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_defocus.detection.postprocess import Detection
from napari_defocus.io.tables import column_rows
from napari_defocus.measure.regions import region_shares, score_objects, sharp_of_structure

Array = npt.NDArray[Any]


def share_row(
    mask: Array, pixel_size_um: float | None = None, region: npt.NDArray[np.bool_] | None = None
) -> dict[str, Any]:
    """Compute the area and the `region_shares` of a plane's mask, or of a region of it, not empty.

    Returns
    -------
    dict
        ``area`` (pixels), with a pixel size ``area_um2``, the shares, and ``sharp_of_structure``,
        the sharp share of what is decided; nan where nothing is.
    """
    inside = np.ones(mask.shape, bool) if region is None else region
    row: dict[str, Any] = {"area": int(np.count_nonzero(inside))}
    if pixel_size_um:
        row["area_um2"] = row["area"] * pixel_size_um**2
    shares = region_shares(mask, inside)
    return row | shares | {"sharp_of_structure": sharp_of_structure(shares)}


def object_rows(
    detection: Detection,
    labels: Array,
    image: Array | None = None,
    *,
    where: Mapping[str, int] | None = None,
    pixel_size_um: float | None = None,
) -> list[dict[str, Any]]:
    """Compute the scores of the objects of a plane, a row each; see `score_objects`.

    Parameters
    ----------
    detection : Detection
        Of the plane.
    labels : ndarray of integers, (Y, X)
        0 is no object; without any there are no rows.
    image : ndarray, (Y, X) or (Y, X, C), optional
        The plane; with it, objects get a focus score.
    where : mapping of str to int, optional
        Index of the plane in a stack, which begins each row.
    pixel_size_um : float, optional
        Edge of a pixel; with it, rows have ``area_um2``.
    """
    if labels.shape == detection.mask.shape and not labels.any():
        return []
    columns = score_objects(detection, labels, image)
    if pixel_size_um:
        columns = columns | {"area_um2": columns["area"] * pixel_size_um**2}
    return column_rows(columns, where)
