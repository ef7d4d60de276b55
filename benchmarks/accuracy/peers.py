"""Score the detectors beside peers, classical operators and stored maps, on photos with masks.

    python -m benchmarks.accuracy.peers PHOTOS --out DIR [--stored DIR ...]
                                        [--detectors zeng2019 metric dense] [--skip-slow]

PHOTOS holds ``images`` and ``masks`` (255 = blurred) of the same stems. Stored maps (255 = sharp)
are read from the folders in PHOTOS/peer_maps, where there are any, and from those given. Peers are
run where they are installed. DIR gets ``peers.md``, ``scores.csv`` (every score of every image) and
``precision_recall.png``.
"""

import argparse
import importlib
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks import tables
from benchmarks.accuracy.photos import Photo, read_photos
from napari_defocus.core.errors import DefocusError
from napari_defocus.detection.api import DetectionConfig, detect
from napari_defocus.evaluate.baselines import BASELINES, Baseline
from napari_defocus.evaluate.report import Report, evaluate_folders
from napari_defocus.evaluate.scores import (
    TRIVIAL_MAPS,
    MapScores,
    SetScores,
    score_map,
    score_set,
    trivial_scores,
)
from napari_defocus.filters.plane import prepare_plane
from napari_defocus.io.atomic import whole_file
from napari_defocus.plot.curves import write_report

Array = npt.NDArray[Any]
COLUMNS = ("Fmax", "Fadaptive", "Fblur@.5", "MAE", "AUC", "IoU(otsu)", "IoU(mask)")
# Means whose spread over images is shown beside them.
SPREAD = ("Fmax", "AUC")
KINDS = ("ours", "package", "stored", "operator", "trivial")
NOTES = """\
F with beta² = 0.3; ± half of the 95 % interval over images. Operators have no scale of their own:
their maps are brought to [0, 1] by each image's least and greatest value. Stored maps are 8 bit,
and their run time is not known. Seconds are of this machine, reading and scoring left out."""


# What is scored: our detectors, the peers that are installed, and the classical operators.


class Answer(NamedTuple):
    """A sharpness map (Y, X) in [0, 1], and the mask (0 undecided, 1 blurred, 2 sharp), if any."""

    sharpness: Array
    mask: npt.NDArray[np.uint8] | None = None


@dataclass(frozen=True, eq=False)
class Method:
    """Something that maps the sharpness of an image (Y, X) or (Y, X, C).

    Its kind is ours, package or operator; `run` is None where it cannot run here, for the reason
    that the remark gives.
    """

    name: str
    kind: str
    run: Callable[[Array], Answer] | None
    remark: str = ""


@dataclass(frozen=True)
class Package:
    """A peer that installs from PyPI, the module to import, and a function of module and image.

    It is slow where a small photo takes more than half a second.
    """

    name: str
    module: str
    run: Callable[[Any, Array], Answer]
    slow: bool
    remark: str


def our_detector(name: str) -> Method:
    config = DetectionConfig(detector=name)

    def run(image: Array) -> Answer:
        found = detect(image, config=config)
        return Answer(found.sharpness, found.mask)

    return Method(f"napari-defocus, {name}", "ours", run)


def operator(name: str, function: Baseline) -> Method:
    return Method(name, "operator", lambda image: Answer(unit(function(prepare_plane(image).grey))))


def unit(values: Array) -> npt.NDArray[np.float64]:
    """Scale a map to [0, 1] by its own range; a constant map becomes 0."""
    raised = np.asarray(values, np.float64) - values.min()
    return np.asarray(raised / max(raised.max(), np.finfo(np.float64).tiny))


def eight_bit_grey(image: Array) -> npt.NDArray[np.uint8]:
    """Convert an image as most programs read it: 8 bit, grey of ITU-R BT.601."""
    if image.dtype != np.uint8:
        image = np.rint(255 * np.clip(prepare_plane(image).grey, 0, 1)).astype(np.uint8)
    return np.asarray(Image.fromarray(image).convert("L"))


def blur_detector(module: Any, image: Array) -> Answer:
    settings = {"downsampling_factor": 4, "num_scales": 4, "scale_start": 2}
    return Answer(module.detectBlur(eight_bit_grey(image), show_progress=False, **settings))


def focus_response(module: Any, image: Array) -> Answer:
    # the steps of its detect_focus_regions, which takes a file; settings are its defaults
    fused, _ = module.fuse_rdf_sum(eight_bit_grey(image), [(1, 3)], power=2, normalize="p99")
    density, _ = module.kde_on_fused(fused, top_percent=25.0, bandwidth_px=10.0)
    return Answer(density)


PACKAGES = (
    Package(
        "blur-detector",
        "blur_detector",
        blur_detector,
        slow=True,
        remark="after HiFST; settings of its page's example",
    ),
    Package(
        "focus-response",
        "focus_response",
        focus_response,
        slow=False,
        remark="ring difference filter, density of the strongest quarter; default settings",
    ),
)


def load_package(package: Package, skip_slow: bool = False) -> Method:
    """Return a package's method, without a `run` where it is missing or cannot run."""
    if skip_slow and package.slow:
        return Method(package.name, "package", None, "slow: left out by --skip-slow")
    try:
        name = f"{package.name} {metadata.version(package.name)}"
    except metadata.PackageNotFoundError:
        remark = f"not installed: `pip install {package.name}`"
        return Method(package.name, "package", None, remark)
    try:
        module = importlib.import_module(package.module)
    except Exception as error:  # of its own code or of what it imports
        return Method(name, "package", None, f"cannot be imported: {one_line(error)}")
    return Method(name, "package", partial(package.run, module), package.remark)


def one_line(error: Exception) -> str:
    """Return an error in one line that a table can hold."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 160 else text[:157] + "..."


def methods(detectors: Iterable[str], skip_slow: bool) -> Iterator[Method]:
    """Yield our detectors, the packages, and the operators."""
    yield from (our_detector(name) for name in detectors)
    yield from (load_package(package, skip_slow) for package in PACKAGES)
    yield from (operator(name, function) for name, function in BASELINES.items())


# Their scores


@dataclass(frozen=True, eq=False)
class Row:
    """A line of the table; without scores where the method gave no map at all."""

    name: str
    kind: str
    scores: SetScores | None = None
    seconds: float = math.nan
    remark: str = ""


def score_method(method: Method, photos: list[Photo]) -> Row:
    """Run a method on every photo; the remark names the photos that it fails on."""
    if method.run is None:
        return Row(method.name, method.kind, remark=method.remark)
    scores: dict[str, MapScores] = {}
    seconds, failures = 0.0, []
    for photo in photos:
        start = time.perf_counter()
        try:
            answer = method.run(photo.image)
            taken = time.perf_counter() - start
            scores[photo.name] = score_map(
                answer.sharpness, photo.blurred, sharpness=True, mask=answer.mask
            )
            seconds += taken
        except Exception as error:  # whatever a peer may raise; the others go on
            failures.append(f"{photo.name}: {one_line(error)}")
    remarks = [method.remark] if method.remark else []
    if failures:
        remarks.append(f"failed on {len(failures)} of {len(photos)}, first {failures[0]}")
    found, mean = (score_set(scores), seconds / len(scores)) if scores else (None, math.nan)
    return Row(method.name, method.kind, found, mean, "; ".join(remarks))


def score_stored(folder: Path, masks: Path, photos: list[Photo]) -> Row:
    """Score a folder of maps, 255 = sharp."""
    try:
        report = evaluate_folders({folder.name: folder}, masks, sharpness=True)
    except DefocusError as error:
        return Row(folder.name, "stored", remark=one_line(error))
    images = report.methods[folder.name].images
    scores = {photo.name: images[photo.name] for photo in photos if photo.name in images}
    missing = len(photos) - len(scores)
    remark = f"no map for {missing} of {len(photos)}" if missing else ""
    return Row(folder.name, "stored", score_set(scores) if scores else None, remark=remark)


def score_trivial(photos: list[Photo]) -> list[Row]:
    known = {photo.name: trivial_scores(photo.blurred) for photo in photos}
    return [
        Row(kind, "trivial", score_set({name: scores[kind] for name, scores in known.items()}))
        for kind in TRIVIAL_MAPS
    ]


def stored_folders(photos: Path, given: Iterable[Path]) -> list[Path]:
    """List the folders in PHOTOS/peer_maps, and those given."""
    beside = photos / "peer_maps"
    found = sorted(path for path in beside.iterdir() if path.is_dir()) if beside.is_dir() else []
    return list(dict.fromkeys([*found, *given]))


def ranked(rows: Iterable[Row]) -> list[Row]:
    """Order rows by kind, then by falling Fmax; those without scores last."""
    return sorted(
        rows,
        key=lambda row: (KINDS.index(row.kind), -row.scores.mean["Fmax"] if row.scores else 0),
    )


def table(rows: list[Row], images: int) -> str:
    """Lay the rows out as Markdown."""
    lines = tables.head(["method", "kind", *COLUMNS, "s / image", "remark"])
    for row in rows:
        cells = [_mean(row.scores, column) for column in COLUMNS]
        seconds = "-" if math.isnan(row.seconds) else f"{row.seconds:.2g}"
        lines.append(tables.row([row.name, row.kind, *cells, seconds, row.remark]))
    return "\n".join([f"{images} photos.", "", *lines, "", NOTES, ""])


def _mean(scores: SetScores | None, column: str) -> str:
    if scores is None or math.isnan(scores.mean[column]):
        return "-"
    low, high = scores.interval[column]
    spread = column in SPREAD and not math.isnan(low)
    return f"{scores.mean[column]:.3f}" + (f" ± {(high - low) / 2:.3f}" if spread else "")


def benchmark(
    folder: Path, out: Path, detectors: Iterable[str], stored: Iterable[Path], skip_slow: bool
) -> list[Row]:
    """Score everything, write the three files, return the rows in the order of the table."""
    photos = read_photos(folder)
    rows = []
    for entry in methods(detectors, skip_slow):
        rows.append(score_method(entry, photos))
        print(f"{entry.name}: {rows[-1].seconds:.3g} s / image", file=sys.stderr, flush=True)
    rows += [score_stored(path, folder / "masks", photos) for path in stored]
    rows = ranked(rows + score_trivial(photos))
    with whole_file(out / "peers.md") as temporary:
        temporary.write_text(table(rows, len(photos)), encoding="utf-8")
    scored = {row.name: row.scores for row in rows if row.scores is not None}
    trivial = {name: scored.pop(name) for name in TRIVIAL_MAPS}
    for name in ("scores.csv", "precision_recall.png"):
        write_report(out / name, Report(scored, trivial))
    return rows


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--stored", type=Path, nargs="+", default=[], metavar="DIR")
    parser.add_argument("--detectors", nargs="*", default=["zeng2019", "metric", "dense"])
    parser.add_argument("--skip-slow", action="store_true")
    options = parser.parse_args(arguments)
    stored = stored_folders(options.photos, options.stored)
    benchmark(options.photos, options.out, options.detectors, stored, options.skip_slow)
    print((options.out / "peers.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
