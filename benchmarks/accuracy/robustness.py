"""Measure how the detectors stand noise, compression, scaling and more, beside targets.

    python -m benchmarks.accuracy.robustness DATA --out DIR [--detectors metric,dense]

DATA holds some of: ``photos/images`` and ``photos/masks`` (255 = blurred, 8 bit, of the same
stems), ``lightsheet`` (defocus in the file names), ``pairs_lytro`` (``NAME_1`` and ``NAME_2``),
``bbbc006/sharp`` and ``bbbc006/blurred``. What is missing is left out and told. A detector is
``metric``, ``dense`` or the file of a dense one. DIR gets ``robustness.md``.
"""

import argparse
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.accuracy.robustness_checks import (
    PAIR_RATIO,
    PAIR_SIGMA,
    PAIR_TEXTURE,
    TEXTURE,
    Detector,
    Measured,
    Settings,
    discs,
    focus_series,
    images_in,
    microscope_wholes,
    pairs,
    rendered_wholes,
)
from benchmarks.accuracy.robustness_photos import calibration, photo_auc
from napari_defocus.core.errors import DefocusError
from napari_defocus.dense.detector import load_dense
from napari_defocus.detection.api import DetectionConfig, detect
from napari_defocus.detection.config import DETECTORS
from napari_defocus.io.atomic import whole_file
from napari_defocus.metric.local_metric import load_metric

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


@dataclass(frozen=True)
class Check:
    """A check, the folder of the data that it is given, and those in it that it needs."""

    run: Callable[[Detector, Path, Settings], Iterator[Measured]]
    folder: str | None = None
    needs: tuple[str, ...] = ("",)

    def missing(self, data: Path) -> list[str]:
        """List the folders that are not there, or hold no image."""
        if self.folder is None:
            return []
        folders = [Path(self.folder, name) for name in self.needs]
        return [folder.as_posix() for folder in folders if not images_in(data / folder)]


CHECKS: Mapping[str, Check] = {
    "photos": Check(photo_auc, "photos", ("images", "masks")),
    "light sheet": Check(focus_series, "lightsheet"),
    "discs": Check(discs),
    "pairs": Check(pairs, "pairs_lytro"),
    "rendered wholes": Check(rendered_wholes),
    "BBBC006": Check(microscope_wholes, "bbbc006", ("sharp", "blurred")),
    "calibration": Check(calibration, "photos", ("images", "masks")),
}


@dataclass(frozen=True)
class Report:
    """What was measured, by check and then by detector, and what was left out."""

    detectors: list[str]
    measured: Mapping[str, Mapping[str, list[Measured]]]
    left_out: list[str]


def load_detectors(names: Iterable[str]) -> tuple[dict[str, Detector], list[str]]:
    """Make the detectors that can be read, by their names, and tell of those that cannot."""
    detectors: dict[str, Detector] = {}
    left_out = []
    for name in names:
        try:
            if name != "metric":
                load_dense("default" if name == "dense" else name)
        except DefocusError as error:
            left_out.append(f"detector {name} left out: {error}")
            continue
        detectors[name if name in DETECTORS else Path(name).stem] = _detector(name)
    return detectors, left_out


def _detector(name: str) -> Detector:
    metric, config = load_metric(), DetectionConfig(detector=name)
    return lambda image: detect(image, metric, config)


def measure(data: Path, detectors: Iterable[str], settings: Settings) -> Report:
    """Run every check whose data is there, with every detector."""
    loaded, left_out = load_detectors(detectors)
    measured: dict[str, dict[str, list[Measured]]] = {}
    for title, check in CHECKS.items():
        missing = check.missing(data)
        if missing:
            left_out.append(f"{title} left out: no images in {', '.join(missing)}")
            continue
        measured[title] = {}
        for name, detector in loaded.items():
            print(f"{title}, {name}", file=sys.stderr, flush=True)
            try:
                figures = list(check.run(detector, data / (check.folder or ""), settings))
            except DefocusError as error:
                left_out.append(f"{title} left out of {name}: {error}")
                continue
            if not figures:
                left_out.append(f"{title} left out of {name}: it tells no radius")
            measured[title][name] = figures
    return Report(list(loaded), measured, left_out)


def table(report: Report) -> str:
    """Lay a report out as Markdown."""
    names = report.detectors
    lines = [_line(["", "target", *names]), _line(["---"] * (2 + len(names)))]
    met = dict.fromkeys(names, 0)
    asked = dict.fromkeys(names, 0)
    for results in report.measured.values():
        rows: dict[str, dict[str, Measured]] = {}
        for name, figures in results.items():
            for figure in figures:
                rows.setdefault(figure.row, {})[name] = figure
                if figure.target is not None:
                    asked[name] += 1
                    met[name] += figure.target.met(figure.value)
        for row, by_name in rows.items():
            target = next(iter(by_name.values())).target
            cells = [_cell(by_name.get(name)) for name in names]
            lines.append(_line([row, "" if target is None else str(target), *cells]))
    counts = [f"{name} meets {met[name]} of {asked[name]} targets." for name in names]
    left_out = [f"- {reason}" for reason in report.left_out]
    parts = [" ".join(counts), "\n".join(lines), "\n".join(left_out), NOTES]
    return "\n\n".join(part for part in parts if part) + "\n"


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def _cell(figure: Measured | None) -> str:
    if figure is None or math.isnan(figure.value):
        return "-"
    sign = "+" if figure.target is not None and figure.target.kind == "within" else ""
    parts = [f"{figure.value:{sign}.3f}"]
    if figure.detail:
        parts.append(f"({figure.detail})")
    if figure.target is not None:
        parts.append("pass" if figure.target.met(figure.value) else "**fail**")
    return " ".join(parts)


def benchmark(
    data: Path, out: Path, detectors: Iterable[str], settings: Settings | None = None
) -> Report:
    """Measure everything, write the table, tell what was left out."""
    report = measure(data, detectors, settings or Settings())
    with whole_file(out / "robustness.md") as temporary:
        temporary.write_text(table(report), encoding="utf-8")
    return report


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--detectors", default="metric,dense")
    options = parser.parse_args(arguments)
    names = [name.strip() for name in options.detectors.split(",") if name.strip()]
    benchmark(options.data, options.out, names)
    print((options.out / "robustness.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
