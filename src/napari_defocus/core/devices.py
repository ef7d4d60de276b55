"""The torch device of training and of the dense network; importing this imports no torch."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Lock
from typing import TYPE_CHECKING

from napari_defocus.core.errors import DefocusError, brief

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda", "mps")

_in_use = Lock()


class DeviceWarning(UserWarning):
    """A device could not do its work; the CPU did it."""


def choose_device(name: str = "auto") -> "torch.device":
    """Return the torch device of a name; ``auto`` prefers CUDA, then MPS, then the CPU.

    Raises
    ------
    DefocusError
        Where the device is unknown or not there.
    """
    import torch

    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.mps.is_available()}
    if name == "auto":
        return torch.device(next(device for device in ("cuda", "mps", "cpu") if there[device]))
    if not there.get(name, False):
        raise DefocusError(f"device {name!r} is not there; choose one of {', '.join(DEVICES)}")
    return torch.device(name)


def inference_device(name: str, *, dense: bool) -> "torch.device | None":
    """Return the device of the dense network, None for the CPU.

    Parameters
    ----------
    name : str
        One of `DEVICES`. ``auto`` is CUDA where it is there, and else the CPU.
    dense : bool
        Whether the dense detector is used at all: the metric runs on the CPU.

    Raises
    ------
    DefocusError
        Where a device that is named is not there, or torch is missing.
    """
    if name == "cpu" or (name == "auto" and not dense):
        return None
    try:
        import torch
    except ImportError as error:
        if name == "auto":
            return None  # the dense detector itself reports that it needs torch
        raise DefocusError(
            f"device {name!r} needs torch; pip install torch, or choose the device 'cpu'"
        ) from error
    if name == "auto":
        return torch.device("cuda") if torch.cuda.is_available() else None
    device = choose_device(name)
    return device if dense else None


@contextmanager
def held(device: "torch.device") -> Iterator[None]:
    """Hold a device for one thread, without TensorFloat-32, which has ten bits.

    Others prepare images meanwhile.
    """
    import torch

    with _in_use:
        before = None
        with suppress(RuntimeError):  # who sets precisions the newer way keeps them
            before = torch.backends.cudnn.allow_tf32
            torch.backends.cudnn.allow_tf32 = False
        try:
            yield
        finally:
            if before is not None:
                torch.backends.cudnn.allow_tf32 = before


def free_memory(device: "torch.device | None") -> None:
    """Return what torch holds in reserve on a device to the device."""
    import torch

    if device is not None and device.type != "cpu":
        with suppress(RuntimeError):  # of a device that failed
            getattr(torch, device.type).empty_cache()


def warn_of_fault(device: "torch.device", error: RuntimeError) -> None:
    """Warn that the CPU takes the place of a device."""
    text = f"{type(error).__name__} {error}".lower()
    full = any(words in text for words in ("out of memory", "outofmemory", "alloc_failed"))
    fault = "out of memory" if full else brief(error)
    message = f"device {device}: {fault}; the CPU goes on in its place"
    warnings.warn(message, DeviceWarning, stacklevel=2)
