"""Rendered scenes of many layers, to train the dense detector.

A background, perhaps a ground that rises towards the viewer, and cut-out objects in front of each
other are seen by one thin lens, focused at one depth: the disc of each layer grows with the
difference of the inverse depths (A. Pentland, IEEE PAMI 9(4), 1987). Highlights, aperture blades,
lens softness, sharpening, noise, gamma and JPEG vary from scene to scene, so that what a detector
learns is not the renderer. Each choice and range here is this package's own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from napari_defocus.core.errors import DefocusError
from napari_defocus.filters.contrast import local_contrast
from napari_defocus.filters.luminance import LUMINANCE
from napari_defocus.filters.plane import prepare_plane
from napari_defocus.simulate.config import SceneConfig
from napari_defocus.simulate.fields import render_field
from napari_defocus.simulate.optics import (
    Camera,
    Scene,
    disc,
    expose,
    spread,
    through_jpeg,
    to_light,
)

Float = npt.NDArray[np.float32]

# Disc radii that are rendered; those between are interpolated.
RADII = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.5, 6.5, 9.0, 12.0, 16.0, 22.0)
# Of a front layer's cover: where the rim of a blurred object lets the back through, a
# pixel has no one radius.
RIM = (0.1, 0.9)
# In focus up to this radius; no detail below so much contrast, in grey ranges a pixel, pooled by a
# Gaussian of `FAR` pixels.
IN_FOCUS = 1.0
LEAST_DETAIL = 0.008
CONTRAST_SIGMA = 1.5
NOISE_FACTOR = 2.0
FAR = 10.0


@dataclass(frozen=True)
class PictureBook:
    """The pictures that scenes are made of, as files.

    Parameters
    ----------
    backgrounds : sequence of Path
        Photos that are sharp all over once reduced.
    objects : sequence of Path
        Cut-outs: photos of things, with transparency.
    """

    backgrounds: Sequence[Path]
    objects: Sequence[Path]


@dataclass(frozen=True)
class Layer:
    """One layer of a scene: linear light, cover in [0, 1] and inverse depth, all (Y, X[, 3])."""

    light: Float
    cover: Float
    nearness: Float


def read_book(folder: Path) -> PictureBook:
    """List the pictures of `folder`: its ``backgrounds`` and its ``objects``.

    Raises
    ------
    DefocusError
        Where one of the two has no picture.
    """
    lists = []
    for name in ("backgrounds", "objects"):
        paths = sorted(p for p in (folder / name).glob("*") if p.suffix in (".png", ".jpg"))
        if not paths:
            raise DefocusError(f"{folder / name} has no .png or .jpg: there is nothing to render")
        lists.append(paths)
    return PictureBook(*lists)


def render_scene(book: PictureBook, config: SceneConfig, rng: np.random.Generator) -> Scene:
    """Render one scene.

    Parameters
    ----------
    book : PictureBook
        Pictures to take.
    config : SceneConfig
        What scenes are like.
    rng : numpy.random.Generator
        Source of chance.

    Returns
    -------
    Scene
        Colours; its radius is NaN at the rims of blurred objects.
    """
    if rng.random() < config.fields:
        return open_where_smooth(render_field(config, rng))
    layers = _view(book, config, rng)
    light, radius = _photograph(layers, _radii(layers, config, rng), _aperture(rng))
    return open_where_smooth(Scene(_develop(light, rng), radius))


def open_where_smooth(scene: Scene) -> Scene:
    """Set to NaN the radius of what is in focus but shows no detail far around.

    A clear sky looks the same in focus and out of it; labelled sharp, it would teach a network to
    call every smooth backdrop sharp. Inside of things, whose outline is near, stays sharp.
    """
    plane = prepare_plane(scene.image)
    near = ndimage.gaussian_filter(local_contrast(plane, CONTRAST_SIGMA, NOISE_FACTOR), FAR)
    smooth = (scene.radius <= IN_FOCUS) & (near < LEAST_DETAIL)
    return Scene(scene.image, np.where(smooth, np.float32(np.nan), scene.radius))


# What is in the scene


def _view(book: PictureBook, config: SceneConfig, rng: np.random.Generator) -> list[Layer]:
    """Background, perhaps ground, and objects from back to front."""
    size = config.size
    horizon = rng.uniform(0.1, 0.8) * size
    slope = np.clip((np.arange(size) - horizon) / (size - horizon), 0, 1)
    rising = np.repeat(slope[:, np.newaxis], size, axis=1).astype(np.float32)
    full = np.ones((size, size), np.float32)
    grounded = rng.random() < 0.5
    depth = np.zeros_like(full) if grounded or rng.random() < 0.6 else _ramp(size, rng)
    layers = [Layer(random_background(book, size, rng), full, depth)]
    if grounded:
        light = random_background(book, size, rng)
        layers.append(Layer(light, (rising > 0).astype(np.float32), rising))
    for nearness in np.sort(rng.uniform(0.1, 1, rng.integers(0, config.objects + 1))):
        light, cover = _placed_object(book, size, rng)
        if grounded and rng.random() < 0.7:
            # Its foot stands on the ground where the ground is as near.
            foot = np.flatnonzero(cover.any(axis=1))
            shift = round(horizon + nearness * (size - horizon)) - (foot[-1] if len(foot) else 0)
            light, cover = (ndimage.shift(x, (shift, 0, 0)[: x.ndim], order=0)
                            for x in (light, cover))  # fmt: skip
        tilt = rng.uniform(0, 0.2) * _ramp(size, rng) if rng.random() < 0.4 else 0 * full
        layers.append(Layer(light, cover, np.float32(nearness) + tilt))
    return layers


def _ramp(size: int, rng: np.random.Generator) -> Float:
    """From 0 to up to 1 across the scene, in any direction."""
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32)
    along = np.cos(angle) * x + np.sin(angle) * y
    along -= along.min()
    return np.asarray(rng.uniform(0.3, 1) * along / along.max(), np.float32)


def random_background(book: PictureBook, size: int, rng: np.random.Generator) -> Float:
    """Take a random part of a background, reduced, perhaps mirrored: linear light (Y, X, 3)."""
    with Image.open(_any_of(book.backgrounds, rng)) as file:
        reduction = min(np.exp(rng.uniform(np.log(1.2), np.log(6))), min(file.size) / size)
        share = reduction * size / min(file.size)
        # A JPEG file is read no finer than is needed.
        file.draft("RGB", tuple(round(2 * extent / reduction) for extent in file.size))
        picture = file.convert("RGB")
    side = share * min(picture.size)
    left, top = (rng.uniform(0, extent - side) for extent in picture.size)
    box = (left, top, left + side, top + side)
    picture = picture.resize((size, size), Image.Resampling.LANCZOS, box=box)
    if rng.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    light = to_light(np.asarray(picture))
    if rng.random() < 0.4:
        # Lamps and glints are brighter than a file can hold: out of focus they show as discs.
        light += np.float32(rng.uniform(2, 12)) * np.maximum(light - 0.7, 0)
    return light


def _placed_object(book: PictureBook, size: int, rng: np.random.Generator) -> tuple[Float, Float]:
    """Put an object at a random place and scale: its light times its cover, and its cover."""
    with Image.open(_any_of(book.objects, rng)) as file:
        thing = file.convert("RGBA")
    extent = size * rng.uniform(0.3, 1.3)
    scale = min(extent / max(thing.size), 1.0)
    if rng.random() < 0.5:
        thing = thing.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    # Premultiplied, so that what lies beneath transparency stays out.
    width, height = (max(round(scale * edge), 8) for edge in thing.size)
    thing = thing.convert("RGBa").resize((width, height), Image.Resampling.LANCZOS)
    thing = thing.convert("RGBA").rotate(rng.uniform(-20, 20), Image.Resampling.BICUBIC, True)
    canvas = Image.new("RGBA", (size, size))
    corner = (int(rng.uniform(-0.4, 1) * (size - 0.6 * thing.width)),
              int(rng.uniform(-0.2, 1) * (size - 0.8 * thing.height)))  # fmt: skip
    canvas.paste(thing, corner)
    values = np.asarray(canvas)
    light = to_light(values[..., :3]) * np.float32(rng.uniform(0.5, 1.3))
    cover = (values[..., 3] / np.float32(255)).astype(np.float32)
    return np.clip(light, 0, 1) * cover[..., np.newaxis], cover


def _any_of(paths: Sequence[Path], rng: np.random.Generator) -> Path:
    return paths[int(rng.integers(len(paths)))]


def _three(grey: Float) -> Float:
    return np.repeat(grey[..., np.newaxis], 3, axis=2)


# How the lens sees it


def _radii(layers: list[Layer], config: SceneConfig, rng: np.random.Generator) -> list[Float]:
    """Disc radius of each layer, (Y, X)."""
    kind = rng.random()
    flat = len(layers) == 1 and not np.ptp(layers[0].nearness)
    sharp, blurred = (0.5, 0.5) if flat else (config.wholly_sharp, config.wholly_blurred)
    if kind < sharp:
        return [np.zeros_like(layer.cover) for layer in layers]
    if kind < sharp + blurred:
        nearest = np.exp(rng.uniform(np.log(2.5), np.log(12)))
        spread = rng.uniform(0, 6)
        return [np.asarray(nearest + spread * layer.nearness, np.float32) for layer in layers]
    strength = np.exp(rng.uniform(*np.log(config.aperture)))
    focus = _focus(layers, rng)
    return [
        np.asarray(np.minimum(strength * np.abs(layer.nearness - focus), RADII[-1]), np.float32)
        for layer in layers
    ]


def _focus(layers: list[Layer], rng: np.random.Generator) -> float:
    """How near what is in focus is: mostly a thing, seldom the background or nothing at all."""
    chosen = int(rng.integers(1, len(layers))) if len(layers) > 1 and rng.random() < 0.8 else 0
    inside = layers[chosen].nearness[layers[chosen].cover > 0.5]
    if not inside.size or (chosen == 0 and rng.random() < 0.2):
        return float(rng.random())
    return float(rng.choice(inside))


def _aperture(rng: np.random.Generator) -> str:
    return str(rng.choice(["disc", "blades", "gaussian"], p=[0.6, 0.25, 0.15]))


def point_spread(radius: float, aperture: str) -> Float:
    """Compute a point spread function of the second moment of a disc of `radius` pixels.

    Parameters
    ----------
    radius : float
        In pixels.
    aperture : {"disc", "blades", "gaussian"}
        A full circle, a hexagon, or the soft blur of a lens with much spherical aberration.

    Returns
    -------
    ndarray of float32, (2 n + 1, 2 n + 1)
        Sums to 1.
    """
    if aperture == "disc" or radius < 1:
        return disc(radius)
    half = int(np.ceil((2.0 if aperture == "gaussian" else 1.2) * radius))
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    if aperture == "gaussian":
        spread = np.exp(-2 * (x * x + y * y) / radius**2)
    else:
        # A hexagon of the disc's second moment: its in-radius is .95 of the disc's.
        angles = np.arange(3) * np.pi / 3
        reach = np.max([np.abs(np.cos(a) * x + np.sin(a) * y) for a in angles], axis=0)
        spread = np.clip(0.95 * radius + 0.5 - reach, 0, 1)
    return np.asarray(spread / spread.sum(), np.float32)


def _photograph(layers: list[Layer], radii: list[Float], aperture: str) -> tuple[Float, Float]:
    """Blur each layer and lay it over those behind; the light seen and the radius at each pixel."""
    light = np.zeros_like(layers[0].light)
    radius = np.zeros_like(layers[0].cover)
    for layer, own in zip(layers, radii, strict=True):
        both = np.dstack([layer.light * layer.cover[..., np.newaxis], layer.cover])
        seen = blur_varying(both, own, aperture)
        cover = np.clip(seen[..., 3], 0, 1)
        light = seen[..., :3] + (1 - cover[..., np.newaxis]) * light
        radius = np.where(cover > 0.5, own, radius)
        low, high = RIM
        radius[(cover > low) & (cover < high) & (own > 1)] = np.nan
    return light, np.asarray(radius, np.float32)


def blur_varying(values: Float, radius: Float, aperture: str = "disc") -> Float:
    """Blur (Y, X, C) values with a point spread whose radius (Y, X) varies, by interpolation."""
    steps = np.interp(radius, RADII, np.arange(len(RADII)))
    blurred = np.zeros_like(values)
    for step in range(int(steps.min()), int(np.ceil(steps.max())) + 1):
        weight = np.clip(1 - np.abs(steps - step), 0, 1).astype(np.float32)[..., np.newaxis]
        if weight.any():
            kernel = point_spread(RADII[step], aperture)
            blurred += weight * (spread(values, kernel) if RADII[step] else values)
    return blurred


# What the camera makes of it


def _develop(light: Float, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Expose, perhaps without colours, sharpen, add noise and compress, each by chance."""
    grey = rng.random() < 0.25
    if grey:
        light = _three(np.asarray(light @ LUMINANCE, np.float32))
    light = light * np.float32(np.exp(rng.normal(0, 0.35)))
    light = np.maximum(light, 0) ** np.float32(np.exp(rng.normal(0, 0.15)))
    camera = Camera(
        softness=rng.uniform(0.0, 0.9) if rng.random() < 0.8 else 0.0,
        electrons=10 ** rng.uniform(3.0, 4.7),
        read_noise=rng.uniform(0, 0.004),
    )
    values = expose(light, camera, rng).astype(np.float32)
    if rng.random() < 0.35:
        soft = ndimage.gaussian_filter(values, (1, 1, 0))
        values += rng.uniform(0.2, 1.2) * (values - soft)
    if rng.random() < 0.25:
        values += rng.normal(0, rng.uniform(1, 22), (*values.shape[:2], 1))
    if grey:
        values = _three(values[..., 0])
    image = np.clip(np.round(values), 0, 255).astype(np.uint8)
    return through_jpeg(image, int(rng.integers(30, 97))) if rng.random() < 0.75 else image
