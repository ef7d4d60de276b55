"""Rendered defocus: scenes of known blur, for training and for the sample data.

A scene is seen by a thin lens: a point out of focus becomes a disc whose radius is in proportion
to its distance from the plane in focus (A. Pentland, "A new sense for depth of field", IEEE PAMI
9(4), 1987). Blur is rendered in linear light, layers occlude each other from back to front, and a
camera adds lens softness, shot and read noise, gamma and JPEG compression.
"""

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage, signal

Float = npt.NDArray[np.float32]

GAMMA = 2.2
# Between these disc radii (pixels) people disagree whether an image is blurred.
SHARP_BELOW = 0.5
BLURRED_ABOVE = 1.5
# Steps of the disc radius where it varies over the image; finer ones look the same.
RADIUS_STEP = 0.5


@dataclass(frozen=True)
class Camera:
    """What happens to light between the lens and the file.

    Parameters
    ----------
    softness : float
        Standard deviation, in pixels, of the Gaussian blur of lens and demosaicing.
    electrons : float
        Electrons of a white pixel: shot noise is the square root of it.
    read_noise : float
        Standard deviation of the read noise, as a fraction of white.
    jpeg_quality : int or None
        Quality of the JPEG compression, 1 to 95; None for no compression.
    """

    softness: float = 0.5
    electrons: float = 8000.0
    read_noise: float = 0.001
    jpeg_quality: int | None = None


@dataclass(frozen=True)
class Scene:
    """A rendered image and its true blur.

    Parameters
    ----------
    image : ndarray of uint8, (Y, X) or (Y, X, 3)
        What the camera saw.
    radius : ndarray of float32, (Y, X)
        The disc radius of the front-most surface, in pixels.
    """

    image: npt.NDArray[np.uint8]
    radius: Float

    @property
    def annotation(self) -> npt.NDArray[np.uint8]:
        """Labels (Y, X): 1 blurred, 2 sharp, 0 where people would disagree."""
        labels = np.zeros(self.radius.shape, np.uint8)
        labels[self.radius >= BLURRED_ABOVE] = 1
        labels[self.radius <= SHARP_BELOW] = 2
        return labels


def disc(radius: float) -> Float:
    """Compute the point spread function of a thin lens out of focus.

    Parameters
    ----------
    radius : float
        Radius in pixels, >= 0; the rim is anti-aliased.

    Returns
    -------
    ndarray of float32, (2 n + 1, 2 n + 1)
        Sums to 1; a single 1 where `radius` is 0.
    """
    half = int(np.ceil(radius))
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    coverage = np.clip(radius + 0.5 - np.hypot(y, x), 0, 1)
    return np.asarray(coverage / coverage.sum(), np.float32)


def defocus(light: Float, radius: float) -> Float:
    """Blur linear light (Y, X) or (Y, X, C) with a disc of `radius` pixels."""
    return spread(light, disc(radius)) if radius > 0 else light


def spread(light: Float, kernel: Float) -> Float:
    """Convolve linear light (Y, X) or (Y, X, C) with a point spread function of odd sides."""
    half = kernel.shape[0] // 2
    widths = [(half, half), (half, half)] + [(0, 0)] * (light.ndim - 2)
    kernel = kernel.reshape(kernel.shape + (1,) * (light.ndim - 2))
    padded = np.pad(light, widths, mode="reflect")
    return np.asarray(signal.oaconvolve(padded, kernel, mode="valid", axes=(0, 1)), np.float32)


def defocus_varying(light: Float, radius: Float) -> Float:
    """Blur linear light (Y, X[, C]) with a disc whose radius (Y, X) varies smoothly.

    Whole-image blurs at steps of `RADIUS_STEP` are interpolated.
    """
    level = radius / RADIUS_STEP
    if light.ndim == 3:
        level = level[..., np.newaxis]
    blurred = np.zeros_like(light)
    for step in range(int(np.floor(level.min())), int(np.ceil(level.max())) + 1):
        weight = np.clip(1 - np.abs(level - step), 0, 1)
        if weight.any():
            blurred += weight * defocus(light, step * RADIUS_STEP)
    return blurred


def composite(
    back: Float, front: Float, alpha: Float, back_radius: float, front_radius: float
) -> Float:
    """Put a front layer before a back layer, each out of focus by its own disc.

    The front layer's light and its alpha are blurred together, so that its soft rim lets the back
    layer through, as a lens does.

    Parameters
    ----------
    back, front : ndarray of float32, (Y, X) or (Y, X, C)
        Linear light in [0, 1].
    alpha : ndarray of float32, (Y, X)
        1 where the front layer covers.
    back_radius, front_radius : float
        Disc radii in pixels.

    Returns
    -------
    ndarray of float32
        Linear light, of the shape of `back`.
    """
    cover = alpha if back.ndim == 2 else alpha[..., np.newaxis]
    seen_cover = defocus(alpha, front_radius)
    seen_cover = seen_cover if back.ndim == 2 else seen_cover[..., np.newaxis]
    return defocus(front * cover, front_radius) + (1 - seen_cover) * defocus(back, back_radius)


def expose(light: Float, camera: Camera, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Record linear light (Y, X[, 3]) in [0, 1] as an 8-bit image of the same shape."""
    sigma = (camera.softness, camera.softness) + (0,) * (light.ndim - 2)
    light = np.clip(ndimage.gaussian_filter(light, sigma), 0, 1)
    electrons = rng.poisson(light * camera.electrons) / camera.electrons
    noisy = electrons + rng.normal(0, camera.read_noise, light.shape)
    image = np.round(255 * np.clip(noisy, 0, 1) ** (1 / GAMMA)).astype(np.uint8)
    return image if camera.jpeg_quality is None else through_jpeg(image, camera.jpeg_quality)


def through_jpeg(image: npt.NDArray[np.uint8], quality: int) -> npt.NDArray[np.uint8]:
    """Compress an image (Y, X) or (Y, X, 3) as JPEG of `quality` 1 to 95, and read it back."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def to_light(image: npt.NDArray[np.uint8]) -> Float:
    """Convert an 8-bit image to linear light in [0, 1]."""
    return np.asarray((image / np.float32(255)) ** GAMMA, np.float32)


def random_outline(shape: tuple[int, int], rng: np.random.Generator) -> Float:
    """Draw a random smooth region that covers about a third to two thirds of `shape`.

    Returns
    -------
    ndarray of float32, (Y, X)
        1 inside, 0 outside.
    """
    relief = ndimage.gaussian_filter(rng.normal(size=shape), rng.uniform(0.06, 0.16) * min(shape))
    return np.asarray(relief > np.quantile(relief, rng.uniform(0.35, 0.65)), np.float32)


def render_layers(
    back: npt.NDArray[np.uint8],
    front: npt.NDArray[np.uint8],
    radius: float,
    camera: Camera,
    rng: np.random.Generator,
) -> Scene:
    """Render a front object before a background, one of the two in focus, by chance.

    Parameters
    ----------
    back, front : ndarray of uint8, (Y, X) or (Y, X, 3)
        Sharp pictures of the same shape.
    radius : float
        Disc radius of the layer out of focus, in pixels.
    camera : Camera
        How the light is recorded.
    rng : numpy.random.Generator
        Source of chance.
    """
    alpha = random_outline(back.shape[:2], rng)
    radii = (radius, 0.0) if rng.random() < 0.5 else (0.0, radius)
    light = composite(to_light(back), to_light(front), alpha, *radii)
    surface = np.where(alpha > 0.5, np.float32(radii[1]), np.float32(radii[0]))
    return Scene(expose(light, camera, rng), surface)
