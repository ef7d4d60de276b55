"""Measure how robust the detectors are to noise, compression, scaling and more, beside targets.

    python -m benchmarks.accuracy.robustness DATA --out DIR [--detectors metric dense]

DATA holds some of: ``photos/images`` and ``photos/masks`` (255 = blurred, 8 bit, of the same
stems), ``lightsheet`` (defocus in the file names), ``pairs_lytro`` (``NAME_1`` and ``NAME_2``),
``bbbc006/sharp`` and ``bbbc006/blurred``; the table lists what is missing. A detector is
``metric``, ``dense`` or the file of a dense one. DIR gets ``robustness.md``.
"""

import argparse
import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks import tables
from benchmarks.accuracy import robustness_checks as checks
from benchmarks.accuracy.photos import images_in
from benchmarks.accuracy.robustness_checks import PAIR_RATIO, PAIR_SIGMA, PAIR_TEXTURE, TEXTURE
from napari_defocus.core.errors import DefocusError
from napari_defocus.detection.api import DetectionConfig, detect
from napari_defocus.detection.config import DETECTORS
from napari_defocus.io.atomic import whole_file

NOTES = f"""\
AUC is the mean over photos; noise is Gaussian, of 255, on 8 bit images; brightness and contrast
(about the mean) are changed in float, so that nothing clips. Blur of the light sheet is of the
pixels with confidence > 0. Discs: crisp pictures blurred in linear light; median of the relative
error over pixels whose crisp picture has texture (gradient at a scale of 2 pixels, pooled over 8,
of {TEXTURE:g} of white a pixel). Pairs: pixels whose squared Laplacian, pooled over
{PAIR_SIGMA:g} pixels, is {PAIR_RATIO:g} times that of the other photo and of a root of at least
{PAIR_TEXTURE:g} of the grey range; equal blur counts as wrong. Wholly sharp and blurred images:
mean over decided pixels. Calibration: decided pixels of all photos together, accuracy of their
class against (1 + confidence) / 2."""

# By title: what measures, and the folders of images that it needs.
CHECKS: Mapping[str, tuple[checks.Check, tuple[str, ...]]] = {
    "photos": (checks.photo_auc, ("photos/images", "photos/masks")),
    "light sheet": (checks.focus_series, ("lightsheet",)),
    "discs": (checks.discs, ()),
    "pairs": (checks.pairs, ("pairs_lytro",)),
    "rendered wholes": (checks.rendered_wholes, ()),
    "BBBC006": (checks.microscope_wholes, ("bbbc006/sharp", "bbbc006/blurred")),
    "calibration": (checks.calibration, ("photos/images", "photos/masks")),
}


@dataclass
class Report:
    """What was measured, by row of the table and then by detector, and what was left out."""

    detectors: list[str]
    rows: dict[str, dict[str, checks.Measured]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def measure(data: Path, names: Iterable[str], settings: checks.Settings) -> Report:
    """Run every check whose data is there, with every detector."""
    detectors = {name if name in DETECTORS else Path(name).stem: name for name in names}
    report = Report(list(detectors))
    for title, (check, folders) in CHECKS.items():
        missing = [folder for folder in folders if not images_in(data / folder)]
        if missing:
            report.left_out.append(f"{title} left out: no images in {', '.join(missing)}")
            continue
        for name, detector in detectors.items():
            print(f"{title}, {name}", file=sys.stderr, flush=True)
            try:
                config = DetectionConfig(detector=detector)
                figures = list(check(partial(detect, config=config), data, settings))
            except DefocusError as error:
                report.left_out.append(f"{title} left out of {name}: {error}")
                continue
            if not figures:
                report.left_out.append(f"{title} left out of {name}: it measures no radius")
            for figure in figures:
                report.rows.setdefault(figure.row, {})[name] = figure
    return report


def table(report: Report) -> str:
    """Lay a report out as Markdown."""
    lines = tables.head(["", "target", *report.detectors])
    for row, by_name in report.rows.items():
        target = next(iter(by_name.values())).target
        cells = [_cell(by_name.get(name)) for name in report.detectors]
        lines.append(tables.row([row, str(target or ""), *cells]))
    counts = []
    for name in report.detectors:
        figures = [by_name[name] for by_name in report.rows.values() if name in by_name]
        met = [figure.target.met(figure.value) for figure in figures if figure.target is not None]
        counts.append(f"{name} meets {sum(met)} of {len(met)} targets.")
    left_out = [f"- {reason}" for reason in report.left_out]
    parts = [" ".join(counts), "\n".join(lines), "\n".join(left_out), NOTES]
    return "\n\n".join(part for part in parts if part) + "\n"


def _cell(figure: checks.Measured | None) -> str:
    if figure is None or math.isnan(figure.value):
        return "-"
    target = figure.target
    sign = "+" if target is not None and target.kind == "within" else ""
    cell = f"{figure.value:{sign}.3f}" + (f" ({figure.detail})" if figure.detail else "")
    if target is None:
        return cell
    return f"{cell} {'pass' if target.met(figure.value) else '**fail**'}"


def benchmark(data: Path, out: Path, detectors: Iterable[str], settings: checks.Settings) -> Report:
    """Measure everything, and write the table."""
    report = measure(data, detectors, settings)
    with whole_file(out / "robustness.md") as temporary:
        temporary.write_text(table(report), encoding="utf-8")
    return report


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--detectors", nargs="+", default=["metric", "dense"])
    options = parser.parse_args(arguments)
    benchmark(options.data, options.out, options.detectors, checks.Settings())
    print((options.out / "robustness.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
