"""Scribbles as a person would draw them, from a mask and a seed."""

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.morphology import disk

from napari_defocus.labels.classes import BLURRED, SHARP

WIDTH = 9
STEP = 6
STROKE_STEPS = (8, 30)
# Radians: how far a stroke may turn in a step.
WOBBLE = 0.4
# Pixels between a stroke and the outline of its region.
MARGIN = 10


def draw_scribbles(
    blurred: npt.NDArray[np.bool_], share: float, seed: int
) -> npt.NDArray[np.uint8]:
    """Draw strokes in the blurred and in the sharp region of a mask (Y, X): an annotation.

    `share` is that of the image that is annotated in all, half of it for each class.
    """
    rng = np.random.default_rng(seed)
    labels = np.zeros(blurred.shape, np.uint8)
    for label, region in ((BLURRED, blurred), (SHARP, ~blurred)):
        # Off the outline, where there is room.
        depth = ndimage.distance_transform_edt(region)
        inside = depth >= min(MARGIN, depth.max() / 2)
        wanted = min(share / 2 * region.size, inside.sum() / 3)
        drawn = np.zeros(region.shape, bool)
        while drawn.sum() < wanted:
            drawn |= _stroke(inside, rng) & region
        labels[drawn] = label
    return labels


def _stroke(inside: npt.NDArray[np.bool_], rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    places = np.argwhere(inside)
    position = places[rng.integers(len(places))].astype(float)
    angle = rng.uniform(0, 2 * np.pi)
    line = np.zeros(inside.shape, bool)
    for _ in range(int(rng.integers(*STROKE_STEPS))):
        angle += rng.normal(0, WOBBLE)
        after = position + STEP * np.array([np.sin(angle), np.cos(angle)])
        for y, x in np.linspace(position, after, STEP + 1).round().astype(int):
            if _within(y, x, inside):
                line[y, x] = True
        if _within(*after.round().astype(int), inside):
            position = after
        else:
            angle += np.pi / 2
    return np.asarray(
        ndimage.binary_dilation(line, disk(WIDTH // 2, strict_radius=False)), np.bool_
    )


def _within(y: int, x: int, inside: npt.NDArray[np.bool_]) -> bool:
    return bool(0 <= y < inside.shape[0] and 0 <= x < inside.shape[1] and inside[y, x])
