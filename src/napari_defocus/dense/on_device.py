"""The dense network on a card, by torch.

One thread, which lives as long as the process, does all the work of a device: torch plans its
convolutions anew for each thread.
"""

import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_defocus.core.devices import DeviceWarning
from napari_defocus.core.errors import DefocusError, brief
from napari_defocus.dense.detector import DenseDetector

if TYPE_CHECKING:
    import torch

    from napari_defocus.dense.network import DenseNet

Float = npt.NDArray[np.float32]


def predict_on_device(
    detector: DenseDetector, window: Float, device: "torch.device", *, features: bool = False
) -> list[Float] | None:
    """Apply the network on a device.

    Parameters
    ----------
    detector : DenseDetector
        The network.
    window : ndarray of float32, (3, Y, X)
        A standardised image; Y and X are multiples of the network's stride.
    device : torch.device
        Where it is done.
    features : bool
        Whether the features are returned too.

    Returns
    -------
    list of ndarray, or None
        Log odds, log radius and its log error, (3, Y, X), and the features, (32, Y / 2, X / 2).
        None where the device failed, of which a `DeviceWarning` tells.

    Raises
    ------
    DefocusError
        Where the weights do not fit the network.
    """
    try:
        return _worker().submit(_predict, detector, window, device, features).result()
    except RuntimeError as error:
        text = f"{type(error).__name__} {error}".lower()
        full = any(words in text for words in ("out of memory", "outofmemory", "alloc_failed"))
        fault = "out of memory" if full else brief(error)
    message = f"device {device}: {fault}; the CPU goes on in its place"
    warnings.warn(message, DeviceWarning, stacklevel=2)
    return None


@cache
def _worker() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="dense network")


def _predict(
    detector: DenseDetector, window: Float, device: "torch.device", features: bool
) -> list[Float]:
    import torch

    network = build_network(detector, device)
    with _single_precision(), torch.inference_mode():
        found = run(network, torch.from_numpy(window[np.newaxis]).to(device))
        return [part[0].cpu().numpy() for part in found[: 1 + features]]


def run(network: "DenseNet", batch: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
    """Apply the network to images (N, 3, Y, X): predictions at full size, and features."""
    from torch.nn import functional

    features = network.features(batch)
    predicted = functional.interpolate(
        network.judge(features), scale_factor=2, mode="bilinear", align_corners=False
    )
    return predicted, features


@lru_cache(maxsize=2)
def build_network(detector: DenseDetector, device: "torch.device") -> "DenseNet":
    """Build the network of a detector for inference on a device.

    Raises
    ------
    DefocusError
        Where the weights do not fit the network.
    """
    import torch

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
    return network.to(device)


@contextmanager
def _single_precision() -> Iterator[None]:
    """Turn TensorFloat-32 off, which has ten bits."""
    import torch

    before = None
    with suppress(RuntimeError):  # programs that set precisions the newer way keep them
        before = torch.backends.cudnn.allow_tf32
        torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        if before is not None:
            torch.backends.cudnn.allow_tf32 = before


def free_memory(device: "torch.device") -> None:
    """Return what torch holds in reserve on a device to the device."""
    import torch

    if device.type != "cpu":
        with suppress(RuntimeError):  # of a device that failed
            getattr(torch, device.type).empty_cache()
