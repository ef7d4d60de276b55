"""Photos with hand-made masks, and what detections score on them.

A folder of them holds ``images`` and ``masks`` (255 = blurred) of the same stems.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_defocus.detection.api import Detection
from napari_defocus.evaluate.scores import MapScores, score_map
from napari_defocus.io.folder import IMAGE_SUFFIXES
from napari_defocus.io.open import read_image


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo and its mask."""

    name: str
    image: npt.NDArray[Any]
    blurred: npt.NDArray[np.bool_]


def images_in(folder: Path) -> list[Path]:
    """List the images of a folder, none where there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)


def read_photos(folder: Path) -> list[Photo]:
    masks = {path.stem: path for path in (folder / "masks").iterdir()}
    return [
        Photo(p.stem, read_image(p).data, _read_mask(masks[p.stem]))
        for p in images_in(folder / "images")
    ]


def _read_mask(path: Path) -> npt.NDArray[np.bool_]:
    """Read where it is blurred; some masks are stored as grey in colours."""
    levels = read_image(path).data
    return np.asarray((levels if levels.ndim == 2 else levels[..., 0]) >= 128)


def score_detection(detection: Detection, photo: Photo) -> MapScores:
    return score_map(detection.blur, photo.blurred, mask=detection.mask)
