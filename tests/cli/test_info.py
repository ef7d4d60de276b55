import json

import pytest

from napari_defocus.metric.local_metric import load_metric, save_metric
from napari_defocus.metric.patches import load_patch_set, save_patch_set
from tests.cli.helpers import assert_refused, bad_metric


def test_info_shows_the_packaged_metric(run):
    status, lines, err = run("info", "default")
    card = json.loads("\n".join(lines))
    assert (status, err) == (0, [])
    metric = load_metric()
    assert card["format"] == "napari-defocus"
    assert card["kind"] == "metric"
    assert card["digest"] == metric.digest
    assert card["tensors"]["filters"] == list(metric.filters.shape)
    assert card["calibration"]["slope"] == metric.calibration.slope
    assert card["record"]["recipe"]["command"] == "napari-defocus train-default"


def test_info_shows_a_set_and_nets(run, made):
    for name, kind in (("set", "patch set"), ("nets", "nets"), ("metric", "metric")):
        status, lines, err = run("info", made / f"{name}.safetensors")
        card = json.loads("\n".join(lines))
        assert (status, err, card["kind"]) == (0, [], kind)
        assert card["tensors"]
    patch_set = load_patch_set(made / "set.safetensors")
    card = json.loads("\n".join(run("info", made / "set.safetensors")[1]))
    assert card["counts"] == patch_set.counts()
    assert card["tensors"]["patches"] == list(patch_set.patches.shape)


@pytest.mark.parametrize("kind", ["missing", "cut short", "empty", "foreign", "image", "folder"])
def test_info_refuses_what_is_not_ours(run, tmp_path, kind):
    path = bad_metric(kind, tmp_path)
    assert_refused(run("info", path), path)


def test_info_reads_files_from_anywhere(run, metric, patch_set, tmp_path):
    save_metric(metric, tmp_path / "ä metric")
    save_patch_set(patch_set, tmp_path / "set.anything")
    for path in tmp_path.iterdir():
        assert run("info", path)[0] == 0
