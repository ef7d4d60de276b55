import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg, ndimage
from sklearn.metrics import roc_auc_score

from napari_defocus.core.errors import DefocusError
from napari_defocus.detection.api import detect
from napari_defocus.filters.plane import prepare_plane
from napari_defocus.metric.calibration import advice, calibrate, patch_scores
from napari_defocus.metric.default_recipe import (
    RecipeConfig,
    load_picture,
    random_crop,
    render_scenes,
    textured_annotation,
)
from napari_defocus.metric.fitting import (
    METHODS,
    FitConfig,
    best_scale,
    fit_metric,
    instant_metric,
    metric_from_nets,
)
from napari_defocus.metric.local_metric import Pooling, load_metric, save_metric
from napari_defocus.metric.nets import TrainingConfig
from napari_defocus.metric.patches import PatchConfig, build_patch_set, split_patch_set
from napari_defocus.metric.response import predict_log_odds
from napari_defocus.metric.training import train
from napari_defocus.simulate.optics import Camera, render_layers

TRAINING = TrainingConfig(base="none", nets=2, kernels=4, epochs=3, batch=8, device="cpu")
RECIPE = RecipeConfig(scenes=4, size=192, radius=(3, 6), seed=2)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def patches():
    return build_patch_set(
        (name, scene.image, textured_annotation(scene, 0.02))
        for name, scene in render_scenes(RECIPE)
    ).sample(150)


@pytest.fixture(scope="module")
def nets(patches):
    return train(patches, TRAINING)


@pytest.fixture(scope="module")
def metrics(patches, nets):
    """Metrics of one to three components, by either method."""
    configs = {k: FitConfig(components=k, training=TRAINING) for k in (1, 2, 3)}
    return {
        **{("nets", k): metric_from_nets(nets, config) for k, config in configs.items()},
        **{("instant", k): instant_metric(patches, config) for k, config in configs.items()},
    }


def fresh_scene(name):
    """Another view of a picture, the same texture in front and behind."""
    rng = np.random.default_rng(0)
    crops = [random_crop(load_picture(name), RECIPE, rng) for _ in range(2)]
    return render_layers(*crops, 4.0, Camera(jpeg_quality=90), rng)


def scatter(patch_set, label, size=7):
    """Second moment of all windows of one class, turned and mirrored, each less its mean."""
    chosen = patch_set.patches[patch_set.labels == label].astype(np.float64)
    turned = [np.rot90(chosen, turn, (1, 2)) for turn in range(4)]
    every = np.concatenate([*turned, *(patches[:, :, ::-1] for patches in turned)])
    span = every.shape[1] - size + 1
    total = np.zeros((size**2, size**2))
    for y in range(span):
        for x in range(span):
            window = every[:, y : y + size, x : x + size].reshape(len(every), -1)
            window = window - window.mean(axis=1, keepdims=True)
            total += window.T @ window / len(every)
    return total / span**2


# The instant fit


@pytest.fixture(scope="module")
def eigenproblem(patches):
    """The two classes' second moments: that of sharp windows, and that of blurred ones."""
    training, _ = split_patch_set(patches.balanced(TRAINING.seed), TRAINING.validation)
    sharp, blurred = (scatter(training, label) for label in (2, 1))
    ridge = 1e-3 * np.trace(sharp) / len(sharp)
    return sharp, blurred + ridge * np.eye(len(sharp))


def quotient(x, eigenproblem):
    sharp, blurred = eigenproblem
    return (x @ sharp @ x) / (x @ blurred @ x)


def test_instant_filters_solve_the_generalised_eigenproblem(metrics, eigenproblem):
    sharp, blurred = eigenproblem
    ratios = np.sort(linalg.eig(np.linalg.inv(blurred) @ sharp)[0].real)[::-1]
    filters = metrics["instant", 3].filters.reshape(3, -1)
    found = [quotient(f, eigenproblem) for f in filters]
    # Not all windows are drawn for the fit: nearly the largest.
    np.testing.assert_allclose(found, ratios[:3], rtol=0.03)
    assert ratios[20] < 0.9 * ratios[0]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        f, g = filters[first], filters[second]
        assert abs(f @ blurred @ g) < 0.05 * np.sqrt((f @ blurred @ f) * (g @ blurred @ g))


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), nearness=st.floats(0, 1))
def test_no_direction_does_better_than_the_first_instant_filter(
    metrics, eigenproblem, seed, nearness
):
    best = metrics["instant", 1].filters.ravel().astype(float)
    direction = np.random.default_rng(seed).normal(size=49)
    direction /= np.linalg.norm(direction)
    mixed = (1 - nearness) * direction + nearness * best
    assert quotient(mixed, eigenproblem) <= 1.01 * quotient(best, eigenproblem)


def test_instant_filters_prefer_no_direction(metrics):
    components = metrics["instant", 1].kernels
    ratios = metrics["instant", 1].explained_variance_ratio
    gaps = -np.diff(ratios) / ratios[:-1]
    # Each alone in its variance is its own mirror image and turned image, but for the sign.
    alone = np.flatnonzero((gaps[1:41] > 1e-3) & (gaps[:40] > 1e-3)) + 1
    assert len(alone) > 3
    for component in components[alone]:
        for turned in (np.rot90(component), component[::-1], component.T):
            assert abs((turned * component).sum()) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(("gain", "shift"), [(0.25, 0.0), (4.0, -1.0), (1.0, 0.5)])
def test_instant_fit_does_not_depend_on_contrast_and_brightness(patches, gain, shift):
    changed = replace(patches, patches=np.float32(gain) * patches.patches + np.float32(shift))
    config = FitConfig(training=TRAINING)
    ratios = instant_metric(patches, config).explained_variance_ratio
    same = instant_metric(changed, config).explained_variance_ratio
    np.testing.assert_allclose(same, ratios, rtol=1e-3, atol=1e-6)


def test_instant_fit_is_repeatable(patches, metrics):
    again = fit_metric(patches, FitConfig(method="instant", components=2, training=TRAINING))
    assert again.digest == metrics["instant", 2].digest
    assert again.record == metrics["instant", 2].record


# Both methods


@pytest.mark.parametrize("components", [1, 2, 3])
@pytest.mark.parametrize("method", METHODS)
def test_filters_have_zero_mean_and_squares_summing_to_1(metrics, method, components):
    metric = metrics[method, components]
    assert metric.filters.shape == (components, 7, 7)
    assert metric.filters.dtype == np.float32
    np.testing.assert_allclose(metric.filters.mean(axis=(1, 2)), 0, atol=1e-6)
    assert np.square(metric.filters).sum() == pytest.approx(1, abs=1e-5)
    assert metric.kernels.shape[1:] == (7, 7)
    assert metric.whitening.shape == (49, 49)


@pytest.mark.parametrize("method", METHODS)
def test_more_components_go_on_from_fewer(metrics, method):
    two, three = (metrics[method, k].filters for k in (2, 3))
    scale = np.linalg.norm(two[0]) / np.linalg.norm(three[0])
    np.testing.assert_allclose(scale * three[:2], two, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_explained_variance_falls_and_sums_to_1(metrics, method):
    ratios = metrics[method, 2].explained_variance_ratio
    assert ratios.shape == (49,)
    assert ratios.sum() == pytest.approx(1, abs=1e-5)
    assert (np.diff(ratios) <= 1e-7).all()
    assert (ratios >= 0).all()


@pytest.mark.parametrize("components", [1, 2, 3])
@pytest.mark.parametrize("method", METHODS)
def test_tells_sharp_from_blurred_in_a_fresh_scene(metrics, method, components):
    for picture in ("coins", "stereo_motorcycle"):
        scene = fresh_scene(picture)
        truth = textured_annotation(scene, 0.02)
        log_odds, _ = predict_log_odds(prepare_plane(scene.image), metrics[method, components])
        assert roc_auc_score(truth[truth > 0] == 2, log_odds[truth > 0]) > 0.85


@pytest.mark.parametrize("method", METHODS)
def test_calibration_lies_between_the_classes(metrics, patches, method):
    metric = metrics[method, 2]
    levels = patch_scores(patches, metric)
    blurred, sharp = (np.median(levels[patches.labels == label]) for label in (1, 2))
    assert blurred < metric.calibration.threshold < sharp
    assert metric.calibration.slope > 0.5


@pytest.mark.parametrize("method", METHODS)
def test_held_out_scores_are_those_of_patches_of_other_images(metrics, patches, method):
    metric = metrics[method, 2]
    training, validation = split_patch_set(patches.balanced(TRAINING.seed), TRAINING.validation)
    levels, sharp = patch_scores(validation, metric), validation.labels == 2
    held_out = metric.record["held_out"]
    assert held_out["patches"] == len(validation)
    assert held_out["auc"] == pytest.approx(roc_auc_score(sharp, levels), abs=1e-4)
    right = (levels > metric.calibration.threshold) == sharp
    assert held_out["accuracy"] == pytest.approx(right.mean(), abs=1e-4)
    assert held_out["auc"] > 0.85
    assert metric.record["calibrated_on"] == training.counts()


@pytest.mark.parametrize("method", METHODS)
def test_it_is_told_where_a_metric_does_not_hold_what_was_annotated(metrics, patches, method):
    metric = metrics[method, 2]
    training, validation = split_patch_set(patches.balanced(TRAINING.seed), TRAINING.validation)
    right = (patch_scores(training, metric) > metric.calibration.threshold) == (
        training.labels == 2
    )
    worse = min(right[training.labels == label].mean() for label in (1, 2))
    assert metric.record["holds"] == pytest.approx(worse, abs=1e-4)
    assert (advice(metric) is None) == (worse >= 0.9)
    dice = np.random.default_rng(0)
    mixed = [replace(part, labels=dice.permutation(part.labels)) for part in (training, validation)]
    confused = calibrate(metric, *mixed)
    assert "cannot tell them apart; teach a profile" in advice(confused)
    record = {"holds": 0.84, "held_out": {"auc": 1.0}}
    assert "choose base none, or teach a profile" in advice(replace(metric, record=record))


@pytest.mark.parametrize("method", METHODS)
def test_record_tells_how_in_json(metrics, method):
    record = metrics[method, 2].record
    assert json.loads(json.dumps(record)) == record
    assert record["method"] == method
    rate = {"learning_rate": 2e-3} if method == "nets" else {}
    assert record["training"] == asdict(TRAINING) | rate
    assert record["patch_config"] == asdict(PatchConfig())
    assert record["sources"] == 4


def test_record_of_nets_tells_how_they_were_trained(metrics, nets):
    record = metrics["nets", 2].record
    assert record["complete"] is True
    assert record["epochs"] == [3, 3]
    assert record["net_accuracy"] == pytest.approx(nets.accuracy, abs=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_metric_can_be_saved(metrics, tmp_path, method):
    path = tmp_path / "metric.safetensors"
    save_metric(metrics[method, 3], path)
    loaded = load_metric(path)
    assert loaded.digest == metrics[method, 3].digest
    assert loaded.record == metrics[method, 3].record


@pytest.mark.parametrize("method", METHODS)
def test_pooling_is_taken_from_the_settings(patches, nets, method):
    config = FitConfig(training=TRAINING, pooling=Pooling(power=1.0, sigma=3.0))
    metric = instant_metric(patches, config)
    if method == "nets":
        metric = metric_from_nets(nets, config)
    assert metric.pooling == config.pooling


# fit_metric


def test_fit_metric_trains_nets_by_default(patches, metrics):
    events = []
    metric = fit_metric(patches, FitConfig(training=TRAINING), on_event=events.append)
    assert metric.digest == metrics["nets", 2].digest
    assert len(events) == 6


def test_cancelled_before_there_is_a_net_gives_nothing(patches):
    assert fit_metric(patches, FitConfig(training=TRAINING), should_stop=lambda: True) is None


def test_cancelled_later_makes_a_metric_of_what_there_is(patches):
    events = []
    metric = fit_metric(
        patches,
        FitConfig(training=TRAINING),
        on_event=events.append,
        should_stop=lambda: len(events) >= 2,
    )
    assert metric.record["complete"] is False
    assert metric.record["epochs"] == [2]
    assert metric.kernels.shape == (4, 7, 7)


def test_unknown_method_is_refused_with_the_choice(patches):
    with pytest.raises(DefocusError, match="'magic'; choose one of nets, instant"):
        fit_metric(patches, FitConfig(method="magic"))


@pytest.mark.parametrize("components", [0, -1, 50])
@pytest.mark.parametrize("method", METHODS)
def test_components_there_are_not_are_refused(patches, nets, method, components):
    def made():
        config = FitConfig(components=components, training=TRAINING)
        return (
            metric_from_nets(nets, config) if method == "nets" else instant_metric(patches, config)
        )

    with pytest.raises(DefocusError, match=f"components is {components}|{components} .* 1 to 49"):
        made()


@pytest.mark.parametrize("method", METHODS)
def test_one_class_alone_is_refused(patches, method):
    with pytest.raises(DefocusError, match=r"only 0 sharp .*label 2"):
        fit_metric(patches.take(patches.labels == 1), FitConfig(method=method, training=TRAINING))


@pytest.mark.parametrize("size", [1, 6])
def test_kernels_without_a_middle_are_refused(size):
    with pytest.raises(DefocusError, match="give an odd one of 3 or more"):
        replace(TRAINING, kernel_size=size)


@pytest.mark.parametrize("method", METHODS)
def test_patches_smaller_than_kernels_are_refused(patches, method):
    training = replace(TRAINING, kernel_size=33)
    with pytest.raises(DefocusError, match="patches of 32 pixels are"):
        fit_metric(patches, FitConfig(method=method, training=training))


@pytest.mark.parametrize("size", [3, 5, 9])
def test_kernels_of_other_sizes(patches, size):
    training = replace(TRAINING, nets=1, epochs=1, kernel_size=size)
    for method in METHODS:
        metric = fit_metric(patches, FitConfig(method=method, training=training))
        assert metric.filters.shape == (2, size, size)
        assert np.square(metric.filters).sum() == pytest.approx(1, abs=1e-5)


def soft(sigma, seed=0):
    """Grain as soft as a Gaussian makes it, a little noise."""
    rng = np.random.default_rng(seed)
    grain = ndimage.gaussian_filter(rng.normal(0, 1, (192, 192)), sigma)
    return (grain / grain.std() + rng.normal(0, 0.02, grain.shape)).astype(np.float32)


def test_strokes_that_contradict_the_base_rule_at_the_scale_that_shows_it():
    given = [("in", soft(4), 2), ("out", soft(9, 1), 1)]

    def cut(patches):
        return build_patch_set(
            [(name, image, np.full(image.shape, label)) for name, image, label in given], patches
        )

    config = FitConfig(method="instant")
    own = cut(PatchConfig())
    assert advice(fit_metric(own, config))
    found = best_scale(cut, PatchConfig(), config)
    metric = fit_metric(found, config)
    assert metric.halvings == found.config.halvings > 0
    assert advice(metric) is None
    for _, image, label in given:
        assert (detect(image, metric).mask == label).mean() > 0.9
    literal = FitConfig(method="nets", training=replace(TRAINING, whiten=False))
    assert best_scale(cut, PatchConfig(), literal).config.halvings == 0
