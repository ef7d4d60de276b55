"""From the paper's method as written to the default detector, one departure at a time.

    python -m benchmarks.accuracy.ladder NAME=PHOTOS ... --out DIR [--timed] [--maps]

PHOTOS holds ``images`` and ``masks`` (255 = blurred) of the same stems. Each row of ``ladder.md``
has one departure more than the one above it; rows below the rule read the paper in another way.
``ladder.png`` has the precision-recall curves on the first set. With --timed each row is run on an
image of the paper's size, with --maps its maps are written for other scorers.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.transform import resize
from tifffile import imwrite

from benchmarks import tables
from benchmarks.accuracy.photos import Photo, read_photos, score_detection
from napari_defocus.data.samples import read_sample
from napari_defocus.detection.api import Detection, DetectionConfig, detect
from napari_defocus.detection.config import ZENG2019
from napari_defocus.detection.inference import Prediction
from napari_defocus.detection.postprocess import postprocess
from napari_defocus.detection.refinement import RefinementConfig
from napari_defocus.evaluate.scores import score_set
from napari_defocus.filters.plane import Plane, prepare_plane
from napari_defocus.metric import zeng2019
from napari_defocus.metric.kernel_pca import plain_pca
from napari_defocus.metric.local_metric import LocalMetric, load_metric
from napari_defocus.metric.response import filter_response, pool, predict_log_odds
from napari_defocus.plot.curves import save_precision_recall
from napari_defocus.profile.limit import REFERENCE

Image = npt.NDArray[Any]
Float = npt.NDArray[np.float32]
Detect = Callable[[Image], Detection]

COLUMNS = ("Fmax", "Fadaptive", "Fblur@.5", "MAE", "AUC", "IoU(mask)")
# Rows and columns of the paper's test image.
SIZE = (457, 640)
RUNS = 5
GROWING = replace(ZENG2019, refinement=RefinementConfig(threshold=None))


def ladder() -> dict[str, Detect]:
    """Return each rung by its name, from the paper to the default."""
    metric = load_metric()
    return {
        "the paper: `zeng2019`": lambda image: detect(image, "zeng2019"),
        "+ white inputs, kernels that fade": by_response(
            lambda plane: zeng2019.response(plane.grey, whitened_filters(metric))
        ),
        "+ no direction preferred": by_response(
            lambda plane: zeng2019.response(plane.grey, metric.filters)
        ),
        "+ K1 and K2 side by side, by their energy": by_response(
            lambda plane: filter_response(silent(plane), metric)
        ),
        "+ pooled, to the power .5": by_response(lambda plane: pooled(plane, metric)),
        "+ outlines followed": by_response(
            lambda plane: pool(filter_response(silent(plane), metric), plane.grey, metric.pooling)
        ),
        "+ tanh that grows, .3 of the map kept": by_response(
            lambda plane: pool(filter_response(silent(plane), metric), plane.grey, metric.pooling),
            GROWING,
        ),
        "+ noise, contrast, coarser scales; calibrated, means above .5": by_log_odds(
            replace(GROWING, refinement=RefinementConfig()), metric
        ),
        "+ Otsu's threshold within bounds, spots": by_log_odds(DetectionConfig(), metric),
        "+ threshold adapted: `metric`": with_detector("metric"),
        "`dense`, limit of 1.5 px": with_detector("dense", limit=REFERENCE),
        "the default: `dense`, limit found": with_detector("dense"),
    }


def other_readings() -> dict[str, Detect]:
    """Return other readings of the paper, where its texts at hand are silent."""
    metric = load_metric("zeng2019")
    kernels = metric.kernels.reshape(len(metric.kernels), -1)
    _, _, directions = np.linalg.svd(kernels - kernels.mean(axis=0), full_matrices=False)
    default = replace(load_metric(), filters=whitened_filters(load_metric()))
    about_mean = directions[:2].reshape(2, metric.size, metric.size).astype(np.float32)
    fixed = replace(ZENG2019, refinement=replace(ZENG2019.refinement, threshold=0.5))
    return {
        "K1 and K2 side by side, by their energy": by_response(
            lambda plane: filter_response(silent(plane), metric)
        ),
        "white inputs, K1 and K2 by their energy, directions as they come": by_response(
            lambda plane: filter_response(silent(plane), default)
        ),
        "PCA about the mean kernel: kernels as observations": by_response(
            lambda plane: zeng2019.response(plane.grey, about_mean)
        ),
        "global threshold of .5": lambda image: detect(image, "zeng2019", fixed),
        "neighbourhood of 3 x 3": lambda image: detect(
            image,
            "zeng2019",
            replace(ZENG2019, refinement=replace(ZENG2019.refinement, neighbourhood=3)),
        ),
        "not refined": lambda image: detect(image, "zeng2019", replace(ZENG2019, refine=False)),
    }


def whitened_filters(metric: LocalMetric) -> Float:
    """Return the plain components of the default's kernels, carried from white inputs to pixels."""
    found = plain_pca(metric.kernels).components[:2].reshape(2, -1) @ metric.whitening
    return np.asarray(found.reshape(-1, metric.size, metric.size), np.float32)


def silent(plane: Plane) -> Plane:
    """Return a plane as if it had no noise."""
    return replace(plane, noise=(1e-12, 0.0))


def pooled(plane: Plane, metric: LocalMetric) -> Float:
    """Average over a Gaussian alone."""
    pooling = metric.pooling
    response = filter_response(silent(plane), metric) ** pooling.power
    return np.asarray(
        ndimage.gaussian_filter(response, pooling.sigma) ** (1 / pooling.power), np.float32
    )


def by_response(respond: Callable[[Plane], Float], config: DetectionConfig = ZENG2019) -> Detect:
    """Detect by a response that each image brings to [0, 1]."""

    def found(image: Image) -> Detection:
        plane = prepare_plane(image)
        return postprocess(Prediction(respond(plane), ~plane.holes, calibrated=False), config)

    return found


def by_log_odds(config: DetectionConfig, metric: LocalMetric) -> Detect:
    """Detect by the metric's log odds, from a threshold that is not adapted."""
    config = replace(config, adapt=0.0)

    def found(image: Image) -> Detection:
        plane = prepare_plane(image)
        log_odds, valid = predict_log_odds(plane, metric)
        return postprocess(Prediction(log_odds, valid & ~plane.holes), config)

    return found


def with_detector(name: str, **settings: Any) -> Detect:
    """Detect as a user does."""
    config = DetectionConfig(detector=name, **settings)
    return lambda image: detect(image, "default", config)


def seconds_of(run: Detect, image: Image) -> float:
    """Time a rung: the median of some runs, after one that does not count."""
    taken = []
    for _ in range(RUNS + 1):
        start = time.perf_counter()
        run(image)
        taken.append(time.perf_counter() - start)
    return float(np.median(taken[1:]))


def test_image() -> npt.NDArray[np.uint8]:
    """Return the photo among the samples, at the paper's size."""
    image = resize(read_sample("photo").image, (*SIZE, 3), anti_aliasing=True)
    return np.asarray(np.round(255 * image), np.uint8)


def scored(
    rungs: dict[str, Detect], sets: dict[str, list[Photo]], maps: Path | None
) -> Iterator[tuple[str, list[str], Any]]:
    """Yield each rung's name, its scores on each set, and its curve on the first."""
    for place, (name, run) in enumerate(rungs.items()):
        cells, curve = [], None
        for title, photos in sets.items():
            found = {photo.name: run(photo.image) for photo in photos}
            scores = score_set({p.name: score_detection(found[p.name], p) for p in photos})
            curve = curve or scores.sharp
            cells += [f"{scores.mean[column]:.3f}" for column in COLUMNS]
            if maps is not None:
                folder = maps / f"{place:02d}" / title
                folder.mkdir(parents=True, exist_ok=True)
                for stem, detection in found.items():
                    np.save(folder / f"{stem}.npy", detection.blur)
                    imwrite(folder / f"{stem}.mask.tif", detection.mask)
        yield name, cells, curve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="+", metavar="NAME=PHOTOS")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--timed", action="store_true")
    parser.add_argument("--maps", action="store_true")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    folders = dict(entry.split("=", 1) for entry in options.sets)
    sets = {name: read_photos(Path(folder)) for name, folder in folders.items()}
    image, curves = test_image(), {}
    names = [f"{column}, {name}" for name in sets for column in COLUMNS]
    lines = tables.head(["rung", *names, *(["s at 640 x 457"] * options.timed)])
    for rungs in (ladder(), other_readings()):
        maps = options.out / "maps" / str(len(curves)) if options.maps else None
        for name, cells, curve in scored(rungs, sets, maps):
            time_cell = [f"{seconds_of(rungs[name], image):.2f}"] if options.timed else []
            lines.append(tables.row([name, *cells, *time_cell]))
            print(lines[-1], flush=True)
            if rungs.keys() == ladder().keys():
                curves[name.replace("`", "")] = curve
    (options.out / "ladder.md").write_text("\n".join(lines) + "\n", "utf-8")
    save_precision_recall(options.out / "ladder.png", curves)


if __name__ == "__main__":
    main()
