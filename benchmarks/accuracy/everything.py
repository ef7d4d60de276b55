"""Score the default detector on all that is at hand: photos, focus series, robustness.

    python -m benchmarks.accuracy.everything DATA --out DIR [--every 4]

DATA holds some of ``cuhk_te1``, ``szu_score`` and ``photos`` (``images`` and ``masks`` each),
``series``, and what `benchmarks.accuracy.robustness` measures. Prints tables; DIR gets the
precision-recall curves, the reliability of the confidence, and overviews of each set's ten worst.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks import tables
from benchmarks.accuracy import robustness, series
from benchmarks.accuracy.photos import read_photos, score_detection
from benchmarks.accuracy.robustness_checks import Settings, calibration_error, told_and_right
from napari_defocus.detection.api import detect
from napari_defocus.evaluate.scores import Curve, SetScores, score_set
from napari_defocus.io.atomic import whole_file
from napari_defocus.plot.curves import save_precision_recall
from napari_defocus.plot.overview import save_overview

SETS = ("cuhk_te1", "szu_score", "photos")
COLUMNS = ("Fmax", "Fblur@.5", "MAE", "AUC", "IoU(mask)")
WORST = 10
BINS = 10

Chances = tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]


def score_photos(folder: Path, out: Path, every: int) -> tuple[SetScores, Chances]:
    """Score a set; return its scores, and of decided pixels the chance told and who was right."""
    scores, chances, rights, pictures = {}, [], [], {}
    for photo in read_photos(folder)[::every]:
        found = detect(photo.image, radius=False)
        scores[photo.name] = score_detection(found, photo)
        pictures[photo.name] = photo.image, found.blur, found.mask
        chance, right = told_and_right(found, photo)
        chances.append(chance)
        rights.append(right)
    worst = sorted(scores, key=lambda name: scores[name].values["IoU(mask)"])[:WORST]
    for place, name in enumerate(worst):
        save_overview(out / f"worst-{folder.name}-{place}-{name}.png", *pictures[name])
    return score_set(scores), (np.concatenate(chances), np.concatenate(rights))


def save_reliability(path: Path, sets: Mapping[str, Chances]) -> None:
    """Draw for each set how often decided pixels are right, against the chance that was told."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), dpi=150, layout="constrained")
    axes = figure.add_subplot(xlabel="chance told", ylabel="share that is right")
    axes.plot([0.5, 1], [0.5, 1], color="0.8")
    for name, (chance, right) in sets.items():
        bins = np.minimum(((chance - 0.5) * 2 * BINS).astype(int), BINS - 1)
        count = np.maximum(np.bincount(bins, minlength=BINS), 1)
        told, true = (np.bincount(bins, part, BINS) / count for part in (chance, right))
        axes.plot(told[told > 0], true[told > 0], marker="o", label=name)
    axes.legend()
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--every", type=int, default=1, help="take every so many photos")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    print("\n".join(tables.head(["set", *COLUMNS, "calibration error"])), flush=True)
    curves: dict[str, Curve] = {}
    reliability: dict[str, Chances] = {}
    for name in SETS:
        if not (options.data / name).is_dir():
            continue
        found, told = score_photos(options.data / name, options.out, options.every)
        curves[name], reliability[name] = found.sharp, told
        cells = [*(f"{found.mean[c]:.3f}" for c in COLUMNS), f"{calibration_error(*told):.3f}"]
        print(tables.row([f"{name} ({len(found.images)})", *cells]), flush=True)
    if curves:
        save_precision_recall(options.out / "precision_recall.png", curves)
        save_reliability(options.out / "reliability.png", reliability)
    if (options.data / "series").is_dir():
        series.main([str(options.data / "series"), "--sheet", str(options.out / "series.png")])
    robustness.benchmark(options.data, options.out, ["dense"], Settings())
    print((options.out / "robustness.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
