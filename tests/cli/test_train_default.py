import numpy as np

from napari_defocus.metric import default_recipe as default_metric
from napari_defocus.metric.local_metric import load_metric
from napari_defocus.metric.nets import load_nets
from tests.cli.helpers import assert_refused, names


def test_default_metric_and_its_nets_are_made_by_the_recipe(run, made, tmp_path, monkeypatch):
    metric, nets = load_metric(made / "metric.safetensors"), load_nets(made / "nets.safetensors")
    monkeypatch.setattr(default_metric, "train_default", lambda **options: (metric, nets))
    out = tmp_path / "new"
    status, lines, err = run("train-default", "--out", out)
    assert (status, err) == (0, [])
    assert names(out) == ["default.nets.safetensors", "default.safetensors"]
    for line, name in zip(lines, names(out), strict=True):
        assert line.startswith(str(out / name))
    assert load_metric(out / "default.safetensors").digest == metric.digest
    again = load_nets(out / "default.nets.safetensors")
    np.testing.assert_array_equal(again.kernels, nets.kernels)
    assert_refused(run("train-default", "--out", out), out, "exists", "--overwrite")
    (out / "default.safetensors").unlink()
    assert_refused(run("train-default", "--out", out), out / "default.nets.safetensors", "exists")


def test_default_metric_stopped_at_once_keeps_nothing(run, tmp_path, monkeypatch):
    monkeypatch.setattr(default_metric, "train_default", lambda **options: None)
    assert_refused(run("train-default", "--out", tmp_path / "new"), "nothing to keep")
    assert names(tmp_path) == []


def test_preset_is_made_by_its_own_recipe(run, made, tmp_path, monkeypatch):
    metric, nets = load_metric(made / "metric.safetensors"), load_nets(made / "nets.safetensors")
    asked = []

    def train_default(config, **_):
        asked.append(config)
        return metric, nets

    monkeypatch.setattr(default_metric, "train_default", train_default)
    status, _, _ = run("train-default", "--preset", "zeng2019", "--out", tmp_path / "new")
    assert status == 0
    assert asked == [default_metric.PRESETS["zeng2019"]]
    assert names(tmp_path / "new") == ["zeng2019.nets.safetensors", "zeng2019.safetensors"]
