"""Inference of the dense network: log odds, blur radius and its error at every pixel."""

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_defocus.core.devices import free_memory, held, warn_of_fault
from napari_defocus.core.errors import DefocusError
from napari_defocus.core.progress import ShouldStop, Stopped, never_stop
from napari_defocus.core.tiling import Region, plan_tiles, shifted, whole, widen, within
from napari_defocus.dense.detector import RADIUS_OFFSET, DenseDetector, true_radius
from napari_defocus.filters.guided import guided_filter

if TYPE_CHECKING:
    import torch

    from napari_defocus.dense.network import DenseNet

Float = npt.NDArray[np.float32]

# Added to an image's standard deviation, in its grey range: a flat image stays flat.
LEAST_CONTRAST = 2 / 255
# Of the network: sides of its inputs are multiples of it.
STRIDE = 32
# Larger images are predicted tile by tile, on a grid that does not depend on how they are cut: side
# of a tile, and what of its surroundings the network sees beside it, both multiples of the stride.
# The network would see some 600 pixels, but the rest matters little.
TILE = 1024
HALO = 96
# The map of log odds follows the outlines of the image within so many pixels, where their variance
# is far above the second figure.
OUTLINE_RADIUS = 6
OUTLINE_EPSILON = 1e-3


@dataclass(frozen=True)
class DensePrediction:
    """What the network predicts for each pixel.

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
    device: "torch.device | None" = None,
) -> DensePrediction:
    """Apply the network to one image, or to a part of one.

    Parameters
    ----------
    colours : ndarray of float32, (Y, X, 3)
        Without holes, 0 black and 1 white: the image or, around `region`, `HALO` pixels of it.
    detector : DenseDetector
        The network.
    should_stop : callable
        Called before each tile.
    region : tuple of slice, optional
        Rows and columns to predict; all by default. Its first row and column are, in the image,
        multiples of `TILE`.
    colours_are : tuple of float, optional
        Mean and standard deviation of the image's colours; by default those of `colours`.
    guide : ndarray of float32, (Y, X), optional
        Whose outlines the log odds follow.
    device : torch.device, optional
        Where the network runs; by default, and where it fails, on the CPU.

    Raises
    ------
    DefocusError
        Where torch is missing, or the weights do not fit the network.
    Stopped
        Where `should_stop` returned True.
    """
    region = region or whole(colours.shape)
    if colours_are is None:
        colours_are = float(colours.mean(dtype=np.float64)), float(colours.std(dtype=np.float64))
    predicted = np.empty((3, *(part.stop - part.start for part in region)), np.float32)
    for tile in plan_tiles(predicted.shape[1:], TILE):
        if should_stop():
            raise Stopped
        part = shifted(tile.region, region)
        window = widen(part, HALO, colours.shape)
        found = _predict_window(standardise(colours[window], *colours_are), detector, device)
        if guide is not None:
            found[0] = guided_filter(found[0], guide[window], OUTLINE_RADIUS, OUTLINE_EPSILON)
        predicted[:, *tile.region] = found[:, *within(part, window)]
    if device is not None:
        free_memory(device)
    return _in_pixels(predicted, detector)


def _in_pixels(predicted: Float, detector: DenseDetector) -> DensePrediction:
    """Turn log odds, log radius and its log error, (3, Y, X), into a prediction."""
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


def _predict_window(image: Float, detector: DenseDetector, device: "torch.device | None") -> Float:
    """Return log odds, log radius and its log error, (3, Y, X), of a standardised image."""
    network = build_network(detector)
    import torch

    rows, columns = image.shape[:2]
    image = np.pad(image, ((0, -rows % STRIDE), (0, -columns % STRIDE), (0, 0)), mode="symmetric")
    batch = torch.from_numpy(image.transpose(2, 0, 1)[np.newaxis])
    predicted = None
    if device is not None:
        try:
            with held(device):
                predicted = _run(build_network(detector, device), batch.to(device)).cpu()
        except RuntimeError as error:
            warn_of_fault(device, error)
    if predicted is None:  # out of the handler: the error holds what is on the device
        predicted = _run(network, batch)
    return np.array(predicted[0, :, :rows, :columns].numpy(), np.float32)


def _run(network: "DenseNet", batch: "torch.Tensor") -> "torch.Tensor":
    """Apply the network to images (N, 3, Y, X), at their full size."""
    import torch
    from torch.nn import functional

    with torch.inference_mode():
        return functional.interpolate(
            network(batch), scale_factor=2, mode="bilinear", align_corners=False
        )


@lru_cache(maxsize=2)
def build_network(detector: DenseDetector, device: "torch.device | None" = None) -> "DenseNet":
    """Build the network of a detector for inference, on the CPU or a device.

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
    return network if device is None else network.to(device)
