"""What each part of detection is worth: every part on and off, on photos with hand-made masks.

    python -m benchmarks.accuracy.ablation PHOTOS --out DIR [--trained NAME=FILE ...]

PHOTOS holds ``images`` and ``masks`` (255 = blurred) of the same stems. Writes ``ablation.md`` and,
for the three photos with the least AUC, ``worst.png`` (photo, truth, map) and ``errors.png``, which
shows the errors alone. Dense detectors that were trained otherwise are scored beside the default.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarks import tables
from benchmarks.accuracy.photos import Photo, read_photos, score_detection
from napari_defocus.dense.detector import cached_dense
from napari_defocus.dense.inference import predict_dense
from napari_defocus.dense.plane import predict_image
from napari_defocus.detection.api import Detection, DetectionConfig
from napari_defocus.detection.detectors import choose_detector
from napari_defocus.detection.inference import Prediction, predict_plane
from napari_defocus.detection.postprocess import postprocess
from napari_defocus.evaluate.scores import SetScores, score_set
from napari_defocus.filters.plane import prepare_colours, prepare_plane
from napari_defocus.metric.local_metric import LocalMetric, load_metric
from napari_defocus.metric.response import predict_log_odds
from napari_defocus.profile.limit import REFERENCE, SLOPE, EdgeRadii, log_radius, score_of

Predict = Callable[[Photo], Prediction]
COLUMNS = ("Fmax", "Fadaptive", "Fblur@.5", "MAE", "AUC", "IoU(mask)")
WORST = 3
CONFIG = DetectionConfig()
# Parts of the postprocessing that are left out, by detector and what the table calls it.
NOT_REFINED = {"": CONFIG, ", not refined": replace(CONFIG, refine=False)}
WITHOUT = {
    "metric": NOT_REFINED | {", threshold not adapted": replace(CONFIG, adapt=0.0)},
    "dense": NOT_REFINED | {f", limit of {REFERENCE} px": replace(CONFIG, limit=REFERENCE)},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--trained", nargs="*", default=[], metavar="NAME=FILE")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    photos = read_photos(options.photos)
    lines = tables.head(["detector", *COLUMNS])
    for name, found in variants(photos, options.trained):
        scores = score_set(
            {p.name: score_detection(d, p) for p, d in zip(photos, found, strict=True)}
        )
        lines.append(tables.row([name, *(f"{scores.mean[column]:.4f}" for column in COLUMNS)]))
        print(lines[-1], flush=True)
        if name == "dense":
            draw_worst(photos, found, scores, options.out)
    (options.out / "ablation.md").write_text("\n".join(lines) + "\n", "utf-8")


def variants(photos: list[Photo], trained: list[str]) -> Iterator[tuple[str, list[Detection]]]:
    """Yield each variant's name and what it detects."""
    metric = load_metric()
    ways: dict[str, Predict] = {
        "metric": predictor("metric", metric),
        "metric, one scale, noise not estimated": one_scale(metric),
        "dense": predictor("dense", metric),
        "dense, not spread": not_spread,
        "dense, log odds alone": lambda photo: by_one(photo, log_odds=True),
        "dense, radius alone": lambda photo: by_one(photo, log_odds=False),
    }
    for entry in trained:
        name, file = entry.split("=", 1)
        ways[f"dense, {name}"] = predictor(file, metric)
    for name, predict in ways.items():
        predictions = [predict(photo) for photo in photos]
        for part, config in WITHOUT.get(name, {"": CONFIG}).items():
            yield name + part, [postprocess(prediction, config) for prediction in predictions]


def predictor(detector: str, metric: LocalMetric) -> Predict:
    config = DetectionConfig(detector=detector)
    chosen = choose_detector(metric, config)
    return lambda photo: predict_plane(photo.image, chosen, config)


def one_scale(metric: LocalMetric) -> Predict:
    """Predict by the metric at full size, as if there were no noise."""

    def predict(photo: Photo) -> Prediction:
        silent = replace(prepare_plane(photo.image), noise=(1e-12, 0.0))
        log_odds, _ = predict_log_odds(silent, metric, coarser=0)
        return Prediction(log_odds, np.ones(log_odds.shape, bool))

    return predict


def not_spread(photo: Photo) -> Prediction:
    """Predict without spreading the network's log odds over pixels of like colour."""
    colours = prepare_colours(photo.image, prepare_plane(photo.image))
    plane = replace(
        predict_image(photo.image, cached_dense()), found=predict_dense(colours, cached_dense())
    )
    return Prediction(score_of(plane), plane.seen, edges=EdgeRadii.of(plane))


def by_one(photo: Photo, *, log_odds: bool) -> Prediction:
    """Predict by one of the two that make the score: the log odds, or the radius."""
    plane = predict_image(photo.image, cached_dense())
    by_radius = SLOPE * (log_radius(REFERENCE) - log_radius(plane.radius))
    score = plane.found.log_odds if log_odds else by_radius
    return Prediction(score, plane.seen, edges=EdgeRadii.of(plane))


def draw_worst(
    photos: list[Photo], detections: list[Detection], scores: SetScores, out: Path
) -> None:
    """Draw the photos with the least AUC, and where the map errs on them."""
    auc = {name: row.values["AUC"] for name, row in scores.images.items()}
    pairs = sorted(zip(photos, detections, strict=True), key=lambda pair: auc[pair[0].name])
    whole = Figure(figsize=(11, 2.6 * WORST), layout="constrained")
    errors = Figure(figsize=(11, 3), layout="constrained")
    panels, alone = whole.subplots(WORST, 3), errors.subplots(1, WORST)
    for (photo, found), row, single in zip(pairs, panels, alone, strict=False):
        row[0].imshow(photo.image)
        row[1].imshow(~photo.blurred, cmap="gray")
        row[2].imshow(1 - found.blur, cmap="gray", vmin=0, vmax=1)
        single.imshow(found.blur - photo.blurred, cmap="RdBu", vmin=-1, vmax=1)
        for axes in (row[0], single):
            axes.set_title(f"{photo.name}, AUC {auc[photo.name]:.3f}", fontsize=9)
    for axes in (*panels.flat, *alone):
        axes.set_axis_off()
    errors.suptitle("blue: sharp taken for blurred, red: blurred taken for sharp", fontsize=9)
    whole.savefig(out / "worst.png", dpi=80)
    errors.savefig(out / "errors.png", dpi=80)


if __name__ == "__main__":
    main()
