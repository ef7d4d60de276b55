"""Inference of the dense network: log odds, blur radius and its error at every pixel."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_defocus.core.devices import Device, in_tiles
from napari_defocus.core.errors import DefocusError
from napari_defocus.core.progress import ShouldStop, Stopped, never_stop
from napari_defocus.core.tiling import Region, overlap, plan_tiles, whole, widen, within
from napari_defocus.dense.detector import RADIUS_OFFSET, DenseDetector, true_radius
from napari_defocus.filters.guided import guided_filter

if TYPE_CHECKING:
    from torch import Tensor

    from napari_defocus.dense.network import DenseNet

Float = npt.NDArray[np.float32]

# Added to an image's standard deviation, in its grey range: a flat image stays flat.
LEAST_CONTRAST = 2 / 255
# Of the network: sides of its inputs are multiples of it.
STRIDE = 32
# Larger images are predicted tile by tile, on a grid that does not depend on how they are cut: side
# of a tile, and what of its surroundings the network sees beside it, both multiples of the stride.
TILE = 1024
HALO = 96
# The same of a tile's parts, where a device has not the memory for the tile.
SMALLER = 512
SMALLER_HALO = 224
# The map of log odds is drawn to the outlines of the image within so many pixels, where their
# variance is far above the second figure.
OUTLINE_RADIUS = 6
OUTLINE_EPSILON = 1e-3


@dataclass(frozen=True)
class DensePrediction:
    """What the network says of each pixel.

    Parameters
    ----------
    log_odds : ndarray of float32, (Y, X)
        Log odds of being sharp.
    radius : ndarray of float32, (Y, X)
        Radius of the disc of the second moment of the blur, in pixels.
    radius_error : ndarray of float32, (Y, X)
        Mean absolute error to expect of it, in pixels.
    """

    log_odds: Float
    radius: Float
    radius_error: Float


def standardise(colours: npt.NDArray[Any], mean: float, spread: float) -> Float:
    """Bring colours to mean 0 and variance about 1, all together.

    Parameters
    ----------
    colours : ndarray, (..., 3)
        0 black and 1 white.
    mean, spread : float
        Mean and standard deviation of the whole image's colours.
    """
    values = np.asarray(colours, np.float32)
    return np.asarray((values - np.float32(mean)) / np.float32(spread + LEAST_CONTRAST))


def predict_dense(
    colours: Float,
    detector: DenseDetector,
    should_stop: ShouldStop = never_stop,
    *,
    region: Region | None = None,
    colours_are: tuple[float, float] | None = None,
    guide: Float | None = None,
    device: Device | None = None,
) -> DensePrediction:
    """Apply the network to one image, or to a part of one.

    Parameters
    ----------
    colours : ndarray of float32, (Y, X, 3)
        Without holes, 0 black and 1 white: the image or, around `region`, `HALO` pixels of it.
    detector : DenseDetector
        The network.
    should_stop : callable
        Asked before each tile.
    region : tuple of slice, optional
        Rows and columns to judge; all where not given. Its first row and column are, in the image,
        multiples of `TILE`.
    colours_are : tuple of float, optional
        Mean and standard deviation of the image's colours; those of `colours` where not given.
    guide : ndarray of float32, (Y, X), optional
        Whose outlines the odds are drawn to.
    device : Device, optional
        What to judge on; the CPU where not given, or where it fails.

    Raises
    ------
    DefocusError
        Where torch is missing, or the weights do not fit the network.
    Stopped
        Where it was asked to stop.
    """
    network = build_network(detector)
    region = region or whole(colours.shape)
    if colours_are is None:
        colours_are = float(colours.mean(dtype=np.float64)), float(colours.std(dtype=np.float64))
    tone = colours_are

    def predict(part: Region) -> Float:
        outer = widen(part, HALO, colours.shape)
        found = _predict_window(standardise(colours[outer], *tone), network)
        if guide is not None:
            found[0] = guided_filter(found[0], guide[outer], OUTLINE_RADIUS, OUTLINE_EPSILON)
        return found[:, *within(part, outer)]

    if device is not None:
        predict = partial(_predict_tile_on, device, colours, guide, tone, detector, on_cpu=predict)
    origin = tuple(part.start for part in region)
    predicted = np.empty((3, *(part.stop - part.start for part in region)), np.float32)
    for tile in plan_tiles(predicted.shape[1:], TILE):
        if should_stop():
            raise Stopped
        rows, columns = (
            slice(s.start + o, s.stop + o) for s, o in zip(tile.region, origin, strict=True)
        )
        predicted[:, *tile.region] = predict((rows, columns))
    log_odds, log_radius, log_error = predicted
    radius = np.maximum(np.exp(log_radius) - np.float32(RADIUS_OFFSET), 0)
    # The error of a logarithm is a share of what the logarithm was taken of.
    error = np.exp(log_error) * (radius + np.float32(RADIUS_OFFSET))
    table = detector.record.get("radius")
    if table is None:
        return DensePrediction(log_odds, radius, error)
    wider, narrower = radius + error, np.maximum(radius - error, 0)
    half = (true_radius(wider, table) - true_radius(narrower, table)) / np.float32(2)
    return DensePrediction(log_odds, true_radius(radius, table), half)


def _predict_tile_on(
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
    from napari_defocus.filters._torch import guided

    window = widen(tile, HALO, colours.shape)

    def here(part: Region, halo: int) -> Float:
        outer = overlap(widen(part, halo, colours.shape), window)
        assert outer is not None, "a part lies in its tile"
        shown = device.upload(colours[outer])
        # A copy: the one of the CPU is needed where the device fails.
        network = device.keep(detector, lambda: deepcopy(build_network(detector)).to(device.place))
        predicted = _predict_on(shown, network, tone)
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


def _predict_on(colours: "Tensor", network: "DenseNet", tone: tuple[float, float]) -> "Tensor":
    """Give log odds, log radius and its log error, (3, Y, X), of colours (Y, X, 3)."""
    from napari_defocus.filters._torch import mirrored

    mean, spread = tone
    rows, columns = colours.shape[:2]
    shown = colours.permute(2, 0, 1)[None].contiguous()
    shown = (shown - mean) / (spread + LEAST_CONTRAST)
    shown = mirrored(mirrored(shown, 0, -rows % STRIDE, 2), 0, -columns % STRIDE, 3)
    predicted = at_full_size(network(shown))[0]
    return predicted[:, :rows, :columns]


def _predict_window(image: Float, network: "DenseNet") -> Float:
    """Give log odds, log radius and its log error, (3, Y, X), of a standardised image."""
    import torch

    rows, columns = image.shape[:2]
    image = np.pad(image, ((0, -rows % STRIDE), (0, -columns % STRIDE), (0, 0)), mode="symmetric")
    with torch.inference_mode():
        given = torch.from_numpy(image.transpose(2, 0, 1)[np.newaxis])
        predicted = at_full_size(network(given))[0].numpy()
    return np.array(predicted[:, :rows, :columns], np.float32)


def at_full_size(predicted: "Tensor") -> "Tensor":
    """Enlarge what the network says, (N, C, Y / 2, X / 2), to the size of what it saw."""
    from torch.nn import functional

    return functional.interpolate(predicted, scale_factor=2, mode="bilinear", align_corners=False)


@lru_cache(maxsize=1)
def build_network(detector: DenseDetector) -> "DenseNet":
    """Make the network of a detector, ready to judge.

    Raises
    ------
    DefocusError
        Where torch is missing, or the weights do not fit the network.
    """
    try:
        import torch
    except ImportError as error:
        raise DefocusError(
            "the dense detector needs torch; pip install torch, or detect with the metric"
        ) from error
    from napari_defocus.dense.network import DenseNet

    weights = {
        name: torch.from_numpy(np.asarray(values, np.float32))
        for name, values in detector.weights.items()
    }
    filters = weights.get("response.filters", torch.zeros(1, 1, 1, 1))
    try:
        network = DenseNet(torch.zeros_like(filters[:, 0])).eval()
        network.load_state_dict(weights)
    except (RuntimeError, IndexError) as error:
        raise DefocusError(
            "the dense detector's weights do not fit its network; get or make it anew"
        ) from error
    return network
