"""Masks as polygons: the exact outlines of regions, and GeoJSON as QuPath reads it.

Outlines follow the edges of pixels: the pixel of row y and column x is the square from (x, y) to
(x + 1, y + 1), as in QuPath and Fiji, so that filling the polygons gives the mask back, bit for
bit.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from napari_defocus.core.errors import DefocusError
from napari_defocus.labels.classes import BLURRED, CLASS_NAMES, COLOURS, SHARP, UNLABELLED

Integers = npt.NDArray[np.int64]
Rings = tuple[Integers, ...]

NAMES = {UNLABELLED: "undecided", **CLASS_NAMES}
# As in the overview; grey for what is undecided.
GREY = (0.5, 0.5, 0.5)
# The edges of a pixel, walked such that it lies to the right on the screen: towards which
# neighbour (y, x) an edge looks, where it begins (y, x), and where it leads (y, x).
SIDES = (
    ((-1, 0), (0, 0), (0, 1)),
    ((0, 1), (0, 1), (1, 0)),
    ((1, 0), (1, 1), (0, -1)),
    ((0, -1), (1, 0), (-1, 0)),
)
# Digits behind the point of coordinates in micrometres.
DIGITS = 6


@dataclass(frozen=True, eq=False)
class MaskRegion:
    """A region of a mask: pixels of one class that touch by their sides.

    Parameters
    ----------
    label : int
        Its class: 0 undecided, 1 blurred, 2 sharp.
    area : int
        Pixels.
    mean_blur : float or None
        Of the blur map, where there is one.
    rings : tuple of ndarray of int, (N, 2)
        Corners (x, y), the first again at the end: the outline, and then those of the holes. No
        ring meets itself, and rings touch one another at corners at most. The outline is
        counter-clockwise in the sense of GeoJSON (clockwise on a screen, whose y points down),
        holes are the other way round.
    """

    label: int
    area: int
    mean_blur: float | None
    rings: Rings


def trace_regions(
    mask: npt.NDArray[Any],
    labels: Iterable[int] = (BLURRED, SHARP),
    blur: npt.NDArray[np.float32] | None = None,
) -> list[MaskRegion]:
    """Trace the outlines of the regions of a mask.

    Parameters
    ----------
    mask : ndarray of integers, (Y, X)
        0 undecided, 1 blurred, 2 sharp.
    labels : iterable of int
        The classes that are traced.
    blur : ndarray of float32, (Y, X), optional
        The blur map, for the mean of each region.

    Returns
    -------
    list of MaskRegion
        Class by class, and in each by the first pixel, row by row.

    Raises
    ------
    DefocusError
        Where the mask is no plane or holds other values, or the blur map has another shape.
    """
    mask = check_mask(mask)
    if blur is not None and blur.shape != mask.shape:
        raise DefocusError(f"the blur map is {blur.shape}, the mask {mask.shape}; give a pair")
    parts, classes = _connected(mask, labels)
    if not classes:
        return []
    edges = _edges(parts)
    rings: list[list[Integers]] = [[] for _ in classes]
    for owner, ring in _rings(edges, parts.shape[1] + 1):
        # The outline, whose area is positive, comes first.
        place = 0 if _signed_area(ring) > 0 else len(rings[owner])
        rings[owner].insert(place, ring)
    areas = np.bincount(parts.ravel())[1:].tolist()
    means: list[float | None] = [None] * len(classes)
    if blur is not None:
        means = (np.bincount(parts.ravel(), blur.ravel())[1:] / areas).tolist()
    return [
        MaskRegion(label, area, mean, tuple(found))
        for label, area, mean, found in zip(classes, areas, means, rings, strict=True)
    ]


def check_mask(mask: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return an array that is a mask of one plane; DefocusError where it is none."""
    mask = np.asarray(mask)
    if mask.ndim != 2 or mask.dtype.kind not in "bui":
        raise DefocusError(
            f"a mask is one plane of whole numbers, this is {mask.dtype} of shape {mask.shape}"
        )
    others = set(np.unique(mask).tolist()) - set(NAMES)
    if others:
        raise DefocusError(
            f"a mask holds 0 undecided, 1 blurred and 2 sharp, this one {min(others)} too; "
            "give one that detection wrote"
        )
    return mask


def _connected(
    mask: npt.NDArray[Any], labels: Iterable[int]
) -> tuple[npt.NDArray[np.int32], list[int]]:
    """Label the regions from 1; return the labels and the class of each."""
    parts = np.zeros(mask.shape, np.int32)
    classes: list[int] = []
    for label in labels:
        found, count = ndimage.label(mask == label)
        inside = found > 0
        parts[inside] = found[inside] + len(classes)
        classes += [label] * count
    return parts, classes


@dataclass(frozen=True, eq=False)
class _Edges:
    """Unit edges of regions: region, direction, and the numbers of the corners at the ends."""

    owner: Integers
    direction: Integers
    start: Integers
    end: Integers


def _edges(parts: npt.NDArray[np.int32]) -> _Edges:
    """Return the edges of regions."""
    width = parts.shape[1] + 1
    padded = np.pad(parts, 1)
    found: list[tuple[Integers, ...]] = []
    for direction, (beside, begin, step) in enumerate(SIDES):
        rows = slice(1 + beside[0], padded.shape[0] - 1 + beside[0])
        columns = slice(1 + beside[1], padded.shape[1] - 1 + beside[1])
        y, x = np.nonzero((parts > 0) & (padded[rows, columns] != parts))
        start = (y + begin[0]) * width + x + begin[1]
        owner = parts[y, x].astype(np.int64) - 1
        along = np.full(len(y), direction, np.int64)
        found.append((owner, along, start, start + step[0] * width + step[1]))
    return _Edges(*(np.concatenate(column) for column in zip(*found, strict=True)))


def _next(edges: _Edges) -> Integers:
    """Return for each edge the one that continues it, of the same region.

    Where a region meets itself at a corner there are two; the one that turns away from the pixel is
    taken, so that a hole that touches the outline from inside keeps a ring of its own.
    """
    corners = max(int(edges.start.max()), int(edges.end.max())) + 1
    begins = edges.owner * corners + edges.start
    order = np.argsort(begins, kind="stable")
    begins = begins[order]
    place = np.searchsorted(begins, edges.owner * corners + edges.end)
    other = np.minimum(place + 1, len(order) - 1)
    forks = (other > place) & (begins[other] == begins[place])
    wrong = edges.direction[order[place]] != (edges.direction - 1) % 4
    return np.asarray(order[np.where(forks & wrong, other, place)], np.int64)


def _rings(edges: _Edges, width: int) -> Iterator[tuple[int, Integers]]:
    """Yield the number of a region and the corners (x, y) of one of its rings, for each ring."""
    following = _next(edges)
    count = len(following)
    links = coo_array((np.ones(count, bool), (np.arange(count), following)), (count, count))
    _, ring = connected_components(links, directed=False)
    _, firsts = np.unique(ring, return_index=True)
    steps = following.tolist()
    turns = (edges.direction[following] != edges.direction).tolist()
    ends = edges.end.tolist()
    for first in firsts.tolist():
        corners = []
        edge = first
        while True:
            if turns[edge]:
                corners.append(ends[edge])
            edge = steps[edge]
            if edge == first:
                break
        numbers = np.array([*corners, corners[0]], np.int64)
        yield int(edges.owner[first]), np.stack([numbers % width, numbers // width], axis=1)


def _signed_area(ring: Integers) -> float:
    """Compute the area of a closed ring, positive where it is counter-clockwise for y upwards."""
    x, y = ring.T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum()) / 2


def mask_features(
    mask: npt.NDArray[Any],
    *,
    labels: Iterable[int] = (BLURRED, SHARP),
    blur: npt.NDArray[np.float32] | None = None,
    pixel_size_um: float | None = None,
    micrometres: bool = False,
    smallest: int = 1,
    plane: Mapping[str, int] | None = None,
) -> list[dict[str, Any]]:
    """Describe the regions of a mask as GeoJSON features, as QuPath writes annotations.

    Parameters
    ----------
    mask : ndarray of integers, (Y, X)
        0 undecided, 1 blurred, 2 sharp.
    labels : iterable of int
        The classes that are described.
    blur : ndarray of float32, (Y, X), optional
        The blur map; with it, features have their mean blur.
    pixel_size_um : float, optional
        Edge of a pixel; with it, features have their area in square micrometres.
    micrometres : bool
        Whether coordinates are in micrometres, for geographical and CAD programs; QuPath and Fiji
        take pixels.
    smallest : int
        Regions of fewer pixels are left out.
    plane : mapping of str to int, optional
        Where the mask is in a stack, such as ``{"Z": 3}``; of T, Z and C.

    Returns
    -------
    list of dict
        A ``Polygon`` with its holes for each region, with class name, colour and measurements.

    Raises
    ------
    DefocusError
        Where the mask or the plane is none, the blur map has another shape, or micrometres are
        asked for and the pixel size is unknown.
    """
    if micrometres and not pixel_size_um:
        raise DefocusError("the size of a pixel is unknown; leave coordinates in pixels")
    regions = trace_regions(mask, labels, blur)
    unit = float(pixel_size_um) if micrometres and pixel_size_um else 1
    where = _plane(plane or {})
    return [
        _feature(region, unit, _measurements(region, pixel_size_um), where)
        for region in regions
        if region.area >= smallest
    ]


def _measurements(region: MaskRegion, pixel_size_um: float | None) -> dict[str, float]:
    measurements: dict[str, float] = {"area px": region.area}
    if pixel_size_um:
        measurements["area um^2"] = round(region.area * pixel_size_um**2, DIGITS)
    if region.mean_blur is not None:
        measurements["mean blur"] = round(region.mean_blur, DIGITS)
    return measurements


def _plane(where: Mapping[str, int]) -> dict[str, int] | None:
    """Return the plane in QuPath's terms; -1 stands for all channels."""
    others = set(where) - set("TZC")
    if others:
        raise DefocusError(
            f"GeoJSON tells planes of T, Z and C apart, not of {', '.join(sorted(others))}; "
            "say which they are with axes, or in napari by labels of the layer's axes"
        )
    if not where:
        return None
    return {"c": where.get("C", -1), "z": where.get("Z", 0), "t": where.get("T", 0)}


def _feature(
    region: MaskRegion, unit: float, measurements: dict[str, float], plane: dict[str, int] | None
) -> dict[str, Any]:
    rings = [
        ring.tolist() if unit == 1 else np.round(ring * unit, DIGITS).tolist()
        for ring in region.rings
    ]
    geometry: dict[str, Any] = {"type": "Polygon", "coordinates": rings}
    if plane is not None:
        geometry["plane"] = plane
    return {
        "type": "Feature",
        "geometry": geometry,
        "properties": {
            "objectType": "annotation",
            "classification": {
                "name": NAMES[region.label],
                "color": [round(255 * part) for part in COLOURS.get(region.label, GREY)],
            },
            "measurements": measurements,
        },
    }
