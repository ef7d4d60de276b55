import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage import data
from skimage.measure import regionprops

from napari_defocus.filters.plane import prepare_plane
from napari_defocus.labels.superpixels import centroids, superpixels

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
