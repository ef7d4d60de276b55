from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import special

from napari_defocus.core.devices import choose_device
from napari_defocus.core.errors import DefocusError
from napari_defocus.metric.default_recipe import RecipeConfig, render_scenes
from napari_defocus.metric.nets import TrainingConfig
from napari_defocus.metric.network import PatchNet
from napari_defocus.metric.patches import PatchConfig, build_patch_set, split_patch_set
from napari_defocus.metric.training import train

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = TrainingConfig(base="none", nets=2, kernels=4, epochs=3, batch=16, device="cpu")


@pytest.fixture(scope="module")
def patches():
    recipe = RecipeConfig(scenes=2, size=288, radius=(4, 6), seed=2)
    scenes = render_scenes(recipe)
    return build_patch_set((name, scene.image, scene.annotation) for name, scene in scenes)


@pytest.fixture(scope="module")
def few(patches):
    return patches.sample(100)


@pytest.fixture(scope="module")
def trained(few):
    return train(few, CONFIG)


def shuffled(patch_set):
    """Patches whose classes mean nothing."""
    return replace(patch_set, labels=np.random.default_rng(0).permutation(patch_set.labels))


def cut(patch_set, size):
    """Smaller patches: the corners of those given."""
    windows = np.ascontiguousarray(patch_set.patches[:, :size, :size])
    return replace(patch_set, patches=windows, config=PatchConfig(size=size))


class StopAt:
    """Ask to stop at the n-th call and ever after."""

    def __init__(self, n):
        self.n, self.calls = n, 0

    def __call__(self):
        self.calls += 1
        return self.calls >= self.n


class Recorder:
    """Note all events, and how often `should_stop` had been asked before each."""

    def __init__(self):
        self.events, self.calls, self.calls_before = [], 0, []

    def on_event(self, event):
        self.events.append(event)
        self.calls_before.append(self.calls)

    def should_stop(self):
        self.calls += 1
        return False


def assert_same_arrays(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, strict=True, err_msg=name)


def assert_same_nets(found, expected):
    assert found.config == expected.config
    np.testing.assert_array_equal(found.whitening, expected.whitening, strict=True)
    assert len(found.nets) == len(expected.nets)
    for net, other in zip(found.nets, expected.nets, strict=True):
        assert net.history == other.history
        assert net.done == other.done
        for part in ("best", "last", "optimiser"):
            assert_same_arrays(getattr(net, part), getattr(other, part))


def losses(net):
    return [epoch["loss"] for epoch in net.history]


def since_best(values):
    return len(values) - 1 - int(np.argmin(values))


# Chance


def test_same_seed_gives_same_nets_whatever_else_draws_chance(few, trained):
    torch.manual_seed(1234)
    np.random.seed(1234)  # noqa: NPY002
    before = torch.get_rng_state()
    assert_same_nets(train(few, CONFIG), trained)
    assert torch.equal(torch.get_rng_state(), before)


def test_another_seed_gives_other_nets(few, trained):
    other = train(few, replace(CONFIG, seed=1))
    assert np.abs(other.kernels - trained.kernels).max() > 1e-3


def test_each_net_starts_from_its_own_chance(trained):
    first, second = (net.best["first.weight"] for net in trained.nets)
    assert np.abs(first - second).max() > 1e-3


# Learning


def test_learns_to_tell_sharp_from_blurred(patches):
    config = replace(CONFIG, nets=1, epochs=6, batch=8)
    nets = train(patches.sample(300), config)
    majority = max(nets.validation.counts().values()) / len(nets.validation)
    assert nets.accuracy > max(0.85, majority + 0.1)


def test_learns_nothing_from_labels_that_mean_nothing(patches):
    nets = train(shuffled(patches.sample(300)), replace(CONFIG, nets=1, epochs=6, batch=8))
    assert nets.accuracy < 0.7


def test_held_out_patches_are_of_other_images(trained):
    assert not set(trained.training.source) & set(trained.validation.source)
    for side in (trained.training, trained.validation):
        assert min(side.counts().values()) > 0


def test_held_out_patches_have_no_part_in_the_weights(few, trained):
    held_out = np.isin(few.source, trained.validation.source)
    assert 0 < held_out.sum() < len(few)
    noise = np.random.default_rng(0).normal(size=few.patches.shape).astype(np.float32)
    mangled = np.where(held_out[:, None, None], noise, few.patches)
    nets = train(replace(few, patches=mangled), CONFIG)
    np.testing.assert_array_equal(nets.whitening, trained.whitening)
    for net, other in zip(nets.nets, trained.nets, strict=True):
        assert losses(net) != losses(other)
        assert_same_arrays(net.last, other.last)


def test_history_scores_the_held_out_patches(trained):
    validation = trained.validation
    sharp = (validation.labels == 2).astype(int)
    for net in trained.nets:
        model = PatchNet(4, torch.from_numpy(trained.whitening), validation.config.size).eval()
        model.load_state_dict({name: torch.from_numpy(a) for name, a in net.best.items()})
        with torch.no_grad():
            logits = model(torch.from_numpy(validation.patches)[:, None]).double().numpy()
        log_odds = special.log_softmax(logits, axis=1)
        loss = -log_odds[np.arange(len(sharp)), sharp].mean()
        best = net.history[net.best_epoch]
        assert best["loss"] == pytest.approx(loss, abs=1e-4)
        assert best["accuracy"] == pytest.approx((logits.argmax(1) == sharp).mean(), abs=1e-6)


def test_penalty_shrinks_the_kernels(few):
    config = replace(CONFIG, nets=1, epochs=10, patience=10, batch=8)
    free, l1, decayed = (
        np.abs(train(few, replace(config, l1=l1, decay=decay)).nets[0].last["first.weight"]).sum()
        for l1, decay in ((0, 0), (0.5, 0), (0, 0.5))
    )
    assert l1 < 0.9 * free
    assert decayed < 0.9 * free


def test_a_learning_rate_of_almost_0_changes_no_weight(few):
    config = replace(CONFIG, nets=1, learning_rate=1e-30)
    one = train(few, config, should_stop=StopAt(5))
    all_epochs = train(few, config)
    assert len(one.nets[0].history) < len(all_epochs.nets[0].history)
    for name in ("first.weight", "features.1.weight", "classify.bias"):
        np.testing.assert_array_equal(all_epochs.nets[0].last[name], one.nets[0].last[name])
    # Nor does the loss then tell epochs apart, but that each makes batches of its own.
    assert len({epoch["train_loss"] for epoch in all_epochs.nets[0].history}) == 3


# Early stop


@pytest.mark.parametrize("patience", [1, 2, 4])
def test_stops_after_patience_epochs_without_a_better_loss(few, patience):
    config = replace(CONFIG, nets=1, epochs=60, patience=patience, learning_rate=5e-3)
    nets = train(shuffled(few), config)
    assert nets.complete
    found = losses(nets.nets[0])
    assert len(found) < 60
    assert since_best(found) == patience
    for epochs in range(1, len(found)):
        assert since_best(found[:epochs]) < patience


def test_all_epochs_run_where_patience_is_long(few):
    nets = train(shuffled(few), replace(CONFIG, epochs=5, patience=5, learning_rate=5e-3))
    assert [len(net.history) for net in nets.nets] == [5, 5]


def test_best_is_what_the_net_was_after_its_best_epoch(few):
    config = replace(CONFIG, nets=1, epochs=30, patience=3, learning_rate=5e-3)
    recorder = Recorder()
    net = train(
        shuffled(few), config, on_event=recorder.on_event, should_stop=recorder.should_stop
    ).nets[0]
    assert net.best_epoch == np.argmin(losses(net)) < len(net.history) - 1
    asked = recorder.calls_before[net.best_epoch]
    at_best = train(shuffled(few), config, should_stop=StopAt(asked + 1)).nets[0]
    assert len(at_best.history) == net.best_epoch + 1
    assert_same_arrays(net.best, at_best.last)
    assert any((net.last[name] != net.best[name]).any() for name in net.best)


# Cancel and go on


@pytest.fixture(scope="module")
def batches(few):
    """Batches of an epoch."""
    recorder = Recorder()
    train(few, CONFIG, on_event=recorder.on_event, should_stop=recorder.should_stop)
    between = np.diff([0, *recorder.calls_before])
    assert set(between) == {between[0]}
    return int(between[0])


def test_should_stop_is_asked_before_each_batch(few, trained, batches):
    training, _ = split_patch_set(few.balanced(CONFIG.seed), CONFIG.validation)
    assert batches == -(-len(training) // CONFIG.batch) > 1
    assert len(trained.training) == len(training)


def test_cancel_before_the_first_epoch_ends_gives_nothing(few, batches):
    for n in range(1, batches + 1):
        stop, recorder = StopAt(n), Recorder()
        assert train(few, CONFIG, on_event=recorder.on_event, should_stop=stop) is None
        assert stop.calls == n
        assert not recorder.events


@pytest.mark.parametrize("epochs", range(1, 6))
@pytest.mark.parametrize("batch", ["first", "last"])
def test_cancel_keeps_the_epochs_done_and_resume_gives_the_same_nets(
    few, trained, batches, epochs, batch
):
    stop = StopAt(epochs * batches + (1 if batch == "first" else batches))
    stopped = train(few, CONFIG, should_stop=stop)
    assert stop.calls == stop.n
    assert not stopped.complete
    histories = [epoch for net in stopped.nets for epoch in net.history]
    assert histories == [epoch for net in trained.nets for epoch in net.history][:epochs]
    assert [net.done for net in stopped.nets] == [True, False][epochs < 3 :][: len(stopped.nets)]
    assert_same_nets(train(few, CONFIG, resume=stopped), trained)


def test_resume_may_be_cancelled_and_resumed_itself(few, trained, batches):
    nets = train(few, CONFIG, should_stop=StopAt(batches + 1))
    for done in range(2, 6):
        nets = train(few, CONFIG, resume=nets, should_stop=StopAt(batches + 2))
        assert sum(len(net.history) for net in nets.nets) == done
        assert not nets.complete
    assert_same_nets(train(few, CONFIG, resume=nets), trained)


def test_resume_cancelled_at_once_keeps_what_there_was(few, batches):
    stopped = train(few, CONFIG, should_stop=StopAt(2 * batches + 1))
    assert_same_nets(train(few, CONFIG, resume=stopped, should_stop=StopAt(1)), stopped)


def test_resume_of_complete_nets_has_nothing_to_do(few, trained):
    recorder = Recorder()
    nets = train(
        few,
        CONFIG,
        resume=trained,
        on_event=recorder.on_event,
        should_stop=recorder.should_stop,
    )
    assert_same_nets(nets, trained)
    assert not recorder.events
    assert recorder.calls == 0


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"epochs": 4}, {"kernels": 8}, {"nets": 3}, {"learning_rate": 1e-3}]
)
def test_resume_with_other_settings_is_refused(few, trained, change):
    with pytest.raises(DefocusError, match="same settings") as caught:
        train(few, replace(CONFIG, **change), resume=trained)
    name, value = next(iter(change.items()))
    assert f"{name}={value}" in str(caught.value)


def test_resume_on_another_device_is_allowed(few, trained):
    nets = train(few, replace(CONFIG, device="auto"), resume=trained)
    assert_same_nets(replace(nets, config=trained.config), trained)


# Events


def test_events_tell_each_epoch_and_nothing_is_printed(few, trained, capsys):
    recorder = Recorder()
    train(few, CONFIG, on_event=recorder.on_event)
    assert [event.stage for event in recorder.events] == [
        *["training net 1 of 2"] * 3,
        *["training net 2 of 2"] * 3,
    ]
    assert [(event.done, event.total) for event in recorder.events] == [
        (done, 6) for done in range(1, 7)
    ]
    told = [dict(event.values) for event in recorder.events]
    assert told == [dict(epoch) for net in trained.nets for epoch in net.history]
    for values in told:
        assert set(values) == {"train_loss", "loss", "accuracy"}
        assert all(type(value) is float for value in values.values())
        assert 0 <= values["accuracy"] <= 1
    assert capsys.readouterr() == ("", "")


def test_an_error_of_the_listener_is_not_swallowed(few):
    def fail(event):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(few, CONFIG, on_event=fail)


# Errors


@pytest.mark.parametrize(
    ("label", "words"), [(1, ["sharp", "label 2"]), (2, ["blurred", "label 1"])]
)
def test_one_class_alone_is_refused(few, label, words):
    with pytest.raises(DefocusError) as caught:
        train(few.take(few.labels == label), CONFIG)
    for word in ("only 0", *words):
        assert word in str(caught.value)


def test_too_few_patches_are_refused(few):
    sharp, blurred = (np.flatnonzero(few.labels == label) for label in (2, 1))
    with pytest.raises(DefocusError, match="only 7 sharp patches, 8 are needed"):
        train(few.take(np.concatenate([sharp[:7], blurred])), CONFIG)
    with pytest.raises(DefocusError, match="patches"):
        train(few.take(np.array([], int)), CONFIG)


@pytest.mark.parametrize("size", [6, 1])
def test_kernels_must_be_odd(few, size):
    with pytest.raises(DefocusError, match=f"kernel size is {size}; give an odd one"):
        train(few, replace(CONFIG, kernel_size=size))


@pytest.mark.parametrize("kernel_size", [3, 7])
def test_patches_must_hold_the_layers(few, kernel_size):
    config = replace(CONFIG, nets=1, epochs=1, kernel_size=kernel_size)
    least = kernel_size + 13
    assert train(cut(few, least), config).complete
    with pytest.raises(DefocusError, match=f"at least {least}"):
        train(cut(few, least - 1), config)


@pytest.mark.parametrize("name", ["nets", "kernels", "epochs", "patience", "batch"])
@pytest.mark.parametrize("value", [0, -1])
def test_numbers_must_be_positive(few, name, value):
    with pytest.raises(DefocusError, match=f"{name} is {value}; give a number from 1 to"):
        train(few, replace(CONFIG, **{name: value}))


def test_training_that_diverges_is_an_error(few):
    with pytest.raises(DefocusError, match="learning rate"):
        train(few, replace(CONFIG, learning_rate=1e30))


def test_errors_come_before_any_work(few):
    recorder = Recorder()
    with pytest.raises(DefocusError, match="device"):
        train(few, replace(CONFIG, device="tpu"), on_event=recorder.on_event)
    assert not recorder.events


# Devices


def test_cpu_is_always_there():
    assert choose_device("cpu") == torch.device("cpu")


def test_unknown_device_is_refused_with_the_choice():
    with pytest.raises(DefocusError, match=r"'tpu'.*auto, cpu, cuda, mps"):
        choose_device("tpu")


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_absent_device_is_refused(monkeypatch, name):
    monkeypatch.setattr(getattr(torch, name), "is_available", lambda: False)
    with pytest.raises(DefocusError, match=f"'{name}' is not there"):
        choose_device(name)


@pytest.mark.parametrize(
    ("cuda", "mps", "best"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto_takes_the_best_there_is(monkeypatch, cuda, mps, best):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.mps, "is_available", lambda: mps)
    assert choose_device("auto") == torch.device(best)
    assert choose_device() == torch.device(best)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_trains_on_cuda(few, trained):
    nets = train(few, replace(CONFIG, device="cuda"))
    assert nets.complete
    for net, other in zip(nets.nets, trained.nets, strict=True):
        assert net.history[0]["loss"] == pytest.approx(other.history[0]["loss"], abs=0.05)
