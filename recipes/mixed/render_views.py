"""Render views for training the dense network: images with their blur radius and labels.

Kinds: scenes of many layers (with the camera's softness counted into the radius), fields of
fluorescence, photos under one disc all over, and microscope images in focus, resampled and
defocused. NumPy and SciPy alone, so that worker processes render while a GPU trains. Not meant to
be called: `train_mixed.py` imports it.
"""

import argparse
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from napari_defocus.filters.luminance import LUMINANCE
from napari_defocus.simulate import scenes
from napari_defocus.simulate.config import SceneConfig
from napari_defocus.simulate.fields import render_field
from napari_defocus.simulate.optics import Camera, Scene, disc, expose, spread, through_jpeg
from napari_defocus.simulate.scenes import PictureBook

Float = npt.NDArray[np.float32]

# Photos: defocus radii, in pixels, up to which a pixel is labelled sharp, and from which blurred.
SHARP_UP_TO, BLURRED_FROM = 0.7, 1.8
# Microscopes: the same as shares of the blur width in focus, which resampling brings into
# `OWN_WIDTH` (pixels).
SHARP_SHARE, BLURRED_SHARE = 0.5, 1.5
OWN_WIDTH = (0.8, 3.2)
LARGEST_RADIUS = 18.0
# Structure: the gradient (Gaussian, sigma 1.2) pooled by sigma 10 is above this, and above this
# share of the strongest.
LEAST_GRADIENT, LEAST_SHARE = 0.005, 0.12


@dataclass(frozen=True, eq=False)
class View:
    """An image with its ground truth.

    `image` is (Y, X, 3); `radius` (Y, X) the total blur radius in pixels, NaN where unlabelled;
    `label` (Y, X) 0 blurred, 1 sharp, -1 unlabelled.
    """

    image: npt.NDArray[np.uint8]
    radius: npt.NDArray[np.float16]
    label: npt.NDArray[np.int8]


@dataclass(frozen=True)
class Sources:
    """The folder that `prepare_pictures.py` wrote, and which microscope images to take from it."""

    folder: Path
    held_out: bool = False

    def book(self) -> PictureBook:
        return _book(self.folder)

    def micro(self) -> list[tuple[Path, float]]:
        return _micro(self.folder, self.held_out)


@lru_cache(maxsize=2)
def _book(folder: Path) -> PictureBook:
    lists = [sorted((folder / "book" / kind).iterdir()) for kind in ("backgrounds", "objects")]
    return PictureBook(*lists)


@lru_cache(maxsize=2)
def _micro(folder: Path, held_out: bool) -> list[tuple[Path, float]]:
    """List images in focus with their blur width in pixels; every twelfth is held out."""
    known = json.loads((folder / "widths.json").read_text())
    listed = [(folder / "micro" / name, width) for name, width in known.items()]
    return [item for place, item in enumerate(listed) if (place % 12 == 5) == held_out]


def render_view(sources: Sources, kind: str, size: int, seed: tuple[int, ...]) -> View:
    """Render one view of `size` pixels a side; the same for the same seed."""
    rng = np.random.default_rng(seed)
    if kind == "micro":
        return render_micro(sources, size, rng)
    config = SceneConfig(size=size)
    draw = rng.random()
    if draw < 0.08:
        scene = scenes.open_where_smooth(render_field(config, rng))
        return _view(scene.image, scene.radius, scene.radius)
    if draw < 0.25:
        return render_uniform(sources.book(), size, rng)
    book = sources.book()
    layers = scenes._view(book, config, rng)
    light, radius = scenes._photograph(
        layers, scenes._radii(layers, config, rng), scenes._aperture(rng)
    )
    image, softness = develop(light, rng)
    scene = scenes.open_where_smooth(Scene(image, radius))
    return _view(image, scene.radius, np.hypot(scene.radius, np.float32(2 * softness)))


def render_uniform(book: PictureBook, size: int, rng: np.random.Generator) -> View:
    """Defocus one photo all over, by a radius whose logarithm is uniform."""
    light = scenes.random_background(book, size, rng)
    radius = float(np.exp(rng.uniform(np.log(0.4), np.log(LARGEST_RADIUS))))
    aperture = str(rng.choice(["disc", "blades", "gaussian"], p=[0.7, 0.15, 0.15]))
    crisp = scenes.open_where_smooth(
        Scene(np.clip(255 * light ** (1 / 2.2), 0, 255).astype(np.uint8), 0 * light[..., 0])
    )
    image, softness = develop(spread(light, scenes.point_spread(radius, aperture)), rng)
    radii = np.where(np.isfinite(crisp.radius), np.float32(radius), np.float32(np.nan))
    return _view(image, radii, np.hypot(radii, np.float32(2 * softness)))


def _view(image: npt.NDArray[np.uint8], defocus: Float, total: Float) -> View:
    label = np.full(defocus.shape, -1, np.int8)
    label[defocus <= SHARP_UP_TO] = 1
    label[defocus >= BLURRED_FROM] = 0
    return View(image, total.astype(np.float16), label)


def develop(light: Float, rng: np.random.Generator) -> tuple[npt.NDArray[np.uint8], float]:
    """Expose as `scenes._develop` does; return also the standard deviation of the camera's blur."""
    grey = rng.random() < 0.25
    if grey:
        light = scenes._three(np.asarray(light @ LUMINANCE, np.float32))
    light = light * np.float32(np.exp(rng.normal(0, 0.35)))
    light = np.maximum(light, 0) ** np.float32(np.exp(rng.normal(0, 0.15)))
    softness = rng.uniform(0.0, 0.9) if rng.random() < 0.8 else 0.0
    camera = Camera(
        softness=softness, electrons=10 ** rng.uniform(3.0, 4.7), read_noise=rng.uniform(0, 0.004)
    )
    values = expose(light, camera, rng).astype(np.float32)
    if rng.random() < 0.35:
        soft = ndimage.gaussian_filter(values, (1, 1, 0))
        values += rng.uniform(0.2, 1.2) * (values - soft)
    if rng.random() < 0.3:
        values += rng.normal(0, rng.uniform(1, 22), (*values.shape[:2], 1))
    if grey:
        values = scenes._three(values[..., 0])
    image = np.clip(np.round(values), 0, 255).astype(np.uint8)
    return (
        through_jpeg(image, int(rng.integers(30, 97))) if rng.random() < 0.75 else image
    ), softness


def render_micro(sources: Sources, size: int, rng: np.random.Generator) -> View:
    """Resample a microscope image in focus; defocus it all over, along a ramp, or not at all."""
    entries = sources.micro()
    path, known = entries[int(rng.integers(len(entries)))]
    picture, own = _resampled(_picture(path), max(known, 0.8), size, rng)
    if picture.shape[2] == 3 and rng.random() < 0.3:
        picture = picture.mean(axis=2, keepdims=True)
    crisp = picture.mean(axis=2)
    gradient = ndimage.gaussian_filter(ndimage.gaussian_gradient_magnitude(crisp, 1.2), 10)
    unlabelled = gradient < max(LEAST_GRADIENT, LEAST_SHARE * float(np.quantile(gradient, 0.98)))
    gamma = 2.2 if rng.random() < 0.5 else 1.0
    light = picture**gamma
    added = _defocus_radii(own, size, rng)
    light = _out_of_focus(light, added, str(rng.choice(["disc", "gaussian", "rings"])))
    if rng.random() < 0.4:
        glow = ndimage.gaussian_filter(light, (*[rng.uniform(6, 30)] * 2, 0))
        light = light + np.float32(rng.uniform(0, 0.6)) * (glow - glow.mean())
    image = _record(np.clip(light, 0, None), gamma, rng)
    total = np.hypot(added, np.float32(own))
    total[unlabelled] = np.nan
    label = np.full(added.shape, -1, np.int8)
    label[added <= SHARP_SHARE * max(own, 1)] = 1
    label[added >= max(BLURRED_SHARE * own, BLURRED_FROM)] = 0
    label[unlabelled] = -1
    return View(image, total.astype(np.float16), label)


@lru_cache(maxsize=200)
def _picture(path: Path) -> npt.NDArray[np.uint8]:
    values = np.asarray(Image.open(path).convert("RGB"))
    grey = np.abs(values.astype(int) - values[..., :1]).max() < 6
    return values[..., 1:2].copy() if grey else values


def _resampled(
    image: npt.NDArray[np.uint8], width: float, size: int, rng: np.random.Generator
) -> tuple[Float, float]:
    """Return a part, scaled so that its blur width is within `OWN_WIDTH`, and that width."""
    wanted = np.exp(rng.uniform(*np.log(OWN_WIDTH)))
    scale = float(np.clip(wanted / width, 0.3, 4.0))
    side = int(np.ceil(size / scale))
    short = [max(side - extent, 0) for extent in image.shape[:2]]
    if any(short):
        image = np.pad(image, ((0, short[0]), (0, short[1]), (0, 0)), mode="symmetric")
    y, x = (int(rng.integers(extent - side + 1)) for extent in image.shape[:2])
    part = np.rot90(image[y : y + side, x : x + side], int(rng.integers(4)))
    if rng.random() < 0.5:
        part = part[:, ::-1]
    method = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC
    planes = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(part[..., c])).resize((size, size), method),
            np.float32,
        )
        for c in range(part.shape[2])
    ]
    return np.stack(planes, axis=2) / np.float32(255), max(width * scale, 0.8)


def _defocus_radii(own: float, size: int, rng: np.random.Generator) -> Float:
    draw = rng.random()
    if draw < 0.40:
        return np.zeros((size, size), np.float32)
    if draw < 0.80:
        least = max(BLURRED_SHARE * own, BLURRED_FROM) * (1.0 if draw < 0.72 else 0.4)
        return np.full(
            (size, size), np.exp(rng.uniform(np.log(least), np.log(LARGEST_RADIUS))), np.float32
        )
    ramp = scenes._ramp(size, rng)
    steep = np.exp(rng.uniform(np.log(4 * own), np.log(2 * LARGEST_RADIUS)))
    return np.minimum(
        steep * np.abs(ramp - np.float32(rng.uniform(0, 0.8))), np.float32(LARGEST_RADIUS)
    ).astype(np.float32)


def _out_of_focus(light: Float, radius: Float, aperture: str) -> Float:
    if not np.ptp(radius):
        at = float(radius.flat[0])
        return spread(light, _point_spread(at, aperture)) if at > 0.3 else light
    levels = np.array(scenes.RADII)
    steps = np.interp(radius, levels, np.arange(len(levels)))
    blurred = np.zeros_like(light)
    for step in range(int(steps.min()), int(np.ceil(steps.max())) + 1):
        weight = np.clip(1 - np.abs(steps - step), 0, 1).astype(np.float32)[..., np.newaxis]
        if weight.any():
            blurred += weight * (
                spread(light, _point_spread(levels[step], aperture)) if step else light
            )
    return blurred


def _point_spread(radius: float, aperture: str) -> Float:
    """Return a disc, a Gaussian of its second moment, or a disc with rings as of coherent light."""
    if aperture != "rings" or radius < 2:
        return scenes.point_spread(radius, "gaussian" if aperture == "gaussian" else "disc")
    kernel = disc(radius)
    half = kernel.shape[0] // 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    waves = 1 + 0.8 * np.cos(2 * np.pi * max(radius / 4, 1) * (np.hypot(y, x) / radius) ** 2)
    kernel = kernel * waves
    return np.asarray(kernel / kernel.sum(), np.float32)


def _record(light: Float, gamma: float, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Expose, often with few photons, stretch the contrast, perhaps compress; return (Y, X, 3)."""
    light = light * np.float32(rng.uniform(0.4, 1.0) / max(float(np.quantile(light, 0.995)), 1e-3))
    electrons = 10 ** rng.uniform(2.0, 4.5)
    values = rng.poisson(light * electrons) / electrons + rng.normal(
        0, rng.uniform(0, 0.02), light.shape
    )
    values = np.clip(values, 0, None) ** (1 / gamma)
    if rng.random() < 0.6:
        low, high = np.percentile(values, (0.1, 99.9))
    else:
        low, high = 0.0, max(float(values.max()), 1e-3)
    image = np.clip(np.round(255 * (values - low) / max(high - low, 1e-6)), 0, 255).astype(np.uint8)
    if image.shape[2] == 1:
        image = np.repeat(image, 3, axis=2)
    return through_jpeg(image, int(rng.integers(50, 97))) if rng.random() < 0.3 else image


if __name__ == "__main__":
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
