import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from skimage import data

from napari_defocus.core.errors import DefocusError
from napari_defocus.detection.api import DetectionConfig, detect
from napari_defocus.detection.config import ZENG2019
from napari_defocus.detection.refinement import RefinementConfig, halo, refine
from napari_defocus.filters import _numba as compiled

WHOLLY = {"keep": 0.0}


@pytest.fixture(scope="module", autouse=True, params=["numpy", "compiled"])
def way(request):
    """Every test holds for both ways of computing."""
    if request.param == "compiled":
        pytest.importorskip("numba", reason="the compiled loops need numba")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "WORTH_PIXELS", 0 if request.param == "compiled" else math.inf)
        yield request.param


# A mean this much below the threshold, relatively, still equals it.
TIE = 1e-6


def box_mean(values, side):
    """Mean of each pixel's square, the border repeated, summed shift by shift."""
    rows, columns = values.shape
    padded = np.pad(values, side // 2, mode="edge")
    total = np.zeros_like(values)
    for y in range(side):
        for x in range(side):
            total += padded[y : y + rows, x : x + columns]
    return total / side**2


def literal(sharpness, config):
    """Run every iteration, without the short cut."""
    values = sharpness.astype(np.float64)
    threshold = values.mean() if config.threshold is None else config.threshold
    combined = np.zeros_like(values)
    for iteration in range(1, max(config.iterations) + 1):
        low = box_mean(values, config.neighbourhood) < threshold * (1 - TIE)
        values = np.tanh(values) / (np.tanh(1) if config.growing else 1)
        values[low] = 0
        for when, weight in zip(config.iterations, config.weights, strict=True):
            if when == iteration:
                combined = combined + weight * values
    return config.keep * sharpness + (1 - config.keep) * combined


def smooth_map(seed, shape, sigma, power=1.0):
    relief = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma)
    relief = (relief - relief.min()) / max(np.ptp(relief), 1e-12)
    return np.asarray(relief**power, np.float32)


# Thresholds near 0 are left out: running sums leave 1e-17 where an exact sum leaves 0.
configs = st.builds(
    RefinementConfig,
    neighbourhood=st.sampled_from([1, 3, 5, 9]),
    threshold=st.none() | st.floats(0.01, 1),
    keep=st.sampled_from([0.0, 0.3, 1.0]),
    growing=st.booleans(),
)
smooth_maps = st.builds(
    smooth_map,
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(2, 40), st.integers(2, 40)),
    sigma=st.floats(0.3, 6),
    power=st.floats(0.3, 3),
)
any_maps = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=12),
    elements=st.floats(0, 1, width=32),
)


@given(smooth_maps, configs)
def test_short_cut_is_the_literal_loop(sharpness, config):
    refined = refine(sharpness, config)
    np.testing.assert_allclose(refined, literal(sharpness, config), rtol=0, atol=1e-6)


@given(any_maps, configs)
def test_short_cut_is_the_literal_loop_on_any_values(sharpness, config):
    refined = refine(sharpness, config)
    np.testing.assert_allclose(refined, literal(sharpness, config), rtol=0, atol=1e-6)


@given(
    smooth_maps,
    st.lists(st.integers(1, 30), min_size=1, max_size=4, unique=True).map(sorted),
    st.none() | st.floats(0.1, 0.9),
)
def test_any_iterations_may_be_kept(sharpness, iterations, threshold):
    weights = tuple(np.full(len(iterations), 1 / len(iterations)))
    config = RefinementConfig(tuple(iterations), weights, threshold=threshold, keep=0.0)
    refined = refine(sharpness, config)
    np.testing.assert_allclose(refined, literal(sharpness, config), rtol=0, atol=1e-6)


def laplacian_map(picture):
    energy = np.abs(ndimage.gaussian_laplace(picture / 255.0, 1))
    pooled = ndimage.gaussian_filter(energy, 8)
    return np.asarray((pooled - pooled.min()) / np.ptp(pooled), np.float32)


PICTURES = {
    "camera": lambda: data.camera()[100:300, 150:400],
    "coins": lambda: data.coins(),
    "page": lambda: data.page(),
}


@pytest.mark.parametrize("config", [WHOLLY, {}, {"threshold": None, "keep": 0.0}])
@pytest.mark.parametrize("name", PICTURES)
def test_short_cut_on_laplacian_maps_of_pictures(name, config):
    sharpness = laplacian_map(PICTURES[name]())
    config = RefinementConfig(**config)
    expected = literal(sharpness, config)
    assert np.ptp(expected) > 0.5  # some pixels die and some survive
    np.testing.assert_allclose(refine(sharpness, config), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("config", [WHOLLY, {"threshold": None, "keep": 0.0}])
@pytest.mark.parametrize("scale", ["calibrated", "image"])
def test_short_cut_on_maps_of_a_metric(metric, scenes, scale, config):
    config = RefinementConfig(**config)
    for _, image, _ in scenes[:3]:
        unrefined = detect(image, metric, DetectionConfig(scale=scale, refine=False)).sharpness
        np.testing.assert_allclose(
            refine(unrefined, config), literal(unrefined, config), rtol=0, atol=1e-6
        )


def after(sharpness, iteration, threshold):
    config = RefinementConfig((iteration,), (1.0,), threshold=threshold, keep=0.0)
    return refine(sharpness, config)


@given(smooth_maps | any_maps, st.none() | st.floats(0.01, 1))
def test_survivors_never_fall_and_the_dead_stay_dead(sharpness, threshold):
    earlier = sharpness
    for iteration in (1, 2, 3, 6, 12, 40):
        later = after(sharpness, iteration, threshold)
        alive = later > 0
        assert (later[alive] >= earlier[alive] - 1e-6).all()
        assert not (alive & (earlier == 0)).any()
        earlier = later


@given(smooth_maps | any_maps, configs)
def test_result_is_a_map_of_the_same_kind(sharpness, config):
    before = sharpness.copy()
    refined = refine(sharpness, config)
    np.testing.assert_array_equal(sharpness, before)
    assert refined is not sharpness
    assert refined.dtype == np.float32
    assert refined.shape == sharpness.shape
    assert refined.min() >= 0
    assert refined.max() <= 1


@pytest.mark.parametrize("threshold", [None, 0.0, 0.5])
def test_a_map_of_zeros_stays_zero(threshold):
    refined = refine(np.zeros((9, 14), np.float32), RefinementConfig(threshold=threshold))
    assert (refined == 0).all()


@given(st.floats(2**-10, 1, width=32), st.integers(1, 60), st.integers(1, 60))
def test_a_constant_map_equals_its_mean_and_survives(value, rows, columns):
    constant = np.full((rows, columns), value, np.float32)
    refined = refine(constant, RefinementConfig(threshold=None, **WHOLLY))
    assert (refined >= value).all()
    np.testing.assert_array_equal(refined, refined[0, 0])


@pytest.mark.parametrize(("value", "expected"), [(0.49, 0.3 * 0.49), (0.9, 0.3 * 0.9 + 0.7)])
def test_a_constant_map_lives_or_dies_by_the_fixed_threshold(value, expected):
    refined = refine(np.full((20, 20), value, np.float32), RefinementConfig(threshold=0.5))
    np.testing.assert_allclose(refined, expected, atol=1e-3)


def test_weights_of_the_kept_iterations():
    # With no threshold every pixel lives, and each is a series of its own.
    sharpness = np.ones((6, 6), np.float32)
    sharpness[2, 3] = 0.01
    config = RefinementConfig((10, 50, 100), (0.3, 0.2, 0.5), threshold=0.0, keep=0.0)
    x, expected = float(np.float32(0.01)), 0.0
    for iteration in range(1, 101):
        x = math.tanh(x) / math.tanh(1)
        expected += {10: 0.3, 50: 0.2, 100: 0.5}.get(iteration, 0) * x
    assert 0.5 < expected < 0.99
    refined = refine(sharpness, config)
    assert refined[2, 3] == pytest.approx(expected, abs=1e-6)
    assert refined[0, 0] == 1


@pytest.mark.parametrize("config", [RefinementConfig(), ZENG2019.refinement])
def test_iterations_and_weights_are_those_of_the_paper(config):
    assert config.iterations == (10, 50, 100)
    assert config.weights == (0.3, 0.2, 0.5)


def test_the_neighbourhood_decides_not_the_pixel():
    sharpness = np.zeros((21, 21), np.float32)
    sharpness[3, 3] = 1  # alone: the mean of its square is 1/25
    sharpness[10:21, 10:21] = 0.9
    sharpness[15, 15] = 0.1  # in bright surroundings
    refined = refine(sharpness, RefinementConfig(threshold=0.5, **WHOLLY))
    assert refined[3, 3] == 0
    assert refined[15, 15] > 0.5
    assert refined[14, 14] == pytest.approx(1, abs=1e-3)


def test_a_step_becomes_black_and_white():
    sharpness = np.full((30, 40), 0.2, np.float32)
    sharpness[:, 20:] = 0.8
    refined = refine(sharpness, RefinementConfig(threshold=0.5, **WHOLLY))
    np.testing.assert_allclose(refined[:, 22:], 1, atol=1e-3)
    np.testing.assert_array_equal(refined[:, :18], 0)


@given(smooth_maps)
def test_keep_mixes_in_the_unrefined_map(sharpness):
    pure = refine(sharpness, RefinementConfig(keep=0.0))
    mixed = refine(sharpness, RefinementConfig(keep=0.25))
    np.testing.assert_allclose(mixed, 0.25 * sharpness + 0.75 * pure, atol=1e-6)
    np.testing.assert_allclose(refine(sharpness, RefinementConfig(keep=1.0)), sharpness, atol=1e-6)


@pytest.mark.parametrize("radius", [5, 9, 14])
def test_specks_of_almost_0_in_a_disc_that_shrinks(radius):
    """They grow by millions, and die with what is around them, some between the kept iterations."""
    y, x = np.mgrid[-20:21, -20:21]
    sharpness = np.where(y**2 + x**2 <= radius**2, 0.9, 0.1).astype(np.float32)
    sharpness[1::5, 1::4] = np.geomspace(1e-9, 0.04, sharpness[1::5, 1::4].size).reshape(8, 10)
    config = RefinementConfig(**WHOLLY)
    np.testing.assert_allclose(refine(sharpness, config), literal(sharpness, config), atol=1e-6)


def test_both_ways_of_computing_agree_bit_for_bit(monkeypatch):
    for seed in range(30):
        rng = np.random.default_rng(seed)
        sharpness = smooth_map(seed, (37, 41), rng.uniform(0.3, 5), rng.uniform(0.3, 3))
        side, threshold = int(rng.choice([1, 3, 5, 9])), float(rng.uniform(0.05, 1))
        config = RefinementConfig(neighbourhood=side, threshold=threshold)
        found = []
        for worth in (0, math.inf):
            monkeypatch.setattr(compiled, "WORTH_PIXELS", worth)
            found.append(refine(sharpness, config))
        np.testing.assert_array_equal(*found)


# --- tanh alone, the paper's ----------------------------------------------------------------------


def tanh_alone(sharpness, threshold):
    """Follow the words of the paper's review, pixel by pixel."""
    rows, columns = sharpness.shape
    values, kept = sharpness.astype(np.float64), {}
    for iteration in range(1, 101):
        after = np.zeros_like(values)
        for y in range(rows):
            for x in range(columns):
                ys = np.clip(np.arange(y - 2, y + 3), 0, rows - 1)
                xs = np.clip(np.arange(x - 2, x + 3), 0, columns - 1)
                if values[np.ix_(ys, xs)].mean() >= threshold:
                    after[y, x] = math.tanh(values[y, x])
        values = kept[iteration] = after
    return 0.3 * kept[10] + 0.2 * kept[50] + 0.5 * kept[100]


def test_tanh_alone_is_what_the_paper_says():
    sharpness = smooth_map(4, (11, 13), 1.5, 8.0)
    refined = refine(sharpness, ZENG2019.refinement)
    expected = tanh_alone(sharpness, sharpness.mean(dtype=float))
    assert 0 < (expected > 0).mean() < 1  # some pixels die and some survive
    np.testing.assert_allclose(refined, expected, atol=1e-7)


@given(smooth_maps | any_maps, configs)
def test_tanh_alone_is_never_above_its_input(sharpness, config):
    assert (refine(sharpness, replace(config, growing=False)) <= sharpness).all()


@given(smooth_maps)
def test_the_three_maps_are_weighed(sharpness):
    paper = ZENG2019.refinement
    alone = [
        refine(sharpness, replace(paper, iterations=(after,), weights=(1.0,)))
        for after in (10, 50, 100)
    ]
    assert (alone[2] <= alone[1]).all()
    assert (alone[1] <= alone[0]).all()
    mixed = 0.3 * alone[0] + 0.2 * alone[1] + 0.5 * alone[2]
    np.testing.assert_allclose(refine(sharpness, paper), mixed, atol=1e-6)


@pytest.mark.parametrize(
    ("start", "after"), [(1.0, (0.356, 0.170, 0.121)), (0.2, (0.178, 0.131, 0.104))]
)
def test_tanh_alone_falls(start, after):
    found = [
        refine(
            np.full((5, 5), start, np.float32),
            RefinementConfig((n,), (1.0,), threshold=0.0, keep=0.0, growing=False),
        )[0, 0]
        for n in (10, 50, 100)
    ]
    assert found == pytest.approx(after, abs=6e-4)


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("side", "iterations", "pixels"), [(5, (10, 50, 100), 200), (3, (4,), 4), (1, (9,), 0)]
)
def test_each_iteration_reaches_half_a_neighbourhood_further(side, iterations, pixels):
    config = RefinementConfig(iterations, (1 / len(iterations),) * len(iterations), side)
    assert halo(config) == pixels


@given(smooth_maps, st.integers(0, 2**32 - 1))
def test_nothing_beyond_the_reach_counts(sharpness, seed):
    config = RefinementConfig(iterations=(1, 2), weights=(0.5, 0.5))
    other = sharpness.copy()
    far = slice(sharpness.shape[0] // 2 + halo(config), None)
    other[far] = np.random.default_rng(seed).random(other[far].shape)
    near = sharpness.shape[0] // 2
    np.testing.assert_array_equal(refine(other, config)[:near], refine(sharpness, config)[:near])


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"iterations": (10, 50)}, "2 iterations and 3 weights"),
        ({"weights": (1.0,)}, "3 iterations and 1 weights"),
        ({"iterations": (0, 1, 2)}, "iterations is 0"),
        ({"iterations": (), "weights": ()}, "0 iterations and 0 weights; give one or more"),
        ({"weights": (0.3, math.nan, 0.5)}, "weight is nan"),
        ({"weights": (0.3, 1.5, 0.5)}, "weight is 1.5"),
        ({"neighbourhood": 0}, "neighbourhood is 0"),
        ({"neighbourhood": 4}, "neighbourhood is 4; give an odd side"),
        ({"iterations": (50, 10, 100)}, "iterations are 50, 10, 100; give them rising"),
        ({"iterations": (10, 10, 100)}, "give them rising"),
        ({"iterations": (10, 50, 2**15)}, "one of the iterations is 32768"),
        ({"weights": (1.0, 1.0, 1.0)}, "sum to 3; give some that sum to 1"),
        ({"weights": (0.0, 0.0, 0.0)}, "sum to 0"),
        ({"keep": 1.5}, "keep is 1.5"),
        ({"threshold": -1.0}, "threshold is -1.0"),
        ({"threshold": 1.5}, "threshold is 1.5"),
    ],
)
def test_settings_out_of_range_are_refused(config, words):
    with pytest.raises(DefocusError, match=words):
        refine(np.full((9, 9), 0.5, np.float32), RefinementConfig(**config))
