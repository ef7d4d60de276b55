"""What is annotated: a plane of an image layer, and its labels."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.components import ViewerModel
from napari.layers import Image, Labels

from napari_defocus.widgets._shared import layers

ANNOTATION = "annotation"
LEAST_BRUSH = 5

Plane = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Target:
    """A plane of an image, and its labels (Y, X)."""

    source: Image
    index: layers.Index
    labels: Plane

    @property
    def name(self) -> str:
        """The plane's name in a patch set."""
        return plane_name(self.source.name, self.index)

    @property
    def read(self) -> Callable[[], Plane]:
        """A function that reads the plane, for another thread."""
        data, index = layers.full_resolution(self.source), self.index
        return lambda: np.asarray(data[index])


def plane_shape(source: Image) -> tuple[int, ...]:
    """Return (Y, X) of an image's planes."""
    leading = len(layers.leading_shape(source))
    return tuple(layers.full_resolution(source).shape[leading : leading + 2])


def plane_of(labels: Labels, source: Image, index: layers.Index) -> Plane:
    """Copy the plane of labels that lies on a plane of an image."""
    places, otherwise = {layers.leading_shape(source): index}, ", or press New annotation"
    return np.array(layers.labels_on(labels, plane_shape(source), places, otherwise))


def plane_name(name: str, index: layers.Index) -> str:
    """Name a plane of a layer."""
    return f"{name}, plane {index_text(index)}" if index else name


def index_text(index: layers.Index) -> str:
    """Return an index as people write it."""
    return ", ".join(map(str, index))


def may_be_annotation(labels: Labels) -> bool:
    """Tell whether a layer may be painted on: the user's own, or an annotation."""
    return layers.owned(labels).get("role") in (None, ANNOTATION)


def add_annotation(viewer: ViewerModel, source: Image, index: layers.Index, data: Plane) -> Labels:
    """Add a layer with the annotation of a plane of an image."""
    return add_painted(
        viewer,
        data,
        plane_name(f"{source.name} {ANNOTATION}", index),
        layers.note_of(source, ANNOTATION, index=index),
        layers.plane_geometry(source),
    )


def add_painted(
    viewer: ViewerModel,
    data: Plane,
    name: str,
    metadata: Mapping[str, Any],
    where: Mapping[str, Any],
) -> Labels:
    """Add labels of the two classes, ready to be painted on."""
    look = {"colormap": layers.label_colours(), "opacity": 0.6}
    labels = viewer.add_labels(data, name=name, metadata=metadata, **look, **where)
    labels.brush_size = max(LEAST_BRUSH, min(data.shape[-2:]) // 40)
    return labels
