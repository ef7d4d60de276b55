"""Results as layers of a viewer: the image, its blur map and its mask together."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_defocus.core.errors import DefocusError, notice
from napari_defocus.io.base import ImageSource
from napari_defocus.io.manifest import NAME, RunRecord
from napari_defocus.io.open import open_source
from napari_defocus.io.results import blur_beside, find_masks, mask_place, mask_stem
from napari_defocus.labels.classes import COLOURS

LayerData = tuple[Any, dict[str, Any], str]

# Of folders with more images the first are opened.
MOST_IMAGES = 20
# Larger planes are for OME-Zarr, which viewers read level by level.
MOST_PIXELS = 2**29
OPACITY = 0.5


def reader_of(path: str | Sequence[str]) -> Callable[[Any], list[LayerData]] | None:
    """Return `read_results` for a folder of results, its record or a mask; None for others."""
    first = Path(path if isinstance(path, str) else path[0])
    if first.is_dir():
        named = (first / NAME).is_file() or any(first.glob("*.mask.tif"))
        return read_results if named else None
    return read_results if first.name == NAME or ".mask." in first.name else None


def read_results(path: str | Sequence[str]) -> list[LayerData]:
    """Read masks, or all of a folder of results, with blur map and image, as layers.

    Raises
    ------
    DefocusError
        Where there is no mask, or one cannot be read.
    """
    masks: list[str] = []
    for given in [path] if isinstance(path, str) else path:
        place = Path(given)
        masks += find_masks(str(place.parent if place.name == NAME else place))
    if len(masks) > MOST_IMAGES:
        notice(f"{path} holds {len(masks)} images; the first {MOST_IMAGES} are opened")
    return [layer for mask in masks[:MOST_IMAGES] for layer in _layers(Path(mask))]


def _layers(mask: Path) -> list[LayerData]:
    stem = mask_stem(mask)
    entry = RunRecord(mask.parent).entries().get(stem, {})
    identity = entry.get("identity", {})
    source = open_source(mask_place(mask))
    layers = []
    try:
        if entry.get("source"):
            image = open_source(
                entry["source"], identity.get("axes"), series=identity.get("series")
            )
            if image.grid.plane_shape == source.grid.plane_shape:
                layers.append(_layer(image, stem, "image", rgb=image.axes.endswith("S")))
    except DefocusError as error:  # moved meanwhile
        notice(str(error))
    if blur := blur_beside(mask, stem):
        look = {"colormap": "gray_r", "contrast_limits": (0.0, 1.0), "visible": not layers}
        layers.append(_layer(open_source(blur), f"{stem} blur", "image", **look))
    colours = {None: (0, 0, 0, 0), 0: (0, 0, 0, 0)} | {k: (*v, 1) for k, v in COLOURS.items()}
    layers.append(_layer(source, f"{stem} mask", "labels", colormap=colours, opacity=OPACITY))
    return layers


def _layer(source: ImageSource, name: str, kind: str, **options: Any) -> LayerData:
    if math.prod(source.shape) > MOST_PIXELS:
        raise DefocusError(
            f"{source.name} is too large to be opened whole; detect with --format zarr, and open "
            "the OME-Zarr"
        )
    data = source.read_whole()
    if kind == "labels":
        data = data.astype(np.uint8)
    known = source.grid.known_scale()
    letters = source.axes.removesuffix("S")
    if options.get("rgb") and data.shape[-1] < 3:
        data, options = data[..., 0], options | {"rgb": False}
    scale = [known.get(letter, 1.0) for letter in letters]
    units = ["um" if letter in known and letter != "T" else "pixel" for letter in letters]
    return data, {"name": name, "scale": scale, "units": units, **options}, kind
