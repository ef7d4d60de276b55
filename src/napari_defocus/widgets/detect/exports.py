"""What a detection in the viewer is written to: polygons, shares and object scores, as `export`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer

from napari_defocus.core.errors import DefocusError
from napari_defocus.core.progress import Event, OnEvent, ShouldStop, Stopped
from napari_defocus.detection.postprocess import Detection
from napari_defocus.io.geojson import write_geojson
from napari_defocus.io.tables import write_csv
from napari_defocus.labels.classes import BLURRED, SHARP, UNLABELLED
from napari_defocus.measure.polygons import check_mask, mask_features
from napari_defocus.measure.regions import NO_OBJECT
from napari_defocus.measure.tables import object_rows, share_row
from napari_defocus.widgets._shared import layers
from napari_defocus.widgets._shared.layers import BLUR, MASK, Index

Array = npt.NDArray[Any]

NOTHING_YET = "nothing is detected yet; press Detect first"


class Region(NamedTuple):
    """A part of the planes whose shares are written, beside those of the whole."""

    name: str
    inside: npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Found:
    """A detection as it lies in the viewer, corrected perhaps, and what is known of its image.

    Parameters
    ----------
    name : str
        Of the image.
    mask : ndarray of integers, (..., Y, X)
        As the layer is now.
    blur : ndarray of float32, or None
        Where its layer is still there.
    image : array
        Of the whole image, read plane by plane.
    letters : str
        Of the image's leading axes.
    plane : tuple of int, or None
        The one plane of the image that the mask is of; None: of all.
    pixel_size_um : float or None
        Where it is known.
    """

    name: str
    mask: Array
    blur: Array | None
    image: Any
    letters: str
    plane: Index | None
    pixel_size_um: float | None

    def planes(
        self, stage: str, on_event: OnEvent, should_stop: ShouldStop
    ) -> Iterator["MaskPlane"]:
        """Go through the planes of the mask."""
        total = int(np.prod(self.mask.shape[:-2], dtype=int))
        for done, index in enumerate(np.ndindex(self.mask.shape[:-2])):
            if should_stop():
                raise Stopped
            at = self.plane or index
            blur = None if self.blur is None else self.blur[index]
            where = dict(zip(self.letters, at, strict=True))
            yield MaskPlane(at, where, check_mask(self.mask[index]), blur)
            on_event(Event(stage, done + 1, total))


@dataclass(frozen=True, eq=False)
class MaskPlane:
    """A plane of a mask, and where it is in the image."""

    index: Index
    where: dict[str, int]
    mask: Array
    blur: Array | None


def find(viewer: ViewerModel, source: Image | None) -> Found:
    """Look up what was detected in an image.

    Raises
    ------
    DefocusError
        Where there is no mask.
    """
    mask = None if source is None else layers.find_owned(viewer, source, MASK)
    if source is None or mask is None:
        raise DefocusError(NOTHING_YET)
    blur = layers.find_owned(viewer, source, BLUR)
    plane = layers.owned(mask).get("plane")
    return Found(
        source.name,
        mask.data,
        None if blur is None else blur.data,
        layers.full_resolution(source),
        layers.axes_of(source)[: len(layers.leading_shape(source))],
        None if plane is None else tuple(plane),
        layers.pixel_size_um(source),
    )


def labels_reader(labels: Labels, found: Found) -> Callable[[Index], Array]:
    """Return a function that reads the objects of a plane; those of one plane count for every.

    Raises
    ------
    DefocusError
        Where they do not fit the image.
    """
    data, plane = layers.full_resolution(labels), found.mask.shape[-2:]
    stack = (*found.image.shape[: len(found.letters)], *plane)
    if data.shape == plane:
        return lambda index: np.asarray(data)
    if data.shape == stack:
        return lambda index: np.asarray(data[index])
    raise DefocusError(
        f"labels {labels.name!r} are {tuple(data.shape)}, the image {stack}; "
        "choose labels of the image's own size"
    )


def region_of(region: Layer | None, source: Image, found: Found) -> Region | None:
    """Return the region that a layer covers.

    Raises
    ------
    DefocusError
        Where it covers nothing of the image.
    """
    if region is None:
        return None
    return Region(region.name, layers.region_mask(region, source, found.mask.shape[-2:]))


# In the background


def write_polygons(
    path: Path,
    found: Found,
    undecided: bool,
    micrometres: bool,
    on_event: OnEvent,
    should_stop: ShouldStop,
) -> Path:
    """Write the outline of each region of the mask as GeoJSON."""
    features: list[dict[str, Any]] = []
    for plane in found.planes("tracing outlines", on_event, should_stop):
        features += mask_features(
            plane.mask,
            labels=(BLURRED, SHARP) + (UNLABELLED,) * undecided,
            blur=plane.blur,
            pixel_size_um=found.pixel_size_um,
            micrometres=micrometres,
            plane=plane.where,
        )
    write_geojson(path, features)
    return path


def write_shares(
    path: Path, found: Found, region: Region | None, on_event: OnEvent, should_stop: ShouldStop
) -> Path:
    """Write how much of each plane, and of the region in it, is blurred, sharp and undecided."""
    rows: list[dict[str, Any]] = []
    for plane in found.planes("counting pixels", on_event, should_stop):
        parts: dict[str, Any] = {"": None}
        if region is not None:
            parts = {"image": None, region.name: region.inside}
        for name, inside in parts.items():
            region_name = {"region": name} if name else {}
            shares = share_row(plane.mask, found.pixel_size_um, inside)
            rows.append(plane.where | region_name | shares)
    write_csv(path, rows)
    return path


def write_objects(
    path: Path,
    found: Found,
    read: Callable[[Index], Array],
    on_event: OnEvent,
    should_stop: ShouldStop,
) -> Path:
    """Write a row of scores for each object of each plane."""
    rows: list[dict[str, Any]] = []
    for plane in found.planes("scoring objects", on_event, should_stop):
        if plane.blur is None:
            raise DefocusError("the blur map layer is gone; press Detect again")
        rows += object_rows(
            Detection(plane.blur, plane.mask),
            read(plane.index),
            np.asarray(found.image[plane.index]),
            where=plane.where,
            pixel_size_um=found.pixel_size_um,
        )
    if not rows:
        raise DefocusError(NO_OBJECT)
    write_csv(path, rows)
    return path
