"""Going on from the nets that come with the package."""

from dataclasses import replace

import numpy as np
import pytest

from napari_defocus.core.errors import DefocusError
from napari_defocus.metric.calibration import BASE_WEIGHT, IMAGE_WEIGHT, calibrate, weighted_parts
from napari_defocus.metric.fitting import FitConfig, fit_metric
from napari_defocus.metric.local_metric import load_metric
from napari_defocus.metric.nets import PACKAGED, TrainingConfig, load_base, load_nets, save_nets
from napari_defocus.metric.training import train

CONFIG = TrainingConfig(nets=2, epochs=1, learning_rate=1e-6, device="cpu")


@pytest.fixture(scope="module")
def base():
    return load_nets(PACKAGED["default"])


def test_packaged_nets_are_those_of_the_packaged_metric(base):
    metric = load_metric()
    np.testing.assert_allclose(base.kernels.reshape(metric.kernels.shape), metric.kernels)
    np.testing.assert_allclose(base.whitening, metric.whitening)
    assert min(base.training.counts().values()) > 100


def test_training_starts_from_the_base(base, patch_set):
    nets = train(patch_set, CONFIG)
    # At such a learning rate an epoch moves next to nothing.
    expected = base.kernels[: len(nets.kernels)]
    assert np.abs(nets.kernels - expected).max() < 1e-3
    np.testing.assert_array_equal(nets.whitening, base.whitening)
    assert nets.base.counts() == base.training.counts()


def test_more_nets_than_the_base_has_start_from_its_first_again(base, patch_set):
    count = len(base.nets) + 1
    nets = train(patch_set, replace(CONFIG, nets=count))
    kernels = nets.kernels.reshape(count, -1)
    assert np.abs(kernels[0] - kernels[-1]).max() < 1e-3


def test_no_base_is_a_random_start(patch_set):
    nets = train(patch_set, replace(CONFIG, base="none"))
    assert nets.base is None
    assert not np.allclose(nets.whitening, load_metric().whitening)


def test_base_is_saved_with_the_nets(patch_set, tmp_path):
    nets = train(patch_set, CONFIG)
    save_nets(nets, tmp_path / "nets.safetensors")
    loaded = load_nets(tmp_path / "nets.safetensors")
    np.testing.assert_array_equal(loaded.base.patches, nets.base.patches)
    np.testing.assert_array_equal(loaded.training.patches, nets.training.patches)
    assert loaded.config == CONFIG


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kernels": 8}, "kernels 16, not 8"),
        ({"kernel_size": 5}, "kernel size 7, not 5"),
        ({"base": "nowhere.safetensors"}, "nowhere.safetensors"),
    ],
)
def test_base_of_another_shape_is_refused(change, words):
    with pytest.raises(DefocusError, match=words):
        load_base(replace(CONFIG, **change))


def test_patches_of_another_size_are_refused(patch_set):
    other = replace(
        patch_set,
        patches=patch_set.patches[:, :24, :24],
        config=replace(patch_set.config, size=24),
    )
    with pytest.raises(DefocusError, match="32 pixels, these have 24"):
        train(other, CONFIG)


def test_a_few_patches_move_the_calibration_less_than_they_would_alone(base, patch_set):
    metric = load_metric()
    alone = calibrate(metric, patch_set, patch_set).calibration.threshold
    mixed = calibrate(metric, patch_set, patch_set, base.training).calibration.threshold
    prior = calibrate(metric, base.training, patch_set).calibration.threshold
    assert min(alone, prior) - 0.02 <= mixed <= max(alone, prior) + 0.02


def test_an_image_weighs_the_same_however_many_patches_it_gave(patch_set):
    count = len(np.unique(patch_set.source))
    half = patch_set.take(np.arange(0, len(patch_set), 2))
    assert weighted_parts(patch_set, half)[0][1] == IMAGE_WEIGHT * count
    assert weighted_parts(half, patch_set)[0][1] <= IMAGE_WEIGHT * count
    assert BASE_WEIGHT > IMAGE_WEIGHT


def test_instant_fit_stays_closer_to_the_base_with_it_than_without(patch_set):
    def filters(name):
        training = replace(CONFIG, base=name)
        made = fit_metric(patch_set, FitConfig(method="instant", training=training)).filters
        return made / np.sqrt(np.square(made).sum())

    base = load_nets(PACKAGED["default"]).training
    pure = fit_metric(base, FitConfig(method="instant", training=replace(CONFIG, base="none")))

    def likeness(f):
        # Filters as a quadratic form: their order and signs do not matter.
        form, other = (np.einsum("kij,klm->ijlm", x, x).ravel() for x in (f, pure.filters))
        return form @ other / np.sqrt((form @ form) * (other @ other))

    assert likeness(filters("default")) > likeness(filters("none"))
