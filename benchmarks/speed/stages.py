"""Time the stages of detection beside what else one might run, at several sizes, as ratios.

    python -m benchmarks.speed.stages --out DIR [--megapixels 0.3 1] [--repeats 20] [--threads 1 2]
    python -m benchmarks.speed.stages --out DIR --photos FOLDER

All work on the same rendered picture: scikit-image's photos side by side, the lower half out of
focus, light noise. DIR gets ``speed.md`` and ``speed.png``. Peers, where they are installed, and
the dense detector are timed up to 1 megapixel. One thread means one core for everything
(`os.sched_setaffinity`, where there is such a thing). ``--plain`` does without compiled loops.
Start of the command line and peak memory: `targets.py`.
"""

import argparse
import math
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy import ndimage

from benchmarks import tables
from benchmarks.accuracy.peers import methods
from benchmarks.speed.common import Image, median_seconds, on_cores, picture, pooled_laplacian
from napari_defocus.detection.api import DetectionConfig, detect
from napari_defocus.detection.detectors import Detector
from napari_defocus.detection.inference import predict_plane
from napari_defocus.detection.postprocess import ScoreStatistics, initial_sharpness, postprocess
from napari_defocus.detection.refinement import refine
from napari_defocus.detection.threshold import MaskConfig, cut_mask
from napari_defocus.filters import _numba as compiled
from napari_defocus.filters.contrast import local_contrast
from napari_defocus.filters.plane import prepare_plane
from napari_defocus.io.folder import find_images
from napari_defocus.io.open import read_image
from napari_defocus.metric.local_metric import load_metric
from napari_defocus.metric.response import filter_response, pool
from napari_defocus.widgets.detect.preview import postprocess_reduced

LARGEST_FOR_SLOW = 1.0
CONFIG = DetectionConfig(detector="metric")
DENSE = DetectionConfig(detector="dense")
# Median seconds by piece of work, megapixels and threads.
Timings = dict[tuple[str, float, int], float]
# Parts of others: the table tells them, the picture would be full.
NOT_DRAWN = ("5 x 5 box filter, scipy", "prepare", "filter", "contrast", "pool", "mask")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--megapixels", type=float, nargs="+", default=[0.3, 1, 4, 16, 64])
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--photos", type=Path, help="a folder of images to time detect on instead")
    parser.add_argument("--plain", action="store_true", help="without compiled loops")
    options = parser.parse_args()
    compiled.WORTH_PIXELS = math.inf if options.plain else 0
    options.out.mkdir(parents=True, exist_ok=True)
    if options.photos:
        time_photos(options.photos, options.repeats)
        return
    timings: Timings = {}
    for threads in options.threads:
        with on_cores(threads):
            for size in options.megapixels:
                for what, work in work_on(picture(size), size):
                    seconds = timings[what, size, threads] = median_seconds(work, options.repeats)
                    print(f"{size:g} Mpx, {threads} threads, {what}: {1e3 * seconds:.3g} ms")
    table = as_table(timings)
    (options.out / "speed.md").write_text(table, encoding="utf-8")
    draw(timings, options.out / "speed.png")
    print(table)


def time_photos(folder: Path, repeats: int) -> None:
    """Print how many pooled Laplacians detection by the metric takes on each image of a folder."""
    metric, shares = load_metric(), []
    for path in find_images([folder]):
        image = read_image(path).data
        floats = image.reshape(*image.shape[:2], -1).mean(axis=-1, dtype=np.float32)
        whole = median_seconds(partial(detect, image, metric, CONFIG), repeats)
        shares.append(whole / median_seconds(partial(pooled_laplacian, floats), repeats))
        print(f"{path.name}: {1e3 * whole:.1f} ms, {shares[-1]:.2f} pooled Laplacians", flush=True)
    print(f"median {statistics.median(shares):.2f}, {min(shares):.2f} to {max(shares):.2f}")


def work_on(image: Image, megapixels: float) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Name and give each piece of work."""
    floats = image.astype(np.float32)
    metric = load_metric()
    plane = prepare_plane(image)
    detector = Detector(metric)
    prediction = predict_plane(image, detector, CONFIG)
    start = initial_sharpness(prediction.score, ScoreStatistics.of(prediction), CONFIG, True)
    response = filter_response(plane, metric)
    undecided = ~prediction.valid
    yield "copy of the array, float32", floats.copy
    yield "5 x 5 box filter, scipy", lambda: ndimage.uniform_filter(start, 5)
    yield "pooled |Laplacian|, scipy", lambda: pooled_laplacian(floats)
    yield "prepare", lambda: prepare_plane(image)
    yield "filter", lambda: filter_response(plane, metric)
    sigma, factor = metric.pooling.contrast_sigma, metric.pooling.noise_factor
    yield "contrast", lambda: local_contrast(plane, sigma, factor)
    yield "pool", lambda: pool(response, plane.grey, metric.pooling)
    yield "judge", lambda: predict_plane(image, detector, CONFIG)
    yield "refine, 100 iterations", lambda: refine(start)
    yield "mask", lambda: cut_mask(start, undecided, 0.5, MaskConfig().smallest)
    yield "decide", lambda: postprocess(prediction, CONFIG)
    yield "preview: threshold moved", lambda: postprocess_reduced(prediction, CONFIG)
    yield "whole detect, metric", lambda: detect(image, metric, CONFIG)
    if megapixels <= LARGEST_FOR_SLOW:
        yield "whole detect, dense", lambda: detect(image, metric, DENSE)
        for method in methods([], skip_slow=False):
            if method.run is not None and method.name.startswith(("blur-detector", "LBP")):
                yield method.name, partial(method.run, image)


def as_table(timings: Timings) -> str:
    """Write milliseconds, and in brackets how many pooled Laplacians that is."""
    columns = sorted({key[1:] for key in timings})
    lines = tables.head(["", *(f"{size:g} Mpx, {threads} thr." for size, threads in columns)])
    for what in dict.fromkeys(what for what, *_ in timings):
        cells = [what]
        for column in columns:
            seconds = timings.get((what, *column))
            unit = timings["pooled |Laplacian|, scipy", *column]
            cells.append("" if seconds is None else f"{1e3 * seconds:.3g} ({seconds / unit:.2f})")
        lines.append(tables.row(cells))
    return "\n".join(lines) + "\n"


def draw(timings: Timings, path: Path) -> None:
    """Draw time over size, both logarithmic, on as many threads as there were."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    most = max(threads for *_, threads in timings)
    names = [name for name in dict.fromkeys(what for what, *_ in timings) if name not in NOT_DRAWN]
    for index, what in enumerate(names):
        points = [
            (size, seconds)
            for (name, size, threads), seconds in timings.items()
            if (name, threads) == (what, most)
        ]
        ours = what.startswith("whole")
        axes.loglog(
            *zip(*points, strict=True),
            color=f"C{index}",
            marker="o" if ours else ".",
            linewidth=2.5 if ours else 1,
            label=what,
        )
    axes.set_xlabel("megapixels")
    axes.set_ylabel(f"seconds, {most} threads")
    axes.grid(visible=True, which="both", color="0.92")
    # In the order of the lines' ends.
    handles = sorted(
        axes.get_lines(), key=lambda line: -line.get_ydata()[-1] / line.get_xdata()[-1]
    )
    figure.legend(handles=handles, loc="outside right center", frameon=False, fontsize=9)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
