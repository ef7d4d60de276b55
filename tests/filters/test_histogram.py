import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.filters import threshold_otsu

from napari_defocus.filters.histogram import Histogram

BINS = 1024
values_in_0_1 = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=1, max_dims=2, max_side=20),
    elements=st.floats(0, 1, width=16),
)


def histogram(values, bins=BINS):
    return Histogram.of(np.asarray(values, np.float32), 0.0, 1.0, bins)


@given(values_in_0_1)
def test_otsu_cuts_where_scikit_image_does(values):
    """Both sides of the cut are those of scikit-image's, but for values within a bin of it."""
    found = histogram(values).otsu()
    if np.ptp(np.minimum(values * BINS, BINS - 1).astype(int)) == 0:
        assert found == pytest.approx(values.mean(), abs=1e-6)
        return
    edges = np.linspace(0, 1, BINS + 1)
    counts, _ = np.histogram(values, edges)
    expected = threshold_otsu(hist=(counts, (edges[1:] + edges[:-1]) / 2))
    near = np.abs(values - expected) < 1.01 / BINS
    np.testing.assert_array_equal((values >= found)[~near], (values > expected)[~near])


@given(values_in_0_1, values_in_0_1)
def test_histograms_of_parts_add_up(one, other):
    both = histogram(np.concatenate([one.ravel(), other.ravel()]))
    added = histogram(one) + histogram(other)
    np.testing.assert_array_equal(added.counts, both.counts)
    assert added.mean == pytest.approx(both.mean)


def test_counts_are_those_of_numpy():
    values = np.random.default_rng(0).uniform(-2, 3, 5000).astype(np.float32)
    found = Histogram.of(values, -2.0, 3.0, 50)
    expected, _ = np.histogram(values, 50, (-2, 3))
    np.testing.assert_allclose(found.counts, expected, atol=1)  # rounding at the edges of bins


def test_values_beyond_the_range_are_in_the_last_bins():
    found = Histogram.of(np.array([-5, 0.5, 7], np.float32), 0.0, 1.0, 4)
    assert found.counts.tolist() == [1, 0, 1, 1]
    assert found.mean == pytest.approx(2.5 / 3)


def test_nothing_has_no_mean():
    assert np.isnan(histogram([]).mean)


@pytest.mark.parametrize("value", [0.0, 0.25, 1.0])
def test_otsu_of_one_value(value):
    assert histogram([value] * 3).otsu() == value
