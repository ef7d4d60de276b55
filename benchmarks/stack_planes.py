"""Choose among dense detectors on real focus stacks, labelled by comparing their own planes.

    python benchmarks/stack_planes.py STACK [STACK ...] --detectors FILE [FILE ...]

A STACK is a folder of planes. They are reduced to about 800 pixels; every second one is labelled as
`propose_annotation` does, and the network alone is scored on the labelled pixels. The default
network was chosen so, among four.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from napari_defocus.dense.detector import DenseDetector, load_dense
from napari_defocus.dense.inference import predict_dense
from napari_defocus.evaluate.scores import auc
from napari_defocus.filters.plane import prepare_colours, prepare_plane
from napari_defocus.io.raster import IMAGE_SUFFIXES
from napari_defocus.labels.classes import SHARP
from napari_defocus.stacks.training_labels import propose_annotation

SIDE = 800
# A plane with fewer pixels of either class says nothing.
LEAST_PIXELS = 500


@dataclass(frozen=True, eq=False)
class LabelledPlane:
    """A plane (Y, X, 3) and its labels (Y, X): 0 unlabelled, 1 blurred, 2 sharp."""

    image: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stacks", type=Path, nargs="+")
    parser.add_argument("--detectors", nargs="+", default=["default"])
    options = parser.parse_args()
    stacks = {folder.name: list(labelled_planes(read_stack(folder))) for folder in options.stacks}
    for name in options.detectors:
        detector = load_dense(name)
        scores = {stack: mean_auc(detector, planes) for stack, planes in stacks.items()}
        cells = "  ".join(f"{stack} {score:.4f}" for stack, score in scores.items())
        print(f"{name}: {cells}  mean {np.nanmean(list(scores.values())):.4f}", flush=True)


def read_stack(folder: Path) -> npt.NDArray[np.uint8]:
    """Read the planes of a folder, by name, reduced: (Z, Y, X, 3)."""
    planes = []
    for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES):
        with Image.open(path) as file:
            factor = SIDE / max(file.size)
            size = (round(factor * file.width), round(factor * file.height))
            planes.append(np.asarray(file.convert("RGB").resize(size, Image.Resampling.LANCZOS)))
    return np.stack(planes)


def labelled_planes(stack: npt.NDArray[Any]) -> Iterator[LabelledPlane]:
    """Give every second plane that has enough labelled pixels of both classes."""
    for index in range(0, len(stack), 2):
        labels = propose_annotation(stack, index)
        if min(np.count_nonzero(labels == label) for label in (1, 2)) >= LEAST_PIXELS:
            yield LabelledPlane(stack[index], labels)


def mean_auc(detector: DenseDetector, planes: list[LabelledPlane]) -> float:
    """Score the network alone on the labelled pixels, mean over planes; nan where there is none."""
    scores = []
    for labelled in planes:
        plane = prepare_plane(labelled.image)
        log_odds = predict_dense(prepare_colours(labelled.image, plane), detector).log_odds
        known = labelled.labels > 0
        scores.append(auc(log_odds[known], labelled.labels[known] == SHARP))
    return float(np.mean(scores)) if scores else float("nan")


if __name__ == "__main__":
    main()
