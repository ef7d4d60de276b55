"""Focus series of microscopes: the structure called sharp, in focus and far out of it.

Run as: python -m benchmarks.accuracy.series SERIES [--maps MAPS] [--sheet SHEET.png]

SERIES holds ``series.json``, {NAME: {"in": [planes], "out": [planes]}}, and NAME/plane_NNN.*. The
detector works as it is, and as taught: by two strokes on a plane in focus and two on one out of
it, by one image in focus, by the stack; a local metric, by the same strokes. Beside it stands what
pixel classifiers do: a random forest on scikit-image's multiscale features, from the same strokes.
Strokes lie on the left half of the field and count on the right one. MAPS gets the masks of each,
NAME/plane_NNN.mask.tif.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from benchmarks import tables
from napari_defocus.detection.api import detect
from napari_defocus.io.open import read_image
from napari_defocus.io.tiff_writer import write_tiff
from napari_defocus.labels.classes import BLURRED, SHARP, Labels
from napari_defocus.metric.fitting import FitConfig, best_scale, fit_metric
from napari_defocus.metric.patches import PatchConfig, build_patch_set
from napari_defocus.profile.evidence import (
    from_focused,
    from_planes,
    from_strokes,
    joined,
    predictor,
)
from napari_defocus.profile.teach import teach

Image = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
MakesMask = Callable[[Image], Labels]

# The structure that counts: the steepest share of the field, by this Gaussian, in pixels.
STRUCTURE = 0.15
SIGMA = 1.5
# Strokes: half their width, and how far apart they are at least, as a share of the rows.
HALF_WIDTH = 4
APART = 0.2
THUMBNAIL = 160


@dataclass(frozen=True)
class Series:
    """Planes of one field: which are in focus, and which far out of it."""

    name: str
    folder: Path
    inside: list[int]
    outside: list[int]

    def plane(self, index: int) -> Image:
        paths = self.folder.glob(f"plane_{index:03d}.*")
        return read_image(next(p for p in paths if not p.name.endswith(".mask.tif"))).data

    @property
    def planes(self) -> list[int]:
        return sorted({*self.inside, *self.outside})

    @cached_property
    def structure(self) -> Mask:
        """Which pixels count, of the rows and columns that all planes have."""
        greys = [np.atleast_3d(self.plane(z))[..., :3].mean(-1) for z in self.planes]
        rows, columns = (min(grey.shape[axis] for grey in greys) for axis in (0, 1))
        edges = np.max(
            [ndimage.gaussian_gradient_magnitude(g[:rows, :columns], SIGMA) for g in greys], axis=0
        )
        return np.asarray(edges > np.quantile(edges, 1 - STRUCTURE))

    def strokes(self, shape: tuple[int, ...], label: int) -> Labels:
        """Draw two strokes over the rows of the left half with most structure."""
        labels = np.zeros(shape[:2], np.uint8)
        middle = shape[1] // 2
        rows = np.argsort(-self.structure[:, :middle].sum(axis=1))
        second = rows[np.abs(rows - rows[0]) > APART * shape[0]][0]
        for row in (rows[0], second):
            labels[max(row - HALF_WIDTH, 0) : row + HALF_WIDTH, 10 : middle - 10] = label
        return labels

    def annotated(self) -> Iterator[tuple[Image, Labels]]:
        """Yield a plane in focus and one out of it, with strokes on each."""
        for planes, label in ((self.inside, SHARP), (self.outside, BLURRED)):
            image = self.plane(planes[len(planes) // 2])
            yield image, self.strokes(image.shape, label)


def read_series(folder: Path) -> list[Series]:
    given = json.loads((folder / "series.json").read_text())
    return [Series(name, folder / name, spec["in"], spec["out"]) for name, spec in given.items()]


def as_it_is(series: Series) -> MakesMask:
    return lambda image: detect(image).mask


def by_strokes(series: Series) -> MakesMask:
    predict = predictor()
    parts = [from_strokes(predict(image), labels, "") for image, labels in series.annotated()]
    profile = teach(joined(parts)).profile
    return lambda image: detect(image, profile).mask


def by_one_image(series: Series) -> MakesMask:
    image = series.plane(series.inside[len(series.inside) // 2])
    profile = teach(from_focused(image, predictor(), series.name)).profile
    return lambda image: detect(image, profile).mask


def by_stack(series: Series) -> MakesMask:
    rows, columns = series.structure.shape
    planes = [series.plane(z)[:rows, :columns] for z in series.planes]
    profile = teach(from_planes(planes, predictor(), series.name)).profile
    return lambda image: detect(image, profile).mask


def by_metric(method: str) -> Callable[[Series], MakesMask]:
    """Return what a local metric makes of the same strokes."""

    def make(series: Series) -> MakesMask:
        given = [(f"plane {at}", *each) for at, each in enumerate(series.annotated())]
        config = FitConfig(method=method)
        patches = best_scale(lambda how: build_patch_set(given, how), PatchConfig(), config)
        metric = fit_metric(patches, config)
        assert metric is not None
        return lambda image: detect(image, metric).mask

    return make


def by_forest(series: Series) -> MakesMask:
    """Return what a random forest on scikit-image's features makes of the same strokes."""
    from skimage.feature import multiscale_basic_features
    from sklearn.ensemble import RandomForestClassifier

    def features(image: Image) -> npt.NDArray[Any]:
        grey = np.atleast_3d(image)[..., :3].mean(-1).astype(np.float32)
        return np.asarray(multiscale_basic_features(grey, sigma_max=16))

    found = [(features(image), labels) for image, labels in series.annotated()]
    forest = RandomForestClassifier(50, max_depth=10, max_samples=0.05, random_state=0, n_jobs=1)
    forest.fit(
        np.concatenate([values[labels > 0] for values, labels in found]),
        np.concatenate([labels[labels > 0] for _, labels in found]),
    )

    def classify(image: Image) -> Labels:
        values = features(image)
        flat = values.reshape(-1, values.shape[-1])
        return np.asarray(forest.predict(flat).reshape(values.shape[:2]), np.uint8)

    return classify


# By name: how a mask is made, and whether the right half counts alone.
METHODS: dict[str, tuple[Callable[[Series], MakesMask], bool]] = {
    "one click": (as_it_is, False),
    "two strokes on two planes": (by_strokes, True),
    "two strokes, fit --method instant": (by_metric("instant"), True),
    "two strokes, fit --method nets": (by_metric("nets"), True),
    "one image in focus": (by_one_image, False),
    "the stack": (by_stack, False),
    "random forest, the same strokes": (by_forest, True),
}


def score(series: Series, masks: dict[int, Labels], right_half: bool) -> tuple[float, float]:
    """Return the share of the structure called sharp, in focus and out of it."""
    counts = series.structure.copy()
    rows, columns = counts.shape
    counts[:, : columns // 2 * right_half] = False
    share = {z: (mask[:rows, :columns][counts] == SHARP).mean() for z, mask in masks.items()}
    inside, outside = ([share[z] for z in part] for part in (series.inside, series.outside))
    return float(np.mean(inside)), float(np.mean(outside))


def sheet(series: Series, masks: dict[int, Labels]) -> Image:
    """Draw the planes in a row, what is sharp in orange and what is blurred in blue."""
    from napari_defocus.labels.classes import COLOURS

    shown = []
    for z in series.planes:
        grey = np.atleast_3d(series.plane(z))[..., :3].mean(-1)
        low, high = np.percentile(grey, (0.5, 99.5))
        step = max(1, max(grey.shape) // THUMBNAIL)
        grey = np.clip((grey[::step, ::step] - low) / (high - low), 0, 1)
        mask = masks[z][::step, ::step]
        picture = np.repeat(grey[..., np.newaxis], 3, axis=2)
        for label, colour in COLOURS.items():
            picture[mask == label] = 0.6 * picture[mask == label] + 0.4 * np.array(colour)
        tile = np.ones((THUMBNAIL + 8, THUMBNAIL + 8, 3))
        part = picture[:THUMBNAIL, :THUMBNAIL]
        tile[: part.shape[0], : part.shape[1]] = part
        shown.append(tile)
    return np.asarray(np.hstack(shown))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("series", type=Path)
    parser.add_argument("--maps", type=Path)
    parser.add_argument("--sheet", type=Path)
    options = parser.parse_args(arguments)
    every = read_series(options.series)
    names = ["taught by", *(series.name for series in every), "mean", "worst in / out"]
    print("\n".join(tables.head(names)), flush=True)
    rows_of_sheet = []
    for name, (method, right_half) in METHODS.items():
        found = []
        for series in every:
            make = method(series)
            masks = {z: make(series.plane(z)) for z in series.planes}
            found.append(score(series, masks, right_half))
            if options.maps:
                folder = options.maps / name.replace(" ", "_").replace(",", "") / series.name
                folder.mkdir(parents=True, exist_ok=True)
                for z, mask in masks.items():
                    write_tiff(folder / f"plane_{z:03d}.mask.tif", mask, axes="YX")
            if name == "one click":
                rows_of_sheet.append(sheet(series, masks))
        inside, outside = np.array(found).T
        cells = [f"{a:.2f} / {b:.2f}" for a, b in found]
        cells += [f"{inside.mean():.3f} / {outside.mean():.3f}"]
        cells += [f"{inside.min():.2f} / {outside.max():.2f}"]
        print(tables.row([name, *cells]), flush=True)
    if options.sheet:
        from napari_defocus.io.raster import write_png

        width = max(picture.shape[1] for picture in rows_of_sheet)
        wide = [
            np.pad(p, ((0, 0), (0, width - p.shape[1]), (0, 0)), constant_values=1)
            for p in rows_of_sheet
        ]
        write_png(options.sheet, np.uint8(255 * np.vstack(wide)))


if __name__ == "__main__":
    main()
