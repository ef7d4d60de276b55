"""Stacks in napari layers: which axis the planes are along, and maps that lie on the image."""

from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer

from napari_defocus.core.errors import DefocusError
from napari_defocus.stacks.planes import StackPlanes, open_stack
from napari_defocus.widgets._shared import layers
from napari_defocus.widgets._shared.axis_names import CHANNEL, DEPTH, TIME, words

ALTITUDE = "altitude"
FUSED = "all in focus"
PROVENANCE = "provenance"
# Not "confidence", which is the layer that Detect makes.
CONFIDENCE = "altitude confidence"
# From below.
MAPS = {CONFIDENCE: "confidence", PROVENANCE: "source_plane", FUSED: "fused", ALTITUDE: "depth_map"}
ALTITUDE_OPACITY = 0.6

Index = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Series:
    """Planes of an image layer along one axis, for each place of its other leading axes.

    It holds the data, not the layer, which may be deleted while it is read.
    """

    name: str
    data: Any
    axis: int
    leading: tuple[int, ...]
    labels: tuple[str, ...]

    @property
    def count(self) -> int:
        """How many planes there are along the axis."""
        return self.leading[self.axis]

    @property
    def others(self) -> tuple[int, ...]:
        """Sizes of the other leading axes."""
        return self.without(self.leading)

    @property
    def channel_axis(self) -> int | None:
        """Which of the other leading axes holds channels, by its label; None where none does."""
        names = [words(label) for label in self.without(self.labels)]
        return next((i for i, name in enumerate(names) if name & set(CHANNEL)), None)

    @property
    def frame(self) -> tuple[int, ...]:
        """Shape of a plane, with its colours."""
        return tuple(int(size) for size in self.data.shape[len(self.leading) :])

    def without(self, values: Any) -> Any:
        """Leave out what belongs to the axis of the planes."""
        return (*values[: self.axis], *values[self.axis + 1 :])

    def index(self, place: Index, plane: Any) -> tuple[Any, ...]:
        """Return the index, along all leading axes, of a plane, or of a slice of planes."""
        return (*place[: self.axis], plane, *place[self.axis :])

    def array(self, place: Index) -> Any:
        """Return the planes at a place, as an array that is read plane by plane."""
        data = self.data
        if not isinstance(data, np.ndarray | da.Array):  # Zarr and h5py read what is sliced
            chunks = (*(1,) * len(self.leading), *self.frame)
            data = da.from_array(data, chunks, name=False)
        return data[self.index(place, slice(None))]

    def planes(self, place: Index) -> StackPlanes:
        """Return the planes at a place as a focus stack."""
        return open_stack(self.array(place), self.axes("Z"))

    def axes(self, letter: str) -> str:
        """Return a letter for each axis of `array`, that of the planes first."""
        return f"{letter}YX" + "S" * (len(self.frame) - 2)

    def where(self, place: Index) -> dict[str, int]:
        """Name the other leading axes, with a place along each."""
        names = [label if words(label) else f"axis{i}" for i, label in enumerate(self.labels)]
        return dict(zip(self.without(names), place, strict=True))


def series_of(layer: Image, axis: int) -> Series:
    """Look at an image layer, no single plane, as planes along one of its leading axes."""
    leading = layers.leading_shape(layer)
    if not leading:
        raise DefocusError(
            f"{layer.name!r} is one plane; choose a stack. If its planes are layers of their own, "
            "select these and choose Merge to Stack in the menu of the layer list"
        )
    data = layers.full_resolution(layer)
    return Series(layer.name, data, axis, leading, tuple(layer.axis_labels[: len(leading)]))


def guess_axis(layer: Image) -> int:
    """Return the leading axis that planes are along: by its label, else the last of them."""
    count = len(layers.leading_shape(layer))
    labels = [words(label) for label in layer.axis_labels[:count]]
    named = [z for names in (DEPTH, TIME) for z in range(count) if labels[z] & set(names)]
    return named[0] if named else max(count - 1, 0)


def is_time(layer: Image, axis: int) -> bool:
    """Tell whether an axis is time, by its label."""
    return bool(words(layer.axis_labels[axis]) & set(TIME))


def axis_title(layer: Image, axis: int) -> str:
    """Name an axis for people: "z, 12 planes"."""
    label = layer.axis_labels[axis]
    name = label if words(label) else f"axis {axis}"
    return f"{name}, {layers.leading_shape(layer)[axis]} planes"


def show_plane(viewer: ViewerModel, layer: Layer, index: Index) -> None:
    """Move the viewer's sliders to a plane of a layer."""
    point = np.zeros(layer.ndim)
    point[: len(index)] = index
    first = viewer.dims.ndim - layer.ndim
    axes = range(first, first + len(index))
    viewer.dims.set_point(axes, layer.data_to_world(point)[: len(index)])


def put_map(
    viewer: ViewerModel, data: Any, source: Image, role: str, series: Series, place: Index | None
) -> Image:
    """Show a map (a role of `MAPS`) of a source, in place of an earlier one of the same place.

    It is of the stack at a place, or of every where that is None: with the other leading axes.
    """
    layer = layers.find_owned(viewer, source, role, place=place)
    colours = len(series.frame) > 2 and role == FUSED
    others = range(len(series.leading)) if place is None else ()
    axes = [axis for axis in others if axis != series.axis] + [source.ndim - 2, source.ndim - 1]
    where = layers.geometry(source, axes)
    if layer is not None and _fits(layer, data, series):
        layer.data = data
        layers.place(layer, where)
        return layer
    if layer is not None:
        viewer.layers.remove(layer)
    at = ", ".join(f"{name} {i}" for name, i in series.where(place or ()).items()) if place else ""
    layer = viewer.add_image(
        data,
        name=f"{source.name} {role}" + (f", {at}" if at else ""),
        metadata=layers.note_of(source, role, place=place, planes=series.count),
        rgb=colours,
        # Napari would keep the blank of what is written later.
        cache=not hasattr(data, "dask"),
        **_look(source, role, series.count, colours),
        **where,
    )
    # Not every napari has colour bars.
    if role == ALTITUDE and hasattr(layer, "colorbar"):
        layer.colorbar.visible = True
    return layer


def _fits(layer: Image, data: Any, series: Series) -> bool:
    """Tell whether a map can take other data and keep its limits."""
    lazy = hasattr(data, "dask") or hasattr(layer.data, "dask")
    same = layer.data.shape == data.shape and layer.data.dtype == data.dtype
    return same and not lazy and layers.owned(layer).get("planes") == series.count


def hide_maps(viewer: ViewerModel, source: Image) -> None:
    """Hide the maps that lie on a source, so that its planes are seen."""
    for layer in viewer.layers:
        note = layers.owned(layer)
        if note.get("source_id") == source.unique_id and note.get("role") in MAPS:
            layer.visible = False


def _look(source: Image, role: str, planes: int, colours: bool) -> dict[str, Any]:
    """Return colours and limits of a map."""
    if colours:
        return {}
    if role == FUSED:
        names = ("colormap", "contrast_limits", "gamma")
        return {} if source.rgb else {name: getattr(source, name) for name in names}
    # Provenance is an image, not labels: planes have an order, which the colours of altitude
    # show, plane 0 is no background, and the status bar reads the plane.
    last = 1 if role == CONFIDENCE else planes - 1
    look = {"colormap": "gray" if role == CONFIDENCE else "viridis", "contrast_limits": (0, last)}
    # What is in focus shows through.
    return look | ({"opacity": ALTITUDE_OPACITY} if role == ALTITUDE else {"visible": False})


def labels_at(labels: Labels, series: Series, place: Index, shown: Index) -> Any:
    """Return the objects (Y, X) of one stack, to be read on another thread."""
    index = series.index(place, shown[series.axis])
    places = {series.others: place, series.leading: index}
    return layers.labels_on(labels, series.frame[:2], places, ", or none")
