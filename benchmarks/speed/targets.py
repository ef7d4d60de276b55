"""Measure what detection promises: time beside pooled Laplacians, whole commands, and their memory.

    python -m benchmarks.speed.targets [--repeats 20] [--without KIND ...]

Prints a table. Detection and the pooled Laplacian take turns, so that a busy machine slows both.
Commands run in processes of their own, in turn with one that imports NumPy and SciPy alone.
Two cores are used where there are more. KIND: ``arrays``, ``commands`` or ``large``.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage import data
from tifffile import imwrite

from napari_defocus.detection.api import DetectionConfig, detect
from napari_defocus.filters import _numba as compiled

IMPORTS = [sys.executable, "-c", "import numpy, scipy.ndimage"]
MAIN = "import sys; from napari_defocus.cli.main import main; sys.exit(main(sys.argv[1:]))"
COMMAND = [sys.executable, "-c", MAIN, "detect"]
# Runs a command and prints its seconds and the most memory that it took, in MB.
MEASURED = """
import resource, subprocess, sys, time
start = time.perf_counter()
subprocess.run(sys.argv[1:], check=True, capture_output=True)
seconds = time.perf_counter() - start
print(seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
"""


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--without", nargs="*", default=[])
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    print("| what | measured |\n| --- | --- |")
    if "arrays" not in options.without:
        measure_arrays(options.repeats)
    with tempfile.TemporaryDirectory() as name:
        if "commands" not in options.without:
            measure_commands(Path(name), options.repeats)
        if "large" not in options.without:
            measure_large(Path(name), max(options.repeats // 7, 1))


def measure_arrays(repeats: int) -> None:
    """Time detection in arrays, beside the pooled Laplacian of their grey values."""
    for detector, shape in (("dense", (457, 640)), ("dense", (1024, 1024)), ("metric", (457, 640))):
        image, config = colours(shape), DetectionConfig(detector=detector)
        grey = image.mean(axis=2, dtype=np.float32)
        if detector == "metric":
            compiled.expect(compiled.WORTH_PIXELS)  # as after a dozen photos
        took: list[tuple[float, float]] = []
        for _ in range(repeats + 2):
            start = time.perf_counter()
            detect(image, config=config)
            between = time.perf_counter()
            ndimage.gaussian_filter(np.abs(ndimage.laplace(grey)), 10)
            took.append((between - start, time.perf_counter() - between))
        own, laplacian = (statistics.median(column) for column in zip(*took[2:], strict=True))
        size = f"{shape[1]} x {shape[0]}"
        row(f"{detector}, {size}", f"{1e3 * own:.0f} ms, {own / laplacian:.2f} pooled Laplacians")
    torch = "imported" if "torch" in sys.modules else "not imported"
    row("torch", torch)


def measure_commands(folder: Path, repeats: int) -> None:
    """Time the command on one photo, beside the imports of NumPy and SciPy."""
    imwrite(folder / "photo.tif", colours((457, 640)), photometric="rgb")
    command = [*COMMAND, str(folder / "photo.tif"), "--out", str(folder / "out"), "--overwrite"]
    took = [(run(command), run(IMPORTS)) for _ in range(repeats + 1)][1:]
    own, imports = (
        statistics.median(one[0] for one in column) for column in zip(*took, strict=True)
    )
    peak = max(one[1] for one, _ in took)
    row("command, one photo", f"{own:.2f} s, {own / imports:.1f} x the imports, {peak:.0f} MB")


def measure_large(folder: Path, repeats: int) -> None:
    """Time the command on a plane of 16.8 megapixels."""
    imwrite(folder / "large.tif", colours((4096, 4096)), photometric="rgb")
    command = [*COMMAND, str(folder / "large.tif"), "--out", str(folder / "out"), "--overwrite"]
    took = [run(command) for _ in range(repeats)]
    seconds, peak = statistics.median(one[0] for one in took), max(one[1] for one in took)
    row("command, 16.8 megapixels of RGB", f"{seconds:.1f} s, {peak:.0f} MB")


def run(command: Sequence[str]) -> tuple[float, float]:
    """Return the seconds and the megabytes that a command takes."""
    measured = [sys.executable, "-c", MEASURED, *command]
    told = subprocess.run(measured, check=True, capture_output=True, text=True).stdout
    seconds, peak = map(float, told.split())
    return seconds, peak


def colours(shape: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Return a photo, side by side with itself, its right half out of focus, with light noise."""
    photo = data.coffee().astype(np.float32)
    tiled = np.tile(photo, (shape[0] // 400 + 1, shape[1] // 600 + 1, 1))[: shape[0], : shape[1]]
    middle = shape[1] // 2
    tiled[:, middle:] = ndimage.gaussian_filter(tiled[:, middle:], (3, 3, 0))
    noisy = tiled + np.random.default_rng(0).normal(0, 2, tiled.shape).astype(np.float32)
    return np.asarray(np.clip(noisy, 0, 255), np.uint8)


def row(what: str, measured: str) -> None:
    """Print a row of the table."""
    print(f"| {what} | {measured} |", flush=True)


if __name__ == "__main__":
    main()
