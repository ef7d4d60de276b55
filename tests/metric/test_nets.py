import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from napari_defocus.core.errors import DefocusError
from napari_defocus.metric.default_recipe import RecipeConfig, render_scenes
from napari_defocus.metric.nets import TrainedNet, TrainingConfig, load_nets, save_nets
from napari_defocus.metric.patches import build_patch_set, save_patch_set
from napari_defocus.metric.training import train

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = TrainingConfig(base="none", nets=2, kernels=4, epochs=2, batch=16, device="cpu")


@pytest.fixture(scope="module")
def patches():
    recipe = RecipeConfig(scenes=2, size=160, radius=(4, 6), seed=2)
    scenes = render_scenes(recipe)
    return build_patch_set((name, scene.image, scene.annotation) for name, scene in scenes)


@pytest.fixture(scope="module")
def nets(patches):
    return train(patches, CONFIG)


@pytest.fixture(scope="module")
def stopped(patches):
    """Nets cancelled in the second epoch of the second."""
    epochs = []
    return train(patches, CONFIG, on_event=epochs.append, should_stop=lambda: len(epochs) >= 3)


@pytest.fixture(scope="module")
def saved(nets, tmp_path_factory):
    path = tmp_path_factory.mktemp("nets") / "nets.safetensors"
    save_nets(nets, path)
    return path


def assert_same_nets(found, expected):
    assert found.config == expected.config
    np.testing.assert_array_equal(found.whitening, expected.whitening, strict=True)
    assert len(found.nets) == len(expected.nets)
    for net, other in zip(found.nets, expected.nets, strict=True):
        assert net.history == other.history
        assert net.done == other.done
        for part in ("best", "last", "optimiser"):
            arrays, others = getattr(net, part), getattr(other, part)
            assert arrays.keys() == others.keys()
            for name, array in others.items():
                np.testing.assert_array_equal(arrays[name], array, strict=True, err_msg=name)


def assert_same_patches(found, expected):
    assert (found.sources, found.config) == (expected.sources, expected.config)
    for name in ("patches", "labels", "noise", "source", "corner"):
        np.testing.assert_array_equal(
            getattr(found, name), getattr(expected, name), strict=True, err_msg=name
        )


def card_of(path):
    with safe_open(path, framework="numpy") as file:
        return json.loads(file.metadata()["card"])


def rewrite(path, tensors, card):
    save_file(tensors, path, metadata={"card": json.dumps(card)})
    return path


def assert_refused(path, *words):
    with pytest.raises(DefocusError) as caught:
        load_nets(path)
    for word in (str(path), *words):
        assert word in str(caught.value)


def net_with(losses, weights=0.0):
    arrays = {"first.weight": np.full((3, 49), weights, np.float32)}
    history = tuple({"loss": loss, "accuracy": i / 10} for i, loss in enumerate(losses))
    return TrainedNet(arrays, arrays, {}, history, done=True)


# What is known of nets


def test_best_epoch_is_the_one_of_least_loss():
    assert net_with([0.7, 0.4, 0.5]).best_epoch == 1
    assert net_with([0.7, 0.4, 0.4]).best_epoch == 1
    assert net_with([0.7]).best_epoch == 0


def test_accuracy_is_the_mean_at_the_best_epochs(nets):
    both = replace(nets, nets=(net_with([0.7, 0.4, 0.5]), net_with([0.7, 0.6, 0.5, 0.4])))
    assert both.accuracy == pytest.approx((0.1 + 0.3) / 2)


def test_kernels_are_those_of_all_nets(nets):
    three = replace(nets, nets=tuple(net_with([0.5], weights) for weights in (1, 2, 3)))
    np.testing.assert_array_equal(three.kernels, np.repeat([1, 2, 3], 3)[:, None] * np.ones(49))


def test_complete_means_every_net_is_done(nets, stopped):
    assert nets.complete
    assert not stopped.complete
    assert not replace(nets, nets=nets.nets[:1]).complete
    undone = replace(nets.nets[1], done=False)
    assert not replace(nets, nets=(nets.nets[0], undone)).complete


# Round trip


@pytest.mark.parametrize("which", ["nets", "stopped"])
def test_file_keeps_everything(request, tmp_path, which):
    nets = request.getfixturevalue(which)
    path = tmp_path / "folder" / "nets.safetensors"
    save_nets(nets, path)
    loaded = load_nets(path)
    assert_same_nets(loaded, nets)
    assert_same_patches(loaded.training, nets.training)
    assert_same_patches(loaded.validation, nets.validation)
    assert loaded.complete == nets.complete
    assert loaded.accuracy == nets.accuracy


def test_training_goes_on_from_the_file(patches, nets, stopped, tmp_path):
    path = tmp_path / "nets.safetensors"
    save_nets(stopped, path)
    assert [len(net.history) for net in stopped.nets] == [2, 1]
    assert_same_nets(train(patches, CONFIG, resume=load_nets(path)), nets)


def test_card_can_be_read_without_us(saved, nets):
    card = card_of(saved)
    assert (card["format"], card["version"], card["kind"]) == ("napari-defocus", 1, "nets")
    assert card["complete"] is True
    assert card["config"]["kernels"] == 4
    assert [len(net["history"]) for net in card["nets"]] == [2, 2]
    assert card["training"]["counts"] == nets.training.counts()


def test_card_tells_of_nets_that_are_not_complete(stopped, tmp_path):
    save_nets(stopped, tmp_path / "nets.safetensors")
    card = card_of(tmp_path / "nets.safetensors")
    assert card["complete"] is False
    assert [net["done"] for net in card["nets"]] == [True, False]


def test_existing_file_is_kept_where_asked(nets, saved):
    before = saved.read_bytes()
    with pytest.raises(DefocusError, match="exists"):
        save_nets(nets, saved, overwrite=False)
    assert saved.read_bytes() == before


def test_a_folder_in_the_way_is_an_error(nets, tmp_path):
    with pytest.raises(DefocusError) as caught:
        save_nets(nets, tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert not list(tmp_path.parent.glob(".partial*"))


# Files that will not do


def test_missing_file_is_refused(tmp_path):
    assert_refused(tmp_path / "none.safetensors", "no such file")


@pytest.mark.parametrize("content", [b"", b"\0", b"hello" * 100, b"\xff" * 64, b"{}"])
def test_foreign_bytes_are_refused(tmp_path, content):
    path = tmp_path / "nets.safetensors"
    path.write_bytes(content)
    assert_refused(path, "damaged")


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True))
def test_cut_off_file_is_refused(saved, tmp_path, share):
    content = saved.read_bytes()
    path = tmp_path / "cut.safetensors"
    path.write_bytes(content[: int(share * len(content))])
    assert_refused(path, "damaged")


def test_safetensors_of_others_are_refused(saved, tmp_path):
    path = tmp_path / "other.safetensors"
    save_file(load_file(saved), path)
    assert_refused(path, "not made by napari-defocus")
    assert_refused(rewrite(path, load_file(saved), {"format": "other"}), "not made by")


def test_newer_file_is_refused(saved, tmp_path):
    card = {**card_of(saved), "version": 2}
    path = rewrite(tmp_path / "new.safetensors", load_file(saved), card)
    assert_refused(path, "format 2", "upgrade")


def test_another_kind_is_refused(patches, tmp_path):
    path = tmp_path / "patches.safetensors"
    save_patch_set(patches, path)
    assert_refused(path, "patch set", "holds a patch set, nets are needed")


def test_every_tensor_is_needed(saved, tmp_path):
    tensors, card = load_file(saved), card_of(saved)
    for name in tensors:
        rest = {other: array for other, array in tensors.items() if other != name}
        assert_refused(rewrite(tmp_path / "nets.safetensors", rest, card))


@pytest.mark.parametrize("name", ["config", "nets", "training", "validation"])
def test_every_part_of_the_card_is_needed(saved, tmp_path, name):
    card = card_of(saved)
    del card[name]
    assert_refused(rewrite(tmp_path / "nets.safetensors", load_file(saved), card), "not a whole")


@pytest.mark.parametrize(
    "change",
    [
        {"nets": []},
        {"nets": ["net"]},
        {"nets": 3},
        {"nets": [{"done": True}]},
        {"nets": [{"done": True, "history": []}]},
        {"nets": [{"done": True, "history": [{"loss": 0.5}]}]},
        {"nets": [{"done": True, "history": [{"loss": None, "accuracy": 1}]}]},
        {"config": {}},
        {"config": None},
        {"config": {"kernel_size": 5}},
        {"config": {"kernel_size": "7"}},
        {"config": {"surprise": 1}},
        {"training": []},
    ],
)
def test_card_of_nonsense_is_refused(saved, tmp_path, change):
    card = {**card_of(saved), **change}
    assert_refused(rewrite(tmp_path / "nets.safetensors", load_file(saved), card))


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("whitening", np.zeros((25, 25), np.float32)),
        ("0/best/first.weight", np.zeros((4, 25), np.float32)),
        ("0/last/classify.bias", np.zeros(3, np.float32)),
        ("training/patches", np.zeros((3, 32, 32), np.float32)),
        ("validation/labels", np.zeros(3, np.uint8)),
    ],
)
def test_tensors_that_do_not_fit_are_refused(saved, tmp_path, name, array):
    tensors = {**load_file(saved), name: array}
    assert_refused(rewrite(tmp_path / "nets.safetensors", tensors, card_of(saved)))
