"""A detection against hand-made labels: scores, and the pixels where they differ."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_defocus.core.errors import DefocusError
from napari_defocus.detection.postprocess import Detection
from napari_defocus.evaluate.report import Report
from napari_defocus.evaluate.scores import score_map, score_set, trivial_scores
from napari_defocus.labels.classes import (
    BLURRED,
    SHARP,
    Labels,
    annotation_from_mask,
    check_annotation,
)

# How labels are read: by their values, as an annotation, or as a mask.
READINGS = ("by their values", "annotation", "mask")
MISSED_BLUR = 1
MISSED_SHARP = 2
DISAGREEMENTS = {MISSED_BLUR: "blurred, called sharp", MISSED_SHARP: "sharp, called blurred"}


@dataclass(frozen=True, eq=False)
class Comparison:
    """The scores of a detection against hand-made labels, and where they differ.

    Parameters
    ----------
    report : Report
        Scores of the one image, on the labelled pixels, beside the trivial maps'.
    disagreement : ndarray of uint8
        Of the detection's shape: 1 blurred but called sharp, 2 sharp but called blurred, else 0.
    labelled : float
        Share of the pixels that are labelled.
    """

    report: Report
    disagreement: Labels
    labelled: float


def read_hand_labels(
    labels: npt.NDArray[Any], shape: tuple[int, ...], name: str, reading: str = READINGS[0]
) -> tuple[Labels, str]:
    """Read hand-made labels as 0 unlabelled, 1 blurred, 2 sharp.

    Parameters
    ----------
    labels : ndarray of integers or bool
        An annotation, or a mask: 0 sharp, and blurred 255 or 1.
    shape : tuple of int
        That the labels must have.
    name : str
        Of the labels, for messages.
    reading : str
        One of `READINGS`. By their values, labels of 255 and 0, or of 1 and 0 alone, are a mask.

    Returns
    -------
    ndarray of uint8
        The annotation, of both classes.
    str
        How the labels were read, for the user.

    Raises
    ------
    DefocusError
        Where shapes differ, a label has another value, or there is one class only.
    """
    labels = np.asarray(labels)
    values = set(np.unique(labels).tolist())
    is_mask = reading == "mask" or (
        reading == READINGS[0] and values in ({0, 1}, {0, 255}) and labels.shape == shape
    )
    if is_mask:
        if not values <= {0, 1} and not values <= {0, 255}:
            raise DefocusError(f"{name}: a mask holds 0 and 255, or 0 and 1; read it as annotation")
        bright = int(max(values, default=0))
        annotation = check_annotation(annotation_from_mask(labels), shape, name)
        how = f"read as a mask: {bright} blurred, 0 sharp"
    else:
        annotation = check_annotation(labels, shape, name)
        how = "read as an annotation: 1 blurred, 2 sharp, 0 unlabelled"
    for label, word in ((BLURRED, "blurred"), (SHARP, "sharp")):
        if not (annotation == label).any():
            raise DefocusError(
                f"{name}: no pixel is called {word}; scores need both classes, paint some ({how})"
            )
    return annotation, how


def compare(
    found: Detection, annotation: Labels, image: str, *, mask_is_known: bool = True
) -> Comparison:
    """Compute the scores of a detection on the labelled pixels.

    Parameters
    ----------
    found : Detection
        Of any number of planes.
    annotation : ndarray of uint8
        0 unlabelled, 1 blurred, 2 sharp, both present; of the detection's shape.
    image : str
        The image's name, for the report.
    mask_is_known : bool
        Whether the mask is the detection's own; where not, IoU(mask) is left out.

    Raises
    ------
    DefocusError
        Where the maps cannot be scored; see `score_map`.
    """
    part = annotation > 0
    blurred = annotation[part] == BLURRED
    mask = found.mask[part] if mask_is_known else None
    scores = score_map(found.blur[part], blurred, mask=mask)
    report = Report(
        {"detection": score_set({image: scores})},
        {name: score_set({image: row}) for name, row in trivial_scores(blurred).items()},
    )
    disagreement = np.zeros(annotation.shape, np.uint8)
    disagreement[(annotation == BLURRED) & (found.mask == SHARP)] = MISSED_BLUR
    disagreement[(annotation == SHARP) & (found.mask == BLURRED)] = MISSED_SHARP
    return Comparison(report, disagreement, float(part.mean()))
