"""Measure detection on a CUDA device: what the device can move, and what detection makes of it.

    python -m benchmarks.speed.gpu [--device cuda] [--megapixels 64] [--repeats 10]

Prints a table of medians. Where there is no such device it says so and ends. ``--device cpu`` runs
the same code on torch's CPU: a check that it runs, and no measure of anything.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from skimage import data

from napari_defocus.core.devices import STREAMS, Device, at_work, choose_device
from napari_defocus.core.errors import DefocusError
from napari_defocus.core.tiling import whole
from napari_defocus.dense.detector import cached_dense
from napari_defocus.dense.inference import predict_dense
from napari_defocus.detection._torch_refinement import refine_tensor
from napari_defocus.detection.api import DetectionConfig, detect
from napari_defocus.detection.refinement import RefinementConfig
from napari_defocus.filters.plane import prepare_plane
from napari_defocus.metric._torch_response import log_odds_of
from napari_defocus.metric.local_metric import load_metric

# Planes that pass through, for each stream.
PLANES = 4
Row = tuple[str, float, str]
Float = npt.NDArray[np.float32]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cuda", "mps", "cpu"), default="cuda")
    parser.add_argument("--megapixels", type=float, default=64)
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args(arguments)
    try:
        place = choose_device(options.device)
    except DefocusError:
        print(f"no {options.device.upper()} device is there: nothing was measured")
        return
    name = torch.cuda.get_device_name(place) if place.type == "cuda" else place.type
    print(f"{name}, torch {torch.__version__}, {options.megapixels:g} megapixels")
    print("| | | |\n| --- | --- | --- |")
    image = picture(options.megapixels)
    with at_work(place) as device:
        assert device is not None
        for what, figure, unit in measure(device, image, options.repeats):
            print(f"| {what} | {figure:.4g} | {unit} |", flush=True)


def picture(megapixels: float) -> npt.NDArray[np.uint8]:
    """Tile photos to a square grey picture of so many pixels."""
    side = round((megapixels * 1e6) ** 0.5)
    tile = np.concatenate([data.camera(), data.grass()], axis=1)
    times = (-(-side // tile.shape[0]), -(-side // tile.shape[1]))
    return np.tile(tile, times)[:side, :side]


def measure(device: Device, image: npt.NDArray[np.uint8], repeats: int) -> Iterator[Row]:
    """Measure the device, the link, the stages, and detection."""

    def seconds(work: Callable[[], Any]) -> float:
        return median_seconds(device, work, repeats)

    plane = prepare_plane(image)
    grey = plane.grey
    metric, refinement = load_metric(), RefinementConfig()
    pixels, size = grey.size, grey.nbytes

    def valid(given: torch.Tensor) -> torch.Tensor:
        log_odds = log_odds_of(given, plane.noise, metric, whole(grey.shape))[0]
        return refine_tensor(log_odds.sigmoid(), refinement)

    def through() -> Float:
        return device.work(
            [lambda: device.download(valid(device.upload(grey)))], lambda: fail("device")
        )

    with torch.inference_mode():
        there = device.upload(grey)
        other = torch.empty_like(there)
        copying = seconds(partial(other.copy_, there))
        yield "copies on the device, read and written", 2 * size / copying / 1e9, "GB/s"
        host = torch.from_numpy(grey)
        host = host.pin_memory() if device.cuda else host
        copying = seconds(partial(there.copy_, host, non_blocking=device.cuda))
        yield "to the device, from pinned memory", size / copying / 1e9, "GB/s"
        copying = seconds(partial(host.copy_, there, non_blocking=device.cuda))
        yield "from the device, to pinned memory", size / copying / 1e9, "GB/s"
        resident = seconds(partial(valid, there))
        yield "filter, pool, refine: resident", pixels / resident / 1e9, "Gpx/s"
        del there, other, host
    yield "the same, with transfers", pixels / seconds(through) / 1e9, "Gpx/s"
    streamed = seconds(partial(stream, through)) / (PLANES * STREAMS)
    yield f"the same, {STREAMS} planes on their way at once", pixels / streamed / 1e9, "Gpx/s"
    colours = np.repeat(grey[..., np.newaxis], 3, axis=2)
    network = seconds(partial(predict_dense, colours, cached_dense(), device=device))
    yield "dense network, with transfers", pixels / network / 1e6, "Mpx/s"
    for detector in ("metric", "dense"):
        config = DetectionConfig(detector, device=device.place.type)
        took = seconds(partial(detect, image, config=config))
        yield f"whole detect, {detector}", pixels / took / 1e6, "Mpx/s"


def stream(through: Callable[[], Float]) -> None:
    """Send planes through the device, as many at once as it has streams."""
    with ThreadPoolExecutor(STREAMS) as pool:
        for done in [pool.submit(through) for _ in range(PLANES * STREAMS)]:
            done.result()


def fail(what: str) -> Float:
    raise SystemExit(f"the {what} has not the memory; give fewer --megapixels")


def median_seconds(device: Device, work: Callable[[], Any], repeats: int) -> float:
    """Give the median time of a piece of work, all that it queued included."""
    times = []
    for _ in range(repeats + 1):
        device.synchronise()
        start = time.perf_counter()
        work()
        device.synchronise()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])  # what is loaded once is not counted


if __name__ == "__main__":
    main()
