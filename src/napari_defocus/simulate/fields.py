"""Rendered fields of a fluorescence microscope, to train the dense detector.

Nuclei, fibres or beads glow on a dark ground. The microscope's own blur and the glow of what lies
above and below the focus are there also where the field is in focus; the camera is linear, with a
pedestal, shot and read noise. Each choice and range here is this package's own.
"""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_defocus.simulate.config import SceneConfig
from napari_defocus.simulate.optics import Scene, defocus

Float = npt.NDArray[np.float32]

IN_FOCUS = 0.5
# Standard deviation, in pixels, of the microscope's own blur, and of the glow around things.
OWN_BLUR = (0.6, 2.0)
GLOW = (6.0, 30.0)
DISC_RADIUS = (4.0, 22.0)


def render_field(config: SceneConfig, rng: np.random.Generator) -> Scene:
    """Render one field, in focus all over or out of focus all over.

    Parameters
    ----------
    config : SceneConfig
        Its size counts here.
    rng : numpy.random.Generator
        Source of chance.

    Returns
    -------
    Scene
        Grey, as colours that are all the same; its radius is 0, or that of the disc of defocus.
    """
    draw = (_nuclei, _nuclei, _fibres, _beads)[int(rng.integers(4))]
    light = draw(config.size, rng)
    radius = 0.0
    if rng.random() > IN_FOCUS:
        radius = float(np.exp(rng.uniform(*np.log(DISC_RADIUS))))
    own = ndimage.gaussian_filter(light, rng.uniform(*OWN_BLUR))
    glow = ndimage.gaussian_filter(light, rng.uniform(*GLOW))
    seen = defocus(own + np.float32(rng.uniform(0, 0.6)) * glow, radius)
    radii = np.full(light.shape, radius, np.float32)
    return Scene(_record(seen, rng), radii)


def _nuclei(size: int, rng: np.random.Generator) -> Float:
    """Draw mottled ellipses."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32)
    light = np.zeros((size, size), np.float32)
    mottle = ndimage.gaussian_filter(rng.normal(size=(size, size)), rng.uniform(0.7, 3.0))
    mottle = np.clip(1 + rng.uniform(0.05, 0.4) * mottle / mottle.std(), 0, None)
    scale = rng.uniform(6, 30)
    for _ in range(int(rng.uniform(0.05, 0.6) * (size / scale / 2) ** 2) + 1):
        cy, cx = rng.uniform(0, size, 2)
        a, b = scale * rng.uniform(0.6, 1.4, 2)
        angle = rng.uniform(0, np.pi)
        u = (np.cos(angle) * (x - cx) + np.sin(angle) * (y - cy)) / a
        v = (np.cos(angle) * (y - cy) - np.sin(angle) * (x - cx)) / b
        inside = np.clip((1 - np.hypot(u, v)) * scale + 0.5, 0, 1)
        light = np.maximum(light, inside * mottle * rng.uniform(0.15, 1)).astype(np.float32)
    return light


def _fibres(size: int, rng: np.random.Generator) -> Float:
    """Draw a net of fibres: where smooth random reliefs are level."""
    light = np.zeros((size, size), np.float32)
    for _ in range(int(rng.integers(2, 6))):
        relief = ndimage.gaussian_filter(rng.normal(size=(size, size)), rng.uniform(6, 25))
        slope = ndimage.gaussian_gradient_magnitude(relief, 1)
        distance = np.abs(relief) / np.maximum(slope, 1e-6)
        light += rng.uniform(0.2, 1) * np.clip(rng.uniform(0.7, 2) - distance, 0, 1)
    patches = ndimage.gaussian_filter(rng.random((size, size)), size / 10)
    return np.asarray(light * (patches > np.quantile(patches, rng.uniform(0, 0.6))), np.float32)


def _beads(size: int, rng: np.random.Generator) -> Float:
    """Scatter points of light of a few pixels."""
    light = np.zeros((size, size), np.float32)
    count = int(np.exp(rng.uniform(np.log(1e-4), np.log(5e-3))) * size**2) + 1
    rows, columns = rng.integers(0, size, (2, count))
    light[rows, columns] = rng.uniform(0.2, 1, count)
    grown = ndimage.gaussian_filter(light, rng.uniform(0.5, 2.0))
    return np.asarray(grown / grown.max(), np.float32)


def _record(light: Float, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Take the picture (Y, X, 3) and stretch it, as a viewer shows it, to 8 bits."""
    electrons = 10 ** rng.uniform(1.5, 4)
    pedestal = rng.uniform(0, 0.1) * electrons
    values = rng.poisson(light * electrons + pedestal) + rng.normal(
        0, rng.uniform(1, 5), light.shape
    )
    low, high = np.percentile(values, (0.1, 99.9))
    stretched = np.clip(np.round(255 * (values - low) / max(high - low, 1e-6)), 0, 255)
    return np.repeat(stretched.astype(np.uint8)[..., np.newaxis], 3, axis=2)
