"""Napari layers: what an image layer holds, and results that sit on it exactly."""

import math
import warnings
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer, Shapes
from napari.utils.colormaps import DirectLabelColormap
from napari.utils.transforms import Affine
from pint import PintError
from qtpy.QtCore import QTimer
from skimage import draw

from napari_defocus.core.errors import DefocusError, Notice
from napari_defocus.io.open import open_source
from napari_defocus.labels.classes import BLURRED, COLOURS, SHARP
from napari_defocus.widgets._shared.axis_names import letters, words

# The key, in a layer's metadata, under which this plugin writes where the layer comes from.
KEY = "napari-defocus"
# Roles of layers that this plugin makes and writes again.
PREVIEW = "preview"
TAUGHT = "mask as taught"
BLUR = "blur map"
MASK = "mask"
CONFIDENCE = "confidence"
RADIUS = "blur radius"
DISAGREEMENT = "disagreement"
# Of labels that were painted on, and stay where new ones are made.
CORRECTED = "(corrected)"
GEOMETRY = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")
ELLIPSE_POINTS = 64
# Pixels count as square where edges and angle are off by no more than this share.
SQUARE = 0.01
# Colormap of each result shown as an image, and its white point; None: its greatest value.
LOOKS = {BLUR: ("gray", 1.0), CONFIDENCE: ("viridis", 1.0), RADIUS: ("magma", None)}

Index = tuple[int, ...]


def full_resolution(layer: Image) -> Any:
    """Return the layer's array, of a pyramid the finest level; it may be Dask or Zarr."""
    return layer.data[0] if layer.multiscale else layer.data


def leading_shape(layer: Image) -> tuple[int, ...]:
    """Return the shape of the stack of planes, empty for a single one."""
    shape = full_resolution(layer).shape
    return tuple(int(size) for size in shape[: len(shape) - (3 if layer.rgb else 2)])


def axes_of(layer: Image) -> str:
    """Return a letter for each axis of the data, as `detect` takes them."""
    return leading_letters(layer) + ("YXS" if layer.rgb else "YX")


def leading_letters(layer: Image) -> str:
    """Return a letter for each leading axis: by labels, else by the file; see `letters`."""
    return letters(layer.axis_labels[: len(leading_shape(layer))], letters_in_file(layer))


def letters_in_file(layer: Image) -> str:
    """Return what the file of a layer calls its leading axes; nothing where that is not known."""
    labels, shape = layer.axis_labels[: len(leading_shape(layer))], leading_shape(layer)
    if not shape or layer.source.path is None or all(map(words, labels)):
        return ""
    return _letters_in_file(str(layer.source.path), shape)


@lru_cache(maxsize=64)
def _letters_in_file(path: str, shape: tuple[int, ...]) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Notice)
            source = open_source(path)
    except DefocusError:  # such as a format that napari alone reads
        return ""
    axes = source.axes[: len(source.leading)]
    if source.leading == shape:
        return axes
    # Readers may split channels into layers.
    without = source.grid.without("C")
    return axes.replace("C", "") if without.leading == shape else ""


def pixel_size_um(layer: Layer) -> float | None:
    """Return the edge of a layer's pixels in micrometres; None where unknown, or not square."""
    origin = np.zeros(layer.ndim)
    steps = np.eye(layer.ndim)[-2:]
    start = np.asarray(layer.data_to_world(origin))
    down, right = (np.asarray(layer.data_to_world(step)) - start for step in steps)
    try:
        units = [float((1 * unit).to("um").magnitude) for unit in layer.units[-2:]]
    except (PintError, AttributeError):  # pixels, degrees; a napari without units
        return None
    edges = np.linalg.norm(down), np.linalg.norm(right)
    square = abs(edges[0] - edges[1]) <= SQUARE * edges[1]
    upright = abs(down @ right) <= SQUARE * edges[0] * edges[1]
    if units[0] != units[1] or not (square and upright and edges[1] > 0):
        return None
    return float(edges[1] * units[1])


def describe(layer: Image) -> str:
    """Describe what a layer holds: "12 planes of 512 x 512, RGB"."""
    shape, leading = full_resolution(layer).shape, leading_shape(layer)
    rows, columns = shape[len(leading) :][:2]
    size = f"{rows} x {columns}"
    text = f"{math.prod(leading)} planes of {size}" if leading else f"{size} pixels"
    if len(leading) > 1:
        named = zip(leading_letters(layer), leading, strict=True)
        known = (f"{letter if letter in 'ZTC' else '?'} {count}" for letter, count in named)
        text += f" ({', '.join(known)})"
    colours = {3: ", RGB", 4: ", RGBA"}.get(shape[-1], "") if layer.rgb else ""
    return text + colours + (", finest level of a pyramid" if layer.multiscale else "")


def check_image(layer: Image | None) -> Image:
    """Return the layer where it holds an image to detect in; raise where not."""
    if layer is None:
        raise DefocusError("no image layer is chosen; open an image, or a sample of this plugin")
    if 0 in full_resolution(layer).shape:
        raise DefocusError(f"layer {layer.name!r} is empty; choose another")
    return layer


def visible_index(viewer: ViewerModel, layer: Image) -> Index:
    """Return the index, along the leading axes, of the plane that the viewer shows of a layer."""
    shape = leading_shape(layer)
    data = np.rint(layer.world_to_data(viewer.dims.point))[: len(shape)].astype(int)
    return tuple(int(np.clip(i, 0, size - 1)) for i, size in zip(data, shape, strict=True))


def geometry(layer: Layer, axes: Sequence[int] | None = None) -> dict[str, Any]:
    """Return where a layer lies, for another layer of the same axes, or of some of them."""
    if axes is None or len(axes) == layer.ndim:
        return {name: getattr(layer, name) for name in GEOMETRY}
    linear = ("scale", "translate", "rotate", "shear")
    part = Affine(**{name: getattr(layer, name) for name in linear}).set_slice(axes)
    shears = len(axes) * (len(axes) - 1) // 2
    return {
        **{name: getattr(part, name) for name in linear},
        # Without any, napari gives zeros of another number than it takes.
        "shear": part.shear if len(part.shear) == shears else np.zeros(shears),
        "affine": layer.affine.set_slice(axes),
        "units": tuple(layer.units[i] for i in axes),
        "axis_labels": tuple(layer.axis_labels[i] for i in axes),
    }


def plane_geometry(layer: Layer) -> dict[str, Any]:
    """Return where one plane of a layer lies, for a layer of two axes."""
    return geometry(layer, (layer.ndim - 2, layer.ndim - 1))


def owned(layer: Layer) -> Mapping[str, Any]:
    """Return what this plugin wrote about a layer of its own; empty for others."""
    note = layer.metadata.get(KEY, {}) if isinstance(layer.metadata, dict) else {}
    return note if isinstance(note, dict) else {}


def note_of(source: Layer, role: str, **more: Any) -> dict[str, dict[str, Any]]:
    """Return the metadata of a layer that this plugin makes of a source."""
    return {KEY: {"role": role, "source_id": source.unique_id, "source": source.name, **more}}


def find_owned(viewer: ViewerModel, source: Layer, role: str, **more: Any) -> Layer | None:
    """Find the layer of a role ("blur map", "mask") that this plugin made for a source."""
    return find(viewer, role=role, source_id=source.unique_id, **more)


def find(viewer: ViewerModel, **wanted: Any) -> Layer | None:
    """Find the layer about which this plugin wrote all that is wanted."""
    for layer in viewer.layers:
        if owned(layer).items() >= wanted.items():
            return layer
    return None


def remove_later(viewer: ViewerModel, wanted: Callable[[], Iterable[Layer]]) -> None:
    """Remove layers in the next pass of the event loop.

    Never while others are removed, as by `viewer.layers.clear()`: napari goes on to draw what is
    left of them, and the process ends in vispy.
    """

    def remove() -> None:
        for layer in wanted():
            if layer in viewer.layers:
                viewer.layers.remove(layer)

    QTimer.singleShot(0, remove)


def source_of(viewer: ViewerModel, layer: Layer) -> Layer | None:
    """Find the layer that one of this plugin's was made of."""
    wanted = owned(layer).get("source_id")
    return next((source for source in viewer.layers if source.unique_id == wanted), None)


def labels_on(
    labels: Labels, size: tuple[int, ...], places: Mapping[Index, Index], otherwise: str = ""
) -> Any:
    """Return the labels of a plane of an image (Y, X): those of one plane, or a plane of more.

    `places` has its index by the shape of leading axes; in an error, `otherwise` is offered.
    """
    data = full_resolution(labels)
    for leading, index in {(): (), **places}.items():
        if data.shape == (*leading, *size):
            return data[index]
    raise DefocusError(
        f"labels {labels.name!r} are {tuple(data.shape)}, a plane of the image {size}; "
        f"choose labels of the image's own size{otherwise}"
    )


def put_image(
    viewer: ViewerModel, data: npt.NDArray[Any], source: Layer, role: str, **note: Any
) -> Image:
    """Show a result of a source as an image from 0 up; update this plugin's own, if there."""
    layer = _replaceable(viewer, source, role, data.shape)
    limits = _limits(data, role)
    if layer is None:
        # Hidden at first: the mask says more, and both at once say little.
        look = {"colormap": LOOKS[role][0], "contrast_limits": limits, "visible": False}
        where = _geometry_for(data, source)
        return viewer.add_image(data, **described(source, role, note), **where, **look)
    # Limits that the user chose stay.
    follows = np.allclose(layer.contrast_limits, _limits(layer.data, role))
    layer.data = data
    if follows:
        layer.contrast_limits = limits
    _update(layer, source, role, note)
    return layer


def _limits(data: npt.NDArray[Any], role: str) -> tuple[float, float]:
    # Napari refuses limits that are equal, or no numbers: of a blank plane nothing is known.
    most = np.max(data, where=np.isfinite(data), initial=0)
    return 0.0, LOOKS[role][1] or float(most) or 1.0


def put_labels(
    viewer: ViewerModel, data: npt.NDArray[Any], source: Layer, role: str, **note: Any
) -> Labels:
    """Show a result of a source as labels; a later undo brings the earlier result back.

    One that was painted on stays, as a layer of the user's own; see `painted_on`.
    """
    note["content"] = _content(data)
    layer = find_owned(viewer, source, role)
    if layer is not None and painted_on(layer):
        layer.metadata = {key: value for key, value in layer.metadata.items() if key != KEY}
        layer.name = f"{layer.name} {CORRECTED}"
    layer = _replaceable(viewer, source, role, data.shape)
    if layer is None:
        return _add_labels(viewer, data, source, role, note, _geometry_for(data, source))
    changed = np.nonzero(layer.data != data)
    if changed[0].size:
        if not layer.visible:
            # Napari keeps a blank in place of what a hidden layer would show, and writes into it.
            layer.set_view_slice()
        # Not `layer.data = data`: the old strokes' history would write stale pixels on undo.
        layer.data_setitem(changed, data[changed])
    _update(layer, source, role, note)
    return layer


def painted_on(layer: Layer | None) -> bool:
    """Tell whether labels that this plugin made are no more as it made them."""
    made = None if layer is None else owned(layer).get("content")
    return layer is not None and made is not None and made != _content(layer.data)


def _content(data: npt.NDArray[Any]) -> int:
    return zlib.crc32(np.ascontiguousarray(data).data)


def put_preview(
    viewer: ViewerModel,
    data: npt.NDArray[np.uint8],
    source: Layer,
    step: int,
    role: str = PREVIEW,
) -> Labels:
    """Show the mask of every step-th pixel of a plane over its image; it has no history."""
    where = _spread(plane_geometry(source), step)
    layer = _replaceable(viewer, source, role, data.shape)
    if layer is None:
        return _add_labels(viewer, data, source, role, {}, where)
    layer.data[...] = data
    layer.refresh(thumbnail=False, highlight=False, extent=False)
    place(layer, where)
    return layer


def _add_labels(
    viewer: ViewerModel, data: Any, source: Layer, role: str, note: Any, where: Mapping[str, Any]
) -> Labels:
    look = {"colormap": label_colours(), "opacity": 0.5}
    return viewer.add_labels(data, **described(source, role, note), **where, **look)


def _spread(where: dict[str, Any], step: int) -> dict[str, Any]:
    """Enlarge the pixels of a plane step times."""
    parts = {name: where[name] for name in ("scale", "translate", "rotate", "shear")}
    # An enlarged pixel covers step pixels: its centre lies further in, along the image's own axes.
    centre = Affine(**parts)(np.full(2, (step - 1) / 2))
    return {**where, "scale": np.asarray(where["scale"]) * step, "translate": centre}


def _replaceable(
    viewer: ViewerModel, source: Layer, role: str, shape: tuple[int, ...]
) -> Any | None:
    layer = find_owned(viewer, source, role)
    if layer is None or layer.data.shape == shape:
        return layer
    viewer.layers.remove(layer)
    return None


def described(source: Layer, role: str, note: Mapping[str, Any]) -> dict[str, Any]:
    """Return the name and the metadata of a layer that this plugin makes of a source."""
    return {"name": f"{source.name} {role}", "metadata": note_of(source, role, **note)}


def _update(layer: Layer, source: Layer, role: str, note: Mapping[str, Any]) -> None:
    layer.metadata = {**layer.metadata, **note_of(source, role, **note)}
    place(layer, _geometry_for(layer.data, source))


def place(layer: Layer, where: Mapping[str, Any]) -> None:
    """Move a layer."""
    for name, value in where.items():
        # Each change redraws the whole canvas.
        if not np.array_equal(np.asarray(getattr(layer, name)), np.asarray(value)):
            setattr(layer, name, value)


def _geometry_for(data: npt.NDArray[Any], source: Layer) -> dict[str, Any]:
    return geometry(source) if data.ndim == source.ndim else plane_geometry(source)


def label_colours(colours: Mapping[int, tuple[float, ...]] | None = None) -> DirectLabelColormap:
    """Return a colormap of some labels, of blurred and sharp by default; others have no colour."""
    shown: dict[int | None, tuple[float, ...]] = {None: (0, 0, 0, 0), 0: (0, 0, 0, 0)}
    classes = {label: (*COLOURS[label], 1.0) for label in (BLURRED, SHARP)}
    shown.update((colours or classes).items())
    return DirectLabelColormap(color_dict=shown)


def region_mask(region: Layer, image: Image, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return the pixels (Y, X) of an image's planes that a Shapes or Labels layer covers."""
    if isinstance(region, Shapes):
        mask = _inside_shapes(region, image, shape)
    else:
        labels = full_resolution(region)
        if tuple(labels.shape[-2:]) != shape:
            raise DefocusError(
                f"labels {region.name!r} are {tuple(labels.shape[-2:])}, the image {shape}; "
                "draw the region on labels of the image's own size"
            )
        mask = np.zeros(shape, np.bool_)
        for index in np.ndindex(labels.shape[:-2]):
            mask |= np.asarray(labels[index]) != 0
    if not mask.any():
        raise DefocusError(f"layer {region.name!r} covers nothing of the image; draw a region")
    return mask


def _inside_shapes(shapes: Shapes, image: Image, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    mask = np.zeros(shape, bool)
    for vertices, kind in zip(shapes.data, shapes.shape_type, strict=True):
        outline = _ellipse(vertices) if kind == "ellipse" else np.asarray(vertices)
        if kind in ("line", "path") or len(outline) < 3:
            continue
        # The shapes may lie in the world otherwise than the image.
        world = [shapes.data_to_world(vertex)[-2:] for vertex in outline]
        inside = np.array([image.world_to_data(point) for point in world])[:, -2:]
        mask[draw.polygon(inside[:, 0], inside[:, 1], shape)] = True
    return mask


def _ellipse(corners: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return points of the ellipse within a rectangle given by its corners, in turn."""
    corners = np.asarray(corners)
    centre = corners.mean(axis=0)
    first, second = (corners[1] - corners[0]) / 2, (corners[3] - corners[0]) / 2
    angle = np.linspace(0, 2 * np.pi, ELLIPSE_POINTS, endpoint=False)[:, np.newaxis]
    return np.asarray(centre + np.cos(angle) * first + np.sin(angle) * second)
