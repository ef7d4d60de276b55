"""Inference of the dense network: log odds, blur radius and its error at every pixel, and features.

ONNX Runtime runs a graph that is built from the weights; on a card torch does it. Threads do not
change a bit of the result: tiles share out the cores or, where there is one, its layers do.
"""

from dataclasses import dataclass
from functools import lru_cache
from threading import Lock, Semaphore
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from napari_defocus.core.errors import DefocusError
from napari_defocus.core.onnx import open_session
from napari_defocus.core.progress import ShouldStop, Stopped, never_stop
from napari_defocus.core.threads import cores, cores_are_free, in_threads, side_by_side
from napari_defocus.core.tiling import Region, Tile, plan_tiles, shifted, whole, widen, within
from napari_defocus.dense.detector import RADIUS_OFFSET, DenseDetector, true_radius
from napari_defocus.dense.graph import WIDTHS, dense_graph
from napari_defocus.dense.on_device import free_memory, predict_on_device
from napari_defocus.filters.spread import spread

if TYPE_CHECKING:
    import torch

Float = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]

# Added to an image's standard deviation, in its grey range: a flat image stays flat.
LEAST_CONTRAST = 2 / 255
# Of the network: sides of its inputs are multiples of it.
STRIDE = 32
# Larger images are predicted tile by tile, on a grid that does not depend on how they are cut: side
# of a tile, and what of its surroundings the network sees beside it, both multiples of the stride.
# The network would see some 600 pixels, but the rest matters little.
TILE = 1024
HALO = 96
# So many tiles at once at most, of which every second is in the network: that takes some 260 MB,
# and leaves cores for what comes before and after.
TILES_AT_ONCE = 4

_building = Lock()


class Colours(Protocol):
    """An image's colours, (Y, X, 3): an array, or what prepares the windows that are cut out."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows, columns and 3."""

    def __getitem__(self, window: Region, /) -> Float:
        """Return a window, 0 black and 1 white."""


@dataclass(frozen=True)
class DensePrediction:
    """The network's prediction for each pixel.

    Parameters
    ----------
    log_odds : ndarray of float32, (Y, X)
        Log odds of being sharp.
    radius : ndarray of float32, (Y, X)
        Radius of the disc of the second moment of the blur, in pixels.
    radius_error : ndarray of float32, (Y, X), or None
        Mean absolute error to expect of it, in pixels, where requested.
    features : ndarray of float32, (32, Y / 2, X / 2), or None
        The input of the network's last layer, where requested, for 2 x 2 pixels each.
    """

    log_odds: Float
    radius: Float
    radius_error: Float | None
    features: Float | None = None


def standardise(colours: npt.NDArray[Any], mean: float, spread: float) -> Float:
    """Bring colours to mean 0 and variance about 1, all together.

    Parameters
    ----------
    colours : ndarray, (..., 3)
        0 black and 1 white.
    mean, spread : float
        Mean and standard deviation of the whole image's colours.
    """
    values = np.asarray(colours, np.float32) - np.float32(mean)
    values /= np.float32(spread + LEAST_CONTRAST)
    return values


def predict_dense(
    colours: Colours,
    detector: DenseDetector,
    should_stop: ShouldStop = never_stop,
    *,
    region: Region | None = None,
    colours_are: tuple[float, float] | None = None,
    seen: Bool | None = None,
    device: "torch.device | None" = None,
    features: bool = False,
    errors: bool = True,
) -> DensePrediction:
    """Apply the network to one image, or to a part of one.

    Parameters
    ----------
    colours : ndarray of float32, (Y, X, 3), or `Colours`
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
    seen : ndarray of bool, (Y, X), optional
        Where `colours` show structure: log odds spread from there over pixels of like colour, up to
        outlines. By default they stay where they are.
    device : torch.device, optional
        Where the network runs; by default, and where it fails, on the CPU.
    features : bool
        Whether the features are returned too.
    errors : bool
        Whether the radius' error is.

    Raises
    ------
    DefocusError
        Where ONNX Runtime is missing, or the weights do not fit the network.
    Stopped
        Where `should_stop` returned True.
    """
    region = region or whole(colours.shape)
    if colours_are is None:
        every = colours[whole(colours.shape)]
        colours_are = float(every.mean(dtype=np.float64)), float(every.std(dtype=np.float64))
    mean, deviation = colours_are
    rows, columns = (part.stop - part.start for part in region)
    predicted = np.empty((3 if errors else 2, rows, columns), np.float32)
    halves = (-(-rows // 2), -(-columns // 2)) if features else (0, 0)
    found_features = np.empty((WIDTHS[0], *halves), np.float32)
    tiles = plan_tiles((rows, columns), TILE)
    free = cores_are_free()
    at_once = min(len(tiles), TILES_AT_ONCE, cores()) if free else 1
    networks = max(at_once // 2, 1)
    threads = max(cores() // networks, 1) if free else 1
    gate = Semaphore(networks)

    def predict(tile: Tile) -> None:
        if should_stop():
            raise Stopped
        part = shifted(tile.region, region)
        window = widen(part, HALO, colours.shape)
        inside = within(part, window)
        shown = colours[window]
        image = _standardised_window(shown, mean, deviation)
        found = predict_on_device(detector, image, device, features=features) if device else None
        if found is None:
            with gate:
                found = _predict_on_cpu(detector, image, threads, features)
        values = found[0][:, : window[0].stop - window[0].start, : window[1].stop - window[1].start]
        log_odds, log_radius, log_error = values

        def spread_out() -> Float:
            return log_odds if seen is None else spread(log_odds, shown, seen[window])

        def in_pixels() -> list[Float]:
            return _in_pixels(log_radius[inside], log_error[inside] if errors else None, detector)

        spread_log_odds, lengths = side_by_side(spread_out, in_pixels)
        for place, part_found in enumerate((spread_log_odds[inside], *lengths)):
            predicted[place, *tile.region] = part_found
        if features:
            found_features[:, *_halved(tile.region)] = found[1][:, *_halved(inside)]

    for _ in in_threads(predict, tiles, alone=at_once == 1, at_once=at_once):
        pass
    if device is not None:
        free_memory(device)
    if len(tiles) > at_once > 1:
        network_session.cache_clear()  # with 260 MB a tile, which what follows may need
    log_odds, radius, *error = predicted
    return DensePrediction(
        log_odds, radius, error[0] if errors else None, found_features if features else None
    )


def _halved(region: Region) -> Region:
    rows, columns = (slice(part.start // 2, -(-part.stop // 2)) for part in region)
    return rows, columns


def _in_pixels(log_radius: Float, log_error: Float | None, detector: DenseDetector) -> list[Float]:
    """Turn the log radius and, if given, its log error into pixels."""
    radius = np.maximum(np.exp(log_radius) - np.float32(RADIUS_OFFSET), 0)
    table = detector.record.get("radius")
    if log_error is None:
        return [radius if table is None else true_radius(radius, table)]
    # The error of a logarithm is a share of what the logarithm was taken of.
    error = np.exp(log_error) * (radius + np.float32(RADIUS_OFFSET))
    if table is None:
        return [radius, error]
    wider, narrower = radius + error, np.maximum(radius - error, 0)
    half = (true_radius(wider, table) - true_radius(narrower, table)) / np.float32(2)
    return [true_radius(radius, table), half]


def _standardised_window(colours: Float, mean: float, spread: float) -> Float:
    """Standardise colours (Y, X, 3) as the network takes them.

    Returns
    -------
    ndarray of float32, (3, Y', X')
        Mirrored at the lower and right border to multiples of `STRIDE`.
    """
    pad = [(0, -size % STRIDE) for size in colours.shape[:2]]
    planes = np.pad(np.moveaxis(colours, -1, 0), [(0, 0), *pad], mode="symmetric")
    return np.ascontiguousarray(standardise(planes, mean, spread))


def _predict_on_cpu(
    detector: DenseDetector, image: Float, threads: int, features: bool
) -> list[Float]:
    """Apply the network to a standardised window; see `predict_on_device`."""
    with _building:
        session = network_session(detector, threads, features)
    try:
        found = session.run(None, {"image": image[np.newaxis]})
    except Exception as error:  # the runtime's own classes have no other base
        if "alloc" not in str(error).lower():
            raise
        raise MemoryError(str(error)) from error
    return [np.asarray(part[0], np.float32) for part in found]


@lru_cache(maxsize=2)
def network_session(detector: DenseDetector, threads: int = 1, features: bool = False) -> Any:
    """Build the network of a detector for inference on the CPU.

    Parameters
    ----------
    detector : DenseDetector
        Its weights.
    threads : int
        How many work on an image.
    features : bool
        Whether it returns the features too.

    Returns
    -------
    onnxruntime.InferenceSession
        May be run from several threads at once.

    Raises
    ------
    DefocusError
        Where ONNX Runtime is missing, or the weights do not fit the network.
    """
    try:
        return open_session(dense_graph(detector.weights, features=features), threads)
    except ImportError as error:
        raise DefocusError(
            "the dense detector needs onnxruntime; pip install onnxruntime, "
            "or detect with the metric"
        ) from error
