"""Calibration of the dense network's blur radius on discs of known radius."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_defocus.core.progress import (
    Event,
    OnEvent,
    ShouldStop,
    Stopped,
    ignore_event,
    never_stop,
)
from napari_defocus.dense.detector import DenseDetector, corrected
from napari_defocus.dense.inference import predict_dense
from napari_defocus.filters.plane import prepare_colours, prepare_plane
from napari_defocus.simulate.optics import Camera, Scene, defocus, expose
from napari_defocus.simulate.scenes import PictureBook, open_where_smooth, random_background

# Disc radii in pixels; below the first a disc is hardly wider than a pixel.
RADII = (0.7, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 13.0)
PICTURES = 24
SIDE = 256
# Noise of 8-bit cameras, of 255.
NOISE = (1.0, 6.0)


def calibrate_radius(
    detector: DenseDetector,
    book: PictureBook,
    *,
    seed: int = 0,
    on_event: OnEvent = ignore_event,
    should_stop: ShouldStop = never_stop,
) -> DenseDetector:
    """Compare the radii that a detector predicts with those of discs, and add the correction.

    Parameters
    ----------
    detector : DenseDetector
        Whose earlier correction, if any, is dropped.
    book : PictureBook
        Its backgrounds are blurred.
    seed : int
        Of pictures and noise.
    on_event : callable
        Called after each radius.
    should_stop : callable
        Called before each image.

    Returns
    -------
    DenseDetector
        The same, corrected.

    Raises
    ------
    Stopped
        Where `should_stop` returned True.
    """
    plain = corrected(detector, None)
    rng = np.random.default_rng(seed)
    lights = [random_background(book, SIDE, rng) for _ in range(PICTURES)]
    predicted: list[float] = []
    for done, radius in enumerate(RADII, start=1):
        found = []
        for light in lights:
            if should_stop():
                raise Stopped
            found.append(_predicted(plain, light, radius, rng))
        predicted.append(float(np.median(np.concatenate(found))))
        on_event(Event("calibrating the radius", done, len(RADII), {"predicted": predicted[-1]}))
    # A predicted radius must mean one true radius: what does not rise is left out.
    rising = [i for i, radius in enumerate(predicted) if radius > max([0.0, *predicted[:i]])]
    table: Mapping[str, Any] = {
        "told": [round(predicted[i], 3) for i in rising],
        "true": [RADII[i] for i in rising],
    }
    return corrected(detector, table)


def _predicted(
    detector: DenseDetector,
    light: npt.NDArray[np.float32],
    radius: float,
    rng: np.random.Generator,
) -> npt.NDArray[np.float32]:
    """Predict the radius of a picture blurred by a disc, where the picture has detail."""
    camera = Camera(softness=0, electrons=1e5, read_noise=0)
    crisp = Scene(expose(light, camera, rng), np.zeros(light.shape[:2], np.float32))
    seen = expose(defocus(light, radius), camera, rng) + rng.normal(
        0, rng.uniform(*NOISE), (*light.shape[:2], 1)
    )
    image = np.clip(np.round(seen), 0, 255).astype(np.uint8)
    found = predict_dense(prepare_colours(image, prepare_plane(image)), detector).radius
    assert found is not None
    return found[np.isfinite(open_where_smooth(crisp).radius)]
