"""From any image array to the plane that is judged: grey, float32, contrast-stretched, no holes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage, optimize

from napari_defocus.errors import DefocusError

Float = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]

# Rec. 709 luminance, as scikit-image's rgb2gray.
LUMINANCE = np.array([0.2125, 0.7154, 0.0721], np.float32)
# Percentiles of the grey values that become 0 and 1.
STRETCH = (0.1, 99.9)
# Second difference along both axes, whose answer to white noise of variance 1 has variance 1
# (J. Immerkaer, "Fast noise variance estimation", CVIU 64(2), 1996).
NOISE_KERNEL = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / 6
NOISE_BLOCK = 16
NOISE_BINS = 6
# The flattest tenth of the blocks is taken for noise alone.
NOISE_PERCENTILE = 10.0
# Half a step of an 8-bit image: no recording is better than this.
NOISE_FLOOR = 0.5 / 255 / np.sqrt(3)


@dataclass(frozen=True)
class Plane:
    """One image plane, ready to be judged.

    Parameters
    ----------
    grey : ndarray of float32, (Y, X)
        Luminance, stretched so that the `STRETCH` percentiles are 0 and 1.
    holes : ndarray of bool, (Y, X)
        Pixels that were not finite or wholly transparent; `grey` is filled in there.
    noise : tuple of float
        (a, b): the variance of the noise is a + b * grey.
    limits : tuple of float
        The image's values that became 0 and 1.
    """

    grey: Float
    holes: Bool
    noise: tuple[float, float]
    limits: tuple[float, float] = (0.0, 1.0)

    @property
    def noise_variance(self) -> Float:
        """Variance of the noise at each pixel, (Y, X) float32."""
        a, b = self.noise
        brightness = ndimage.uniform_filter(self.grey, 5)
        return np.asarray(a + b * np.clip(brightness, 0, None), np.float32)


def prepare_plane(image: npt.NDArray[Any]) -> Plane:
    """Turn one image into a `Plane`.

    Parameters
    ----------
    image : ndarray, (Y, X) or (Y, X, C)
        Any real, integer or bool type; C is 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGBA).
        Pixels that are not finite, and wholly transparent ones, are holes.

    Raises
    ------
    DefocusError
        Where the array is no such image, is empty, or has no finite pixel.
    """
    grey, holes = _grey_and_holes(image)
    if holes.all():
        raise DefocusError("the image has no finite pixel: there is nothing to judge")
    limits = _stretch_limits(grey, holes)
    stretched = _stretch(_fill_holes(grey, holes), *limits)
    return Plane(stretched, holes, estimate_noise(stretched), limits)


def prepare_colours(image: npt.NDArray[Any], plane: Plane) -> Float:
    """Give the colours that belong to a plane, stretched and filled as its grey values are.

    Parameters
    ----------
    image : ndarray, (Y, X) or (Y, X, C)
        As `prepare_plane` took it.
    plane : Plane
        What `prepare_plane` made of it.

    Returns
    -------
    ndarray of float32, (Y, X, 3)
        Where there are no colours, the grey values three times.
    """
    if image.ndim == 2 or image.shape[-1] < 3:
        return np.repeat(plane.grey[..., np.newaxis], 3, axis=2)
    colours = np.asarray(image)[..., :3].astype(np.float64)
    return _stretch(_fill_holes(colours, plane.holes), *plane.limits)


def _fill_holes(values: npt.NDArray[np.float64], holes: Bool) -> npt.NDArray[np.float64]:
    """Give holes the value of the nearest pixel that is none."""
    if not holes.any():
        return values
    nearest = ndimage.distance_transform_edt(holes, return_distances=False, return_indices=True)
    return np.asarray(values[tuple(nearest)])


def _grey_and_holes(image: npt.NDArray[Any]) -> tuple[npt.NDArray[np.float64], Bool]:
    image = np.asarray(image)
    if image.dtype.kind not in "buif":
        raise DefocusError(f"the image holds {image.dtype} values; give numbers")
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[-1] not in (1, 2, 3, 4)):
        raise DefocusError(
            f"an image of shape {image.shape} is neither (Y, X) nor (Y, X, 1 to 4 channels)"
        )
    if image.size == 0:
        raise DefocusError(f"the image is empty, its shape is {image.shape}")
    values = image.astype(np.float64)
    if image.ndim == 2:
        grey, alpha = values, None
    else:
        colours = (image.shape[-1] - 1) // 2 * 2 + 1
        grey = values[..., 0] if colours == 1 else values[..., :3] @ LUMINANCE.astype(np.float64)
        alpha = values[..., -1] if image.shape[-1] in (2, 4) else None
    holes = ~np.isfinite(grey)
    if alpha is not None:
        holes |= alpha <= 0
    return grey, holes


def _stretch_limits(grey: npt.NDArray[np.float64], holes: Bool) -> tuple[float, float]:
    """Give the grey values that become 0 and 1."""
    low, high = np.percentile(grey[~holes], STRETCH)
    if high <= low:
        low, high = grey[~holes].min(), grey[~holes].max()
    if not np.isfinite(high - low):
        raise DefocusError("the image's values are too large to compute with; rescale them")
    return float(low), float(high)


def _stretch(values: npt.NDArray[np.float64], low: float, high: float) -> Float:
    if high - low <= abs(high) * 1e-12:
        return np.zeros(values.shape, np.float32)
    # Beyond the percentiles lie glints and dead pixels; they must not outshine the rest.
    return np.asarray(np.clip((values - low) / (high - low), -0.5, 1.5), np.float32)


def estimate_noise(grey: Float) -> tuple[float, float]:
    """Estimate how the variance of the noise grows with brightness.

    In each of `NOISE_BINS` ranges of brightness the flattest blocks are taken for noise alone, and
    a line through them, never falling, is the model of read and shot noise.

    Parameters
    ----------
    grey : ndarray of float32, (Y, X)

    Returns
    -------
    tuple of float
        (a, b): the variance is a + b * grey, a at least the square of `NOISE_FLOOR`.
    """
    floor = float(NOISE_FLOOR**2)
    rows, columns = (size // NOISE_BLOCK for size in grey.shape)
    if rows == 0 or columns == 0:
        return floor, 0.0
    variance = _block_means(ndimage.convolve(grey, NOISE_KERNEL) ** 2, rows, columns)
    brightness = _block_means(grey, rows, columns)
    edges = np.quantile(brightness, np.linspace(0, 1, NOISE_BINS + 1)[1:-1])
    which = np.searchsorted(edges, brightness)
    points = [
        (brightness[which == i].mean(), np.percentile(variance[which == i], NOISE_PERCENTILE))
        for i in np.unique(which)
    ]
    x, y = np.array(points).T
    (a, b), _ = optimize.nnls(np.stack([np.ones_like(x), np.clip(x, 0, None)], 1), y)
    return max(float(a), floor), float(b)


def _block_means(values: Float, rows: int, columns: int) -> Float:
    cut = values[: rows * NOISE_BLOCK, : columns * NOISE_BLOCK]
    blocks = cut.reshape(rows, NOISE_BLOCK, columns, NOISE_BLOCK)
    return np.asarray(blocks.mean(axis=(1, 3)).ravel(), np.float32)
