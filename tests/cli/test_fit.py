from dataclasses import replace

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from napari_defocus.cli._options import config_from
from napari_defocus.cli.main import build_parser
from napari_defocus.io.open import read_image
from napari_defocus.io.raster import write_png
from napari_defocus.metric import zeng2019
from napari_defocus.metric.calibration import LEAST_HELD
from napari_defocus.metric.fitting import FitConfig
from napari_defocus.metric.local_metric import load_metric
from napari_defocus.metric.nets import TrainingConfig
from napari_defocus.metric.patches import PatchConfig
from napari_defocus.profile.profile import load_profile
from tests.cli.helpers import TINY, assert_refused, names


def test_defaults_of_fit_are_those_of_the_library():
    options = build_parser().parse_args(["fit", "x", "z", "--out", "y"])
    training = config_from(options, TrainingConfig)
    assert config_from(options, FitConfig, training=training, method="nets") == FitConfig()
    assert config_from(options, PatchConfig) == PatchConfig()


def test_instant_fit_makes_a_metric_of_annotated_images(run, annotated, tmp_path):
    out = tmp_path / "metric.safetensors"
    status, lines, err = run("fit", *annotated, "--out", out, "--instant", "--components", 3)
    assert status == 0
    metric = load_metric(out)
    # Where little of what was annotated comes out so, it is said.
    assert len(err) == (metric.record["holds"] < LEAST_HELD)
    assert metric.record["method"] == "instant"
    assert len(metric.filters) == 3
    assert metric.halvings is None
    held_out = metric.record["held_out"]
    assert held_out["auc"] > 0.8
    told = f"(held-out AUC {held_out['auc']:.3f}, accuracy {held_out['accuracy']:.3f})"
    assert lines == [f"{out} {told}"]


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (["--components", 0], "components is 0"),
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
    status, _, err = run("fit", *annotated, "--out", out, "--method", "nets", *TINY)
    assert status == 0
    assert [line.split(":")[0] for line in err[:2]] == ["training net 1 of 1"] * 2
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
    for told in (["--method", "nets"], ["--instant"]):
        refused = run("fit", annotated[0], labels, "--out", tmp_path / "x", *told)
        assert_refused(refused, f"0 {lacking} patches", "paint more")
    # Patches of one class may be cut, to be joined with others; but not be trained on alone.
    assert run("patches", annotated[0], labels, "--out", tmp_path / "set")[0] == 0
    refused = run("train", tmp_path / "set", "--out", tmp_path / "x", *TINY)
    assert_refused(refused, f"0 {lacking} patches")
    assert names(tmp_path) == ["labels.png", "set"]


@pytest.fixture(scope="module")
def soft(tmp_path_factory):
    """A microscope image in focus, a copy far out of focus, and strokes on each."""
    folder = tmp_path_factory.mktemp("soft")
    rng = np.random.default_rng(3)
    image = np.full((160, 192), 30.0)
    y, x = np.mgrid[:160, :192]
    for cy, cx in rng.uniform((8, 8), (152, 184), (60, 2)):
        image += 150 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * 2.2**2))
    for name, sigma in (("in", 0), ("out", 6)):
        seen = ndimage.gaussian_filter(image, sigma) + rng.normal(0, 1, image.shape)
        write_png(folder / f"{name}.png", np.clip(seen, 0, 255).astype(np.uint8))
        labels = np.zeros(image.shape, np.uint8)
        labels[30:40, 10:180] = labels[100:110, 10:180] = 2 if name == "in" else 1
        write_png(folder / f"{name}.labels.png", labels)
    return folder


def mask_of(run, folder, out, profile, name):
    status, _, _ = run("detect", folder / f"{name}.png", "--out", out, "--detector", profile)
    assert status == 0
    return read_image(out / f"{name}.mask.tif").data


@pytest.mark.parametrize("told", ["strokes", "in_focus", "stack"])
def test_a_profile_is_taught_and_obeyed(run, soft, tmp_path, told):
    out = tmp_path / "mine.safetensors"
    stack = tmp_path / "stack.tif"
    tifffile.imwrite(
        stack,
        np.stack([read_image(soft / f"{name}.png").data for name in ("out", "in", "out")]),
        metadata={"axes": "ZYX"},
        photometric="minisblack",
    )
    given = {
        "strokes": [soft / f for f in ("in.png", "in.labels.png", "out.png", "out.labels.png")],
        "in_focus": ["--in-focus", soft / "in.png"],
        "stack": ["--from-stack", stack],
    }[told]
    status, lines, err = run("fit", *given, "--out", out)
    assert (status, err) == (0, [])
    assert lines[0].startswith(f"{out} (sharp up to ")
    card = load_profile(out).record
    assert card["taught_from"]
    painted = read_image(soft / "in.labels.png").data > 0
    sharp = mask_of(run, soft, tmp_path, out, "in")
    assert (sharp[painted & (sharp > 0)] == 2).mean() > 0.95
    blurred = mask_of(run, soft, tmp_path, out, "out")
    assert (blurred[painted & (blurred > 0)] == 1).mean() > 0.95


def test_what_can_not_teach_is_refused_in_a_line(run, soft, tmp_path):
    out = tmp_path / "x"
    for given, *words in (
        ([], "nothing to learn from", "--in-focus"),
        (["--in-focus", soft / "out.png"], "out.png", "give an image in focus"),
        (["--in-focus", soft / "none.png"], "none.png"),
        (["--in-focus", soft / "in.png", "--method", "nets"], "teach a profile"),
        ([soft / "in.png"], "stands alone"),
    ):
        assert_refused(run("fit", *given, "--out", out), *words)
    assert not out.exists()


def test_images_of_other_pixel_sizes_are_refused_in_one_profile(run, soft, tmp_path):
    image = read_image(soft / "in.png").data
    for name, size in (("a", 0.1), ("b", 0.2)):
        tifffile.imwrite(
            tmp_path / f"{name}.tif",
            image,
            imagej=True,
            resolution=(1 / size, 1 / size),
            metadata={"unit": "um"},
        )
    given = ["--in-focus", tmp_path / "a.tif", tmp_path / "b.tif"]
    assert_refused(run("fit", *given, "--out", tmp_path / "x"), "0.1 to 0.2 micrometres")


def test_preset_is_the_paper_with_what_is_given_behind_it(run, annotated, tmp_path):
    given = ["fit", "x", "z", "--seed", "8", "--preset", "zeng2019", "--area", "0.5", "--out", "y"]
    options = build_parser().parse_args(given)
    assert config_from(options, TrainingConfig) == replace(zeng2019.TRAINING, seed=8)
    assert config_from(options, PatchConfig) == replace(zeng2019.PATCHES, area=0.5)
    out = tmp_path / "own.safetensors"
    tiny = [*TINY, "--base", "none", "--area", "0.5"]
    status, _, err = run("fit", *annotated, "--out", out, "--preset", "zeng2019", *tiny)
    assert status == 0, err
    assert load_metric(out).literal
    given = ["--preset", "zeng2019", "--method", "instant"]
    refused = run("fit", *annotated, "--out", tmp_path / "other", *given)
    assert_refused(refused, "the preset zeng2019 trains nets")
