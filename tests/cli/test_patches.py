import numpy as np
import pytest

from napari_defocus.cli._options import config_from
from napari_defocus.cli.main import build_parser
from napari_defocus.io.open import read_image
from napari_defocus.io.raster import write_png
from napari_defocus.io.tiff_writer import write_tiff
from napari_defocus.metric.patches import PatchConfig, load_patch_set
from tests.cli.helpers import assert_refused, names


def test_defaults_of_patches_are_those_of_the_library():
    options = build_parser().parse_args(["patches", "x", "z", "--out", "y"])
    assert config_from(options, PatchConfig) == PatchConfig()


def test_patches_writes_a_set_of_all_images(made, annotated):
    patch_set = load_patch_set(made / "set.safetensors")
    assert [source.name for source in patch_set.sources] == [str(p) for p in annotated[::2]]
    assert min(patch_set.counts().values()) > 8
    assert patch_set.config == PatchConfig()


def test_patches_tells_their_number(run, annotated, tmp_path):
    out = tmp_path / "set.safetensors"
    status, lines, err = run("patches", *annotated[:2], "--out", out, "--size", 24)
    counts = load_patch_set(out).counts()
    told = f"{out} ({counts['blurred']} blurred and {counts['sharp']} sharp patches)"
    assert (status, lines, err) == (0, [told], [])
    assert load_patch_set(out).config == PatchConfig(size=24)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (["--size", 0], "size is 0"),
        (["--size", 999], "smaller than a patch"),
        (["--superpixel", 0], "superpixel is 0"),
        (["--purity", "nan"], "purity is nan"),
        (["--coverage", 2], "coverage is 2.0"),
    ],
)
def test_patch_setting_out_of_its_range_is_told_in_one_line(run, annotated, tmp_path, told, words):
    assert_refused(run("patches", *annotated, "--out", tmp_path / "x", *told), words)


def test_labels_may_be_masks(run, annotated, tmp_path):
    image, labels = annotated[:2]
    truth = read_image(labels).data == 1
    mask = tmp_path / "mask.png"
    write_png(mask, np.where(truth, 255, 0).astype(np.uint8))
    painted = tmp_path / "painted.png"
    write_png(painted, np.where(truth, 1, 2).astype(np.uint8))
    sets = []
    for name, path, told in (("a", mask, ["--labels-are-masks"]), ("b", painted, [])):
        out = tmp_path / name
        assert run("patches", image, path, "--out", out, *told)[0] == 0
        sets.append(load_patch_set(out))
    np.testing.assert_array_equal(sets[0].labels, sets[1].labels)
    np.testing.assert_array_equal(sets[0].corner, sets[1].corner)
    refused = run("patches", image, mask, "--out", tmp_path / "c")
    assert_refused(refused, image, "label 255")


def test_labels_of_another_shape_are_refused(run, annotated, tmp_path):
    labels = tmp_path / "labels.png"
    write_png(labels, read_image(annotated[1]).data[:-1])
    for command in ("patches", "fit"):
        refused = run(command, annotated[0], labels, "--out", tmp_path / "x")
        assert_refused(refused, annotated[0], "(191, 192)", "(192, 192)")


@pytest.mark.parametrize("command", ["patches", "fit"])
@pytest.mark.parametrize("count", [1, 3])
def test_odd_number_of_paths_is_refused(run, annotated, tmp_path, command, count):
    refused = run(command, *annotated[:count], "--out", tmp_path / "x")
    assert_refused(refused, annotated[count - 1], "stands alone")


def test_annotated_stack_is_refused(run, annotated, tmp_path):
    stack = tmp_path / "stack.tif"
    write_tiff(stack, np.zeros((3, 192, 192), np.uint8), axes="ZYX")
    for paths in ([stack, annotated[1]], [annotated[0], stack]):
        assert_refused(run("patches", *paths, "--out", tmp_path / "x"), stack, "a stack (ZYX)")


def test_existing_output_is_replaced_on_request(run, annotated, tmp_path):
    out = tmp_path / "out"
    out.write_text("mine")
    assert run("patches", *annotated[:2], "--out", out, "--overwrite")[0] == 0
    assert len(load_patch_set(out))
    assert names(tmp_path) == ["out"]
