"""Time the stages of detection beside what else one might run, at several sizes, as ratios.

    python -m benchmarks.speed.stages --out DIR [--megapixels 0.3 1] [--repeats 20] [--threads 1 2]
    python -m benchmarks.speed.stages --out DIR --photos FOLDER

All work on the same rendered picture: scikit-image's photos side by side, the lower half out of
focus, light noise. DIR gets ``speed.md`` and ``speed.png``. Peers, where they are installed, and
the dense detector are timed up to 1 megapixel. One thread means one core for everything
(`os.sched_setaffinity`, where there is such a thing). ``--plain`` does without compiled loops.
Start of the command line and peak memory: `speed_processes.py`.
"""

import argparse
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage import data

from benchmarks.accuracy.peer_methods import methods
from napari_defocus.detection.api import DetectionConfig, detect
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

mpl.use("Agg")
import matplotlib.pyplot as plt

LARGEST_FOR_SLOW = 1.0
CONFIG = DetectionConfig(detector="metric")
DENSE = DetectionConfig(detector="dense")
# Scale of the plain Laplacian's pooling.
LAPLACIAN_SIGMA = 10.0
# Parts of others: the table tells them, the picture would be full.
NOT_DRAWN = ("5 x 5 box filter, scipy", "prepare", "filter", "contrast", "pool", "mask")
Image = npt.NDArray[Any]


@dataclass(frozen=True)
class Timing:
    """Median seconds of one piece of work."""

    what: str
    megapixels: float
    threads: int
    seconds: float


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
    timings: list[Timing] = []
    for threads in options.threads:
        with on_cores(threads):
            for size in options.megapixels:
                timings += time_all(size, threads, options.repeats)
    table = as_table(timings)
    (options.out / "speed.md").write_text(table, encoding="utf-8")
    draw(timings, options.out / "speed.png")
    print(table)


@contextmanager
def on_cores(count: int) -> Iterator[None]:
    """Let this process use so many cores, where the system can be told."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(sorted(before)[:count]))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def picture(megapixels: float) -> Image:
    """Render a grey picture of 7:5 with so many pixels, uint8."""
    rows = round((megapixels * 1e6 * 5 / 7) ** 0.5)
    columns = round(rows * 7 / 5)
    tile = np.concatenate([data.camera(), data.grass(), data.gravel(), data.brick()], axis=1)
    image = np.tile(tile, (-(-rows // tile.shape[0]), -(-columns // tile.shape[1])))
    image = image[:rows, :columns].astype(np.float32)
    image[rows // 2 :] = ndimage.gaussian_filter(image[rows // 2 :], 4)
    image += np.random.default_rng(0).normal(0, 2, image.shape).astype(np.float32)
    return np.clip(np.round(image), 0, 255).astype(np.uint8)


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


def time_all(megapixels: float, threads: int, repeats: int) -> Iterator[Timing]:
    """Time every piece of work on one picture."""
    image = picture(megapixels)
    for what, work in work_on(image, megapixels):
        seconds = median_seconds(work, repeats)
        print(f"{megapixels:g} Mpx, {threads} threads, {what}: {1e3 * seconds:.3g} ms", flush=True)
        yield Timing(what, megapixels, threads, seconds)


def median_seconds(work: Callable[[], Any], repeats: int) -> float:
    """Time a piece of work some times, slow work three times."""
    work()  # what is loaded or tabulated once is not counted
    times: list[float] = []
    begun = time.perf_counter()
    while len(times) < repeats and (len(times) < 3 or time.perf_counter() - begun < 20):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def work_on(image: Image, megapixels: float) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Name and give each piece of work."""
    floats = image.astype(np.float32)
    metric = load_metric()
    plane = prepare_plane(image)
    prediction = predict_plane(image, metric, CONFIG)
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
    yield "judge", lambda: predict_plane(image, metric, CONFIG)
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


def pooled_laplacian(floats: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    pooled = ndimage.gaussian_filter(np.abs(ndimage.laplace(floats)), LAPLACIAN_SIGMA)
    return np.asarray(pooled, np.float32)


def as_table(timings: list[Timing]) -> str:
    """Write milliseconds, and in brackets how many pooled Laplacians that is."""
    columns = sorted({(t.megapixels, t.threads) for t in timings})
    known = {(t.what, t.megapixels, t.threads): t.seconds for t in timings}
    heads = [f"{size:g} Mpx, {threads} thr." for size, threads in columns]
    lines = ["| | " + " | ".join(heads) + " |", "| --- |" + " --- |" * len(columns)]
    for what in dict.fromkeys(t.what for t in timings):
        cells = []
        for column in columns:
            seconds = known.get((what, *column))
            unit = known["pooled |Laplacian|, scipy", *column]
            cells.append("" if seconds is None else f"{1e3 * seconds:.3g} ({seconds / unit:.2f})")
        lines.append("| " + what.replace("|", "\\|") + " | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def draw(timings: list[Timing], path: Path) -> None:
    """Draw time over size, both logarithmic, on as many threads as there were."""
    figure, axes = plt.subplots(figsize=(9, 5), layout="constrained")
    most = max(t.threads for t in timings)
    names = [name for name in dict.fromkeys(t.what for t in timings) if name not in NOT_DRAWN]
    for index, what in enumerate(names):
        points = [(t.megapixels, t.seconds) for t in timings if (t.what, t.threads) == (what, most)]
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
    plt.close(figure)


if __name__ == "__main__":
    main()
