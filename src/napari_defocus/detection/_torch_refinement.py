"""The refinement on a torch device; see `refinement`, whose results these are. Imports torch."""

from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_defocus.core.devices import Device
from napari_defocus.detection.refinement import (
    TANH_1,
    TIE,
    RefinementConfig,
    check_refinement,
    refine,
)
from napari_defocus.filters._torch import box_mean, double

Float = npt.NDArray[np.float32]


def refine_on(device: Device, sharpness: Float, config: RefinementConfig) -> Float:
    """Refine a map on a device; as `refine`, which does it where that fails."""
    check_refinement(config)

    def here() -> Float:
        return device.download(refine_tensor(device.upload(sharpness), config))

    return device.work([here], partial(refine, sharpness, config))


def refine_tensor(sharpness: Tensor, config: RefinementConfig) -> Tensor:
    """Raise the sharp region of a map to 1 and sink the blurred one to 0.

    Parameters
    ----------
    sharpness : Tensor of float32, (Y, X)
        In [0, 1].
    config : RefinementConfig
        How; its settings are taken as they are.

    Returns
    -------
    Tensor of float32, (Y, X)
    """
    lived = iterations_lived(sharpness, config)
    values, grown = sharpness, torch.zeros_like(sharpness)
    kept = dict(zip(config.iterations, config.weights, strict=True))
    for iteration in range(1, max(config.iterations) + 1):
        values = values.tanh() / float(TANH_1)
        if iteration in kept:
            grown += kept[iteration] * (lived >= iteration) * values
    return (config.keep * sharpness + (1 - config.keep) * grown).clip(0, 1)


def iterations_lived(sharpness: Tensor, config: RefinementConfig) -> Tensor:
    """Count the iterations that each pixel lives through, (Y, X) of int16.

    In double precision, where the device has it: which pixels die is a matter of the last digits,
    and one that dies may take others with it. Once none dies none ever will.
    """
    values = double(sharpness)
    threshold = float(values.mean()) if config.threshold is None else config.threshold
    limit, half = threshold * (1 - TIE), config.neighbourhood // 2
    most = max(config.iterations)
    alive = values > 0
    lived = torch.zeros_like(sharpness, dtype=torch.int16)
    for _ in range(most):
        dying = alive & (box_mean(values, half, "nearest") < limit)
        if not dying.any():
            break
        alive &= ~dying
        lived += alive
        values = (values * alive).tanh() / float(TANH_1)
    return torch.where(alive, most, lived).to(torch.int16)
