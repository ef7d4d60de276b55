"""Score the detectors beside peers, classical operators and stored maps, on photos with masks.

    python -m benchmarks.accuracy.peers PHOTOS --out DIR [--stored DIR ...]
                                        [--detectors metric,dense] [--skip-slow]

PHOTOS holds ``images`` and ``masks`` (255 = blurred) of the same stems. Stored maps (255 = sharp)
are read from the folders in PHOTOS/peer_maps, where there are any, and from those given. Peers are
run where they are installed. DIR gets ``peers.md``, ``auc_by_image.csv`` and
``precision_recall.png``.
"""

import argparse
import csv
import math
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.accuracy.peer_methods import Method, methods, said
from benchmarks.accuracy.photos import Photo, read_photos
from napari_defocus.core.errors import DefocusError
from napari_defocus.evaluate.report import evaluate_folders
from napari_defocus.evaluate.scores import (
    TRIVIAL_MAPS,
    MapScores,
    SetScores,
    score_map,
    score_set,
    trivial_scores,
)
from napari_defocus.io.atomic import whole_file

COLUMNS = ("Fmax", "Fadaptive", "Fblur@.5", "MAE", "AUC", "IoU(otsu)", "IoU(mask)")
# Means whose spread over images is shown beside them.
SPREAD = ("Fmax", "AUC")
KINDS = {
    "ours": "napari-defocus",
    "package": "packages, run here",
    "stored": "stored maps",
    "operator": "operators",
    "trivial": "trivial maps",
}
NOTES = """\
F with beta² = 0.3; ± half of the 95 % interval over images. Operators have no scale of their own:
their maps are brought to [0, 1] by each image's least and greatest value. Stored maps are 8 bit,
and their run time is not known. Seconds are of this machine, reading and scoring left out."""


@dataclass(frozen=True, eq=False)
class Row:
    """A line of the table; without scores where the method gave no map at all."""

    name: str
    kind: str
    scores: SetScores | None = None
    seconds: float = math.nan
    remark: str = ""


# --- scores ----------------------------------------------------------------------------------


def score_method(method: Method, photos: list[Photo]) -> Row:
    """Run a method on every photo; one that it fails on is left out and told of."""
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
            failures.append(f"{photo.name}: {said(error)}")
    remarks = [method.remark] if method.remark else []
    if failures:
        remarks.append(f"failed on {len(failures)} of {len(photos)}, first {failures[0]}")
    row = Row(method.name, method.kind, remark="; ".join(remarks))
    if not scores:
        return row
    return replace(row, scores=score_set(scores), seconds=seconds / len(scores))


def score_stored(folder: Path, masks: Path, photos: list[Photo]) -> Row:
    """Score a folder of maps, 255 = sharp."""
    try:
        report = evaluate_folders({folder.name: folder}, masks, sharpness=True)
    except DefocusError as error:
        return Row(folder.name, "stored", remark=said(error))
    assert report is not None
    images = report.methods[folder.name].images
    scores = {photo.name: images[photo.name] for photo in photos if photo.name in images}
    lacking = len(photos) - len(scores)
    remark = f"no map for {lacking} of {len(photos)}" if lacking else ""
    return Row(folder.name, "stored", score_set(scores) if scores else None, remark=remark)


def score_trivial(photos: list[Photo]) -> list[Row]:
    known = {photo.name: trivial_scores(photo.blurred) for photo in photos}
    return [
        Row(kind, "trivial", score_set({name: scores[kind] for name, scores in known.items()}))
        for kind in TRIVIAL_MAPS
    ]


def stored_folders(photos: Path, given: Iterable[Path]) -> list[Path]:
    """Give the folders in PHOTOS/peer_maps, and those given."""
    beside = photos / "peer_maps"
    found = sorted(path for path in beside.iterdir() if path.is_dir()) if beside.is_dir() else []
    return list(dict.fromkeys([*found, *given]))


def ranked(rows: Iterable[Row]) -> list[Row]:
    """Order rows by kind, then by falling Fmax; those without scores last."""
    kinds = list(KINDS)
    return sorted(
        rows, key=lambda row: (kinds.index(row.kind), -row.scores.mean["Fmax"] if row.scores else 0)
    )


# --- what is written -------------------------------------------------------------------------


def table(rows: list[Row], images: int) -> str:
    """Lay the rows out as Markdown."""
    head = ["method", "kind", *COLUMNS, "s / image", "remark"]
    lines = [f"{images} photos.", "", _line(head), _line(["---"] * len(head))]
    for row in rows:
        cells = [_mean(row.scores, column) for column in COLUMNS]
        seconds = "-" if math.isnan(row.seconds) else f"{row.seconds:.2g}"
        lines.append(_line([row.name, row.kind, *cells, seconds, row.remark]))
    return "\n".join([*lines, "", NOTES, ""])


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def _mean(scores: SetScores | None, column: str) -> str:
    if scores is None or math.isnan(scores.mean[column]):
        return "-"
    low, high = scores.interval[column]
    spread = column in SPREAD and not math.isnan(low)
    return f"{scores.mean[column]:.3f}" + (f" ± {(high - low) / 2:.3f}" if spread else "")


def write_auc_by_image(rows: list[Row], photos: list[Photo], path: Path) -> None:
    """Write AUC as CSV, a line an image and a last one of means, with the best peer of each.

    Peers are all but our own detectors and the trivial maps. An undefined AUC is an empty cell.
    """
    scored = {row.name: row for row in rows if row.scores is not None and row.kind != "trivial"}
    peers = [name for name, row in scored.items() if row.kind != "ours"]
    with (
        whole_file(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["image", *scored, "best peer", "AUC of the best peer"])
        for image in [photo.name for photo in photos] + ["mean"]:
            aucs = {name: _auc(row, image) for name, row in scored.items()}
            ranks = {name: aucs[name] for name in peers if not math.isnan(aucs[name])}
            best = max(ranks, key=ranks.__getitem__, default="")
            cells = [*aucs.values(), ranks.get(best, math.nan)]
            texts = ["" if math.isnan(cell) else f"{cell:.4f}" for cell in cells]
            writer.writerow([image, *texts[:-1], best, texts[-1]])


def _auc(row: Row, image: str) -> float:
    assert row.scores is not None
    if image == "mean":
        return row.scores.mean["AUC"]
    return row.scores.images[image].values["AUC"] if image in row.scores.images else math.nan


def plot_curves(rows: list[Row], path: Path) -> None:
    """Draw the mean precision-recall curves, sharp positive, our detectors thick.

    Precision is shown from that of the all-sharp map upwards: what is below it knows nothing. A
    curve that falls on its left end has images where nothing reaches the threshold.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(11, 6.5), dpi=140, layout="constrained")
    FigureCanvasAgg(figure)  # draws without a window, whatever backend is set
    axes = figure.add_subplot(xlim=(0, 1), xlabel="recall of sharp", ylabel="precision of sharp")
    axes.grid(color="0.92")
    blank = Line2D([], [], linestyle="none")
    handles, labels = [], []
    for kind in ("ours", "package", "stored", "operator"):
        shown = [row for row in rows if row.kind == kind and row.scores is not None]
        if shown:
            handles.append(blank)
            labels.append(KINDS[kind])
        for place, row in enumerate(shown):
            handles.append(_draw(axes, row, place))
            labels.append(f"{row.scores.mean['Fmax']:.3f}  {row.name}" if row.scores else "")
    chance = next(row for row in rows if row.name == "all sharp").scores
    if chance is not None:
        share = float(chance.sharp.precision[0])
        handles.append(axes.axhline(share, color="0.5", linewidth=1))
        labels.append(f"{chance.mean['Fmax']:.3f}  all sharp")
        axes.set_ylim(math.floor(10 * share) / 10, 1.005)
    legend = figure.legend(
        handles, labels, title="Fmax", loc="outside right upper", frameon=False, fontsize=9
    )
    for text in legend.get_texts():
        text.set_fontweight("bold" if text.get_text() in KINDS.values() else "normal")
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png")


# By kind: how lines are drawn, and the colours that come round.
STYLES: Mapping[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "ours": ({"linewidth": 3.6, "zorder": 4}, ("#d55e00", "#000000", "#8c510a")),
    "package": ({"linewidth": 1.9, "zorder": 3}, ("#0072b2", "#117733", "#882255")),
    "stored": (
        {"linewidth": 1.4, "linestyle": "--"},
        ("#332288", "#44aa99", "#cc79a7", "#7f7f7f", "#b8860b", "#56b4e9"),
    ),
    "operator": (
        {"linewidth": 1.6, "linestyle": ":"},
        ("#6699cc", "#009e73", "#aa4499", "#999933", "#661100"),
    ),
}


def _draw(axes: Any, row: Row, place: int) -> Any:
    assert row.scores is not None
    curve = row.scores.sharp
    style, colours = STYLES[row.kind]
    colour = colours[place % len(colours)]
    drawn = curve.recall > 0
    (line,) = axes.plot(curve.recall[drawn], curve.precision[drawn], color=colour, **style)
    best = int(curve.f.argmax())
    axes.plot(curve.recall[best], curve.precision[best], "o", color=colour, markersize=4)
    return line


# --- the command -----------------------------------------------------------------------------


def benchmark(
    folder: Path, out: Path, detectors: Iterable[str], stored: Iterable[Path], skip_slow: bool
) -> list[Row]:
    """Score everything, write the three files, give the rows in the order of the table."""
    photos = read_photos(folder)
    rows = []
    for entry in methods(detectors, skip_slow):
        rows.append(score_method(entry, photos))
        print(f"{entry.name}: {rows[-1].seconds:.3g} s / image", file=sys.stderr, flush=True)
    rows += [score_stored(path, folder / "masks", photos) for path in stored]
    rows = ranked(rows + score_trivial(photos))
    with whole_file(out / "peers.md") as temporary:
        temporary.write_text(table(rows, len(photos)), encoding="utf-8")
    write_auc_by_image(rows, photos, out / "auc_by_image.csv")
    plot_curves(rows, out / "precision_recall.png")
    return rows


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--stored", type=Path, nargs="+", default=[], metavar="DIR")
    parser.add_argument("--detectors", default="metric,dense")
    parser.add_argument("--skip-slow", action="store_true")
    options = parser.parse_args(arguments)
    detectors = [name.strip() for name in options.detectors.split(",") if name.strip()]
    stored = stored_folders(options.photos, options.stored)
    benchmark(options.photos, options.out, detectors, stored, options.skip_slow)
    print((options.out / "peers.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
