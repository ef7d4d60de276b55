"""Time and memory of whole processes: the command line, the instant fit, detection's peak.

    python -m benchmarks.speed.processes [--repeats 5]

The command line works on rendered pictures of 640 x 457 pixels: once from its start, and once more
in the same process, everything loaded. Peak memory is
that of one detection by the metric above what the process held before, libraries loaded, as so many
float32 images.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from tifffile import imwrite

from benchmarks.accuracy.scribbles import draw_scribbles
from benchmarks.speed.stages import picture

SMALL = 640 * 457 / 1e6
COMMAND = """
import sys, time
from napari_defocus.cli.main import main
assert main(sys.argv[1:]) == 0
start = time.perf_counter()
assert main(sys.argv[1:]) == 0
print(time.perf_counter() - start)
"""
# The peak is set back before it is measured, which Linux alone can do.
PEAK = """
import math, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from benchmarks.speed.stages import picture
from napari_defocus.filters import _numba as compiled
from napari_defocus.detection.api import DetectionConfig, detect

def peak():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024

compiled.WORTH_PIXELS = float(sys.argv[3])
config = DetectionConfig(detector="metric")
image = picture(float(sys.argv[2]))
detect(image[:99, :99], config=config)
Path("/proc/self/clear_refs").write_text("5")
before = peak()
detect(image, config=config)
print((peak() - before) / (4 * image.size))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images, pairs = write_pictures(folder)
        out = ["--out", str(folder / "out"), "--overwrite"]
        for detector in ("metric", "dense"):
            asked = ["detect", images[0], "--detector", detector, *out]
            tell(f"detect --detector {detector}, 640 x 457", asked, options.repeats)
        fit = ["fit", *pairs, "--instant", "--out", str(folder / "m.safetensors"), "--overwrite"]
        tell("fit --instant, three pictures", fit, options.repeats)
    for megapixels in (4, 16, 64):
        for way, worth in (("compiled", "0"), ("plain", "inf")):
            command = [sys.executable, "-c", PEAK, str(Path(__file__).parents[2])]
            command += [str(megapixels), worth]
            told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            print(f"peak of {megapixels} megapixels, {way}: {float(told):.1f} x the float32 image")


def write_pictures(folder: Path) -> tuple[list[str], list[str]]:
    """Write three pictures and scribbles on 4 % of each; give the pictures, and both in turn."""
    images, pairs = [], []
    for seed in range(3):
        image, labels = folder / f"{seed}.tif", folder / f"{seed}.labels.tif"
        pixels = picture(SMALL)[:, :: 1 if seed else -1]
        imwrite(image, pixels)
        blurred = np.arange(len(pixels))[:, np.newaxis] >= len(pixels) // 2
        imwrite(labels, draw_scribbles(np.broadcast_to(blurred, pixels.shape), 0.04, seed))
        images.append(str(image))
        pairs += [str(image), str(labels)]
    return images, pairs


def tell(what: str, asked: list[str], repeats: int) -> None:
    """Run a command some times, and print its median seconds."""
    twice, again = [], []
    for _ in range(repeats):
        start = time.perf_counter()
        command = [sys.executable, "-c", COMMAND, *asked]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        again.append(float(told.splitlines()[-1]))
        twice.append(time.perf_counter() - start)
    first = statistics.median(t - a for t, a in zip(twice, again, strict=True))
    print(f"{what}: {first:.2f} s, again {statistics.median(again):.2f} s", flush=True)


if __name__ == "__main__":
    main()
