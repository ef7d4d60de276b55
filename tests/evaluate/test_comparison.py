import numpy as np
import pytest

from napari_defocus.core.errors import DefocusError
from napari_defocus.detection.api import Detection
from napari_defocus.evaluate.comparison import compare, read_hand_labels
from napari_defocus.evaluate.scores import score_map

SHAPE = (3, 4)


def labels(*values, dtype=np.uint8):
    return np.resize(np.array(values, dtype), SHAPE)


@pytest.mark.parametrize(
    ("given", "reading", "expected", "how"),
    [
        (labels(0, 1, 2), "by their values", labels(0, 1, 2), "annotation"),
        (labels(1, 2), "by their values", labels(1, 2), "annotation"),
        (labels(0, 255), "by their values", labels(2, 1), "mask: 255 blurred"),
        (labels(0, 1), "by their values", labels(2, 1), "mask: 1 blurred"),
        (labels(False, True, dtype=bool), "by their values", labels(2, 1), "mask: 1 blurred"),
        (labels(0, 1, dtype=np.int64), "mask", labels(2, 1), "mask: 1 blurred"),
        (labels(0, 1, 2, dtype=np.int32), "annotation", labels(0, 1, 2), "annotation"),
    ],
)
def test_how_labels_are_read(given, reading, expected, how):
    annotation, text = read_hand_labels(given, SHAPE, "truth", reading)
    np.testing.assert_array_equal(annotation, expected)
    assert annotation.dtype == np.uint8
    assert how in text


@pytest.mark.parametrize(
    ("given", "reading", "says"),
    [
        (labels(0), "by their values", "nothing is painted"),
        (labels(1), "by their values", "no pixel is called sharp"),
        (labels(0, 2), "by their values", "no pixel is called blurred"),
        (labels(0, 1), "annotation", "no pixel is called sharp"),
        (labels(0, 1, 7), "by their values", "label 7"),
        (labels(0, 255), "annotation", "label 255"),
        (labels(0, 1, 2), "mask", "read it as annotation"),
        (labels(0), "mask", "no pixel is called blurred"),
        (np.zeros((4, 3), int), "by their values", r"\(4, 3\).*\(3, 4\)"),
        (np.eye(4, dtype=int), "by their values", r"\(4, 4\).*\(3, 4\)"),
        (np.eye(4, dtype=int), "mask", r"\(4, 4\).*\(3, 4\)"),
    ],
)
def test_labels_that_cannot_be_used(given, reading, says):
    with pytest.raises(DefocusError, match=says):
        read_hand_labels(given, SHAPE, "truth", reading)


@pytest.mark.parametrize("shape", [(12, 9), (2, 12, 9)])
def test_only_labelled_pixels_count(shape):
    rng = np.random.default_rng(1)
    blur = rng.random(shape).astype(np.float32)
    mask = rng.integers(0, 3, shape).astype(np.uint8)
    annotation = rng.integers(0, 3, shape).astype(np.uint8)
    made = compare(Detection(blur, mask), annotation, "cells")
    pixels = [index for index in np.ndindex(shape) if annotation[index]]
    row = score_map(
        np.array([[blur[i] for i in pixels]]),
        np.array([[annotation[i] == 1 for i in pixels]]),
        mask=np.array([[mask[i] for i in pixels]]),
    )
    assert made.report.methods["detection"].images["cells"].values == row.values
    assert made.labelled == pytest.approx(len(pixels) / blur.size)
    assert set(made.report.trivial) == {"all blurred", "all sharp", "constant .5"}
    for index in np.ndindex(shape):
        expected = {(1, 2): 1, (2, 1): 2}.get((annotation[index], mask[index]), 0)
        assert made.disagreement[index] == expected


def test_without_a_mask_its_score_is_left_out():
    blur = np.array([[0.1, 0.9]], np.float32)
    found = Detection(blur, np.array([[2, 1]], np.uint8))
    annotation = np.array([[2, 1]], np.uint8)
    made = compare(found, annotation, "cells", mask_is_known=False)
    assert np.isnan(made.report.methods["detection"].mean["IoU(mask)"])
    assert made.report.methods["detection"].mean["AUC"] == 1
    assert not made.disagreement.any()
