"""The dense detector on a torch device. This module imports torch."""

from collections.abc import Callable
from copy import deepcopy
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from napari_defocus.core.devices import Device, in_tiles
from napari_defocus.core.tiling import Region, overlap, widen, within
from napari_defocus.dense.detector import (
    HALO,
    LEAST_CONTRAST,
    OUTLINE_EPSILON,
    OUTLINE_RADIUS,
    STRIDE,
    DenseDetector,
    at_full_size,
    build_network,
)
from napari_defocus.dense.network import DenseNet
from napari_defocus.filters._torch import guided, mirrored

Float = npt.NDArray[np.float32]

# Where the memory is not enough for a tile: side of its parts, and what is seen beside them.
SMALLER = 512
SMALLER_HALO = 224


def predict_tile_on(
    device: Device,
    colours: Float,
    guide: Float | None,
    tone: tuple[float, float],
    detector: DenseDetector,
    tile: Region,
    *,
    on_cpu: Callable[[Region], Float],
) -> Float:
    """Judge a tile of an image on a device.

    The network sees farther than `HALO`, some 600 pixels, so that what it says depends a little on
    where its view ends: tiles lie on a grid that is the same for all. Parts of a tile see what the
    tile sees and no more, and a wider margin than tiles have where they meet; on two pictures
    their log odds were off by .002 on average and .07 at most. Still smaller ones would be off by
    more: the CPU takes their place, with the tile as it is.

    Parameters
    ----------
    device : Device
        Which.
    colours, guide, detector
        See `predict_dense`.
    tone : tuple of float
        Mean and standard deviation of the whole image's colours.
    tile : tuple of slice
        Its rows and columns in `colours`.
    on_cpu : callable
        Judges a tile without the device.

    Returns
    -------
    ndarray of float32, (3, Y, X)
        Log odds, log radius and its log error.
    """
    window = widen(tile, HALO, colours.shape)

    def here(part: Region, halo: int) -> Float:
        outer = overlap(widen(part, halo, colours.shape), window)
        assert outer is not None, "a part lies in its tile"
        shown = device.upload(colours[outer])
        # A copy: the one of the CPU is needed where the device fails.
        network = device.keep(detector, lambda: deepcopy(build_network(detector)).to(device.place))
        predicted = _predict(shown, network, tone)
        if guide is not None:
            edges = device.upload(guide[outer])
            gain, offset = guided(predicted[0], edges, OUTLINE_RADIUS, OUTLINE_EPSILON)
            predicted[0] = gain * edges + offset
        return device.download(predicted[:, *within(part, outer)])

    tries = [
        partial(here, tile, HALO),
        partial(in_tiles, partial(here, halo=SMALLER_HALO), tile, SMALLER),
    ]
    return device.work(tries, partial(on_cpu, tile))


def _predict(colours: torch.Tensor, network: DenseNet, tone: tuple[float, float]) -> torch.Tensor:
    """Give log odds, log radius and its log error, (3, Y, X), of colours (Y, X, 3)."""
    mean, spread = tone
    rows, columns = colours.shape[:2]
    shown = colours.permute(2, 0, 1)[None].contiguous()
    shown = (shown - mean) / (spread + LEAST_CONTRAST)
    shown = mirrored(mirrored(shown, 0, -rows % STRIDE, 2), 0, -columns % STRIDE, 3)
    predicted = at_full_size(network(shown))[0]
    return predicted[:, :rows, :columns]
