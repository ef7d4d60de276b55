"""All-in-focus images: the planes at each pixel's depth, blended band by band.

The depth alone selects the planes of a pixel, so that noise and the glow of blurred edges,
which the choice of the largest coefficient takes for detail, stay out, and channels of one field
can share one depth map.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from napari_defocus.core.errors import DefocusError
from napari_defocus.core.progress import OnEvent, ShouldStop, ignore_event, never_stop, track
from napari_defocus.core.threads import in_threads
from napari_defocus.filters.luminance import fill_holes
from napari_defocus.filters.pyramid import collapse, gaussian_pyramid, laplacian_pyramid, levels_of
from napari_defocus.stacks.planes import StackPlanes, as_type

Float = npt.NDArray[np.float32]

# Bands that are blended on their own: seams are as wide as what they would show in.
LEVELS = 3
# Between two planes the nearer weighs more than by its share.
SHARE_POWER = 2


def fuse(
    planes: StackPlanes,
    depth_map: Float,
    *,
    on_event: OnEvent = ignore_event,
    should_stop: ShouldStop = never_stop,
) -> npt.NDArray[Any]:
    """Compute the all-in-focus image, (Y, X[, S]) in the type of the planes, with holes filled."""
    levels = levels_of(depth_map.shape, LEVELS)
    sums: list[list[Float]] = []
    fused_as: tuple[tuple[int, ...], np.dtype[Any]] = ((), np.dtype(np.float32))
    for z in track("fusing planes", len(planes), on_event, should_stop):
        weight = plane_weight(depth_map, z)
        if weight.any() or not sums:
            plane = planes[z]
            if plane.shape[:2] != depth_map.shape:
                raise DefocusError(
                    f"plane {z} is {plane.shape[:2]}, the depth map {depth_map.shape}; "
                    "give planes of the same field and size"
                )
            fused_as = (plane.shape, plane.dtype)
            sums = _added(sums, plane, weight, levels)
    shape, dtype = fused_as
    fused = np.empty((*depth_map.shape, len(sums)), dtype)
    for channel, pyramid in enumerate(sums):
        fused[..., channel] = as_type(collapse(pyramid), dtype)
        pyramid.clear()
    return fused.reshape(shape)


def plane_weight(depth_map: Float, z: int) -> Float:
    """Return the weight of plane `z` at each pixel (Y, X), in [0, 1]; they sum to 1."""
    share = np.maximum(1 - np.abs(depth_map - np.float32(z)), 0)
    other = 1 - share
    # Beyond the neighbours the share is 0, and so is its weight.
    return np.asarray(share**SHARE_POWER / (share**SHARE_POWER + other**SHARE_POWER), np.float32)


def source_plane(depth_map: Float, planes: int) -> npt.NDArray[np.unsignedinteger[Any]]:
    """Return the plane of most weight at each pixel (Y, X): uint8, beyond 256 planes uint16."""
    kind = np.uint8 if planes <= 256 else np.uint16
    return np.asarray(np.floor(depth_map + np.float32(0.5)).astype(kind))


def _added(
    sums: list[list[Float]], plane: npt.NDArray[Any], weight: Float, levels: int
) -> list[list[Float]]:
    """Add the weighted bands of a plane to those of each channel."""
    weights = gaussian_pyramid(weight, levels)
    channels = plane.reshape(*plane.shape[:2], -1)

    def bands(channel: int) -> list[Float]:
        values = _without_holes(channels[..., channel])
        pyramid = laplacian_pyramid(values, levels)
        for band, share in zip(pyramid, weights, strict=True):
            band *= share
        if not sums:
            return pyramid
        for total, band in zip(sums[channel], pyramid, strict=True):
            total += band
        return sums[channel]

    return [found for _, found in in_threads(bands, range(channels.shape[2]))]


def _without_holes(values: npt.NDArray[Any]) -> Float:
    found = values.astype(np.float32)
    holes = ~np.isfinite(found)
    return np.asarray(fill_holes(np.where(holes, 0, found), holes), np.float32)
