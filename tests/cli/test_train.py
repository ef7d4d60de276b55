import signal
from dataclasses import replace

import numpy as np
import pytest

from napari_defocus.cli import fit, train
from napari_defocus.cli._options import config_from
from napari_defocus.cli.main import build_parser
from napari_defocus.metric.local_metric import PACKAGED
from napari_defocus.metric.nets import PACKAGED as PACKAGED_NETS
from napari_defocus.metric.nets import TrainingConfig, load_nets
from tests.cli.helpers import TINY, assert_refused, names, press_ctrl_c


def test_defaults_of_training_are_those_of_the_library():
    options = build_parser().parse_args(["train", "x", "--out", "y"])
    assert config_from(options, TrainingConfig) == TrainingConfig()


@pytest.mark.parametrize(("base", "rate"), [("default", 5e-4), ("none", 2e-3)])
@pytest.mark.parametrize("command", ["train", "fit"])
def test_the_learning_rate_follows_the_base_in_every_way_to_train(command, base, rate):
    options = build_parser().parse_args([command, "x", "--out", "y", "--base", base])
    assert config_from(options, TrainingConfig).rate == rate
    assert TrainingConfig(base=base).rate == rate
    assert replace(TrainingConfig(), base=base).rate == rate


@pytest.mark.usefixtures("keyboard")
@pytest.mark.parametrize(
    ("method", "busy"),
    [("nets", "print_event"), ("instant", "fit_metric"), ("profile", "read_annotation")],
)
def test_a_fit_that_is_stopped_keeps_nothing_and_says_so(
    run, annotated, tmp_path, monkeypatch, method, busy
):
    """Ctrl+C after the first of two epochs; or while what does not hear it is under way."""
    work = getattr(fit, busy)

    def pressed(*given, **options):
        press_ctrl_c() if busy != "read_annotation" or "0.labels" in str(given[0]) else None
        return work(*given, **options)

    monkeypatch.setattr(fit, busy, pressed)
    out = tmp_path / "m.safetensors"
    status, lines, err = run("fit", *annotated, "--method", method, *TINY, "--out", out)
    assert (status, lines) == (130, [])
    assert err[-1] == "napari-defocus: interrupted"
    assert not out.exists()


@pytest.mark.parametrize("command", ["train", "fit"])
def test_every_setting_of_training_arrives(command):
    told = (
        "--base none --nets 2 --kernels 3 --kernel-size 9 --epochs 5 --patience 6 --batch 7 "
        "--learning-rate 0.1 --l1 0.2 --decay 0.3 --validation 0.4 --seed 8 --device cpu"
    )
    options = build_parser().parse_args([command, "x", "--out", "y", *told.split()])
    expected = TrainingConfig("none", 2, 3, 9, 5, 6, 7, 0.1, 0.2, 0.3, 0.4, 8, "cpu")
    assert config_from(options, TrainingConfig) == expected


def test_trained_nets_are_those_asked_for(made):
    nets = load_nets(made / "nets.safetensors")
    assert nets.config == TrainingConfig(
        base="none", nets=1, kernels=4, epochs=2, learning_rate=2e-3, device="cpu"
    )
    assert nets.complete


@pytest.mark.usefixtures("keyboard")
def test_stopped_training_goes_on_to_the_same_end(run, made, tmp_path, monkeypatch):
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    arguments = ["train", made / "set.safetensors", *TINY]
    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patched:
        patched.setattr(train, "print_event", lambda event: press_ctrl_c())
        status, lines, err = run(*arguments, "--out", first)
    assert status == 130
    assert signal.getsignal(signal.SIGINT) is before
    assert lines[0].startswith(str(first))
    assert err[0] == f"not finished; go on with --resume {first} --overwrite"
    stopped = load_nets(first)
    assert len(stopped.nets[0].history) == 1
    assert not stopped.complete
    status, _, err = run(*arguments, "--out", second, "--resume", first)
    assert status == 0
    assert len(err) == 1  # the second epoch alone
    assert "2 of 2" in err[0]
    _, _, err = run("metric", first, "--out", tmp_path / "half.safetensors")
    assert "was stopped" in err[0]
    straight, resumed = load_nets(made / "nets.safetensors"), load_nets(second)
    assert resumed.complete
    np.testing.assert_allclose(resumed.kernels, straight.kernels, atol=1e-6)


def test_resumed_training_must_have_the_same_settings(run, made, tmp_path):
    told = ["--resume", made / "nets.safetensors", "--out", tmp_path / "x", *TINY, "--seed", 3]
    assert_refused(run("train", made / "set.safetensors", *told), "same settings")


def test_training_stopped_at_once_keeps_nothing(run, made, tmp_path, monkeypatch):
    monkeypatch.setattr("napari_defocus.metric.training.train", lambda *given, **options: None)
    refused = run("train", made / "set.safetensors", "--out", tmp_path / "x", *TINY)
    assert_refused(refused, "nothing to keep")
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (["--nets", 0], "nets is 0"),
        (["--kernel-size", 4], "kernel size is 4"),
        (["--kernel-size", 25], "too small"),
        (["--learning-rate", "nan"], "the learning rate is nan"),
        (["--validation", "nan"], "validation is nan"),
        (["--validation", "2"], "validation is 2.0"),
        (["--seed", -1], "seed is -1"),
    ],
)
def test_training_setting_out_of_its_range_is_told_in_one_line(run, made, tmp_path, told, words):
    refused = run("train", made / "set.safetensors", "--out", tmp_path / "x", *TINY, *told)
    assert_refused(refused, words)


def test_training_goes_on_from_the_packaged_nets_unless_told_otherwise(run, made, tmp_path):
    out = tmp_path / "nets.safetensors"
    told = ["--nets", 1, "--epochs", 1, "--device", "cpu"]
    assert run("train", made / "set.safetensors", "--out", out, *told)[0] == 0
    base = load_nets(PACKAGED_NETS["default"])
    nets = load_nets(out)
    assert nets.config.base == "default"
    start, end = base.nets[0].best["first.weight"], nets.nets[0].best["first.weight"]
    assert 0 < np.abs(end - start).max() < 0.5 * np.abs(start).max()


def test_nets_of_a_file_may_be_the_base(run, made, tmp_path):
    out = tmp_path / "nets.safetensors"
    base = made / "nets.safetensors"
    told = [*TINY, "--base", base, "--learning-rate", 1e-30]
    assert run("train", made / "set.safetensors", "--out", out, *told)[0] == 0
    start, end = (load_nets(path).nets[0].best["first.weight"] for path in (base, out))
    np.testing.assert_array_equal(end, start)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (["--kernels", 4], "kernels 16, not 4"),
        (["--kernel-size", 9], "kernel size 7, not 9"),
        (["--base", "best"], "best: no such file"),
        (["--base", PACKAGED["default"]], "holds a metric"),
    ],
)
@pytest.mark.parametrize("command", ["train", "fit"])
def test_base_that_cannot_serve_is_told_in_one_line(
    run, made, annotated, tmp_path, command, told, words
):
    by_nets = [*annotated, "--method", "nets"]
    given = [made / "set.safetensors"] if command == "train" else by_nets
    assert_refused(run(command, *given, "--out", tmp_path / "x", *told), words)
