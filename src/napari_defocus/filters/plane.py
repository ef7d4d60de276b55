"""From any image array to the plane that is measured: grey, stretched float32, holes filled."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_defocus.filters.linear import box_mean
from napari_defocus.filters.luminance import fill_holes, grey_and_holes, stretch
from napari_defocus.filters.noise import PlaneStatistics, measure_plane
from napari_defocus.filters.resampling import block_mean

Float = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]

# Rows that are prepared at once.
BAND = 256


@dataclass(frozen=True)
class Plane:
    """An image plane or a part of one, ready to be measured.

    Parameters
    ----------
    grey : ndarray of float32, (Y, X)
        Luminance, stretched by the statistics of the whole plane.
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

    @cached_property
    def noise_variance(self) -> Float:
        """Variance of the noise at each pixel, (Y, X) float32."""
        a, b = self.noise
        if b == 0:
            return np.full(self.grey.shape, a, np.float32)
        brightness = box_mean(self.grey, 5)
        return np.asarray(a + b * np.clip(brightness, 0, None), np.float32)

    def part(self, rows: slice, columns: slice) -> "Plane":
        """Cut out a rectangle of the plane."""
        return replace(self, grey=self.grey[rows, columns], holes=self.holes[rows, columns])


def halve(plane: Plane) -> Plane:
    """Average 2 x 2 pixels, filled holes too; an odd last row or column is averaged with itself."""
    grey = block_mean(plane.grey, 2)
    a, b = plane.noise
    return Plane(grey, np.zeros(grey.shape, np.bool_), (a / 4, b / 4))


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
    return prepare_part(image, measure_plane(image))


def prepare_part(image: npt.NDArray[Any], statistics: PlaneStatistics) -> Plane:
    """Turn a part of an image into a `Plane`, by statistics of the whole; see `prepare_plane`.

    A part of holes alone is filled with 0.5.
    """
    grey = np.empty(image.shape[:2], np.float32)
    holes = np.empty(image.shape[:2], np.bool_)
    # Band by band: double precision takes room.
    for start in range(0, len(image), BAND):
        band = slice(start, start + BAND)
        values, holes[band] = grey_and_holes(image[band])
        grey[band] = stretch(values, *statistics.limits)
    grey = np.full_like(grey, 0.5) if holes.all() else fill_holes(grey, holes)
    return Plane(grey, holes, statistics.noise, statistics.limits)


class PlaneColours:
    """The colours that belong to a plane, stretched and filled as its grey values are.

    Windows of rows and columns that are cut out are prepared one by one, (Y, X, 3) float32; where
    there are no colours, they hold the grey values three times.

    Parameters
    ----------
    image : ndarray, (Y, X) or (Y, X, C)
        As `prepare_plane` took it.
    plane : Plane
        What `prepare_plane` made of it.
    """

    def __init__(self, image: npt.NDArray[Any], plane: Plane) -> None:
        self.shape = (*plane.grey.shape, 3)
        self._limits = plane.limits
        self._shown = np.asarray(image)
        self._grey = image.ndim == 2 or image.shape[-1] < 3 or plane.holes.all()
        if self._grey:
            self._shown = plane.grey
        elif plane.holes.any():
            self._shown = fill_holes(self._shown[..., :3].astype(np.float64), plane.holes)

    def __getitem__(self, window: tuple[slice, slice]) -> Float:
        shown = self._shown[window]
        if self._grey:
            return np.repeat(shown[..., np.newaxis], 3, axis=2)
        if shown.dtype == np.uint8:
            return stretch(np.arange(256.0), *self._limits).take(shown[..., :3])
        return stretch(shown[..., :3].astype(np.float64), *self._limits)


def prepare_colours(image: npt.NDArray[Any], plane: Plane) -> Float:
    """Return all colours that belong to a plane, see `PlaneColours`; (Y, X, 3) float32."""
    return PlaneColours(image, plane)[:, :]
