"""Measure dense detection on a device beside the CPU.

    python -m benchmarks.speed.gpu [--device cuda] [--megapixels 64] [--repeats 5]

Prints a table of medians. Where there is no such device it prints so and ends. ``--device cpu``
runs the same code on torch's CPU: a check that it runs, and no measure of anything.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from skimage import data

from napari_defocus.core.devices import choose_device
from napari_defocus.core.errors import DefocusError
from napari_defocus.dense.detector import cached_dense
from napari_defocus.dense.inference import predict_dense
from napari_defocus.detection.api import DetectionConfig, detect

Row = tuple[str, float]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cuda", "mps", "cpu"), default="cuda")
    parser.add_argument("--megapixels", type=float, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(arguments)
    try:
        device = choose_device(options.device)
    except DefocusError:
        print(f"no {options.device.upper()} device is there: nothing was measured")
        return
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    print(f"{name}, torch {torch.__version__}, {options.megapixels:g} megapixels")
    print("| | Mpx/s |\n| --- | --- |")
    image = picture(options.megapixels)
    for what, seconds in measure(device, image, options.repeats):
        print(f"| {what} | {image.size / 1e6 / seconds:.4g} |", flush=True)


def picture(megapixels: float) -> npt.NDArray[np.uint8]:
    """Tile photos to a square grey picture of so many pixels."""
    side = round((megapixels * 1e6) ** 0.5)
    tile = np.concatenate([data.camera(), data.grass()], axis=1)
    times = (-(-side // tile.shape[0]), -(-side // tile.shape[1]))
    return np.tile(tile, times)[:side, :side]


def measure(device: torch.device, image: npt.NDArray[np.uint8], repeats: int) -> Iterator[Row]:
    """Measure the network and the whole detection on the device, and detection on the CPU."""
    colours = np.repeat(np.float32(image)[..., np.newaxis] / 255, 3, axis=2)
    network = partial(predict_dense, colours, cached_dense(), device=device)
    yield "dense network, with transfers", median_seconds(network, repeats)
    for place in (device.type, "cpu"):
        config = DetectionConfig("dense", device=place)
        yield (
            f"whole detect, {place}",
            median_seconds(partial(detect, image, config=config), repeats),
        )


def median_seconds(work: Callable[[], Any], repeats: int) -> float:
    """Return the median time of a piece of work, its first run left out."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


if __name__ == "__main__":
    main()
