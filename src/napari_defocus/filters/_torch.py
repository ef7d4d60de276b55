"""Linear filters on a torch device, with SciPy's borders. This module imports torch."""

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from napari_defocus.filters.linear import gaussian_radius


def double(values: Tensor) -> Tensor:
    """Give values in double precision, where the device has such."""
    return values if values.device.type == "mps" else values.double()


def mirrored(values: Tensor, before: int, after: int, axis: int) -> Tensor:
    """Widen an axis by mirroring it at its ends, as often as it takes: SciPy's ``reflect``."""
    size = values.shape[axis]
    place = torch.arange(-before, size + after, device=values.device) % (2 * size)
    return values.index_select(axis, torch.minimum(place, 2 * size - 1 - place))


def repeated(values: Tensor, widths: tuple[int, int, int, int]) -> Tensor:
    """Widen a plane (Y, X) by its outermost pixels: left, right, top, bottom."""
    return functional.pad(values[None, None], widths, mode="replicate")[0, 0]


def correlate(values: Tensor, kernels: npt.NDArray[np.float32]) -> Tensor:
    """Correlate a plane with kernels of odd sides, (K, rows, columns), to (K, Y, X)."""
    rows, columns = kernels.shape[1] // 2, kernels.shape[2] // 2
    padded = mirrored(mirrored(values, rows, rows, 0), columns, columns, 1)
    weights = torch.tensor(kernels[:, np.newaxis]).to(values)
    return functional.conv2d(padded[None, None], weights)[0]


def gaussian(values: Tensor, sigma: float, order: tuple[int, int] = (0, 0)) -> Tensor:
    """Filter a plane with a Gaussian or, by the order along each axis, its derivatives."""
    radius = gaussian_radius(sigma)
    impulse = np.zeros(2 * radius + 1)
    impulse[radius] = 1
    down, across = (ndimage.gaussian_filter1d(impulse, sigma, order=n)[::-1] for n in order)
    smooth = correlate(values, down[np.newaxis, :, np.newaxis].astype(np.float32))[0]
    return correlate(smooth, across[np.newaxis, np.newaxis].astype(np.float32))[0]


def box_mean(values: Tensor, radius: int, border: str = "reflect") -> Tensor:
    """Average a plane over squares; the border is mirrored, or by ``nearest`` repeated.

    Each window is summed by itself: what it gives does not depend on what else there is.
    """
    if border == "nearest":
        padded = repeated(values, (radius,) * 4)
    else:
        padded = mirrored(mirrored(values, radius, radius, 0), radius, radius, 1)
    side = 2 * radius + 1
    rows = functional.avg_pool2d(padded[None, None], (side, 1), 1)
    return functional.avg_pool2d(rows, (1, side), 1)[0, 0]


def block_mean(values: Tensor, factor: int) -> Tensor:
    """Average blocks of a plane; see `resampling.block_mean`."""
    rows, columns = values.shape
    padded = repeated(values, (0, -columns % factor, 0, -rows % factor))
    return functional.avg_pool2d(padded[None, None], factor)[0, 0]


def enlarge(values: Tensor, factor: int) -> Tensor:
    """Interpolate linearly between the centres of blocks; see `resampling.enlarge`."""
    return functional.interpolate(
        values[None, None], scale_factor=factor, mode="bilinear", align_corners=False
    )[0, 0]


def guided(values: Tensor, guide: Tensor, radius: int, epsilon: float) -> tuple[Tensor, Tensor]:
    """Give the gain and offset that make a guided filter of the guide; see `sharpness`."""
    edges, given = double(guide), double(values)
    guide_mean, values_mean = box_mean(edges, radius), box_mean(given, radius)
    covariance = box_mean(edges * given, radius) - guide_mean * values_mean
    variance = box_mean(edges * edges, radius) - guide_mean * guide_mean
    gain = covariance / (variance + epsilon)
    offset = box_mean(values_mean - gain * guide_mean, radius)
    return box_mean(gain, radius).float(), offset.float()
