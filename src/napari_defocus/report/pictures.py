"""Small pictures of fields for a page: the field under its mask, and a detail as it is."""

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from scipy import ndimage

from napari_defocus.core.errors import DefocusError
from napari_defocus.io.open import open_source
from napari_defocus.io.results import mask_place
from napari_defocus.plot.colours import as_rgb, tinted
from napari_defocus.report.fields import Field

Array = npt.NDArray[Any]

SIDE = 240
QUALITY = 78
OPACITY = 0.35
# The detail is where most structure is, looked for in steps of so many pixels.
STEP = 8


@dataclass(frozen=True)
class Pictures:
    """A field under its mask and a detail, as data URLs; `note` says where the image is missing."""

    masked: str
    detail: str = ""
    note: str = ""


def pictures_of(field: Field) -> Pictures:
    """Draw a field.

    Raises
    ------
    DefocusError
        Where its mask cannot be read.
    """
    mask = open_source(mask_place(field.mask)).read(field.plane, *field.region)
    try:
        image = _image_of(field, mask.shape)
    except DefocusError as error:
        empty = np.full((*mask.shape, 3), 255, np.uint8)
        return Pictures(_url(_tinted(empty, mask)), note=str(error))
    rows, columns = _detail(mask)
    masked = _tinted(image, mask)
    scale = masked.width / mask.shape[1]
    box = [scale * end for end in (columns.start, rows.start, columns.stop, rows.stop)]
    if max(mask.shape) > SIDE:
        ImageDraw.Draw(masked).rectangle(box, outline=(255, 255, 255))
    return Pictures(_url(masked), _url(Image.fromarray(image[rows, columns])))


def _image_of(field: Field, shape: tuple[int, ...]) -> Array:
    """Read what the mask is of, as 8-bit colours."""
    if not field.source:
        raise DefocusError("the record does not tell where the image is")
    source = open_source(field.source, field.axes, series=field.series)
    if source.leading and len(source.leading) != len(field.plane):
        raise DefocusError(f"{field.source} has other planes than its mask")
    image = source.read(field.plane, *field.region)
    if image.shape[:2] != shape:
        raise DefocusError(f"{field.source} has another size than its mask")
    return _bytes(as_rgb(image))


def _tinted(image: Array, mask: Array) -> Image.Image:
    scale = min(1.0, SIDE / max(mask.shape))
    size = max(1, round(mask.shape[1] * scale)), max(1, round(mask.shape[0] * scale))
    small = Image.fromarray(image).resize(size, Image.Resampling.BOX)
    classes = Image.fromarray(mask.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
    picture = tinted(np.asarray(small, np.float32) / np.float32(255), np.asarray(classes), OPACITY)
    return Image.fromarray(_bytes(picture))


def _bytes(colours: Array) -> Array:
    return np.asarray(np.rint(255 * colours), np.uint8)


def _detail(mask: Array) -> tuple[slice, slice]:
    """Find the window of `SIDE` pixels that has most structure."""
    thin = (mask[::STEP, ::STEP] > 0).astype(np.float32)
    window = SIDE // STEP
    dense = ndimage.uniform_filter(thin, window, mode="constant")
    place = np.unravel_index(int(dense.argmax()), dense.shape)
    found = []
    for middle, size in zip(place, mask.shape, strict=True):
        start = min(max(int(middle) * STEP - SIDE // 2, 0), max(size - SIDE, 0))
        found.append(slice(start, min(start + SIDE, size)))
    return found[0], found[1]


def _url(picture: Image.Image) -> str:
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()
