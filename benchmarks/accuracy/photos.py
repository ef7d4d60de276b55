"""Score the default metric, and metrics fitted to scribbles, on photos with hand-made masks.

    python -m benchmarks.accuracy.photos PHOTOS [--out DIR]

PHOTOS holds ``images`` and ``masks`` (255 = blurred) of the same stems.
"""

import argparse
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from benchmarks.accuracy.scribbles import draw_scribbles
from napari_defocus.detection.api import Detection, DetectionConfig, detect
from napari_defocus.evaluate.scores import MapScores, SetScores, auc, score_map, score_set
from napari_defocus.filters.plane import prepare_plane
from napari_defocus.io.folder import IMAGE_SUFFIXES
from napari_defocus.io.open import read_image
from napari_defocus.metric.fitting import FitConfig, fit_metric
from napari_defocus.metric.local_metric import LocalMetric, load_metric
from napari_defocus.metric.patches import build_patch_set
from napari_defocus.metric.response import filter_response, pool

SHOWN = ("Fmax", "Fadaptive", "Fblur@.5", "MAE", "AUC", "IoU(mask)")
SCRIBBLE_SHARE = 0.04
METRIC = DetectionConfig(detector="metric")
FITTED = 3
# Scale of the plain Laplacian's pooling that scores best: it is not to lose by neglect.
LAPLACIAN_SIGMA = 10.0


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo and its mask."""

    name: str
    image: npt.NDArray[Any]
    blurred: npt.NDArray[np.bool_]


def read_photos(folder: Path) -> list[Photo]:
    paths = sorted(p for p in (folder / "images").iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    masks = {path.stem: path for path in (folder / "masks").iterdir()}
    return [Photo(p.stem, read_image(p).data, read_image(masks[p.stem]).data >= 128) for p in paths]


def score_metric(metric: LocalMetric, photos: list[Photo]) -> SetScores:
    return score_set({p.name: score_detection(detect(p.image, metric, METRIC), p) for p in photos})


def score_detection(detection: Detection, photo: Photo) -> MapScores:
    return score_map(detection.blur, photo.blurred, mask=detection.mask)


def unrefined_auc(metric: LocalMetric, photos: list[Photo]) -> float:
    """AUC of the pooled responses to K1 and K2 alone, mean over photos."""
    planes = [prepare_plane(photo.image) for photo in photos]
    pooled = [pool(filter_response(plane, metric), plane.grey, metric.pooling) for plane in planes]
    return float(np.mean([auc(m, ~p.blurred) for m, p in zip(pooled, photos, strict=True)]))


def laplacian_auc(photos: list[Photo]) -> float:
    """AUC of the absolute Laplacian, pooled by a Gaussian, mean over photos."""
    planes = [prepare_plane(photo.image) for photo in photos]
    maps = [
        ndimage.gaussian_filter(np.abs(ndimage.laplace(plane.grey)), LAPLACIAN_SIGMA)
        for plane in planes
    ]
    return float(np.mean([auc(m, ~p.blurred) for m, p in zip(maps, photos, strict=True)]))


def fit_scribbles(photos: list[Photo], method: str, seed: int = 0) -> LocalMetric:
    """Make a metric from scribbles on photos."""
    annotated = [
        (photo.name, photo.image, draw_scribbles(photo.blurred, SCRIBBLE_SHARE, seed + i))
        for i, photo in enumerate(photos)
    ]
    metric = fit_metric(build_patch_set(annotated), FitConfig(method=method))
    assert metric is not None
    return metric


def score_off_scribbles(photos: list[Photo], method: str, seed: int = 0) -> SetScores:
    """Fit to each photo's own scribbles and score the rest of it."""
    rows = {}
    for index, photo in enumerate(photos):
        rest = draw_scribbles(photo.blurred, SCRIBBLE_SHARE, seed + index) == 0
        found = detect(photo.image, fit_metric_to_one(photo, method, seed + index))
        # As a row of pixels: the protocols look at each pixel alone.
        rows[photo.name] = score_map(
            found.blur[rest][np.newaxis],
            photo.blurred[rest][np.newaxis],
            mask=found.mask[rest][np.newaxis],
        )
    return score_set(rows)


def fit_metric_to_one(photo: Photo, method: str, seed: int) -> LocalMetric:
    return fit_scribbles([photo], method, seed)


def thirds(photos: list[Photo]) -> Iterator[tuple[list[Photo], list[Photo]]]:
    """Give each run of three photos in turn, and the others."""
    for start in range(0, len(photos) - FITTED + 1, FITTED):
        chosen = photos[start : start + FITTED]
        yield chosen, [photo for photo in photos if photo not in chosen]


def show(name: str, scores: Mapping[str, float], seconds: float | None = None) -> None:
    cells = "  ".join(f"{scores[column]:9.4f}" for column in SHOWN)
    print(f"{name:42s}  {cells}" + (f"  {seconds:6.1f} s" if seconds is not None else ""))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    options = parser.parse_args()
    photos = read_photos(options.photos)
    default = load_metric()
    print(f"{'':42s}  " + "  ".join(f"{column:>9s}" for column in SHOWN))
    start = time.perf_counter()
    scores = score_metric(default, photos)
    show("default metric", scores.mean, (time.perf_counter() - start) / len(photos))
    print(f"AUC of K1 and K2 before refinement  {unrefined_auc(default, photos):.4f}")
    print(f"AUC of the plain |Laplacian|        {laplacian_auc(photos):.4f}")
    for fitted, others in thirds(photos):
        names = ", ".join(photo.name.removeprefix("out_of_focus") for photo in fitted)
        show(f"default, without {names}", score_metric(default, others).mean)
        for method in ("nets", "instant"):
            start = time.perf_counter()
            metric = fit_scribbles(fitted, method)
            seconds = time.perf_counter() - start
            show(f"  {method}, fitted to these", score_metric(metric, others).mean, seconds)
    for method in ("nets", "instant"):
        start = time.perf_counter()
        scores = score_off_scribbles(photos, method)
        seconds = (time.perf_counter() - start) / len(photos)
        show(f"own scribbles, {method}, scored off them", scores.mean, seconds)


if __name__ == "__main__":
    main()
