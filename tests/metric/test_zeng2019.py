"""The preset against references of a few lines, written from the review of the paper alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage, signal
from sklearn.decomposition import PCA

from napari_defocus.core.errors import DefocusError
from napari_defocus.filters.plane import prepare_plane
from napari_defocus.labels.superpixels import centroids, superpixels
from napari_defocus.metric import zeng2019
from napari_defocus.metric.default_recipe import PRESETS, train_default
from napari_defocus.metric.fitting import FitConfig, fit_metric
from napari_defocus.metric.kernel_pca import plain_pca
from napari_defocus.metric.local_metric import (
    choose_components,
    load_metric,
    principal_components,
    save_metric,
)
from napari_defocus.metric.nets import load_base
from napari_defocus.metric.network import PatchNet
from napari_defocus.metric.patches import PatchConfig, build_patch_set

SMALL = replace(zeng2019.TRAINING, nets=2, kernels=4, epochs=2, batch=16, device="cpu")


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def made():
    recipe = replace(PRESETS["zeng2019"], scenes=3, size=160, radius=(3, 6), seed=2)
    return train_default(replace(recipe, fit=FitConfig(training=SMALL)))


def picture(shape=(90, 120), seed=0):
    return ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), 1).astype(np.float32)


# Patches: "centering a s x s window at the centroid of each super-pixel", "a threshold to the ratio
# of blurred or sharp regions that occupy the entire patch area"


def test_class_of_a_patch_is_by_its_whole_area():
    image, labels = picture(), np.zeros((90, 120), np.uint8)
    labels[:, :50], labels[:, 70:] = 1, 2
    config = replace(zeng2019.PATCHES, size=16, superpixel=10)
    found = build_patch_set([("a", image, labels)], config)
    grey, expected = prepare_plane(image).grey, set()
    for y, x in centroids(superpixels(grey, 10)):
        top, left = min(max(y - 8, 0), 90 - 16), min(max(x - 8, 0), 120 - 16)
        window = labels[top : top + 16, left : left + 16]
        for label in (1, 2):
            if (window == label).mean() >= config.area:
                expected.add((top, left, label))
    corners = zip(*found.corner.T.tolist(), found.labels.tolist(), strict=True)
    assert set(corners) == expected
    assert {label for *_, label in expected} == {1, 2}
    assert len(build_patch_set([("a", image, labels)], replace(config, area=0.0))) > len(found)


def test_area_out_of_range_is_refused():
    with pytest.raises(DefocusError, match="area is 2"):
        PatchConfig(area=2.0)


# Nets: "batch normalization ... of the input", "CReLU", "the last layer is the fully connected
# layer", "just two classes", "cross-entropy"


def test_net_sees_raw_pixels(made):
    metric, nets = made
    np.testing.assert_array_equal(nets.whitening, np.eye(49, dtype=np.float32))
    weights = {n: torch.from_numpy(np.array(w)) for n, w in nets.nets[0].best.items()}
    net = PatchNet(4, torch.eye(49), 32).eval()
    net.load_state_dict(weights)
    patch = torch.from_numpy(nets.validation.patches[:3, None])
    x = (patch - weights["normalise.running_mean"]) / torch.sqrt(
        weights["normalise.running_var"] + 1e-5
    )
    x = torch.nn.functional.conv2d(x, torch.from_numpy(metric.kernels[:4, None]))
    np.testing.assert_allclose(net.first(net.normalise(patch)).detach(), x, atol=1e-5)
    layers = [type(layer).__name__ for layer in net.modules()]
    assert (layers.count("Linear"), layers.count("CReLU"), layers.count("MaxPool2d")) == (1, 4, 2)
    assert net.classify.out_features == 2
    assert net.features(net.first(x[:0, :1].new_zeros(1, 1, 32, 32))).shape[1] > 2


def test_settings_leave_nothing_but_cross_entropy():
    training = zeng2019.TRAINING
    assert (training.l1, training.decay, training.whiten, training.turn) == (0, 0, False, False)
    assert training.nets > 1
    assert training.kernel_size == 7


def test_nets_of_raw_pixels_are_no_base_of_others(made, tmp_path):
    with pytest.raises(DefocusError, match="have whiten True, not False"):
        load_base(replace(SMALL, base="default", kernels=16))


# PCA: "each convolution kernel is reshaped into a column", "the convolutional kernel matrix size is
# 49 x N, and the matrix size for the PCA result is 49 x K"


@pytest.mark.parametrize("count", [10, 49, 64])
def test_pca_is_that_of_the_matrix_of_columns(count):
    kernels = np.random.default_rng(count).normal(size=(count, 7, 7)).astype(np.float32)
    matrix = np.stack([kernel.ravel() for kernel in kernels], axis=1)  # 49 x N
    centred = matrix - matrix.mean(axis=0)
    values, directions = np.linalg.eigh(centred.T @ centred)
    reduced = centred @ directions[:, ::-1][:, :2]  # 49 x 2
    found = plain_pca(kernels)
    for k in range(2):
        mine, other = found.components[k].ravel(), reduced[:, k]
        np.testing.assert_allclose(mine * np.sign(mine @ other), other, atol=1e-4)
    ratio = values[::-1][:2] / values.sum()
    np.testing.assert_allclose(found.explained_variance_ratio[:2], ratio, rtol=1e-5)
    theirs = PCA(2).fit(matrix)
    np.testing.assert_allclose(theirs.explained_variance_ratio_, ratio, rtol=1e-5)
    assert abs(found.components[0].mean()) < 1e-6


def test_signs_do_not_hang_on_the_machine():
    kernels = np.random.default_rng(1).normal(size=(20, 7, 7)).astype(np.float32)
    found, again = plain_pca(kernels), plain_pca(kernels[::-1])
    np.testing.assert_allclose(found.components[:5], again.components[:5], atol=1e-5)


# L1 = K1 * I, L = |K2 * L1|


def test_response_is_one_filter_after_the_other():
    grey, filters = picture((40, 30)), np.random.default_rng(2).normal(size=(2, 7, 7))
    filters = filters.astype(np.float32)
    first = signal.correlate2d(np.pad(grey, 3, mode="symmetric"), filters[0], mode="valid")
    second = signal.correlate2d(np.pad(first, 3, mode="symmetric"), filters[1], mode="valid")
    np.testing.assert_allclose(zeng2019.response(grey, filters), np.abs(second), atol=1e-4)


@given(st.integers(0, 2**32 - 1))
def test_signs_of_filters_do_not_count(seed):
    rng = np.random.default_rng(seed)
    filters = rng.normal(size=(2, 7, 7)).astype(np.float32)
    signs = rng.choice([-1, 1], (2, 1, 1)).astype(np.float32)
    grey = picture((20, 20), seed)
    np.testing.assert_array_equal(
        zeng2019.response(grey, filters), zeng2019.response(grey, signs * filters)
    )


# The metric


def test_metric_is_of_the_nets_raw_kernels(made, tmp_path):
    metric, nets = made
    assert metric.literal
    assert metric.filters.shape == (2, 7, 7)
    np.testing.assert_array_equal(metric.kernels.reshape(8, 49), nets.kernels)
    pca = plain_pca(metric.kernels)
    np.testing.assert_array_equal(pca.filters(2), metric.filters)
    np.testing.assert_array_equal(principal_components(metric).components, pca.components)
    assert choose_components(metric, 3).filters.shape == (3, 7, 7)
    assert 0 <= metric.record["held_out"]["auc"] <= 1
    assert metric.record["recipe"]["command"].endswith("--preset zeng2019")
    save_metric(metric, tmp_path / "own.safetensors")
    loaded = load_metric(tmp_path / "own.safetensors")
    assert loaded.literal
    assert loaded.digest == metric.digest


def test_packaged_metric_was_made_by_the_preset():
    metric = load_metric("zeng2019")
    recipe, training = PRESETS["zeng2019"], metric.record["training"]
    assert {"halvings": 0, **metric.record["patch_config"]} == vars(zeng2019.PATCHES)
    assert {**training, "device": "auto"} == vars(zeng2019.TRAINING)
    assert (metric.record["recipe"]["scenes"], metric.record["complete"]) == (recipe.scenes, True)
    assert not load_metric().literal


def test_own_patches_make_one():
    labels = np.repeat(np.uint8([1, 2]), 60)[np.newaxis].repeat(90, axis=0)
    image = picture()
    image[:, :60] = ndimage.gaussian_filter(image, 3)[:, :60]
    patches = build_patch_set([("own", image, labels)], replace(zeng2019.PATCHES, superpixel=6))
    metric = fit_metric(patches, FitConfig(training=replace(SMALL, nets=1)))
    assert metric.literal
    assert metric.record["patch_config"]["area"] == zeng2019.PATCHES.area
