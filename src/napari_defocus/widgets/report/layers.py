"""The masks among the open layers as a folder of results, so that one report serves both."""

import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Labels

from napari_defocus.core.errors import DefocusError
from napari_defocus.io.manifest import RunRecord
from napari_defocus.io.tiff_writer import write_tiff
from napari_defocus.widgets._shared import layers

NO_MASKS = "no mask is among the open layers; press Detect, or choose a folder of results"


@dataclass(frozen=True)
class OpenMask:
    """A mask among the layers: its name, what is to be read of it, and of its image."""

    layer: Labels
    name: str
    mask: Any
    axes: str
    image: Any
    image_axes: str
    pixel_size_um: float | None


def open_masks(viewer: ViewerModel) -> list[OpenMask]:
    """List the masks that Detect made, or that were opened with their image.

    Raises
    ------
    DefocusError
        Where there are none.
    """
    found = list(_masks(viewer))
    if not found:
        raise DefocusError(NO_MASKS)
    return found


def _masks(viewer: ViewerModel) -> Iterator[OpenMask]:
    names: set[str] = set()
    for layer in viewer.layers:
        is_mask = layers.owned(layer).get("role") == layers.MASK or layer.name.endswith(" mask")
        if not isinstance(layer, Labels) or not is_mask or layer.ndim < 2:
            continue
        title = layer.name.removesuffix(" mask")
        source = layers.source_of(viewer, layer)
        if source is None and title in viewer.layers:
            source = viewer.layers[title]
        mask = layers.full_resolution(layer)
        letters = layers.leading_letters(source if _is_same(source, mask) else layer)
        image, axes = None, ""
        if isinstance(source, Image) and _is_same(source, mask):
            image, axes = layers.full_resolution(source), layers.axes_of(source)
        stem = re.sub(r"[^\w.-]+", "_", title) or "layer"
        while stem in names:
            stem += "_"
        names.add(stem)
        size = layers.pixel_size_um(layer)
        yield OpenMask(layer, stem, mask, f"{letters}YX", image, axes, size)


def _is_same(source: Any, mask: Any) -> bool:
    """Check that an image has the planes of a mask."""
    if not isinstance(source, Image):
        return False
    return bool(layers.full_resolution(source).shape[: mask.ndim] == mask.shape) and (
        len(layers.leading_shape(source)) == mask.ndim - 2
    )


def write_results(masks: Sequence[OpenMask]) -> Path:
    """Write masks and their images into a folder of results, which is ours to fill."""
    folder = Path(tempfile.mkdtemp(prefix="napari-defocus-report-"))
    record = RunRecord(folder)
    for one in masks:
        place, image = folder / f"{one.name}.mask.tif", folder / "images" / f"{one.name}.tif"
        values = np.asarray(one.mask)
        write_tiff(
            place, np.where(values > 2, 0, values).astype(np.uint8),
            axes=one.axes, pixel_size_um=one.pixel_size_um,
        )  # fmt: skip
        if one.image is not None:
            write_tiff(image, np.asarray(one.image), axes=one.image_axes)
        record.add(one.name, {}, [place], source="" if one.image is None else str(image))
    return folder
