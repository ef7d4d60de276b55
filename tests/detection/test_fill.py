import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_defocus.core.tiling import plan_tiles, whole
from napari_defocus.detection.fill import CELL, SIGMAS, Surroundings, at_pixels, cells_around

SHAPES = st.tuples(st.integers(1, 150), st.integers(1, 150))


def plane(shape, seed, share=0.5):
    """Sharpness, 0 where not valid, and the valid pixels, in patches."""
    dice = np.random.default_rng(seed)
    valid = ndimage.uniform_filter(dice.random(shape), 9, mode="wrap") < share
    return np.where(valid, dice.random(shape), 0).astype(np.float32), valid


def by_the_book(sharpness, valid):
    """The same, cell by cell and in double precision."""
    rows, columns = (-(-size // CELL) for size in valid.shape)
    share, known = np.zeros((rows, columns)), np.zeros((rows, columns))
    for i in range(rows):
        for j in range(columns):
            cell = slice(i * CELL, (i + 1) * CELL), slice(j * CELL, (j + 1) * CELL)
            share[i, j] = valid[cell].mean()
            known[i, j] = np.where(valid[cell], sharpness[cell], 0).mean(dtype=np.float64)
    spread = np.full((rows, columns), 0.5)
    for sigma in sorted(SIGMAS, reverse=True):
        near, level = (
            ndimage.gaussian_filter(values, sigma) if sigma else values for values in (share, known)
        )
        trust = np.clip(10 * near, 0, 1)
        spread = (1 - trust) * spread + trust * level / np.maximum(near, 1e-6)
    return np.clip(spread, 0, 1)


@settings(max_examples=25)
@given(shape=SHAPES, seed=st.integers(0, 99), share=st.floats(0.4, 0.6))
def test_sums_and_spread_are_as_by_the_book(shape, seed, share):
    sharpness, valid = plane(shape, seed, share)
    found = Surroundings.of(sharpness, valid)
    assert found.shape == shape
    np.testing.assert_allclose(found.spread(), by_the_book(sharpness, valid), rtol=0, atol=1e-4)


@settings(max_examples=40)
@given(shape=SHAPES, seed=st.integers(0, 99), side=st.integers(1, 6))
def test_parts_give_the_same_bytes_as_the_whole(shape, seed, side):
    sharpness, valid = plane(shape, seed)
    at_once = Surroundings.of(sharpness, valid)
    joined = Surroundings.empty(shape)
    for tile in plan_tiles(shape, side * CELL):
        joined.put(Surroundings.of(sharpness[tile.region], valid[tile.region]), tile.region)
    np.testing.assert_array_equal(joined.sharpness, at_once.sharpness)
    np.testing.assert_array_equal(joined.valid, at_once.valid)
    np.testing.assert_array_equal(joined.spread(), at_once.spread())


@settings(max_examples=40)
@given(shape=SHAPES, seed=st.integers(0, 99), data=st.data())
def test_pixels_of_a_region_have_the_same_bytes_as_in_the_whole(shape, seed, data):
    cells = [-(-size // CELL) for size in shape]
    values = np.random.default_rng(seed).random(cells, np.float32)
    region = []
    for size in shape:
        start = data.draw(st.integers(0, size - 1))
        region.append(slice(start, data.draw(st.integers(start + 1, size))))
    region = tuple(region)
    expected = at_pixels(values, whole(shape))[region]
    around = cells_around(region, cells)
    assert expected.shape == tuple(part.stop - part.start for part in region)
    np.testing.assert_array_equal(at_pixels(values, region), expected)
    np.testing.assert_array_equal(at_pixels(values[around], region, around), expected)


def test_values_at_pixels_are_interpolated():
    values = np.random.default_rng(0).random((3, 4), np.float32)
    expected = ndimage.zoom(values, CELL, order=1, mode="nearest", grid_mode=True)
    found = at_pixels(values, whole((3 * CELL - 5, 4 * CELL)))
    np.testing.assert_allclose(found, expected[:-5], rtol=0, atol=1e-6)


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
def test_what_is_undecided_takes_what_lies_around_it(level):
    valid = np.ones((160, 160), bool)
    valid[40:120, 40:120] = False
    sharpness = np.where(valid, np.float32(level), np.float32(0))
    spread = Surroundings.of(sharpness, valid).spread()
    np.testing.assert_allclose(spread, level, rtol=0, atol=1e-3)


def test_nearer_regions_count_more():
    valid = np.zeros((64, 960), bool)
    valid[:, :64] = valid[:, -64:] = True
    sharpness = np.zeros((64, 960), np.float32)
    sharpness[:, :64] = 1
    middle = Surroundings.of(sharpness, valid).spread()[1]
    assert (np.diff(middle) < 1e-6).all()
    assert middle[5] > 0.95
    assert middle[-6] < 0.05


def test_nothing_valid_is_neither_sharp_nor_blurred():
    nothing = Surroundings.of(np.zeros((50, 70), np.float32), np.zeros((50, 70), bool))
    np.testing.assert_array_equal(nothing.spread(), np.float32(0.5))
