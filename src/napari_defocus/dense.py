"""The dense detector: its file, and what it says of an image.

Loading a detector's file needs no torch; judging an image does.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_defocus.container import load_container, save_container
from napari_defocus.errors import DefocusError
from napari_defocus.events import ShouldStop, Stopped, never_stop

if TYPE_CHECKING:
    from torch import Tensor

    from napari_defocus.dense_network import DenseNet

Float = npt.NDArray[np.float32]

KIND = "dense detector"
PACKAGED = {"default": Path(__file__).parent / "metrics" / "default.dense.safetensors"}
# Added to an image's standard deviation, in its grey range of 255: a flat image stays flat.
LEAST_CONTRAST = 2.0
# What the logarithm of the radius is taken of: radius + this.
RADIUS_OFFSET = 0.5
# Of the network's strides: sides of what it takes are multiples of it.
STRIDE = 32
# Larger images are judged tile by tile, on a grid that does not depend on how they are cut: side of
# a tile, and what of its surroundings the network sees beside it, both multiples of the stride.
TILE = 768
HALO = 128


@dataclass(frozen=True, eq=False)
class DenseDetector:
    """A trained dense network.

    Parameters
    ----------
    weights : mapping of str to ndarray of float16 or float32
        The network's parameters by name.
    record : mapping
        How it was made.
    """

    weights: Mapping[str, npt.NDArray[Any]]
    record: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DenseJudgement:
    """What the network says of each pixel.

    Parameters
    ----------
    odds : ndarray of float32, (Y, X)
        Log odds of being sharp.
    radius : ndarray of float32, (Y, X)
        Radius of the disc of the second moment of the blur, in pixels.
    radius_error : ndarray of float32, (Y, X)
        Mean absolute error to expect of it, in pixels.
    """

    odds: Float
    radius: Float
    radius_error: Float


def save_dense(detector: DenseDetector, path: Path, *, overwrite: bool = True) -> None:
    """Write a detector to one ``.safetensors`` file, its weights in half precision.

    Raises
    ------
    DefocusError
        Where the file cannot be written.
    """
    halves = {name: values.astype(np.float16) for name, values in detector.weights.items()}
    save_container(path, KIND, halves, {"record": dict(detector.record)}, overwrite=overwrite)


def kept_dense(source: str | Path = "default") -> DenseDetector:
    """Load a detector, or give the last one loaded where its file is the same; see `load_dense`."""
    path = PACKAGED.get(str(source), Path(source))
    try:
        changed = path.stat().st_mtime_ns
    except OSError:
        return load_dense(path)  # which says what is wrong
    return _load_once(path, changed)


@lru_cache(maxsize=1)
def _load_once(path: Path, changed: int) -> DenseDetector:
    return load_dense(path)


def load_dense(source: str | Path = "default") -> DenseDetector:
    """Read a detector from a file, or by the name of one that comes with the package.

    Raises
    ------
    DefocusError
        Where there is no such detector, or the file is no whole one.
    """
    path = PACKAGED.get(str(source), Path(source))
    tensors, card = load_container(path, KIND)
    record = card.get("record")
    if not isinstance(record, dict):
        raise DefocusError(f"{path}: not a whole dense detector; get or make it anew")
    if not all(np.isfinite(values).all() for values in tensors.values()):
        raise DefocusError(f"{path}: holds values that are no finite numbers; get it anew")
    return DenseDetector(tensors, record)


def standardise(colours: npt.NDArray[Any]) -> Float:
    """Bring an image (Y, X, 3) to mean 0 and variance about 1, all colours together.

    Parameters
    ----------
    colours : ndarray, (Y, X, 3)
        From 0 to 255, as in an 8-bit image.
    """
    values = np.asarray(colours, np.float32)
    mean, spread = values.mean(dtype=np.float64), values.std(dtype=np.float64)
    return np.asarray((values - np.float32(mean)) / np.float32(spread + LEAST_CONTRAST))


def judge_dense(
    colours: Float, detector: DenseDetector, should_stop: ShouldStop = never_stop
) -> DenseJudgement:
    """Apply the network to one image.

    Parameters
    ----------
    colours : ndarray of float32, (Y, X, 3)
        Without holes, 0 black and 1 white.
    detector : DenseDetector
        The network.
    should_stop : callable
        Asked before each tile.

    Raises
    ------
    DefocusError
        Where torch is missing, or the weights do not fit the network.
    Stopped
        Where it was asked to stop.
    """
    network = build_network(detector)
    image = standardise(255 * colours)
    rows, columns = image.shape[:2]
    judged = np.empty((3, rows, columns), np.float32)
    for top in range(0, rows, TILE):
        for left in range(0, columns, TILE):
            if should_stop():
                raise Stopped
            inside = (slice(top, min(top + TILE, rows)), slice(left, min(left + TILE, columns)))
            judged[:, inside[0], inside[1]] = _judge_tile(image, inside, network)
    odds, level, log_error = judged
    radius = np.maximum(np.exp(level) - np.float32(RADIUS_OFFSET), 0)
    # The error of a logarithm is a share of what the logarithm was taken of.
    error = np.exp(log_error) * (radius + np.float32(RADIUS_OFFSET))
    return DenseJudgement(odds, radius, error)


def _judge_tile(image: Float, inside: tuple[slice, slice], network: "DenseNet") -> Float:
    import torch

    outer = [slice(max(s.start - HALO, 0), s.stop + HALO) for s in inside]
    tile = image[tuple(outer)]
    pad = [-extent % STRIDE for extent in tile.shape[:2]]
    tile = np.pad(tile, ((0, pad[0]), (0, pad[1]), (0, 0)), mode="symmetric")
    with torch.inference_mode():
        given = torch.from_numpy(tile.transpose(2, 0, 1)[np.newaxis])
        judged = _at_full_size(network(given))[0].numpy()
    begin = [s.start - o.start for s, o in zip(inside, outer, strict=True)]
    rows, columns = (
        slice(first, first + s.stop - s.start) for first, s in zip(begin, inside, strict=True)
    )
    return np.asarray(judged[:, rows, columns], np.float32)


def _at_full_size(judged: "Tensor") -> "Tensor":
    from torch.nn import functional

    return functional.interpolate(judged, scale_factor=2, mode="bilinear", align_corners=False)


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
    from napari_defocus.dense_network import DenseNet

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
