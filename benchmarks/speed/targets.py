"""Measure what detection promises: time beside pooled Laplacians, whole commands, and memory.

    python -m benchmarks.speed.targets [--repeats 20] [--without KIND ...]

Prints a table. Detection and the pooled Laplacian take turns, so that a busy machine slows both.
Commands run in processes of their own: on one photo, in turn with one that imports NumPy and SciPy
alone; and on rendered pictures, once from the start and once more with everything loaded. Peaks are
of one detection by the metric, above what its process held before, as so many float32 images; only
Linux can measure them. Two cores are used where there are more. KIND: ``arrays``, ``commands``,
``large`` or ``peaks``.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from math import inf
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from tifffile import imwrite

from benchmarks import tables
from benchmarks.accuracy.scribbles import draw_scribbles
from benchmarks.speed.common import colours, on_cores, picture, pooled_laplacian, seconds_of
from benchmarks.timed import run_timed
from napari_defocus.detection.api import DetectionConfig, detect
from napari_defocus.filters import _numba as compiled

Rows = Iterator[tuple[str, str]]
SMALL = (457, 640)
IMPORTS = [sys.executable, "-c", "import numpy, scipy.ndimage"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--without", nargs="*", default=[], choices=KINDS)
    options = parser.parse_args()
    with on_cores(2), tempfile.TemporaryDirectory() as name:
        kinds = (measure for kind, measure in KINDS.items() if kind not in options.without)
        rows = (row for measure in kinds for row in measure(Path(name), options.repeats))
        tables.show(["what", "measured"], rows)


def arrays(_: Path, repeats: int) -> Rows:
    """Time detection in arrays, beside the pooled Laplacian of their grey values."""
    for detector, shape in (("dense", SMALL), ("dense", (1024, 1024)), ("metric", SMALL)):
        image = colours(shape)
        whole = partial(detect, image, config=DetectionConfig(detector=detector))
        unit = partial(pooled_laplacian, image.mean(axis=2, dtype=np.float32))
        if detector == "metric":
            compiled.expect(compiled.WORTH_PIXELS)  # as after a dozen photos
        took = [(seconds_of(whole), seconds_of(unit)) for _ in range(repeats + 2)]
        own, laplacian = medians(took[2:])
        measured = f"{1e3 * own:.0f} ms, {own / laplacian:.2f} pooled Laplacians"
        yield f"{detector}, {shape[1]} x {shape[0]}", measured
    yield "torch", "imported" if "torch" in sys.modules else "not imported"


def commands(folder: Path, repeats: int) -> Rows:
    """Time commands on one photo, beside the imports of NumPy and SciPy, and on pictures."""
    imwrite(folder / "photo.tif", colours(SMALL), photometric="rgb")
    out = ("--overwrite", "--out", str(folder / "out"))
    took = []
    for _ in range(repeats + 1):
        run = run_timed("detect", str(folder / "photo.tif"), *out)
        took.append((run.whole, seconds_of(partial(subprocess.run, IMPORTS, check=True))))
    own, imports = medians(took[1:])
    megabytes = f"{1024 * run.peak_gib:.0f} MB"
    yield "command, one photo", f"{own:.2f} s, {own / imports:.1f} x the imports, {megabytes}"
    pairs, metric = write_pictures(folder), str(folder / "metric.safetensors")
    for what, arguments in (
        ("detect --detector metric", ["detect", pairs[0], "--detector", "metric", *out]),
        ("detect --detector dense", ["detect", pairs[0], "--detector", "dense", *out]),
        ("fit --instant, three pictures", ["fit", *pairs, "--instant", *out[:-1], metric]),
    ):
        runs = [run_timed(*arguments, runs=2) for _ in range(max(repeats // 4, 1))]
        first, again = medians((run.whole - run.again, run.again) for run in runs)
        yield f"{what}, 640 x 457", f"{first:.2f} s, again {again:.2f} s"


def write_pictures(folder: Path) -> list[str]:
    """Write three pictures and scribbles on 4 % of each; name them in turn."""
    pairs = []
    for seed in range(3):
        pixels = picture(SMALL[0] * SMALL[1] / 1e6)[:, :: 1 if seed else -1]
        blurred = np.arange(len(pixels))[:, np.newaxis] >= len(pixels) // 2
        labels = draw_scribbles(np.broadcast_to(blurred, pixels.shape), 0.04, seed)
        for name, array in ((f"{seed}.tif", pixels), (f"{seed}.labels.tif", labels)):
            imwrite(folder / name, array)
            pairs.append(str(folder / name))
    return pairs


def large(folder: Path, repeats: int) -> Rows:
    """Time the command on a plane of 16.8 megapixels."""
    imwrite(folder / "large.tif", colours((4096, 4096)), photometric="rgb")
    command = ("detect", str(folder / "large.tif"), "--out", str(folder / "out"), "--overwrite")
    took = [run_timed(*command) for _ in range(max(repeats // 7, 1))]
    seconds, peak = statistics.median(run.whole for run in took), max(run.peak_gib for run in took)
    yield "command, 16.8 megapixels of RGB", f"{seconds:.1f} s, {1024 * peak:.0f} MB"


def peaks(_: Path, repeats: int) -> Rows:
    """Measure the peak memory of detection by the metric."""
    for megapixels in (4, 16, 64):
        for way, worth in (("compiled", 0), ("plain", inf)):
            with ProcessPoolExecutor(1, get_context("spawn")) as process:
                peak = process.submit(peak_of_detection, megapixels, worth).result()
            yield f"peak of {megapixels} megapixels, {way}", f"{peak:.1f} x the float32 image"


def peak_of_detection(megapixels: float, worth: float) -> float:
    """Detect once in this process; return its peak above what was held, in float32 images."""
    compiled.WORTH_PIXELS = worth
    config = DetectionConfig(detector="metric")
    image = picture(megapixels)
    detect(image[:99, :99], config=config)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is set back
    before = peak_bytes()
    detect(image, config=config)
    return (peak_bytes() - before) / (4 * image.size)


def peak_bytes() -> int:
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024


def medians(rows: Iterable[tuple[float, ...]]) -> list[float]:
    return [statistics.median(column) for column in zip(*rows, strict=True)]


KINDS = {"arrays": arrays, "commands": commands, "large": large, "peaks": peaks}

if __name__ == "__main__":
    main()
