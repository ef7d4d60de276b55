import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from napari_defocus.evaluate.baselines import (
    BASELINES,
    LBP_THRESHOLD,
    brenner,
    laplacian_variance,
    lbp_sharpness,
    local_binary_patterns,
    pooled_laplacian,
    tenengrad,
)

SIGMA = 1.5
every_baseline = pytest.mark.parametrize("function", BASELINES.values(), ids=BASELINES)


def random_plane(seed=0, shape=(11, 14)):
    """Grey values in steps of 1/64, so that adding a whole number is exact."""
    return np.random.default_rng(seed).integers(0, 65, shape) / 64


# --- against literal references ----------------------------------------------------------------


def at(plane, y, x):
    """Give the value of a pixel, the nearest one's beyond the border."""
    return float(plane[min(max(y, 0), plane.shape[0] - 1), min(max(x, 0), plane.shape[1] - 1)])


def each_pixel(plane, function):
    rows, columns = plane.shape
    return np.array([[function(y, x) for x in range(columns)] for y in range(rows)])


def window_mean(values, y, x):
    """Gaussian mean around a pixel, mirrored at the border (d c b a | a b c d | d c b a)."""
    reach = int(4 * SIGMA + 0.5)
    offsets = range(-reach, reach + 1)
    weights = [math.exp(-(offset**2) / (2 * SIGMA**2)) for offset in offsets]

    def mirrored(place, size):
        place %= 2 * size
        return place if place < size else 2 * size - 1 - place

    rows, columns = values.shape
    total = sum(
        weight_y
        * weight_x
        * float(values[mirrored(y + offset_y, rows), mirrored(x + offset_x, columns)])
        for offset_y, weight_y in zip(offsets, weights, strict=True)
        for offset_x, weight_x in zip(offsets, weights, strict=True)
    )
    return total / sum(weights) ** 2


def pooled(values):
    return each_pixel(values, lambda y, x: window_mean(values, y, x))


def laplacian(plane):
    return each_pixel(
        plane,
        lambda y, x: (
            at(plane, y - 1, x)
            + at(plane, y + 1, x)
            + at(plane, y, x - 1)
            + at(plane, y, x + 1)
            - 4 * at(plane, y, x)
        ),
    )


def test_laplacian_variance():
    plane = random_plane(0)
    answer = laplacian(plane)
    expected = pooled(answer**2) - pooled(answer) ** 2
    np.testing.assert_allclose(laplacian_variance(plane, sigma=SIGMA), expected, rtol=1e-5)


def test_pooled_laplacian():
    plane = random_plane(1)
    expected = pooled(np.abs(laplacian(plane)))
    np.testing.assert_allclose(pooled_laplacian(plane, sigma=SIGMA), expected, rtol=1e-5)


def test_tenengrad():
    plane = random_plane(2)

    def energy(y, x):
        down = sum(
            weight * (at(plane, y + 1, x + dx) - at(plane, y - 1, x + dx))
            for dx, weight in ((-1, 1), (0, 2), (1, 1))
        )
        right = sum(
            weight * (at(plane, y + dy, x + 1) - at(plane, y + dy, x - 1))
            for dy, weight in ((-1, 1), (0, 2), (1, 1))
        )
        return down**2 + right**2

    expected = pooled(each_pixel(plane, energy))
    np.testing.assert_allclose(tenengrad(plane, sigma=SIGMA), expected, rtol=1e-5)


def test_brenner():
    plane = random_plane(3)

    def energy(y, x):
        return (at(plane, y + 1, x) - at(plane, y - 1, x)) ** 2 + (
            at(plane, y, x + 1) - at(plane, y, x - 1)
        ) ** 2

    expected = pooled(each_pixel(plane, energy))
    np.testing.assert_allclose(brenner(plane, sigma=SIGMA), expected, rtol=1e-5)


def literal_pattern(plane, y, x, threshold):
    """Walk around one pixel, interpolating between the four pixels nearest to each neighbour."""
    bits = []
    for neighbour in range(8):
        angle = math.pi / 4 * neighbour
        place_y, place_x = y - math.sin(angle), x + math.cos(angle)
        top, left = math.floor(place_y + 1e-9), math.floor(place_x + 1e-9)
        down, right = max(place_y - top, 0), max(place_x - left, 0)
        value = (
            (1 - down) * (1 - right) * at(plane, top, left)
            + (1 - down) * right * at(plane, top, left + 1)
            + down * (1 - right) * at(plane, top + 1, left)
            + down * right * at(plane, top + 1, left + 1)
        )
        bits.append(value - at(plane, y, x) > threshold)
    changes = sum(bits[place] != bits[place - 1] for place in range(8))
    return sum(bits) if changes <= 2 else 9


@pytest.mark.parametrize("threshold", [LBP_THRESHOLD, 0.3])
@pytest.mark.parametrize("seed", range(3))
def test_patterns(seed, threshold):
    plane = random_plane(seed)
    expected = each_pixel(plane, lambda y, x: literal_pattern(plane, y, x, threshold))
    found = local_binary_patterns(plane, threshold)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)
    assert {0, 1, 2, 3, 9} <= set(found.ravel())


def test_lbp_sharpness():
    plane = random_plane(4)
    rare = each_pixel(plane, lambda y, x: literal_pattern(plane, y, x, 0.1) in (6, 7, 8, 9))

    def share(y, x, width):
        reach = range(-(width // 2), width // 2 + 1)
        return sum(at(rare, y + dy, x + dx) for dy in reach for dx in reach) / width**2

    expected = each_pixel(plane, lambda y, x: (share(y, x, 3) + share(y, x, 5)) / 2)
    found = lbp_sharpness(plane, threshold=0.1, windows=(3, 5))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_patterns_by_hand():
    pit = np.ones((3, 3))
    pit[1, 1] = 0
    assert local_binary_patterns(pit)[1, 1] == 8
    assert local_binary_patterns(-pit)[1, 1] == 0
    cross = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]])
    assert local_binary_patterns(cross, 0.6)[1, 1] == 9
    step = np.array([[0, 0, 1], [0, 0, 1], [0, 0, 1]])
    assert local_binary_patterns(step)[1, 1] == 3
    below = np.full((3, 3), LBP_THRESHOLD * 0.99)
    below[1, 1] = 0
    assert local_binary_patterns(below)[1, 1] == 0


# --- properties --------------------------------------------------------------------------------


@every_baseline
def test_blurred_side_scores_below(function):
    plane = np.random.default_rng(5).random((96, 160))
    plane[:, 80:] = ndimage.gaussian_filter(plane, 2)[:, 80:]
    found = function(plane)
    assert found[:, :40].min() > found[:, 120:].max()


@every_baseline
@pytest.mark.parametrize("sigma", [0.7, 1.5, 4])
def test_more_blur_scores_lower(function, sigma):
    plane = ndimage.gaussian_filter(np.random.default_rng(6).random((64, 64)), 0.5)
    assert function(ndimage.gaussian_filter(plane, sigma)).mean() < function(plane).mean()


@every_baseline
@given(seed=st.integers(0, 99), constant=st.integers(-8, 8))
def test_a_constant_added_changes_nothing(function, seed, constant):
    plane = random_plane(seed)
    np.testing.assert_allclose(function(plane + constant), function(plane), rtol=1e-6, atol=1e-12)


@every_baseline
@given(seed=st.integers(0, 99))
def test_turning_the_image_turns_the_map(function, seed):
    plane = random_plane(seed)
    turned = np.rot90(function(np.rot90(plane)), -1)
    np.testing.assert_allclose(turned, function(plane), rtol=1e-5, atol=1e-6)


@given(seed=st.integers(0, 999), gain=st.floats(0, 10))
def test_lbp_sharpness_is_a_share(seed, gain):
    found = lbp_sharpness(gain * random_plane(seed))
    assert found.min() >= 0
    assert found.max() <= 1


@every_baseline
def test_flat_planes_and_number_types(function):
    assert not function(np.full((5, 7), 0.3)).any()
    assert not function(np.ones((1, 1))).any()
    plane = random_plane(7)
    for kind in (np.float32, np.float64):
        found = function(plane.astype(kind))
        assert found.dtype == np.float32
        assert found.shape == plane.shape
        assert found.min() >= 0
    whole = (64 * plane).astype(np.uint8)
    np.testing.assert_array_equal(function(whole), function(whole.astype(float)))
    kept = plane.copy()
    function(plane)
    np.testing.assert_array_equal(plane, kept)


def test_importing_is_light():
    heavy = {"torch", "napari", "matplotlib", "skimage", "sklearn"}
    code = f"import sys, napari_defocus.evaluate.baselines; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
