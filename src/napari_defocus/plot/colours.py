"""An image in colours, and a mask over it."""

from typing import Any

import numpy as np
import numpy.typing as npt

from napari_defocus.filters.plane import prepare_plane
from napari_defocus.labels.classes import COLOURS

Colours = npt.NDArray[np.float32]

OPACITY = 0.5


def as_rgb(
    image: npt.NDArray[Any], thinned: tuple[slice, slice] = (slice(None), slice(None))
) -> Colours:
    """Return 8-bit colours as they are, and anything else in grey, stretched; of some pixels."""
    if image.ndim == 3 and image.shape[-1] >= 3 and image.dtype == np.uint8:
        return np.asarray(image[(*thinned, slice(3))] / np.float32(255), np.float32)
    grey = np.clip(prepare_plane(image).grey[thinned], 0, 1)
    return np.repeat(grey[..., np.newaxis], 3, axis=2)


def tinted(picture: Colours, mask: npt.NDArray[Any], opacity: float = OPACITY) -> Colours:
    """Return a picture under its mask."""
    under = picture.copy()
    for label, colour in COLOURS.items():
        region = mask == label
        under[region] = (1 - opacity) * picture[region] + opacity * np.array(colour, np.float32)
    return under
