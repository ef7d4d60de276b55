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

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot as plt

from benchmarks.accuracy.photos import SHOWN, Photo, read_photos
from napari_defocus.dense.detector import cached_dense
from napari_defocus.dense.inference import DensePrediction, predict_dense
from napari_defocus.detection.api import Detection, DetectionConfig
from napari_defocus.detection.inference import Prediction, combine_predictions, predict_plane
from napari_defocus.detection.postprocess import postprocess
from napari_defocus.evaluate.scores import SetScores, score_map, score_set
from napari_defocus.filters.contrast import local_contrast
from napari_defocus.filters.plane import Plane, prepare_colours, prepare_plane
from napari_defocus.metric.local_metric import LocalMetric, load_metric
from napari_defocus.metric.response import combine, filter_response, pool

Judge = Callable[[Photo], Prediction]
WORST = 3
CONFIG = DetectionConfig()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--trained", nargs="*", default=[], metavar="NAME=FILE")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    photos = read_photos(options.photos)
    lines = [f"| detector | {' | '.join(SHOWN)} |", "| --- " * (len(SHOWN) + 1) + "|"]
    for name, detections in variants(photos, options.trained):
        scores = score(photos, detections)
        cells = " | ".join(f"{scores.mean[column]:.4f}" for column in SHOWN)
        lines.append(f"| {name} | {cells} |")
        print(lines[-1], flush=True)
        if name == "dense":
            show_worst(photos, detections, scores, options.out)
    (options.out / "ablation.md").write_text("\n".join(lines) + "\n", "utf-8")


def variants(photos: list[Photo], trained: list[str]) -> Iterator[tuple[str, list[Detection]]]:
    """Give each variant's name and what it detects."""
    metric = load_metric()
    yield from both_refined("metric", [judged_by("metric", metric, photo) for photo in photos])
    yield from one("metric, one scale, noise not estimated", photos, metric_alone(metric))
    yield from both_refined("dense", [judged_by("dense", metric, photo) for photo in photos])
    yield from one("dense, outlines not followed", photos, dense_without_outlines(metric))
    yield from one("dense, network alone", photos, network_alone())
    for told in trained:
        name, file = told.split("=", 1)
        valid = [judged_by(file, metric, photo) for photo in photos]
        yield f"dense, {name}", [postprocess(prediction, CONFIG) for prediction in valid]


def judged_by(detector: str, metric: LocalMetric, photo: Photo) -> Prediction:
    return predict_plane(photo.image, metric, DetectionConfig(detector=detector))


def both_refined(name: str, judgements: list[Prediction]) -> Iterator[tuple[str, list[Detection]]]:
    yield name, [postprocess(prediction, CONFIG) for prediction in judgements]
    plain = replace(CONFIG, refine=False)
    yield f"{name}, not refined", [postprocess(prediction, plain) for prediction in judgements]
    still = replace(CONFIG, adapt=0.0)
    yield (
        f"{name}, threshold not adapted",
        [postprocess(prediction, still) for prediction in judgements],
    )


def one(name: str, photos: list[Photo], predict: Judge) -> Iterator[tuple[str, list[Detection]]]:
    yield name, [postprocess(predict(photo), CONFIG) for photo in photos]


def metric_alone(metric: LocalMetric) -> Judge:
    """Judge by the metric at full size, as if there were no noise."""

    def predict(photo: Photo) -> Prediction:
        plane = prepare_plane(photo.image)
        silent = Plane(plane.grey, plane.holes, (1e-12, 0.0))
        response = pool(filter_response(silent, metric), plane.grey, metric.pooling)
        noise = metric.pooling.contrast_sigma, metric.pooling.noise_factor
        contrast = pool(local_contrast(silent, *noise), plane.grey, metric.pooling)
        level = combine(response, contrast, metric.pooling)
        log_odds = metric.calibration.slope * (level - metric.calibration.threshold)
        return Prediction(log_odds, np.ones(log_odds.shape, bool))

    return predict


def dense_without_outlines(metric: LocalMetric) -> Judge:
    """Judge by metric and network, the network's map as it comes."""
    return lambda photo: combine_predictions(judged_by("metric", metric, photo), by_network(photo))


def network_alone() -> Judge:
    """Judge by the network's own log odds: the metric has no say anywhere."""

    def predict(photo: Photo) -> Prediction:
        found = by_network(photo)
        silent = Prediction(np.zeros_like(found.log_odds), np.zeros(found.log_odds.shape, bool))
        return replace(combine_predictions(silent, found), valid=~silent.valid)

    return predict


def by_network(photo: Photo) -> DensePrediction:
    plane = prepare_plane(photo.image)
    return predict_dense(prepare_colours(photo.image, plane), cached_dense())


def score(photos: list[Photo], detections: list[Detection]) -> SetScores:
    pairs = zip(photos, detections, strict=True)
    return score_set({p.name: score_map(d.blur, p.blurred, mask=d.mask) for p, d in pairs})


def show_worst(
    photos: list[Photo], detections: list[Detection], scores: SetScores, out: Path
) -> None:
    """Draw the photos with the least AUC, and where the map errs on them."""
    by_auc = sorted(photos, key=lambda photo: scores.images[photo.name].values["AUC"])[:WORST]
    found = {p.name: d for p, d in zip(photos, detections, strict=True)}
    whole, panels = plt.subplots(WORST, 3, figsize=(11, 2.6 * WORST), layout="constrained")
    errors, alone = plt.subplots(1, WORST, figsize=(11, 3), layout="constrained")
    for row, photo in enumerate(by_auc):
        blur = found[photo.name].blur
        auc = scores.images[photo.name].values["AUC"]
        panels[row, 0].imshow(photo.image)
        panels[row, 1].imshow(~photo.blurred, cmap="gray")
        panels[row, 2].imshow(1 - blur, cmap="gray", vmin=0, vmax=1)
        panels[row, 0].set_title(f"{photo.name}, AUC {auc:.3f}", fontsize=9)
        alone[row].imshow(blur - photo.blurred, cmap="RdBu", vmin=-1, vmax=1)
        alone[row].set_title(f"{photo.name}, AUC {auc:.3f}", fontsize=9)
    for axes in (*panels.flat, *alone.flat):
        axes.set_axis_off()
    errors.suptitle("blue: sharp taken for blurred, red: blurred taken for sharp", fontsize=9)
    whole.savefig(out / "worst.png", dpi=80)
    errors.savefig(out / "errors.png", dpi=80)


if __name__ == "__main__":
    main()
