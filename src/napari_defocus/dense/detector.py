"""The dense detector: its file, and what it says of an image.

Loading a detector's file needs no torch; judging an image does.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_defocus.core.devices import Device
from napari_defocus.core.errors import DefocusError
from napari_defocus.core.progress import ShouldStop, Stopped, never_stop
from napari_defocus.core.tiling import Region, plan_tiles, whole, widen, within
from napari_defocus.io.cards import load_container, save_container
from napari_defocus.metric.response import guided_filter

if TYPE_CHECKING:
    from torch import Tensor

    from napari_defocus.dense.network import DenseNet

Float = npt.NDArray[np.float32]

KIND = "dense detector"
PACKAGED = {"default": Path(__file__).parents[1] / "weights" / "default.dense.safetensors"}
# Added to an image's standard deviation, in its grey range: a flat image stays flat.
LEAST_CONTRAST = 2 / 255
# What the logarithm of the radius is taken of: radius + this.
RADIUS_OFFSET = 0.5
# Of the network's strides: sides of what it takes are multiples of it.
STRIDE = 32
# Larger images are judged tile by tile, on a grid that does not depend on how they are cut: side of
# a tile, and what of its surroundings the network sees beside it, both multiples of the stride.
TILE = 1024
HALO = 96
# The map of odds is drawn to the outlines of the image within so many pixels, where their variance
# is far above the second figure.
OUTLINE_RADIUS = 6
OUTLINE_EPSILON = 1e-3


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


def save_dense(detector: DenseDetector, path: Path, *, overwrite: bool = True) -> None:
    """Write a detector to one ``.safetensors`` file, its weights in half precision.

    Raises
    ------
    DefocusError
        Where the file cannot be written.
    """
    halves = {name: values.astype(np.float16) for name, values in detector.weights.items()}
    save_container(path, KIND, halves, {"record": dict(detector.record)}, overwrite=overwrite)


def cached_dense(source: str | Path = "default") -> DenseDetector:
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
    if not isinstance(record, dict) or not _is_table(record.get("radius")):
        raise DefocusError(f"{path}: not a whole dense detector; get or make it anew")
    if not all(np.isfinite(values).all() for values in tensors.values()):
        raise DefocusError(f"{path}: holds values that are no finite numbers; get it anew")
    return DenseDetector(tensors, record)


def _is_table(table: Any) -> bool:
    """Tell whether this corrects radii; none at all is one that corrects nothing."""
    if table is None:
        return True
    try:
        told, true = (np.array([0.0, *table[name]], float) for name in ("told", "true"))
    except (TypeError, ValueError, KeyError):
        return False
    return bool(
        told.shape == true.shape
        and len(told) > 1
        and np.isfinite([told, true]).all()
        and min(np.diff(told).min(), np.diff(true).min()) > 0
    )


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
        from napari_defocus.dense.on_device import predict_tile_on

        predict = partial(predict_tile_on, device, colours, guide, tone, detector, on_cpu=predict)
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
    half = (_true_radius(wider, table) - _true_radius(narrower, table)) / np.float32(2)
    return DensePrediction(log_odds, _true_radius(radius, table), half)


def corrected(detector: DenseDetector, table: Mapping[str, Any] | None) -> DenseDetector:
    """Give a detector whose radii are corrected by a table, or not at all.

    Parameters
    ----------
    detector : DenseDetector
        The detector.
    table : mapping or None
        ``told`` and ``true``: radii in pixels, both rising.
    """
    record = {name: value for name, value in detector.record.items() if name != "radius"}
    return DenseDetector(detector.weights, record | ({"radius": dict(table)} if table else {}))


def _true_radius(told: Float, table: Mapping[str, Any]) -> Float:
    """Read the table; beyond its end, a told radius is too small by the last share."""
    known, true = (np.array([0.0, *table[name]], np.float32) for name in ("told", "true"))
    within_table = np.interp(told, known, true)
    return np.asarray(
        np.where(told > known[-1], told * (true[-1] / known[-1]), within_table), np.float32
    )


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
