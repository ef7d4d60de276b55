"""Which fields are out of focus: ours at its default thresholds, peers at each one's best.

Run as: python -m benchmarks.report.peers SERIES [--folders SHARP BLURRED] [--csv FILE]

SERIES is as for `benchmarks.accuracy.series`; its planes in focus and far out of it are fields, and
so are the images of two folders. A peer gives one number a field; its threshold, one for all
fields, is the one with fewest wrong calls, chosen with the truth in hand. Ours is the verdict of
`report`: wrong where a field in focus is not called so, or one out of focus is.
"""

import argparse
import csv
import importlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from benchmarks import tables
from benchmarks.accuracy.peers import eight_bit_grey
from benchmarks.accuracy.series import read_series
from napari_defocus.detection.api import detect
from napari_defocus.evaluate.baselines import BASELINES
from napari_defocus.filters.luminance import grey_and_holes
from napari_defocus.io.folder import find_images
from napari_defocus.io.open import read_image
from napari_defocus.measure.regions import region_shares, sharp_of_structure
from napari_defocus.report.fields import Thresholds

Image = npt.NDArray[Any]
Score = Callable[[Image], float]


@dataclass(frozen=True)
class Case:
    """A field, and whether it is in focus."""

    name: str
    image: Image
    in_focus: bool


def cases(series: Path, folders: list[Path] | None) -> Iterator[Case]:
    for one in read_series(series):
        for z in one.planes:
            yield Case(f"{one.name} {z}", one.plane(z), z in one.inside)
    for folder, in_focus in zip(folders or [], (True, False), strict=False):
        for path in find_images([folder]):
            yield Case(path.stem, read_image(path).data, in_focus)


def ours(image: Image) -> float:
    """Return the sharp share of the structure."""
    mask = detect(image).mask
    return sharp_of_structure(region_shares(mask, np.ones(mask.shape, bool)))


def power_log_log_slope(image: Image) -> float:
    """Return CellProfiler's PowerLogLogSlope: of the radial power spectrum, to an eighth."""
    grey, _ = grey_and_holes(image)
    grey = grey - grey.mean()
    grey /= np.median(np.abs(grey)) or 1.0
    power = np.abs(np.fft.fft2(grey)) ** 2
    steps = [np.minimum(np.arange(size), size - np.arange(size)) for size in grey.shape]
    radii = np.floor(np.hypot(steps[0][:, None], steps[1])).astype(int) + 1
    labels = np.arange(2, min(grey.shape) // 8)
    sums = ndimage.sum_labels(power, radii, labels)
    seen = sums > 0
    return float(np.polyfit(np.log(labels[seen]), np.log(sums[seen]), 1)[0])


def histoqc(image: Image) -> float:
    """Return the mean response of HistoQC's blur module: |Laplacian|, Gaussian of 7 pixels."""
    grey = eight_bit_grey(image) / 255.0
    return float(ndimage.gaussian_filter(np.abs(ndimage.laplace(grey)), 7).mean())


def variance_of_laplacian(image: Image) -> float:
    return float(ndimage.laplace(eight_bit_grey(image).astype(np.float64)).var())


def mean_of(name: str) -> Score:
    return lambda image: float(BASELINES[name](eight_bit_grey(image) / 255.0).mean())


def package(module: str, use: Callable[[Any, Image], Image]) -> Score | None:
    """Return the mean of a package's map; None where it is not installed."""
    try:
        loaded = importlib.import_module(module)
    except ImportError:
        return None
    return lambda image: float(np.mean(use(loaded, eight_bit_grey(image))))


def blur_detector(module: Any, grey: Image) -> Image:
    settings = {"downsampling_factor": 4, "num_scales": 4, "scale_start": 2}
    return np.asarray(module.detectBlur(grey, show_progress=False, **settings))


def focus_response(module: Any, grey: Image) -> Image:
    return np.asarray(module.fuse_rdf_sum(grey, [(1, 3)], power=2, normalize="p99")[0])


PEERS: dict[str, Score | None] = {
    "CellProfiler, power log-log slope": power_log_log_slope,
    "HistoQC's blur module, mean": histoqc,
    "variance of the Laplacian": variance_of_laplacian,
    "Tenengrad, mean": mean_of("Tenengrad"),
    "Brenner, mean": mean_of("Brenner"),
    "LBP sharpness, mean": mean_of("LBP sharpness"),
    "focus-response, mean": package("focus_response", focus_response),
    "blur-detector, mean": package("blur_detector", blur_detector),
}


def fewest_wrong(scores: Image, truth: npt.NDArray[np.bool_]) -> tuple[int, float]:
    """Return the wrong calls at the best threshold, and that; more is sharper."""
    scores = np.nan_to_num(scores, nan=-np.inf)
    options = [*np.unique(scores), np.inf]
    wrong = [int(np.count_nonzero((scores >= t) != truth)) for t in options]
    return min(wrong), float(options[int(np.argmin(wrong))])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("series", type=Path)
    parser.add_argument("--folders", type=Path, nargs=2, metavar=("SHARP", "BLURRED"))
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    fields = list(cases(options.series, options.folders))
    truth = np.array([case.in_focus for case in fields])
    print(f"{len(fields)} fields, {truth.sum()} in focus\n")
    print("\n".join(tables.head(["", "wrong calls", "at the threshold", "s / field"])), flush=True)
    scored: dict[str, Image] = {}
    for name, score in {"napari-defocus, the report": ours, **PEERS}.items():
        if score is None:
            print(tables.row([name, "not installed", "", ""]))
            continue
        start = time.perf_counter()
        scored[name] = np.array([score(case.image) for case in fields])
        taken = (time.perf_counter() - start) / len(fields)
        wrong, best = fewest_wrong(scored[name], truth)
        told = f"{best:.3g}, its best"
        if score is ours:
            best = Thresholds().in_focus
            default = int(np.count_nonzero((np.nan_to_num(scored[name]) >= best) != truth))
            told = f"{best}, the default ({wrong} at its best)"
            wrong = default
        print(tables.row([name, f"{wrong} ({wrong / len(fields):.0%})", told, f"{taken:.2g}"]))
    if options.csv:
        with options.csv.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["field", "in focus", *scored])
            for k, case in enumerate(fields):
                writer.writerow([case.name, case.in_focus, *(s[k] for s in scored.values())])


if __name__ == "__main__":
    main()
