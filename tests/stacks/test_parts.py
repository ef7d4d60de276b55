"""The parts that focus stacks are worked by: pyramids, fusion, scores, registration, frames."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage
from skimage.transform import SimilarityTransform, warp

from benchmarks.stacks import rendered as benchmark
from napari_defocus.core.errors import DefocusError
from napari_defocus.core.progress import Stopped
from napari_defocus.filters.pyramid import collapse, gaussian_pyramid, laplacian_pyramid, levels_of
from napari_defocus.simulate.optics import Camera, defocus, expose
from napari_defocus.stacks.api import StackConfig, analyse_stack
from napari_defocus.stacks.depth_map import estimate_depth, highest_peak, pool_scales, upsample
from napari_defocus.stacks.fusion import fuse, plane_weight, source_plane
from napari_defocus.stacks.objects import score_labels
from napari_defocus.stacks.plane_scores import best_position, blocks_of, phase_share, score_samples
from napari_defocus.stacks.planes import as_type, open_stack
from napari_defocus.stacks.registration import register_planes
from napari_defocus.stacks.timelapse import flag, score_frames

shapes = st.tuples(st.integers(1, 20), st.integers(1, 20))
images = shapes.flatmap(
    lambda shape: arrays(np.float32, shape, elements=st.floats(-8, 8, width=16))
)


# Pyramids


@given(images, st.integers(0, 4))
def test_a_collapsed_pyramid_is_the_image(image, levels):
    levels = levels_of(image.shape, levels)
    np.testing.assert_allclose(collapse(laplacian_pyramid(image, levels)), image, atol=1e-4)


@given(shapes, st.floats(-5, 5))
def test_constant_images_stay_constant_at_all_levels(shape, value):
    image = np.full(shape, value, np.float32)
    for level in gaussian_pyramid(image, levels_of(shape, 8)):
        np.testing.assert_allclose(level, value, atol=1e-5)
    for band in laplacian_pyramid(image, levels_of(shape, 8))[:-1]:
        np.testing.assert_allclose(band, 0, atol=1e-5)


def test_halving_is_the_five_tap_filter_of_scipy():
    image = np.random.default_rng(0).normal(size=(33, 40)).astype(np.float32)
    taps = np.array([1, 4, 6, 4, 1]) / 16
    expected = ndimage.correlate1d(ndimage.correlate1d(image, taps, 0, mode="nearest"), taps, 1,
                                   mode="nearest")[::2, ::2]  # fmt: skip
    np.testing.assert_allclose(gaussian_pyramid(image, 1)[1], expected, atol=1e-5)


def test_stacks_are_halved_plane_by_plane():
    stack = np.random.default_rng(0).normal(size=(3, 17, 18)).astype(np.float32)
    whole = gaussian_pyramid(stack, 2)[2]
    for plane, expected in zip(stack, whole, strict=True):
        np.testing.assert_allclose(gaussian_pyramid(plane, 2)[2], expected, atol=1e-6)


@given(images)
def test_wide_pooling_adds_up_its_weights_on_constants(image):
    pooled = pool_scales(np.ones_like(image), (1.0, 0.5, 0.25))
    levels = levels_of(image.shape, 2)
    np.testing.assert_allclose(pooled, sum((1.0, 0.5, 0.25)[: levels + 1]), atol=1e-4)


# Depth


@pytest.mark.parametrize("true", [1.0, 1.3, 2.5, 3.9])
def test_the_top_of_a_gaussian_is_found_exactly(true):
    z = np.arange(6)[:, np.newaxis, np.newaxis]
    pooled = np.exp(-0.5 * ((z - true) / 1.2) ** 2) * np.ones((1, 4, 5))
    found = highest_peak(pooled.astype(np.float32), np.full((4, 5), 1e-6, np.float32))
    np.testing.assert_allclose(found.depth, true, atol=0.02)


def test_single_errors_are_outvoted_and_steps_stay():
    z = np.arange(6)[:, np.newaxis, np.newaxis]
    true = np.where(np.arange(64) < 32, 1, 4) * np.ones((64, 1))
    wrong = true.copy()
    wrong[20, 10] = 5
    energy = np.exp(-((z - wrong) ** 2)).astype(np.float32)
    found = estimate_depth(energy, np.full((64, 64), 1e-4, np.float32))
    assert np.abs(found.depth[:, :28] - 1).max() < 0.3
    assert np.abs(found.depth[:, 36:] - 4).max() < 0.3


def test_steps_are_enlarged_without_planes_between():
    small = np.repeat([[0.0, 4.0]], 6, axis=0).repeat(3, axis=1).astype(np.float32)
    full = upsample(small, 2, (11, 12), steps_above=1.0)
    assert full.shape == (11, 12)
    assert set(np.unique(full)) == {0.0, 4.0}
    ramp = np.repeat(np.arange(6, dtype=np.float32)[np.newaxis] / 4, 6, axis=0)
    assert np.ptp(np.diff(upsample(ramp, 2, (12, 12), 1.0)[0, 2:-2])) < 1e-6


# Fusion


@given(arrays(np.float32, (6, 7), elements=st.floats(0, 4, width=32)))
def test_weights_of_all_planes_sum_to_one_and_the_largest_is_told(depth_map):
    weights = np.stack([plane_weight(depth_map, z) for z in range(5)])
    np.testing.assert_allclose(weights.sum(axis=0), 1, atol=1e-5)
    chosen = np.take_along_axis(weights, source_plane(depth_map, 5).astype(int)[np.newaxis], 0)
    np.testing.assert_allclose(chosen[0], weights.max(axis=0), atol=1e-5)


@settings(max_examples=20)
@given(st.integers(0, 3), st.sampled_from([np.uint8, np.uint16, np.float32]))
def test_a_single_plane_is_given_back(z, dtype):
    planes = np.random.default_rng(z).integers(0, 250, (4, 19, 23)).astype(dtype)
    fused = fuse(open_stack(planes), np.full((19, 23), z, np.float32))
    np.testing.assert_allclose(fused, planes[z], atol=1e-3)


def test_more_planes_than_a_byte_counts_have_source_planes():
    assert source_plane(np.full((2, 2), 299.6, np.float32), 400).dtype == np.uint16
    assert source_plane(np.full((2, 2), 299.4, np.float32), 400)[0, 0] == 299


@given(
    st.sampled_from([np.uint8, np.int16, np.uint16, np.int32, np.uint32]), st.floats(-1e12, 1e12)
)
def test_values_beyond_a_type_are_its_limits(dtype, value):
    limits = np.iinfo(dtype)
    found = int(as_type(np.array([value], np.float32), np.dtype(dtype))[0])
    expected = min(max(round(float(np.float32(value))), limits.min), limits.max)
    assert abs(found - expected) <= max(abs(expected) * 1e-6, 1)


# Scores


def test_the_best_plane_and_its_fraction_are_found():
    assert best_position(np.array([0.0, 1, 3, 2, 0])) == pytest.approx(2 + 1 / 6)
    assert best_position(np.array([5.0, 1, 0])) == 0
    assert best_position(np.array([1.0, 5, 4.9, 0.5, 5, 0]), "min") == pytest.approx(3, abs=0.5)


def test_confidence_tells_clear_cases_from_even_ones():
    rng = np.random.default_rng(0)
    clear = np.array([1.0, 3, 1])[:, np.newaxis] * rng.uniform(0.5, 1.5, (3, 60))
    even = np.array([1.0, 3, 3])[:, np.newaxis] * rng.uniform(0.5, 1.5, (3, 60))
    assert score_samples(clear).confidence[1] == 1
    found = score_samples(even)
    assert found.confidence.sum() == pytest.approx(1)
    assert 0.02 < found.confidence[1] < 0.98
    assert found.score.max() == 1
    again = score_samples(even)
    np.testing.assert_array_equal(found.confidence, again.confidence)


def test_one_place_planes_alike_and_chance_give_no_best_plane():
    rng = np.random.default_rng(0)
    clear = np.array([1.0, 9, 1])[:, np.newaxis]
    noise = rng.gamma(0.5, 0.2, (6, 200))
    for samples in (clear, np.zeros((4, 50)), np.tile(noise[:1], (5, 1)), noise):
        found = score_samples(samples)
        assert found.best is None
        assert np.isnan(found.position)
        assert not found.confidence.any()
        assert found.sure == 0
    with_one_lost = np.vstack([np.tile(noise[:1], (4, 1)), np.zeros((1, 200))])
    np.testing.assert_allclose(score_samples(with_one_lost).confidence, [0.25] * 4 + [0])


def test_samples_without_end_are_scored_in_little_memory():
    import tracemalloc

    samples = np.array([1.0, 2, 1])[:, np.newaxis] * np.ones(200_000)
    tracemalloc.start()
    found = score_samples(samples, weights=np.full(200_000, 64.0))
    assert found.confidence.tolist() == [0, 1, 0]
    assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    tracemalloc.stop()


@pytest.mark.parametrize(("contrast", "most_sure"), [((0, 0), 0.01), ((0.5, 30), 1.0)])
def test_of_a_thousand_objects_in_noise_the_confidence_is_the_share_that_is_right(
    contrast, most_sure
):
    """Each its own texture, blurred by its own depth, between none and far above the noise."""
    rng = np.random.default_rng(3)
    side, pitch, count, planes = 20, 28, 32, 5
    labels = np.zeros((count * pitch, count * pitch), np.int32)
    stack = rng.normal(100, 5, (planes, *labels.shape)).astype(np.float32)
    depth = rng.uniform(-0.5, planes - 0.5, count * count)
    strength = rng.uniform(*contrast, count * count)
    corners = np.stack(np.mgrid[:count, :count], -1).reshape(-1, 2) * pitch
    for k, (y, x) in enumerate(corners):
        labels[y + 4 : y + 4 + side, x + 4 : x + 4 + side] = k + 1
        texture = ndimage.gaussian_filter(rng.normal(size=(pitch, pitch)), 1.2)
        texture *= strength[k] / texture.std()
        for z in range(planes):
            blurred = ndimage.gaussian_filter(texture, 1.2 * abs(z - depth[k]))
            stack[z, y : y + pitch, x : x + pitch] += blurred
    found = score_labels(stack, labels).columns()
    right = found["best_plane"] == np.round(depth)
    assert found["confidence"].mean() <= most_sure
    assert right.mean() == pytest.approx(found["confidence"].mean(), abs=0.05)
    sure = found["confidence"] > 0.9
    if sure.any():
        assert right[sure].mean() > 0.95


def test_the_error_is_that_of_a_mean():
    samples = np.random.default_rng(1).normal(10, 2, (2, 400))
    found = score_samples(samples)
    expected = samples.std(axis=1) / np.sqrt(400) / samples.mean(axis=1).max()
    np.testing.assert_allclose(found.error, expected, rtol=0.15)


@given(st.integers(1, 70), st.integers(1, 70))
def test_blocks_cover_the_field(rows, columns):
    energy = np.random.default_rng(rows).random((2, rows, columns)).astype(np.float32)
    blocks = blocks_of(energy)
    assert blocks.shape[0] == 2
    assert blocks.shape[1] <= 256
    assert blocks.min() >= energy.min() - 1e-6
    assert blocks.max() <= energy.max() + 1e-6


def test_only_inner_minima_count_as_phase_objects():
    peak, valley = np.array([1.0, 5, 9, 5, 1]), np.array([9.0, 5, 1, 5, 9])
    assert phase_share(np.stack([peak] * 4, 1), 0.01) == 0
    assert phase_share(np.stack([valley] * 4, 1), 0.01) == 1
    assert phase_share(np.stack([peak, valley], 1), 0.01) == pytest.approx(0.5)
    assert phase_share(np.zeros((5, 4)), 0.01) == 0


# Registration


def drifted(count=4):
    """A slanted picture, each plane drifted, turned a little and breathing."""
    size = 256
    stack = benchmark.render_surface(
        benchmark.picture("gravel", size), benchmark.slant((size, size), count), count, 1.0
    )
    moves = [
        SimilarityTransform(
            scale=1 - 0.01 * z, rotation=0.002 * z, translation=(5.0 * z, -3.3 * z)
        ).params
        for z in range(count)
    ]
    planes = [
        warp(plane, np.linalg.inv(move), order=3, mode="reflect", preserve_range=True)
        for plane, move in zip(stack.planes, moves, strict=True)
    ]
    return stack, np.round(planes).astype(np.uint8), np.stack(moves)


def test_drift_turn_and_breathing_are_found_to_a_third_of_a_pixel():
    _, planes, moves = drifted()
    found = register_planes(open_stack(planes))
    reference = next(z for z in range(len(found)) if np.allclose(found[z], np.eye(3)))
    expected = moves @ np.linalg.inv(moves[reference])
    corners = np.array([[20, 20, 1], [235, 20, 1], [20, 235, 1], [235, 235, 1.0]]).T
    away = (found @ corners - expected @ corners)[:, :2]
    assert np.abs(away).max() < 0.34


def test_registered_stacks_are_mapped_as_if_nothing_had_moved():
    stack, planes, moves = drifted()
    found = analyse_stack(planes, StackConfig(register=True))
    reference = next(z for z in range(4) if np.allclose(found.transforms[z], np.eye(3)))
    depth = warp(stack.depth, np.linalg.inv(moves[reference]), order=1, mode="edge")
    inside = np.s_[30:-30, 30:-30]
    assert np.median(np.abs(found.depth_map - depth)[inside]) < 0.15
    sharp = warp(stack.sharp, np.linalg.inv(moves[reference]), preserve_range=True, order=3)
    loose = analyse_stack(planes)
    registered, unregistered = (
        benchmark.psnr(image.fused[inside], sharp[inside]) for image in (found, loose)
    )
    assert registered > 30
    assert registered > unregistered + 6


def test_planes_out_of_view_are_not_chosen():
    _, planes, _ = drifted()
    found = analyse_stack(planes, StackConfig(register=True))
    view = open_stack(planes).registered(found.transforms)
    for z in range(4):
        # Maps are made at every second pixel, so that their rim is uncertain by so much.
        outside = ~view.in_view(z, (256, 256), 1)
        hidden = ndimage.binary_erosion(outside, iterations=2, border_value=1)
        assert not (found.source_plane[hidden] == z).any()


def test_planes_of_different_scenes_are_not_registered():
    rng = np.random.default_rng(0)
    noise = [ndimage.gaussian_filter(rng.normal(size=(200, 200)), 2) for _ in range(3)]
    with pytest.raises(DefocusError, match="planes 0 and 1 have too little in common"):
        register_planes(open_stack(noise))
    with pytest.raises(Stopped):
        register_planes(open_stack(noise), should_stop=lambda: True)


# Frames


def series(radii, electrons=8000, gains=None):
    light = benchmark.picture("gravel", 128)
    rng = np.random.default_rng(0)
    gains = np.ones(len(radii)) if gains is None else gains
    camera = Camera(electrons=electrons)
    frames = [expose(gain * defocus(light, radius), camera, rng)
              for radius, gain in zip(radii, gains, strict=True)]  # fmt: skip
    return np.stack(frames)


@pytest.mark.parametrize("electrons", [8000, 500])
def test_frames_out_of_focus_are_flagged_whatever_their_brightness(electrons):
    radii = [0, 0.2, 0, 3, 0, 0.1, 0, 2, 2, 0]
    gains = np.linspace(1, 0.4, len(radii))
    found = score_frames(series(radii, electrons, gains))
    np.testing.assert_array_equal(found.out_of_focus, np.array(radii) > 1)


def test_a_series_in_focus_has_no_frame_flagged_and_empty_frames_are():
    found = score_frames(series([0] * 6))
    assert not found.out_of_focus.any()
    frames = series([0] * 5)
    frames[2] = 100
    found = score_frames(frames)
    np.testing.assert_array_equal(found.out_of_focus, [False, False, True, False, False])
    assert np.isnan(found.score[2])


def test_noisy_scores_are_not_flagged():
    score = np.array([0.0, 0.1, -0.1, 0.05, -0.6])
    assert flag(score, np.full(5, 0.01)).tolist() == [False] * 4 + [True]
    assert not flag(score, np.full(5, 0.3)).any()


def test_frames_need_a_series():
    with pytest.raises(DefocusError, match="3 frames or more"):
        score_frames(np.zeros((2, 32, 32)))
    with pytest.raises(DefocusError, match="no other axes"):
        score_frames(np.zeros((4, 3, 32, 32)), axes="TZYX")
    with pytest.raises(Stopped):
        score_frames(np.zeros((4, 32, 32)), should_stop=lambda: True)
