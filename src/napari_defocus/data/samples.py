"""Sample data that come with the package: rendered defocus whose truth is known.

``sample_data/README.md`` lists sources and licences; `sample_rendering` makes the files.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_defocus.core.errors import DefocusError
from napari_defocus.io.open import read_image
from napari_defocus.labels.classes import annotation_from_mask

FOLDER = Path(__file__).parents[1] / "sample_data"

LayerData = tuple[npt.NDArray[Any], dict[str, Any], str]


@dataclass(frozen=True, eq=False)
class Sample:
    """A sample and its truth.

    Parameters
    ----------
    name : str
        One of `SAMPLES`.
    path : Path
        Its image file.
    image : ndarray of uint8 or uint16
        (Y, X), (Y, X, 3) or (Z, Y, X).
    scale : tuple of float
        Micrometres a pixel along each spatial axis; empty where there is no scale.
    blurred : ndarray of bool, (Y, X), or None
        True where the image is out of focus.
    height : ndarray of float32, (Y, X), or None
        Height of the surface, or of the nearest thing, in micrometres: above the plane in focus,
        or, in a stack, above the first plane.
    """

    name: str
    path: Path
    image: npt.NDArray[np.uint8 | np.uint16]
    scale: tuple[float, ...] = ()
    blurred: npt.NDArray[np.bool_] | None = None
    height: npt.NDArray[np.float32] | None = None


# Of each sample: the image, its scale, and the files of the truth, where there are any.
_FILES: dict[str, tuple[str, tuple[float, ...], str | None, str | None]] = {
    "nuclei_series": (
        "nuclei_series.tif",
        (5.0, 0.65, 0.65),
        None,
        "nuclei_series.height.tif",
    ),
    "photo": ("photo.jpg", (), "photo.mask.png", None),
    "tilted_plane": ("tilted_plane.tif", (0.65, 0.65), None, "tilted_plane.height.tif"),
    "z_stack": ("z_stack.tif", (2.0, 0.65, 0.65), None, "z_stack.height.tif"),
}
SAMPLES = tuple(_FILES)


def read_sample(name: str) -> Sample:
    """Read one of the `SAMPLES`.

    Raises
    ------
    DefocusError
        Where there is none of that name.
    """
    if name not in _FILES:
        raise DefocusError(f"no sample is called {name!r}; choose one of {', '.join(SAMPLES)}")
    image, scale, blurred, height = _FILES[name]
    return Sample(
        name,
        FOLDER / image,
        read_image(FOLDER / image).data,
        scale,
        read_image(FOLDER / blurred).data >= 128 if blurred else None,
        read_image(FOLDER / height).data if height else None,
    )


def nuclei_series() -> list[LayerData]:
    """Return the series of nuclei and, hidden, their true height in micrometres, as layers."""
    return _with_height(read_sample("nuclei_series"))


def photo() -> list[LayerData]:
    """Return the photo and, hidden, its true mask, as layers."""
    sample = read_sample("photo")
    truth = annotation_from_mask(255 * np.asarray(sample.blurred, np.uint8))
    return [
        (sample.image, {"name": "photo", "rgb": True}, "image"),
        (truth, {"name": "photo true mask", "visible": False}, "labels"),
    ]


def tilted_plane() -> list[LayerData]:
    """Return the tilted plane and, hidden, its true height in micrometres, as layers."""
    return _with_height(read_sample("tilted_plane"), rgb=True)


def z_stack() -> list[LayerData]:
    """Return the stack and, hidden, the true height of its surface in micrometres, as layers."""
    return _with_height(read_sample("z_stack"))


def _with_height(sample: Sample, **options: Any) -> list[LayerData]:
    assert sample.height is not None
    title = sample.name.replace("_", " ")
    height = {
        "name": f"{title} true height",
        "scale": sample.scale[-2:],
        "units": ("um", "um"),
        "colormap": "viridis",
        "visible": False,
    }
    units = ("um",) * len(sample.scale)
    return [
        (sample.image, {"name": title, "scale": sample.scale, "units": units, **options}, "image"),
        (sample.height, height, "image"),
    ]
