import numpy as np
import pytest

from napari_defocus.cli._options import config_from
from napari_defocus.cli.main import build_parser
from napari_defocus.io.raster import write_png
from napari_defocus.metric.fitting import FitConfig
from napari_defocus.metric.local_metric import load_metric
from napari_defocus.metric.nets import TrainingConfig
from napari_defocus.metric.patches import PatchConfig
from tests.cli.helpers import TINY, assert_refused, names


def test_defaults_of_fit_are_those_of_the_library():
    options = build_parser().parse_args(["fit", "x", "z", "--out", "y"])
    training = config_from(options, TrainingConfig)
    assert config_from(options, FitConfig, training=training) == FitConfig()
    assert config_from(options, PatchConfig) == PatchConfig()


def test_instant_fit_makes_a_metric_of_annotated_images(run, annotated, tmp_path):
    out = tmp_path / "metric.safetensors"
    status, lines, err = run("fit", *annotated, "--out", out, "--instant", "--components", 3)
    assert (status, err) == (0, [])
    metric = load_metric(out)
    assert metric.record["method"] == "instant"
    assert len(metric.filters) == 3
    held_out = metric.record["held_out"]
    assert held_out["auc"] > 0.8
    told = f"(held-out AUC {held_out['auc']:.3f}, accuracy {held_out['accuracy']:.3f})"
    assert lines == [f"{out} {told}"]


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (["--components", 0], "0 components"),
        (["--kernel-size", 4], "kernel size is 4"),
        (["--validation", "nan"], "validation is nan"),
        (["--seed", -1], "seed is -1"),
    ],
)
def test_setting_of_the_instant_fit_out_of_its_range_is_told_in_one_line(
    run, annotated, tmp_path, told, words
):
    assert_refused(run("fit", *annotated, "--out", tmp_path / "x", "--instant", *told), words)


def test_fit_is_patches_and_train_and_metric_in_one(run, made, annotated, tmp_path):
    out = tmp_path / "metric.safetensors"
    status, _, err = run("fit", *annotated, "--out", out, *TINY)
    assert status == 0
    assert [line.split(":")[0] for line in err] == ["training net 1 of 1"] * 2
    expected = load_metric(made / "metric.safetensors")
    np.testing.assert_allclose(load_metric(out).filters, expected.filters, atol=1e-6)


def test_empty_labels_are_refused(run, annotated, tmp_path):
    labels = tmp_path / "labels.png"
    write_png(labels, np.zeros((192, 192), np.uint8))
    refused = run("fit", annotated[0], labels, "--out", tmp_path / "x")
    assert_refused(refused, annotated[0], "nothing is painted")


@pytest.mark.parametrize("label", [1, 2])
def test_one_sided_labels_are_refused_where_both_classes_are_needed(
    run, annotated, tmp_path, label
):
    labels = tmp_path / "labels.png"
    write_png(labels, np.full((192, 192), label, np.uint8))
    lacking = {1: "sharp", 2: "blurred"}[label]
    for told in ([], ["--instant"]):
        refused = run("fit", annotated[0], labels, "--out", tmp_path / "x", *told)
        assert_refused(refused, f"0 {lacking} patches", "paint more")
    # Patches of one class may be cut, to be joined with others; but not be trained on alone.
    assert run("patches", annotated[0], labels, "--out", tmp_path / "set")[0] == 0
    refused = run("train", tmp_path / "set", "--out", tmp_path / "x", *TINY)
    assert_refused(refused, f"0 {lacking} patches")
    assert names(tmp_path) == ["labels.png", "set"]
