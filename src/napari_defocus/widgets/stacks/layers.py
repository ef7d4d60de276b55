"""Maps of stacks in napari layers: they lie on the image."""

from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer

from napari_defocus.widgets._shared import layers
from napari_defocus.widgets._shared.series import Index, Series

ALTITUDE = "altitude"
FUSED = "all in focus"
PROVENANCE = "provenance"
# Not "confidence", which is the layer that Detect makes.
CONFIDENCE = "altitude confidence"
# From below.
MAPS = {CONFIDENCE: "confidence", PROVENANCE: "source_plane", FUSED: "fused", ALTITUDE: "depth_map"}
ALTITUDE_OPACITY = 0.6


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
