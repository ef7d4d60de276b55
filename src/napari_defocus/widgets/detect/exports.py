"""What a detection in the viewer is written to: polygons, shares and object scores, as `export`."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.components import ViewerModel
from napari.layers import Image, Labels

from napari_defocus.core.errors import DefocusError
from napari_defocus.core.progress import OnEvent, ShouldStop, track
from napari_defocus.detection.postprocess import Detection
from napari_defocus.io.geojson import write_geojson
from napari_defocus.io.tables import write_csv
from napari_defocus.labels.classes import BLURRED, SHARP, UNLABELLED
from napari_defocus.measure.polygons import check_mask, mask_features
from napari_defocus.measure.regions import NO_OBJECT, score_objects
from napari_defocus.measure.tables import object_rows, share_row
from napari_defocus.widgets._shared import layers
from napari_defocus.widgets._shared.layers import BLUR, MASK, Index

Array = npt.NDArray[Any]

NOTHING_YET = "nothing is detected yet; press Detect first"


@dataclass(frozen=True, eq=False)
class MaskPlane:
    """A plane of a mask, and where it is in the image."""

    index: Index
    where: dict[str, int]
    mask: Array
    blur: Array | None


@dataclass(frozen=True, eq=False)
class Found:
    """A detection as it lies in the viewer, corrected perhaps, and what is known of its image."""

    name: str
    # As the layers are now, (..., Y, X); that of the blur map may be gone.
    mask: Array
    blur: Array | None
    # The whole image, read plane by plane, and a letter for each of its leading axes.
    image: Any
    letters: str
    # The one plane of the image that the mask is of; None: of all.
    plane: Index | None
    pixel_size_um: float | None

    def planes(self, stage: str, on_event: OnEvent, should_stop: ShouldStop) -> Iterator[MaskPlane]:
        """Go through the planes of the mask."""
        planes = list(np.ndindex(self.mask.shape[:-2]))
        for done in track(stage, len(planes), on_event, should_stop):
            index = planes[done]
            at = self.plane or index
            blur = None if self.blur is None else self.blur[index]
            where = dict(zip(self.letters, at, strict=True))
            yield MaskPlane(at, where, check_mask(self.mask[index]), blur)


def find(viewer: ViewerModel, source: Image | None) -> Found:
    """Look up what was detected in an image; raise where nothing was."""
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
    """Return a function that reads the objects of a plane; those of one plane count for every."""
    data, plane = layers.full_resolution(labels), found.mask.shape[-2:]
    stack = (*found.image.shape[: len(found.letters)], *plane)
    if data.shape not in (plane, stack):
        raise DefocusError(
            f"labels {labels.name!r} are {tuple(data.shape)}, the image {stack}; "
            "choose labels of the image's own size"
        )
    return lambda index: np.asarray(data[index] if data.shape == stack else data)


# In the background, with `on_event` and `should_stop` as listeners


def score_planes(read: Callable[[Index], Array], found: Found, **_: Any) -> dict[str, Array]:
    """Score the objects of all planes that were detected together; see `score_objects`."""
    leading = found.mask.shape[:-2]
    planes = [read(found.plane or index) for index in np.ndindex(leading)]
    objects = np.stack(planes).reshape(found.mask.shape)
    detection = Detection(np.asarray(found.blur), found.mask)
    return score_objects(detection, objects, found.image[found.plane or ()])


def write_polygons(
    path: Path, found: Found, undecided: bool, micrometres: bool, **listeners: Any
) -> Path:
    """Write the outline of each region of the mask as GeoJSON."""
    features: list[dict[str, Any]] = []
    for plane in found.planes("tracing outlines", **listeners):
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


def write_shares(path: Path, found: Found, regions: Mapping[str, Array], **listeners: Any) -> Path:
    """Write how much of each plane, and of regions in it, is blurred, sharp and undecided."""
    parts = {"image": None, **regions}
    rows: list[dict[str, Any]] = []
    for plane in found.planes("counting pixels", **listeners):
        for name, inside in parts.items():
            region = {"region": name} if regions else {}
            shares = share_row(plane.mask, found.pixel_size_um, inside)
            rows.append({"image": found.name} | plane.where | region | shares)
    write_csv(path, rows)
    return path


def write_objects(
    path: Path, found: Found, read: Callable[[Index], Array], **listeners: Any
) -> Path:
    """Write a row of scores for each object of each plane."""
    rows: list[dict[str, Any]] = []
    for plane in found.planes("scoring objects", **listeners):
        if plane.blur is None:
            raise DefocusError("the blur map layer is gone; press Detect again")
        scores = object_rows(
            Detection(plane.blur, plane.mask),
            read(plane.index),
            np.asarray(found.image[plane.index]),
            where=plane.where,
            pixel_size_um=found.pixel_size_um,
        )
        rows += [{"image": found.name} | row for row in scores]
    if not rows:
        raise DefocusError(NO_OBJECT)
    write_csv(path, rows)
    return path
