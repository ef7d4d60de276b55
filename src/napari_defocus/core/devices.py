"""Where torch computes: the choice of a device, its memory and its faults.

While a job works on a device, networks and what the allocator holds stay there; when the last job
ends all of it is given back. Importing this imports no torch.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from queue import SimpleQueue
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from napari_defocus.core.errors import DefocusError, brief
from napari_defocus.core.tiling import Region, plan_tiles

if TYPE_CHECKING:
    import torch

Float = npt.NDArray[np.float32]
Result = TypeVar("Result")

DEVICES = ("auto", "cpu", "cuda", "mps")
# Pieces of work that are on a device at once: one is copied while another is computed.
STREAMS = 2


class DeviceWarning(UserWarning):
    """A device could not do its work as it should; it was done in smaller tiles, or by the CPU."""


def choose_device(name: str = "auto") -> "torch.device":
    """Give the torch device of a name; ``auto`` prefers CUDA, then MPS, then the CPU.

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
    """Give the device that judges images, None for the CPU.

    Parameters
    ----------
    name : str
        One of `DEVICES`. ``auto`` is CUDA for the dense detector, where it is there, and else the
        CPU: the metric alone needs no torch, and MPS, which has no double precision, is for those
        who name it.
    dense : bool
        Whether the dense detector judges.

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
            return None  # the dense detector says itself that it needs torch
        raise DefocusError(
            f"device {name!r} needs torch; pip install torch, or choose the device 'cpu'"
        ) from error
    if name == "auto":
        return torch.device("cuda") if torch.cuda.is_available() else None
    return choose_device(name)


class Device:
    """A torch device that jobs work on, one for the process; `at_work` gives it.

    Parameters
    ----------
    place : torch.device
        Which.
    """

    def __init__(self, place: "torch.device") -> None:
        self.place = place
        self.cuda = place.type == "cuda"
        self.jobs = 0
        self._kept: dict[Any, Any] = {}
        self._keeping = Lock()
        self._on_cpu = Lock()
        self._tf32: bool | None = None
        # Made when they are first asked for: that a device does not answer is a fault like others.
        self._streams: SimpleQueue[torch.cuda.Stream | None] = SimpleQueue()
        for _ in range(STREAMS if self.cuda else 1):
            self._streams.put(None)

    def work(self, tries: Sequence[Callable[[], Result]], on_cpu: Callable[[], Result]) -> Result:
        """Do on the device the first of `tries` that its memory is enough for, or else `on_cpu`.

        Threads that call this share out the streams: while one copies, another computes.

        Parameters
        ----------
        tries : sequence of callable
            The same work, each with less memory than the one before. They take arrays there by
            `upload` and give back what `download` gave.
        on_cpu : callable
            The same work without the device; one thread at a time does it.

        Warns
        -----
        DeviceWarning
            Where it is not the first of `tries` that did it.
        """
        fault = ""
        for attempt in tries:
            if fault:
                _warn(f"device {self.place}: {fault}; going on in smaller tiles")
            try:
                with self._stream():
                    return attempt()
            except RuntimeError as error:
                full, fault = _is_out_of_memory(error), brief(error)
            # Out of the handler: the error held what was on the device.
            self._empty()
            if not full:
                break
            fault = "out of memory"
        _warn(f"device {self.place}: {fault}; the CPU goes on in its place")
        with self._on_cpu:
            return on_cpu()

    def upload(self, values: npt.NDArray[Any]) -> "torch.Tensor":
        """Copy an array to the device."""
        import torch

        tensor = torch.from_numpy(np.require(values, requirements=["C", "W"]))
        if not self.cuda:
            return tensor.to(self.place)
        # From pinned memory the copy is queued in this thread's stream, and nobody waits for it.
        return tensor.pin_memory().to(self.place, non_blocking=True)

    def download(self, values: "torch.Tensor") -> npt.NDArray[Any]:
        """Copy a tensor from the device, when all that was queued before is done."""
        import torch

        if not self.cuda:
            return np.array(values.cpu().numpy())
        host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        host.copy_(values.contiguous(), non_blocking=True)
        torch.cuda.current_stream(self.place).synchronize()
        return np.array(host.numpy())

    def keep(self, key: Any, make: Callable[[], Result]) -> Result:
        """Give what was made under `key`; it stays on the device till the last job ends."""
        import torch

        with self._keeping:
            if key not in self._kept:
                with torch.inference_mode(False):
                    self._kept[key] = make()
                self.synchronise()  # other streams take it too
            kept: Result = self._kept[key]
            return kept

    def synchronise(self) -> None:
        """Wait until all is done that any thread queued."""
        import torch

        getattr(torch, self.place.type).synchronize()

    def take(self) -> None:
        """Prepare for jobs."""
        import torch

        # TensorFloat-32, torch's default, has ten bits: too few to measure sharpness with.
        with suppress(RuntimeError):  # who sets precisions the newer way keeps them
            self._tf32 = torch.backends.cudnn.allow_tf32
            torch.backends.cudnn.allow_tf32 = False

    def give_back(self) -> None:
        """Free the device's memory, and leave torch's settings as they were found."""
        import torch

        self._kept.clear()
        with suppress(RuntimeError):  # of a device that failed
            self.synchronise()
        self._empty()
        if self._tf32 is not None:
            torch.backends.cudnn.allow_tf32, self._tf32 = self._tf32, None

    @contextmanager
    def _stream(self) -> Iterator[None]:
        import torch

        stream = self._streams.get()
        try:
            if self.cuda and stream is None:
                stream = torch.cuda.Stream(self.place)
            queue = nullcontext() if stream is None else torch.cuda.stream(stream)
            with torch.inference_mode(), queue:
                yield
        finally:
            self._streams.put(stream)

    def _empty(self) -> None:
        import torch

        if self.place.type != "cpu":
            with suppress(RuntimeError):  # of a device that failed
                getattr(torch, self.place.type).empty_cache()


_known: dict[str, Device] = {}
_counting = Lock()


@contextmanager
def at_work(place: "torch.device | None") -> Iterator[Device | None]:
    """Hold a device for a job; jobs may overlap, and hold within each other.

    Parameters
    ----------
    place : torch.device or None
        None gives None.
    """
    if place is None:
        yield None
        return
    with _counting:
        device = _known.get(str(place)) or _known.setdefault(str(place), Device(place))
        if not device.jobs:
            device.take()
        device.jobs += 1
    try:
        yield device
    finally:
        with _counting:
            device.jobs -= 1
            if not device.jobs:
                device.give_back()


def in_tiles(work: Callable[[Region], Float], region: Region, side: int) -> Float:
    """Do `work`, which gives (C, Y, X), on tiles of a region, and put together what it gives."""
    origin = [part.start for part in region]
    size = [part.stop - part.start for part in region]
    found: Float | None = None
    for tile in plan_tiles(size, side):
        rows, columns = (
            slice(part.start + start, part.stop + start)
            for part, start in zip(tile.region, origin, strict=True)
        )
        values = work((rows, columns))
        if found is None:
            found = np.empty((len(values), *size), np.float32)
        found[:, *tile.region] = values
    assert found is not None, "a region has a pixel"
    return found


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Tell by what torch, CUDA, cuDNN and Metal say."""
    told = f"{type(error).__name__} {error}".lower()
    return any(words in told for words in ("out of memory", "outofmemory", "alloc_failed"))


def _warn(message: str) -> None:
    warnings.warn(message, DeviceWarning, stacklevel=3)
