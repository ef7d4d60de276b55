import numpy as np
import pytest

from napari_defocus.core.errors import DefocusError
from napari_defocus.labels.classes import annotation_from_mask, check_annotation


def painted(*rows):
    return np.array([[int(c) for c in row] for row in rows])


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int32, np.int64, ">u4"])
def test_labels_of_any_integer_type_are_kept(dtype):
    labels = painted("0012", "0210")
    checked = check_annotation(labels.astype(dtype), (2, 4), "a")
    assert checked.dtype == np.uint8
    np.testing.assert_array_equal(checked, labels)


def test_a_bool_annotation_means_blurred():
    checked = check_annotation(np.array([[True, False]]), (1, 2), "a")
    assert checked.tolist() == [[1, 0]]


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.ones((3, 4), int), ["(3, 4)", "(4, 3)", "labels layer"]),
        (np.ones((1, 4, 3), int), ["(1, 4, 3)", "(4, 3)"]),
        (np.ones((4, 3)), ["float64", "not labels"]),
        (painted("000", "000", "003", "000"), ["label 3", "1 for blurred", "2 for sharp"]),
        (-painted("000", "000", "001", "000"), ["label -1", "1 for blurred", "2 for sharp"]),
        (np.full((4, 3), 2**63, np.uint64), [f"label {2**63}", "2 for sharp"]),
        (np.full((4, 3), 257, np.uint16), ["label 257"]),
        (np.zeros((4, 3), int), ["nothing is painted", "label 1 on blurred", "2 on sharp"]),
        (np.zeros((4, 3), bool), ["nothing is painted"]),
    ],
)
def test_errors_name_the_image_and_what_to_paint(labels, words):
    with pytest.raises(DefocusError) as caught:
        check_annotation(labels, (4, 3), "slide 7.tif")
    message = str(caught.value)
    assert message.startswith("slide 7.tif: ")
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    "mask",
    [
        np.array([[True, False]]),
        np.array([[1, 0]], np.uint8),
        np.array([[255, 0]], np.uint8),
        np.array([[128, 127]], np.uint8),
        np.array([[0.6, 0.4]]),
        np.array([[200.0, 100.0]]),
    ],
)
def test_bright_mask_pixels_are_blurred(mask):
    annotation = annotation_from_mask(mask)
    assert annotation.dtype == np.uint8
    assert annotation.tolist() == [[1, 2]]


def test_a_black_mask_is_sharp_all_over():
    assert (annotation_from_mask(np.zeros((3, 4), np.uint8)) == 2).all()
