import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from napari_defocus.filters.resampling import block_mean, enlarge

SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 40))
FACTORS = st.integers(1, 9)
VALUES = st.floats(-1e3, 1e3, width=32)


def images(shapes=SHAPES):
    return shapes.flatmap(lambda shape: arrays(np.float32, shape, elements=VALUES))


def mean_of_blocks(values, factor):
    """By the book, pixel by pixel."""
    rows, columns = (-(-size // factor) for size in values.shape)
    result = np.empty((rows, columns))
    last_row, last_column = (size - 1 for size in values.shape)
    for i in range(rows):
        for j in range(columns):
            block = [
                float(values[min(y, last_row), min(x, last_column)])
                for y in range(i * factor, (i + 1) * factor)
                for x in range(j * factor, (j + 1) * factor)
            ]
            result[i, j] = sum(block) / len(block)
    return result


@given(values=images(), factor=FACTORS)
def test_blocks_are_averaged(values, factor):
    found = block_mean(values, factor)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, mean_of_blocks(values, factor), rtol=0, atol=1e-3)


@given(values=images(), factor=FACTORS)
def test_enlarging_is_linear_interpolation_between_centres(values, factor):
    found = enlarge(values, factor)
    expected = ndimage.zoom(
        values.astype(np.float64), factor, order=1, mode="nearest", grid_mode=True
    )
    assert found.dtype == np.float32
    assert found.shape == tuple(factor * size for size in values.shape)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)


@given(data=st.data(), factor=FACTORS)
def test_windows_aligned_to_the_factor_give_the_same_bytes(data, factor):
    values = data.draw(images(st.tuples(st.integers(1, 60), st.integers(1, 60))))
    blocks = [-(-size // factor) for size in values.shape]
    window = []
    for count in blocks:
        start = data.draw(st.integers(0, count - 1))
        window.append((start, data.draw(st.integers(start + 1, count))))
    part = tuple(slice(a * factor, b * factor) for a, b in window)
    coarse = tuple(slice(a, b) for a, b in window)
    np.testing.assert_array_equal(
        block_mean(values[part], factor), block_mean(values, factor)[coarse]
    )


@given(data=st.data(), factor=FACTORS)
def test_a_window_enlarged_with_one_block_around_it_gives_the_same_bytes(data, factor):
    values = data.draw(images())
    inner, outer = [], []
    for size in values.shape:
        start = data.draw(st.integers(0, size - 1))
        stop = data.draw(st.integers(start + 1, size))
        wide = slice(max(start - 1, 0), min(stop + 1, size))
        outer.append(wide)
        inner.append((slice(start * factor, stop * factor), wide.start * factor))
    within = tuple(slice(part.start - first, part.stop - first) for part, first in inner)
    np.testing.assert_array_equal(
        enlarge(values[tuple(outer)], factor)[within],
        enlarge(values, factor)[tuple(part for part, _ in inner)],
    )


@pytest.mark.parametrize("factor", [1, 2, 5])
def test_constant_images_stay(factor):
    values = np.full((11, 17), 0.3, np.float32)
    np.testing.assert_allclose(block_mean(values, factor), 0.3, rtol=1e-6)
    np.testing.assert_array_equal(enlarge(values, factor), np.float32(0.3))


@given(values=images(), factor=st.integers(1, 5))
def test_the_mean_of_what_is_enlarged_keeps_to_the_range(values, factor):
    again = block_mean(enlarge(values, factor), factor)
    assert again.shape == values.shape
    assert again.min() >= values.min() - 1e-3
    assert again.max() <= values.max() + 1e-3


def test_what_is_given_is_not_changed():
    values = np.arange(35, dtype=np.float32).reshape(5, 7)
    kept = values.copy()
    for factor in (1, 2, 3):
        block_mean(values, factor)
        enlarge(values, factor)
    np.testing.assert_array_equal(values, kept)
