from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import signal
from skimage import data

from napari_defocus.core.errors import DefocusError
from napari_defocus.filters.plane import Plane, halve, prepare_plane
from napari_defocus.filters.resampling import enlarge
from napari_defocus.metric.local_metric import Pooling
from napari_defocus.metric.response import (
    COARSER,
    HALVING_COST,
    combine,
    filter_response,
    pool,
    predict_log_odds,
    probability,
)
from napari_defocus.simulate.optics import defocus

QUIET = (1e-12, 0.0)
BRICK = np.float32(data.brick()[:192, :192] / 255)
GRAVEL = np.float32(data.gravel()[:192, :192] / 255)


def plane_of(grey, noise=QUIET):
    return Plane(np.asarray(grey, np.float32), np.zeros(grey.shape, bool), noise)


def random_plane(shape, seed=0, noise=QUIET):
    return plane_of(np.random.default_rng(seed).uniform(size=shape), noise)


def test_white_noise_answers_with_its_variance(metric):
    noise = np.random.default_rng(0).normal(size=(300, 300))
    response = filter_response(plane_of(noise), metric)
    assert np.square(response).mean() == pytest.approx(1, rel=0.05)
    response = filter_response(plane_of(0.1 * noise), metric)
    assert np.square(response).mean() == pytest.approx(0.01, rel=0.05)


def lopsided(metric):
    """Filters that differ from their turned and mirrored selves."""
    rng = np.random.default_rng(0)
    filters = metric.filters + rng.normal(0, 0.1, metric.filters.shape).astype(np.float32)
    return replace(metric, filters=filters)


@pytest.mark.parametrize("noise", [QUIET, (0.003, 0.0), (0.001, 0.01)])
def test_response_by_another_correlation(metric, noise):
    metric = lopsided(metric)
    plane = random_plane((40, 53), noise=noise)
    energy = sum(
        signal.correlate2d(plane.grey, kernel, mode="same", boundary="symm") ** 2
        for kernel in metric.filters
    )
    factor = metric.pooling.noise_factor
    expected = np.sqrt(np.maximum(energy - factor * plane.noise_variance, 0))
    response = filter_response(plane, metric)
    assert response.dtype == np.float32
    # The root is steep at 0.
    np.testing.assert_allclose(response**2, expected**2, atol=1e-5)
    if noise != QUIET:
        assert (response == 0).any()
    assert (response > 0).any()


@pytest.mark.parametrize("value", [0, 0.3, 1])
def test_constant_planes_do_not_answer(metric, value):
    assert filter_response(plane_of(np.full((20, 30), value)), metric).max() < 1e-4


@pytest.mark.parametrize("shape", [(6, 100), (100, 6), (1, 1)])
@pytest.mark.parametrize("predict", [filter_response, predict_log_odds])
def test_an_image_smaller_than_a_filter_is_refused(metric, predict, shape):
    with pytest.raises(DefocusError) as caught:
        predict(random_plane(shape), metric)
    assert str(shape) in str(caught.value)
    assert "7 x 7" in str(caught.value)


@given(st.integers(0, 2**32 - 1), st.floats(0, 10), st.floats(0.25, 3))
def test_pooling_keeps_constants(seed, value, power):
    guide = np.random.default_rng(seed).uniform(size=(20, 30)).astype(np.float32)
    pooled = pool(np.full((20, 30), value, np.float32), guide, Pooling(power=power))
    np.testing.assert_allclose(pooled, value, rtol=1e-2, atol=1e-3)


def test_a_power_below_one_weighs_lone_edges_less():
    values = np.zeros((60, 60), np.float32)
    values[:, 30] = 1
    flat = np.zeros_like(values)
    pooled = {power: pool(values, flat, Pooling(power=power)).max() for power in (0.5, 1, 2)}
    assert 0 < pooled[0.5] < pooled[1] < pooled[2] < 1


def test_halve_averages_by_hand():
    grey = np.array([[0, 2, 4], [2, 4, 8], [1, 3, 5]], np.float32)
    holes = np.array([[1, 1, 0], [1, 1, 1], [1, 0, 1]], bool)
    half = halve(Plane(grey, holes, (0.04, 0.08)))
    np.testing.assert_array_equal(half.grey, [[2, 6], [2, 5]])
    assert not half.holes.any()  # they were filled in
    assert half.noise == (0.01, 0.02)
    assert half.grey.dtype == np.float32


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_halve_any_size(rows, columns, seed):
    plane = random_plane((rows, columns), seed)
    half = halve(plane)
    assert half.grey.shape == ((rows + 1) // 2, (columns + 1) // 2)
    for y, x in np.ndindex(half.grey.shape):
        # An odd last row counts twice, so does the mean over what is left of it.
        block = plane.grey[2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
        assert half.grey[y, x] == pytest.approx(block.mean(), abs=1e-6)


@pytest.mark.parametrize("shape", [(30, 40), (31, 45)])
def test_doubling_undoes_halving_of_a_slope(shape):
    y, x = np.mgrid[: shape[0], : shape[1]]
    slope = plane_of(0.3 * x - 0.1 * y)
    doubled = enlarge(halve(slope).grey, 2)[: shape[0], : shape[1]]
    assert doubled.shape == shape
    inner = (slice(2, -2), slice(2, -2))
    np.testing.assert_allclose(doubled[inner], slope.grey[inner], atol=1e-4)


def test_halving_quarters_the_noise():
    sigma = 0.1
    noise = np.random.default_rng(0).normal(0.5, sigma, (400, 400))
    half = halve(plane_of(noise, (sigma**2, 0.0)))
    assert half.grey.var() == pytest.approx(half.noise[0], rel=0.05)


def test_combine_by_hand():
    response = np.array([[0.0, 0.1, 0.1]], np.float32)
    contrast = np.array([[0.0, 0.01, 0.1]], np.float32)
    score = combine(response, contrast, Pooling(contrast_exponent=0.5))
    expected = [[np.log(1e-3) / 2, np.log(0.101) - np.log(0.011) / 2, np.log(0.101) / 2]]
    np.testing.assert_allclose(score, expected, rtol=1e-5)
    assert score.dtype == np.float32


@given(st.floats(-50, 50, width=32))
def test_probability_is_the_logistic_function(log_odds):
    value = probability(np.array([log_odds], np.float32))
    assert value.dtype == np.float32
    assert value[0] == pytest.approx(1 / (1 + np.exp(-np.float64(log_odds))), rel=1e-5)


@pytest.mark.parametrize("picture", [BRICK, GRAVEL], ids=["brick", "gravel"])
@pytest.mark.parametrize("noise", [0.0, 0.003])
def test_the_more_blurred_the_lower_the_odds(metric, picture, noise):
    rng = np.random.default_rng(0)
    means = []
    for radius in (0, 1, 2, 4):
        seen = defocus(picture, radius) + rng.normal(0, noise, picture.shape)
        log_odds, valid = predict_log_odds(prepare_plane(seen), metric)
        assert valid.mean() > 0.9
        means.append(log_odds.mean())
    assert (np.diff(means) < -0.1).all(), means


@pytest.mark.parametrize("sharp_left", [True, False])
def test_the_sharp_half_has_the_higher_odds(metric, sharp_left):
    seen = defocus(GRAVEL, 3).copy()
    side = slice(0, 96) if sharp_left else slice(96, None)
    seen[:, side] = GRAVEL[:, side]
    log_odds, valid = predict_log_odds(prepare_plane(seen), metric)
    assert valid.all()
    left, right = log_odds[:, :84], log_odds[:, 108:]
    sharp, blurred = (left, right) if sharp_left else (right, left)
    assert sharp.min() > blurred.max()


@pytest.mark.parametrize("shape", [(7, 7), (7, 50), (13, 14), (61, 83), (64, 33), (101, 100)])
@pytest.mark.parametrize("noise", [QUIET, (0.01, 0.0), (1.0, 0.0)])
def test_shapes_are_kept(metric, shape, noise):
    log_odds, valid = predict_log_odds(random_plane(shape, noise=noise), metric)
    assert log_odds.shape == valid.shape == shape
    assert log_odds.dtype == np.float32
    assert valid.dtype == np.bool_
    assert np.isfinite(log_odds).all()


@pytest.mark.parametrize("sigma", [0.01, 0.05, 0.2, 1.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_noise_over_a_gentle_ramp_is_not_judged_sharp(metric, sigma, seed):
    noise = np.random.default_rng(seed).normal(0, sigma, (200, 240))
    plane = prepare_plane(np.linspace(0, 1, 240) + noise)
    log_odds, valid = predict_log_odds(plane, metric)
    assert (valid & (log_odds > 0)).mean() < 0.01


def test_a_smooth_region_is_not_judged(metric):
    picture = np.full((192, 300), 0.5, np.float32)
    picture[:, :80] = GRAVEL[:, :80]
    log_odds, valid = predict_log_odds(prepare_plane(picture), metric)
    assert valid[:, :70].all()
    assert log_odds[:, :70].min() > 0
    assert not valid[:, 180:].any()


def test_without_contrast_nothing_is_judged(metric):
    # Responses taken as they are stand for a sharpness, however little there is to be sharp.
    pooling = replace(metric.pooling, contrast_exponent=0.0)
    plane = plane_of(np.full((60, 60), 0.5), (1e-9, 0.0))
    assert not predict_log_odds(plane, replace(metric, pooling=pooling))[1].any()


def test_stripes_too_fine_for_the_coarser_scale_are_judged(metric):
    stripes = np.full((192, 192), 0.5)
    # Halved, a period of 4 alternates from pixel to pixel, which the gradient does not see.
    stripes[:, :96] += 0.05 * np.sin(2 * np.pi * np.arange(96) / 4)
    plane = plane_of(stripes, (0.005**2, 0.0))
    assert predict_log_odds(halve(plane), metric, 0)[1].mean() < 0.1  # beside the borders alone
    assert predict_log_odds(plane, metric, 1)[1][:, :70].all()


def noisy_gravel(sigma):
    """Gravel with a smooth margin, which shows the noise."""
    picture = GRAVEL.copy()
    picture[:, :64] = np.linspace(0.2, 0.8, 192)[:, np.newaxis]
    return prepare_plane(picture + np.random.default_rng(0).normal(0, sigma, picture.shape))


def test_little_noise_leaves_texture_its_finest_scale(metric):
    # What the gravel answers lies well below the noise of a pixel, but pooling sees it.
    _, valid = predict_log_odds(noisy_gravel(0.01), metric, 0)
    assert valid[:, 90:].mean() > 0.95


def test_coarser_scales_judge_what_noise_hides(metric):
    plane = noisy_gravel(0.03)
    shares = []
    before = np.zeros(plane.grey.shape, bool)
    for coarser in range(COARSER + 1):
        log_odds, valid = predict_log_odds(plane, metric, coarser)
        assert valid[before].all()  # what was judged still is
        before = valid
        shares.append(valid[:, 90:].mean())
    assert shares[0] < 0.05
    assert shares[-1] > 0.95
    assert log_odds[:, 90:].min() > 0


def test_each_halving_costs_the_same_log_odds(metric):
    hidden = replace(noisy_gravel(0.05), noise=(0.1, 0.0))
    once, twice = halve(hidden), halve(halve(hidden))
    for plane in (hidden, once):
        assert not predict_log_odds(plane, metric, 0)[1].any()
    coarsest, _ = predict_log_odds(twice, metric, 0)
    found, _ = predict_log_odds(hidden, metric, 2)
    doubled = enlarge(enlarge(coarsest, 2), 2)
    np.testing.assert_allclose(found, doubled - 2 * HALVING_COST, atol=1e-4)
    assert HALVING_COST > 0


def test_a_halving_costs_only_as_far_as_the_fine_scale_is_not_trusted(metric, monkeypatch):
    plane = replace(prepare_plane(GRAVEL), noise=(4e-5, 0.0))
    fine, coarse = (predict_log_odds(plane, metric, coarser)[0] for coarser in (0, 1))
    monkeypatch.setattr("napari_defocus.metric.response.HALVING_COST", HALVING_COST + 3)
    dearer = predict_log_odds(plane, metric, 1)[0]
    share = (coarse - dearer) / 3
    trusted = share < 1e-4
    np.testing.assert_allclose(coarse[trusted], fine[trusted], atol=1e-3)
    assert trusted.any()
    assert share.min() > -1e-4
    assert 0.2 < share.max() < 1


def test_coarser_scales_do_not_touch_what_is_trusted(metric):
    quiet = replace(prepare_plane(GRAVEL), noise=(1e-6, 0.0))
    fine, _ = predict_log_odds(quiet, metric, 0)
    np.testing.assert_array_equal(predict_log_odds(quiet, metric)[0], fine)


def test_odds_follow_the_calibration(metric):
    plane = replace(prepare_plane(GRAVEL), noise=(1e-9, 0.0))
    calibration = metric.calibration
    changed = replace(metric, calibration=replace(calibration, slope=3 * calibration.slope))
    one, two = (predict_log_odds(plane, m, 0)[0] for m in (metric, changed))
    np.testing.assert_allclose(two, 3 * one, rtol=1e-4, atol=1e-4)
    threshold = calibration.threshold + 0.5
    changed = replace(metric, calibration=replace(calibration, threshold=threshold))
    two = predict_log_odds(plane, changed, 0)[0]
    np.testing.assert_allclose(two, one - 0.5 * calibration.slope, atol=1e-4)


def test_the_plane_is_not_changed(metric):
    plane = noisy_gravel(0.05)
    before = plane.grey.copy()
    predict_log_odds(plane, metric)
    np.testing.assert_array_equal(plane.grey, before)


@pytest.mark.parametrize("halvings", [0, 1, 2])
def test_a_scale_of_its_own_is_the_only_one(metric, halvings):
    """Calibrated by the user's own patches, it is not kept from noise that these have."""
    own, plane = replace(metric, halvings=halvings), noisy_gravel(0.05)
    found, valid = predict_log_odds(plane, own)
    halved = plane
    for _ in range(halvings):
        halved = halve(halved)
    expected, seen = predict_log_odds(halved, replace(metric, halvings=0))
    assert seen.all()
    assert valid.all()
    for _ in range(halvings):
        expected = enlarge(expected, 2)
    np.testing.assert_allclose(found, expected[: found.shape[0], : found.shape[1]], atol=1e-5)
    region = slice(64, 128), slice(96, 192)
    part, _ = predict_log_odds(plane, own, region=region)
    np.testing.assert_allclose(part, found[region], atol=1e-4)
