import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage import data
from skimage.measure import regionprops

from napari_defocus.core.errors import DefocusError
from napari_defocus.filters.plane import prepare_plane
from napari_defocus.labels.annotation import (
    annotation_from_mask,
    centroids,
    check_annotation,
    superpixels,
)


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


GRAVEL = prepare_plane(data.gravel()[:200, :260]).grey
NOISE = np.random.default_rng(0).normal(0.5, 0.2, (128, 160)).astype(np.float32)
RAMP = np.float32(np.tile(np.linspace(0, 1, 150), (90, 1)))


@pytest.mark.parametrize("size", [8, 12, 24])
@pytest.mark.parametrize("grey", [GRAVEL, NOISE, RAMP], ids=["gravel", "noise", "ramp"])
def test_superpixels_cover_the_image(grey, size):
    segments = superpixels(grey, size)
    assert segments.shape == grey.shape
    assert segments.min() == 1
    expected = grey.size / size**2
    found = len(np.unique(segments))
    assert 0.4 * expected <= found <= 1.7 * expected
    # None is much larger than it should be, or the count would say nothing.
    assert np.bincount(segments.ravel()).max() < 6 * size**2


def test_an_image_smaller_than_a_superpixel_is_one():
    assert (superpixels(NOISE[:5, :6], 12) == 1).all()


def test_superpixels_follow_an_edge():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:120, :150]
    bright = x + 0.3 * y > 90
    grey = np.float32(0.2 + 0.6 * bright + rng.normal(0, 0.02, bright.shape))
    segments = superpixels(grey, 12)
    inside = np.bincount(segments.ravel(), weights=bright.ravel())[1:]
    area = np.bincount(segments.ravel())[1:]
    astray = np.minimum(inside, area - inside).sum() / bright.size
    assert astray < 0.01


def test_centroids_of_superpixels_are_those_of_scikit_image():
    segments = superpixels(GRAVEL, 12)
    expected = [np.rint(region.centroid) for region in regionprops(segments)]
    np.testing.assert_array_equal(centroids(segments), expected)


@given(
    hnp.arrays(
        np.int64,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
        elements=st.integers(1, 12),
    )
)
def test_centroids_of_any_labels(segments):
    found = centroids(segments)
    assert found.dtype == np.int64
    expected = [np.rint(region.centroid) for region in regionprops(segments)]
    np.testing.assert_array_equal(found, expected)
