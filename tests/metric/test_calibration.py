from dataclasses import asdict, replace

import numpy as np
import pytest
from scipy import ndimage, signal

from napari_defocus.filters.plane import prepare_plane
from napari_defocus.labels.classes import BLURRED, SHARP
from napari_defocus.metric.calibration import calibrate, patch_scores
from napari_defocus.metric.local_metric import Calibration
from napari_defocus.metric.patches import split_patch_set
from napari_defocus.metric.response import predict_log_odds
from napari_defocus.simulate.optics import defocus

QUIET = 1e-8
IMPULSE = np.pad([[1.0]], 15)


@pytest.fixture(scope="module")
def halves(patch_set):
    return split_patch_set(patch_set.balanced())


@pytest.fixture(scope="module")
def calibrated(metric, halves):
    """The metric, told nothing of scales, and calibrated."""
    return calibrate(replace(metric, calibration=Calibration(0.0, 1.0), record={}), *halves)


def test_levels_by_another_way(patch_set, metric):
    some = patch_set.sample(5)
    # Filters that differ from their turned and mirrored selves.
    rng = np.random.default_rng(0)
    filters = metric.filters + rng.normal(0, 0.1, metric.filters.shape).astype(np.float32)
    metric = replace(metric, filters=filters)
    pooling = metric.pooling
    offset = np.arange(32) - 15.5
    weights = np.exp(-np.add.outer(offset**2, offset**2) / (2 * (1.5 * pooling.sigma) ** 2))
    weights /= weights.sum()
    expected = []
    for patch, noise in zip(some.patches, some.noise, strict=True):
        energy = sum(
            signal.correlate2d(patch, kernel, mode="same", boundary="symm") ** 2
            for kernel in metric.filters
        )
        response = np.sqrt(np.maximum(energy - pooling.noise_factor * noise, 0))
        answer = ndimage.gaussian_gradient_magnitude(IMPULSE, pooling.contrast_sigma)
        share = np.square(answer).sum()  # of white noise of variance 1
        slope = ndimage.gaussian_gradient_magnitude(patch, pooling.contrast_sigma)
        gradient = np.sqrt(np.maximum(slope**2 - pooling.noise_factor * noise * share, 0))
        pooled = [
            (weights * values**pooling.power).sum() ** (1 / pooling.power) + 1e-3
            for values in (response, gradient)
        ]
        expected.append(np.log(pooled[0]) - pooling.contrast_exponent * np.log(pooled[1]))
    scores = patch_scores(some, metric)
    assert scores.shape == (5,)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, atol=1e-3)


def test_a_patch_has_the_level_of_its_centre_in_the_image(scenes, patch_set, metric):
    own, there = [], []
    for index, (_, image, _) in enumerate(scenes):
        log_odds, _ = predict_log_odds(prepare_plane(image), metric, coarser=0)
        some = patch_set.take(patch_set.source == index)
        y, x = some.corner.T + 16
        there.append(log_odds[y, x])
        own.append(patch_scores(some, metric))
    own, there = np.concatenate(own), np.concatenate(there)
    own = metric.calibration.slope * (own - metric.calibration.threshold)
    assert np.corrcoef(own, there)[0, 1] > 0.9
    assert abs(np.median(own - there)) < 0.1 * there.std()


@pytest.mark.parametrize("radius", [1.5, 3, 6])
def test_blurred_patches_lie_below_their_sharp_selves(patch_set, metric, radius):
    sharp = patch_set.take(patch_set.labels == SHARP)
    sharp = replace(sharp, noise=np.full_like(sharp.noise, QUIET))
    blurred = replace(sharp, patches=np.stack([defocus(p, radius) for p in sharp.patches]))
    assert (patch_scores(blurred, metric) < patch_scores(sharp, metric)).all()


def test_patches_of_noise_lie_below_all_textured_ones(patch_set, metric):
    # Their noise is known, so nothing is left of them.
    rng = np.random.default_rng(0)
    few = patch_set.sample(40)
    noise = replace(
        few,
        patches=rng.normal(0.5, 0.02, few.patches.shape).astype(np.float32),
        noise=np.full_like(few.noise, 0.02**2),
    )
    sharp = patch_scores(patch_set, metric)[patch_set.labels == SHARP]
    assert np.median(patch_scores(noise, metric)) < np.percentile(sharp, 5)


def test_the_threshold_lies_between_the_classes(halves, calibrated):
    training, _ = halves
    scores = patch_scores(training, calibrated)
    blurred, sharp = (scores[training.labels == label].mean() for label in (BLURRED, SHARP))
    assert blurred < calibrated.calibration.threshold < sharp
    assert calibrated.calibration.slope > 0.1


def test_no_shift_of_the_scale_fits_better(halves, calibrated):
    """The likelihood of the training labels falls as the threshold moves."""
    training, _ = halves
    scores = patch_scores(training, calibrated).astype(np.float64)
    sign = np.where(training.labels == SHARP, 1, -1)
    share = {label: (training.labels == label).sum() for label in (BLURRED, SHARP)}
    weight = np.array([1 / share[label] for label in training.labels])

    def loss(shift):
        calibration = calibrated.calibration
        log_odds = calibration.slope * (scores - calibration.threshold - shift)
        return (weight * np.logaddexp(0, -sign * log_odds)).sum()

    assert loss(0) < loss(0.05)
    assert loss(0) < loss(-0.05)


def test_held_out_scores_are_recorded(halves, calibrated):
    training, validation = halves
    scores = patch_scores(validation, calibrated)
    sharp = scores[validation.labels == SHARP]
    blurred = scores[validation.labels == BLURRED]
    threshold = calibrated.calibration.threshold
    right = (sharp > threshold).sum() + (blurred <= threshold).sum()
    wins = (sharp[:, None] > blurred).mean() + (sharp[:, None] == blurred).mean() / 2
    held_out = calibrated.record["held_out"]
    assert held_out["patches"] == len(validation)
    assert held_out["accuracy"] == pytest.approx(right / len(validation), abs=1e-4)
    assert held_out["auc"] == pytest.approx(wins, abs=1e-4)
    assert held_out["auc"] > 0.8
    assert calibrated.record["calibrated_on"] == training.counts()
    assert calibrated.record["patch_config"] == asdict(training.config)
    assert calibrated.record["sources"] == len(training.sources)


def test_all_else_is_kept(metric, halves):
    before = replace(metric, record={"method": "test"})
    after = calibrate(before, *halves)
    assert after.record["method"] == "test"
    assert before.record == {"method": "test"}
    np.testing.assert_array_equal(after.filters, before.filters)
    assert after.pooling == before.pooling


def test_swapped_labels_give_a_weak_metric_not_an_inverted_one(halves, calibrated):
    swapped = [replace(part, labels=(3 - part.labels).astype(np.uint8)) for part in halves]
    weak = calibrate(calibrated, *swapped)
    assert 0 < weak.calibration.slope <= 0.1
    assert np.isfinite(weak.calibration.threshold)
    right = calibrated.record["held_out"]["auc"]
    assert weak.record["held_out"]["auc"] == pytest.approx(1 - right, abs=2e-4)


def test_unequal_classes_do_not_move_the_threshold(metric, halves):
    training, validation = halves
    often = np.concatenate([np.arange(len(training))] + 9 * [np.flatnonzero(training.labels == 2)])
    one, two = (
        calibrate(metric, part, validation).calibration for part in (training, training.take(often))
    )
    assert two.threshold == pytest.approx(one.threshold, abs=0.1)
