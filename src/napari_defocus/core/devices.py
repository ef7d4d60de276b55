"""The torch device of training and of the dense network; importing this imports no torch."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from napari_defocus.core.errors import DefocusError, Notice

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda", "mps")


class DeviceWarning(Notice):
    """A device could not do its work; the CPU did it."""


def choose_device(name: str = "auto") -> "torch.device":
    """Return the torch device of a name; ``auto`` prefers CUDA, then MPS, then the CPU."""
    import torch

    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.mps.is_available()}
    if name == "auto":
        return torch.device(next(device for device in ("cuda", "mps", "cpu") if there[device]))
    if not there.get(name, False):
        raise DefocusError(f"device {name!r} is not there; choose one of {', '.join(DEVICES)}")
    return torch.device(name)


def inference_device(name: str, *, dense: bool) -> "torch.device | None":
    """Return the device of the dense network, None for the CPU, where the metric always runs.

    ``auto`` is CUDA where it is there. DefocusError where a device that is named is not.
    """
    if name == "cpu" or (name == "auto" and not (dense and _has_driver())):
        return None
    try:
        import torch
    except ImportError as error:
        if name == "auto":
            return None  # ONNX Runtime does it on the CPU
        raise DefocusError(
            f"device {name!r} needs torch; pip install torch, or choose the device 'cpu'"
        ) from error
    if name == "auto":
        return torch.device("cuda") if torch.cuda.is_available() else None
    device = choose_device(name)
    return device if dense else None


def _has_driver() -> bool:
    """Return whether there may be a card for CUDA: to ask torch takes a second and 200 MB."""
    if sys.platform == "win32":
        return Path(os.environ.get("SYSTEMROOT", "C:/Windows"), "System32/nvcuda.dll").exists()
    # Of NVIDIA, of Windows' subsystem for Linux, and of AMD, whose cards torch calls CUDA too.
    return any(Path("/dev", name).exists() for name in ("nvidiactl", "dxg", "kfd"))
