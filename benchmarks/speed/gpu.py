"""Measure dense detection on a device beside the CPU.

    python -m benchmarks.speed.gpu [--device cuda] [--megapixels 64] [--repeats 5]

Prints a table of medians. Where there is no such device it prints so and ends. ``--device cpu``
runs the same code on torch's CPU: a check that it runs, and no measure of anything.
"""

import argparse
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch

from benchmarks import tables
from benchmarks.speed.common import Image, median_seconds, picture
from napari_defocus.core.devices import choose_device
from napari_defocus.core.errors import DefocusError
from napari_defocus.dense.detector import cached_dense
from napari_defocus.dense.inference import predict_dense
from napari_defocus.detection.api import DetectionConfig, detect


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
    image = picture(options.megapixels)
    measured = measure(device, image, options.repeats)
    tables.show(["", "Mpx/s"], ((what, f"{image.size / 1e6 / s:.4g}") for what, s in measured))


def measure(device: torch.device, image: Image, repeats: int) -> Iterator[tuple[str, float]]:
    """Measure the network and the whole detection on the device, and detection on the CPU."""
    colours = np.repeat(np.float32(image)[..., np.newaxis] / 255, 3, axis=2)
    network = partial(predict_dense, colours, cached_dense(), device=device)
    yield "dense network, with transfers", median_seconds(network, repeats)
    for place in (device.type, "cpu"):
        whole = partial(detect, image, config=DetectionConfig("dense", device=place))
        yield f"whole detect, {place}", median_seconds(whole, repeats)


if __name__ == "__main__":
    main()
