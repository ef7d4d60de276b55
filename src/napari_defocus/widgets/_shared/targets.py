"""What is annotated: a plane of an image layer, and its labels."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from napari.components import ViewerModel
from napari.layers import Image, Labels

from napari_defocus.core.errors import DefocusError
from napari_defocus.widgets._shared import layers

ANNOTATION = "annotation"
LEAST_BRUSH = 5

Plane = npt.NDArray[Any]


class Target(NamedTuple):
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
        """Reads the plane; to be called on another thread."""
        data, index = layers.full_resolution(self.source), self.index
        return lambda: np.asarray(data[index])


def plane_shape(source: Image) -> tuple[int, ...]:
    """Give (Y, X) of an image's planes."""
    leading = len(layers.leading_shape(source))
    return tuple(layers.full_resolution(source).shape[leading : leading + 2])


def plane_of(labels: Labels, source: Image, index: layers.Index) -> Plane:
    """Copy the plane of labels that lies on a plane of an image.

    Raises
    ------
    DefocusError
        Where the labels are of another shape.
    """
    data, shape = layers.full_resolution(labels), plane_shape(source)
    if data.shape == shape:
        return np.array(data)
    if data.shape == (*layers.leading_shape(source), *shape):
        return np.array(data[index])
    raise DefocusError(
        f"labels {labels.name!r} are {tuple(data.shape)}, a plane of the image {shape}; "
        "choose labels of the image's own size, or press New annotation"
    )


def plane_name(name: str, index: layers.Index) -> str:
    """Name a plane of a layer."""
    return f"{name}, plane {index_text(index)}" if index else name


def index_text(index: layers.Index) -> str:
    """Write an index as people do."""
    return ", ".join(map(str, index))


def may_be_annotation(labels: Labels) -> bool:
    """Tell whether a layer may be painted on: the user's own, or an annotation."""
    return layers.owned(labels).get("role") in (None, ANNOTATION)


def add_annotation(viewer: ViewerModel, source: Image, index: layers.Index, data: Plane) -> Labels:
    """Add a layer with the annotation of a plane of an image."""
    note = {"role": ANNOTATION, "source_id": source.unique_id, "source": source.name}
    labels = viewer.add_labels(
        data,
        name=plane_name(f"{source.name} {ANNOTATION}", index),
        metadata={layers.KEY: {**note, "index": index}},
        opacity=0.6,
        **layers.plane_geometry(source),
    )
    labels.colormap = layers.two_classes()
    labels.brush_size = brush_size(data.shape)
    return labels


def brush_size(shape: tuple[int, ...]) -> int:
    """Give a brush that suits planes of a shape."""
    return max(LEAST_BRUSH, min(shape[-2:]) // 40)
