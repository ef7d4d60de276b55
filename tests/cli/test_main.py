import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from napari_defocus import __version__
from napari_defocus.cli import commands
from napari_defocus.cli._console import interruptible
from napari_defocus.cli._options import config_from
from napari_defocus.cli.main import build_parser, detection_config, main
from napari_defocus.data.samples import SAMPLES
from napari_defocus.detection.api import DetectionConfig
from napari_defocus.detection.refinement import RefinementConfig
from napari_defocus.detection.threshold import MaskConfig
from napari_defocus.evaluate.scores import PROTOCOLS, score_map
from napari_defocus.io.raster import read_image, write_png, write_tiff
from napari_defocus.metric import default_recipe as default_metric
from napari_defocus.metric.fitting import FitConfig
from napari_defocus.metric.local_metric import PACKAGED, load_metric, save_metric
from napari_defocus.metric.nets import PACKAGED as PACKAGED_NETS
from napari_defocus.metric.nets import TrainingConfig, load_nets
from napari_defocus.metric.patches import PatchConfig, load_patch_set, save_patch_set

# Of a start at random: nets as small as these have no base to go on from.
TINY = ["--base", "none", "--nets", "1", "--kernels", "4", "--epochs", "2"]
TINY += ["--learning-rate", "2e-3", "--device", "cpu"]


@pytest.fixture
def run(capsys):
    """Run a command; its exit status and the lines it prints to stdout and stderr."""

    def run(*arguments):
        status = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return status, out.splitlines(), err.splitlines()

    return run


@pytest.fixture
def keyboard():
    """Python's own handling of Ctrl+C, which a run in the background lacks."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press_ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)


def assert_refused(result, *words):
    """Bad input: status 2 and one line that says what is wrong."""
    status, out, err = result
    assert status == 2
    assert out == []
    assert len(err) == 1, err
    assert err[0].startswith("napari-defocus: ")
    for word in words:
        assert str(word) in err[0]


def names(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def results(*stems, picture=False):
    endings = [".blur.tif", ".mask.tif"] + [".overview.png"] * picture
    written = [stem + ending for stem in stems for ending in endings]
    return sorted([*written, "napari-defocus.json"])


def picture(seed=0, shape=(48, 64)):
    """Blobs: something to judge."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (shape[0] // 4, shape[1] // 4)).astype(np.uint8)
    return np.kron(coarse, np.ones((4, 4), np.uint8))


@pytest.fixture(scope="module")
def annotated(scenes, tmp_path_factory):
    """Images and their labels, in turn: six rendered scenes as files."""
    folder = tmp_path_factory.mktemp("annotated")
    paths = []
    for index, (_, image, labels) in enumerate(scenes[:6]):
        paths += [folder / f"{index}.png", folder / f"{index}.labels.png"]
        write_png(paths[-2], image)
        write_png(paths[-1], labels)
    return paths


@pytest.fixture(scope="module")
def made(annotated, scenes, tmp_path_factory):
    """What patches, train, metric and detect write, each from what came before."""
    folder = tmp_path_factory.mktemp("made")
    steps = [
        ["patches", *annotated, "--out", folder / "set.safetensors"],
        ["train", folder / "set.safetensors", "--out", folder / "nets.safetensors", *TINY],
        ["metric", folder / "nets.safetensors", "--out", folder / "metric.safetensors"],
        ["detect", folder / "new.png", "--out", folder, "--metric", folder / "metric.safetensors"],
    ]
    write_png(folder / "new.png", scenes[6][1])
    for step in steps:
        assert main([str(argument) for argument in step]) == 0
    return folder


# The parser


def test_defaults_of_detect_are_those_of_the_library():
    options = build_parser().parse_args(["detect", "x", "--out", "y"])
    assert detection_config(options) == DetectionConfig()
    assert options.metric == "default"


def test_defaults_of_training_are_those_of_the_library():
    options = build_parser().parse_args(["train", "x", "--out", "y"])
    assert config_from(options, TrainingConfig) == TrainingConfig()


def test_defaults_of_patches_are_those_of_the_library():
    options = build_parser().parse_args(["patches", "x", "z", "--out", "y"])
    assert config_from(options, PatchConfig) == PatchConfig()


def test_defaults_of_fit_are_those_of_the_library():
    options = build_parser().parse_args(["fit", "x", "z", "--out", "y"])
    training = config_from(options, TrainingConfig)
    assert config_from(options, FitConfig, training=training) == FitConfig()
    assert config_from(options, PatchConfig) == PatchConfig()


def test_default_of_metric_is_that_of_the_library():
    options = build_parser().parse_args(["metric", "x", "--out", "y"])
    assert options.components == FitConfig().components


def test_every_setting_of_detect_arrives():
    told = (
        "--scale image --adapt 0.1 --reach 3 --caution -2 --gain 4 --no-refine --iterations 2 7 "
        "--weights 0.25 0.75 --neighbourhood 9 --refine-threshold mean --keep 0.6 "
        "--mask-threshold 0.4 --smallest 7"
    )
    options = build_parser().parse_args(["detect", "x", "--out", "y", *told.split()])
    assert detection_config(options) == DetectionConfig(
        scale="image",
        adapt=0.1,
        reach=3.0,
        caution=-2.0,
        gain=4.0,
        refine=False,
        refinement=RefinementConfig((2, 7), (0.25, 0.75), 9, None, 0.6),
        mask=MaskConfig(0.4, smallest=7),
    )


def test_thresholds_may_be_numbers_or_rules():
    told = ["--refine-threshold", "0.3", "--mask-threshold", "mean"]
    config = detection_config(build_parser().parse_args(["detect", "x", "--out", "y", *told]))
    assert config.refinement.threshold == 0.3
    assert config.mask.threshold == "mean"


@pytest.mark.parametrize("command", ["train", "fit"])
def test_every_setting_of_training_arrives(command):
    told = (
        "--base none --nets 2 --kernels 3 --kernel-size 9 --epochs 5 --patience 6 --batch 7 "
        "--learning-rate 0.1 --l1 0.2 --decay 0.3 --validation 0.4 --seed 8 --device cpu"
    )
    options = build_parser().parse_args([command, "x", "--out", "y", *told.split()])
    expected = TrainingConfig("none", 2, 3, 9, 5, 6, 7, 0.1, 0.2, 0.3, 0.4, 8, "cpu")
    assert config_from(options, TrainingConfig) == expected


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["polish"],
        ["detect"],
        ["detect", "x"],
        ["detect", "x", "--out", "y", "--scale", "log"],
        ["detect", "x", "--out", "y", "--mask-threshold", "high"],
        ["train", "x", "--out", "y", "--device", "tpu"],
        ["train", "x", "--out", "y", "--epochs", "many"],
        ["evaluate", "--maps", "x", "--out", "y"],
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_version_is_told(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"napari-defocus {__version__}\n"


@pytest.mark.parametrize(
    "command",
    ["detect", "patches", "train", "metric", "fit", "evaluate", "export", "stack", "info",
     "train-default", "train-dense", "demo"],
)  # fmt: skip
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    told = capsys.readouterr().out
    assert f"usage: napari-defocus {command}" in told
    # Defaults as they would be given.
    assert "(default: (" not in told
    assert "True)" not in told


def test_installed_program_answers():
    program = shutil.which("napari-defocus", path=Path(sys.executable).parent)
    assert program, "the package is not installed"
    for option, words in (("--version", __version__), ("--help", "detect")):
        done = subprocess.run([program, option], capture_output=True, text=True, check=True)
        assert words in done.stdout
        assert done.stderr == ""


def test_interrupt_ends_with_its_own_status(monkeypatch, run):
    def interrupted(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "info", interrupted)
    assert run("info", "default") == (130, [], [])


# detect


def test_detect_writes_map_and_mask(run, tmp_path):
    image = tmp_path / "cells.tif"
    write_tiff(image, picture(), axes="YX", pixel_size_um=0.25)
    out = tmp_path / "new" / "out"
    assert run("detect", image, "--out", out) == (
        0,
        [str(out / "cells.blur.tif"), str(out / "cells.mask.tif")],
        [],
    )
    blur, mask = (read_image(out / f"cells.{kind}.tif") for kind in ("blur", "mask"))
    assert blur.data.dtype == np.float32
    assert mask.data.dtype == np.uint8
    for found in (blur, mask):
        assert found.data.shape == (48, 64)
        assert found.pixel_size_um == pytest.approx(0.25)
    assert blur.data.min() >= 0
    assert blur.data.max() <= 1
    assert set(np.unique(mask.data)) <= {0, 1, 2}


def test_maps_of_a_stack_are_stacks(run, tmp_path):
    image = tmp_path / "stack.tif"
    write_tiff(image, np.stack([picture(z) for z in range(3)]), axes="ZYX", pixel_size_um=2.0)
    status, _, err = run("detect", image, "--out", tmp_path / "out", "--picture")
    assert (status, err) == (0, [])
    for kind in ("blur", "mask"):
        found = read_image(tmp_path / "out" / f"stack.{kind}.tif")
        assert found.data.shape == (3, 48, 64)
        assert found.axes == "ZYX"
        assert found.pixel_size_um == pytest.approx(2.0)
    assert names(tmp_path / "out") == results("stack", picture=True)


def test_map_of_colours_is_one_plane(run, tmp_path):
    write_png(tmp_path / "a.png", np.dstack([picture()] * 3))
    assert run("detect", tmp_path / "a.png", "--out", tmp_path / "out")[0] == 0
    assert read_image(tmp_path / "out" / "a.blur.tif").axes == "YX"


def test_picture_is_drawn_on_request(run, tmp_path):
    write_png(tmp_path / "a.png", picture())
    status, out, _ = run("detect", tmp_path / "a.png", "--out", tmp_path / "out", "--picture")
    assert status == 0
    assert names(tmp_path / "out") == results("a", picture=True)
    assert out[2] == str(tmp_path / "out" / "a.overview.png")
    with Image.open(out[2]) as drawn:
        assert drawn.width > 3 * drawn.height / 2


def test_settings_change_the_result(run, tmp_path):
    write_png(tmp_path / "a.png", picture())
    maps = []
    for index, told in enumerate([[], ["--caution", "5"], ["--scale", "image"]]):
        out = tmp_path / str(index)
        assert run("detect", tmp_path / "a.png", "--out", out, *told)[0] == 0
        maps.append(read_image(out / "a.blur.tif").data)
    assert maps[1].mean() > maps[0].mean()
    assert not np.array_equal(maps[0], maps[2])


def test_folders_give_their_images_but_not_our_results(run, tmp_path):
    folder = tmp_path / "in"
    for name in ("a.png", "b.PNG", ".hidden.png"):
        write_png(folder / name, picture())
    write_tiff(folder / "a.blur.tif", np.zeros((8, 8), np.float32), axes="YX")
    (folder / "notes.txt").write_text("no image")
    status, out, err = run("detect", folder, "--out", tmp_path / "out")
    assert status == 0
    assert len(out) == 4
    assert err == ["2 of 2 images done"]
    assert names(tmp_path / "out") == results("a", "b")


def test_several_inputs_are_done_each_once(run, tmp_path):
    for name in ("in/a.png", "b.png"):
        write_png(tmp_path / name, picture())
    inputs = [tmp_path / "in", tmp_path / "b.png", tmp_path / "in" / "a.png"]
    status, _, err = run("detect", *inputs, "--out", tmp_path / "out")
    assert (status, err) == (0, ["2 of 2 images done"])
    assert names(tmp_path / "out") == results("a", "b")


BAD_IMAGES = {
    "empty.png": (lambda path: path.write_bytes(b""), "empty"),
    "text.png": (lambda path: path.write_text("no image"), "not a PNG"),
    "short.png": (lambda path: path.write_bytes(png_bytes()[:-900]), "damaged"),
    "missing.png": (lambda path: None, "does not exist"),
    "folder": (lambda path: path.mkdir(), "no PNG"),
    "pixel.png": (lambda path: write_png(path, np.full((1, 1), 7, np.uint8)), "constant"),
    "constant.png": (lambda path: write_png(path, np.full((40, 40), 7, np.uint8)), "constant"),
    "nan.tif": (
        lambda path: write_tiff(path, np.full((40, 40), np.nan, np.float32), axes="YX"),
        "no finite pixel",
    ),
    "narrow.png": (lambda path: write_png(path, picture()[:6]), "smaller than the metric's"),
}


def png_bytes():
    """Noise, whose bytes do not compress: a cut one lacks rows."""
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (48, 64)).astype(np.uint8)
    Image.fromarray(noise).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_bad_image_is_told_in_one_line(run, tmp_path, name):
    path = tmp_path / name
    make, words = BAD_IMAGES[name]
    make(path)
    assert_refused(run("detect", path, "--out", tmp_path / "out"), path, words)
    assert names(tmp_path / "out") == []


def test_other_inputs_are_done_beside_bad_ones(run, tmp_path):
    for name, (make, _) in BAD_IMAGES.items():
        make(tmp_path / name)
    for name in ("a.png", "z.png"):
        write_png(tmp_path / name, picture())
    inputs = [tmp_path / name for name in ("a.png", *BAD_IMAGES, "z.png")]
    status, out, err = run("detect", *inputs, "--out", tmp_path / "out")
    assert status == 2
    assert len(out) == 4
    assert names(tmp_path / "out") == results("a", "z")
    assert len(err) == len(BAD_IMAGES) + 1
    for name in BAD_IMAGES:
        assert sum(str(tmp_path / name) in line for line in err) == 1
    assert err[-1] == f"2 of {len(inputs)} images done"


def test_existing_result_is_kept_unless_told_otherwise(run, tmp_path):
    write_png(tmp_path / "a.png", picture())
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.mask.tif").write_text("mine")
    refused = run("detect", tmp_path / "a.png", "--out", out)
    assert_refused(refused, tmp_path / "a.png", out / "a.mask.tif", "exists", "--overwrite")
    assert names(out) == ["a.mask.tif"]
    assert (out / "a.mask.tif").read_text() == "mine"
    assert run("detect", tmp_path / "a.png", "--out", out, "--overwrite")[0] == 0
    assert names(out) == results("a")
    assert read_image(out / "a.mask.tif").data.shape == (48, 64)


def test_second_image_of_the_same_stem_is_refused(run, tmp_path):
    inputs = tmp_path / "one" / "a.png", tmp_path / "two" / "a.tif"
    write_png(inputs[0], picture(0))
    write_tiff(inputs[1], picture(1), axes="YX")
    alone = tmp_path / "alone"
    run("detect", inputs[0], "--out", alone)
    for overwrite in ([], ["--overwrite"]):
        status, out, err = run("detect", *inputs, "--out", tmp_path / "out", *overwrite)
        assert status == 2
        assert len(out) == 2
        assert len(err) == 2
        assert str(inputs[1]) in err[0]
        assert str(inputs[0]) in err[0]
        assert err[1] == "1 of 2 images done"
    kept = [(folder / "a.blur.tif").read_bytes() for folder in (alone, tmp_path / "out")]
    assert kept[0] == kept[1]


def bad_metric(kind, folder):
    path = folder / "metric.safetensors"
    whole = PACKAGED["default"].read_bytes()
    if kind == "cut short":
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "foreign":
        save_file({"weight": np.zeros((3, 3), np.float32)}, path)
    elif kind == "image":
        write_png(path, picture())
    elif kind == "folder":
        path.mkdir()
    return path


@pytest.mark.parametrize("kind", ["missing", "cut short", "empty", "foreign", "image", "folder"])
def test_bad_metric_is_told_in_one_line(run, tmp_path, kind):
    write_png(tmp_path / "a.png", picture())
    path = bad_metric(kind, tmp_path)
    refused = run("detect", tmp_path / "a.png", "--out", tmp_path / "out", "--metric", path)
    assert_refused(refused, path)
    assert not (tmp_path / "out").exists()


def test_unknown_name_of_a_metric_is_told_with_the_choice(run, tmp_path):
    write_png(tmp_path / "a.png", picture())
    refused = run("detect", tmp_path / "a.png", "--out", tmp_path / "out", "--metric", "best")
    assert_refused(refused, "best", "default")


@pytest.mark.parametrize("deeper", [[], ["one", "two"]])
def test_file_in_the_place_of_the_output_folder_is_left_alone(run, tmp_path, deeper):
    write_png(tmp_path / "a.png", picture())
    place = tmp_path / "place"
    place.write_text("mine")
    refused = run("detect", tmp_path / "a.png", "--out", place.joinpath(*deeper))
    assert_refused(refused, tmp_path / "a.png", "cannot write", f"{place} is no folder")
    assert place.read_text() == "mine"


def test_folder_in_the_place_of_a_result_is_left_alone(run, tmp_path):
    write_png(tmp_path / "a.png", picture())
    (tmp_path / "out" / "a.mask.tif").mkdir(parents=True)
    refused = run("detect", tmp_path / "a.png", "--out", tmp_path / "out", "--overwrite")
    assert_refused(refused, tmp_path / "out" / "a.mask.tif", "folder")
    assert names(tmp_path / "out") == ["a.mask.tif"]


def test_name_too_long_for_its_results_is_told(run, tmp_path):
    path = tmp_path / ("a" * 250 + ".png")
    write_png(tmp_path / "a.png", picture())
    (tmp_path / "a.png").rename(path)  # which leaves no room for a longer ending
    assert_refused(run("detect", path, "--out", tmp_path / "out"), path, "cannot write")


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (["--adapt", "2"], ["adapt is 2.0", "0 to 1"]),
        (["--adapt", "nan"], ["adapt is nan"]),
        (["--reach", "-1"], ["reach is -1.0"]),
        (["--caution", "inf"], ["caution is inf"]),
        (["--gain", "nan"], ["gain is nan"]),
        (["--iterations", "10", "50"], ["2 iterations and 3 weights"]),
        (["--iterations", "0", "1", "2"], ["iterations", "0; give 1"]),
        (["--weights", "0.5", "2", "0.5"], ["weight is 2.0"]),
        (["--neighbourhood", "0"], ["neighbourhood is 0"]),
        (["--keep", "nan"], ["keep is nan"]),
        (["--refine-threshold", "5"], ["threshold is 5.0"]),
        (["--mask-threshold", "nan"], ["threshold is nan"]),
    ],
)
def test_setting_out_of_its_range_is_told_in_one_line(run, tmp_path, told, words):
    write_png(tmp_path / "a.png", picture())
    assert_refused(run("detect", tmp_path / "a.png", "--out", tmp_path / "out", *told), *words)
    assert not (tmp_path / "out").exists()


# From annotated images to a metric


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


def test_trained_nets_are_those_asked_for(made):
    nets = load_nets(made / "nets.safetensors")
    assert nets.config == TrainingConfig(
        base="none", nets=1, kernels=4, epochs=2, learning_rate=2e-3, device="cpu"
    )
    assert nets.complete


def test_metric_of_trained_nets_tells_blurred_from_sharp(made, scenes):
    metric = load_metric(made / "metric.safetensors")
    assert metric.record["method"] == "nets"
    assert metric.record["held_out"]["auc"] > 0.8
    labels = scenes[6][2]
    blur = read_image(made / "new.blur.tif").data
    assert score_map(blur[labels > 0], labels[labels > 0] == 1).values["AUC"] > 0.9


def test_metric_takes_the_components_asked_for(run, made, tmp_path):
    out = tmp_path / "metric.safetensors"
    status, lines, err = run("metric", made / "nets.safetensors", "--out", out, "--components", 3)
    assert (status, err) == (0, [])
    assert len(load_metric(out).filters) == 3
    assert lines[0].startswith(f"{out} (held-out AUC ")
    refused = run("metric", made / "nets.safetensors", "--out", tmp_path / "x", "--components", 0)
    assert_refused(refused, "0 components")


@pytest.mark.usefixtures("keyboard")
def test_stopped_training_goes_on_to_the_same_end(run, made, tmp_path, monkeypatch):
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    arguments = ["train", made / "set.safetensors", *TINY]
    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patched:
        patched.setattr(commands, "print_event", lambda event: press_ctrl_c())
        status, lines, err = run(*arguments, "--out", first)
    assert status == 0
    assert signal.getsignal(signal.SIGINT) is before
    assert lines[0].startswith(str(first))
    assert err == [f"not finished; go on with --resume {first} --overwrite"]
    stopped = load_nets(first)
    assert len(stopped.nets[0].history) == 1
    assert not stopped.complete
    status, _, err = run(*arguments, "--out", second, "--resume", first)
    assert status == 0
    assert len(err) == 1  # the second epoch alone
    assert "2 of 2" in err[0]
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


@pytest.mark.parametrize("command", ["train", "metric", "train --resume"])
def test_wrong_kind_of_file_is_told(run, made, tmp_path, command):
    wrong = PACKAGED["default"]
    command, *resume = command.split()
    given = [made / "set.safetensors", *resume, wrong] if resume else [wrong]
    assert_refused(run(command, *given, "--out", tmp_path / "x"), wrong, "holds a metric")
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (["--nets", 0], "nets is 0"),
        (["--kernel-size", 4], "kernel size is 4"),
        (["--kernel-size", 25], "too small"),
        (["--learning-rate", "nan"], "learning_rate is nan"),
        (["--validation", "nan"], "validation is nan"),
        (["--validation", "2"], "validation is 2.0"),
        (["--seed", -1], "seed is -1"),
    ],
)
def test_training_setting_out_of_its_range_is_told_in_one_line(run, made, tmp_path, told, words):
    refused = run("train", made / "set.safetensors", "--out", tmp_path / "x", *TINY, *told)
    assert_refused(refused, words)


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


@pytest.mark.parametrize("command", ["patches", "train", "metric", "fit"])
def test_existing_output_is_refused_before_any_work(run, tmp_path, command):
    out = tmp_path / "out"
    out.write_text("mine")
    # Inputs that are not there: they are not even looked at.
    inputs = {"patches": 2, "train": 1, "metric": 1, "fit": 2}[command]
    given = [command, *[tmp_path / "none"] * inputs, "--out"]
    assert_refused(run(*given, out), out, "exists", "--overwrite")
    assert_refused(run(*given, out / "deeper"), "cannot write", f"{out} is no folder")
    assert_refused(run(*given, tmp_path, "--overwrite"), "cannot write", f"{tmp_path}: it is")
    assert out.read_text() == "mine"


def test_existing_output_is_replaced_on_request(run, annotated, tmp_path):
    out = tmp_path / "out"
    out.write_text("mine")
    assert run("patches", *annotated[:2], "--out", out, "--overwrite")[0] == 0
    assert len(load_patch_set(out))
    assert names(tmp_path) == ["out"]


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
    told = [*TINY, "--base", base, "--learning-rate", 0]
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
    given = [made / "set.safetensors"] if command == "train" else annotated
    assert_refused(run(command, *given, "--out", tmp_path / "x", *told), words)


# Interrupts


@pytest.mark.usefixtures("keyboard")
def test_first_interrupt_asks_and_the_second_ends():
    before = signal.getsignal(signal.SIGINT)
    with interruptible() as should_stop:
        assert not should_stop()
        press_ctrl_c()
        assert should_stop()
        assert signal.getsignal(signal.SIGINT) is before
        with pytest.raises(KeyboardInterrupt):
            press_ctrl_c()
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.usefixtures("keyboard")
def test_handler_is_restored_without_an_interrupt_and_after_an_error():
    before = signal.getsignal(signal.SIGINT)
    with interruptible():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(ZeroDivisionError), interruptible():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) is before


# evaluate


@pytest.fixture
def scored(tmp_path):
    """A folder of two masks, and two of maps: a right one and a rough one."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        blurred = picture(ord(name)) > 128
        write_png(tmp_path / "truth" / f"{name}.png", np.where(blurred, 255, 0).astype(np.uint8))
        right = blurred.astype(np.float32)
        rough = np.clip(right + rng.normal(0, 0.5, right.shape), 0, 1)
        for method, values in (("right", right), ("rough", rough)):
            path = tmp_path / method / f"{name}.blur.tif"
            write_tiff(path, values.astype(np.float32), axes="YX")
    return tmp_path


REPORT = ["precision_recall.png", "report.json", "scores.csv"]


def test_one_folder_is_scored(run, scored):
    out = scored / "report"
    status, lines, err = run(
        "evaluate", "--maps", scored / "right", "--truth", scored / "truth", "--out", out
    )
    assert (status, err) == (0, [])
    assert names(out) == REPORT
    report = json.loads((out / "report.json").read_text())
    assert list(report["methods"]) == ["right"]
    mean = report["methods"]["right"]["mean"]
    assert mean["AUC"] == mean["Fmax"] == 1
    assert mean["MAE"] == 0
    table = {line[:14].strip(): line for line in lines}
    assert set(PROTOCOLS) <= set(table)
    assert "1.0000" in table["AUC"]


def test_several_folders_are_compared(run, scored):
    out = scored / "report"
    maps = ["--maps", scored / "right", scored / "rough"]
    status, lines, err = run("evaluate", *maps, "--truth", scored / "truth", "--out", out)
    assert (status, err) == (0, [])
    assert "right" in lines[0]
    assert "rough" in lines[0]
    with (out / "scores.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["row"] == "mean"]
    auc = {row["method"]: float(row["AUC"]) for row in rows}
    assert auc["right"] == 1 > auc["rough"] > auc["constant .5"] == 0.5


def test_folders_of_the_same_name_are_told_apart(run, scored):
    folders = [scored / method / "maps" for method in ("right", "rough")]
    for folder in folders:
        shutil.copytree(folder.parent, folder)
    out = scored / "report"
    status, *_ = run("evaluate", "--maps", *folders, "--truth", scored / "truth", "--out", out)
    assert status == 0
    report = json.loads((out / "report.json").read_text())
    assert list(report["methods"]) == [str(folder) for folder in folders]


def test_maps_may_be_of_sharpness(run, scored):
    out = scored / "report"
    for path in (scored / "right").iterdir():
        write_tiff(path, 1 - read_image(path).data, axes="YX")
    given = ["evaluate", "--maps", scored / "right", "--truth", scored / "truth", "--out", out]
    for told, auc in ((["--maps-are", "sharpness"], 1), ([], 0)):
        assert run(*given, *told, "--overwrite")[0] == 0
        report = json.loads((out / "report.json").read_text())
        assert report["methods"]["right"]["mean"]["AUC"] == auc


def test_missing_map_is_told_and_the_others_are_scored(run, scored):
    (scored / "rough" / "b.blur.tif").unlink()
    out = scored / "report"
    maps = ["--maps", scored / "right", scored / "rough"]
    status, lines, err = run("evaluate", *maps, "--truth", scored / "truth", "--out", out)
    assert status == 2
    assert err == [f"napari-defocus: {scored / 'truth'}: no map for b"]
    assert lines[-1] == "no map of rough for 1: b"
    report = json.loads((out / "report.json").read_text())
    assert report["methods"]["rough"]["missing"] == ["b"]
    assert report["methods"]["right"]["missing"] == []


def test_existing_report_is_kept_unless_told_otherwise(run, scored):
    out = scored / "report"
    out.mkdir()
    (out / "scores.csv").write_text("mine")
    given = ["evaluate", "--maps", scored / "right", "--truth", scored / "truth", "--out", out]
    assert_refused(run(*given), out / "scores.csv", "exists", "--overwrite")
    assert names(out) == ["scores.csv"]
    assert (out / "scores.csv").read_text() == "mine"
    assert run(*given, "--overwrite")[0] == 0
    assert names(out) == REPORT


@pytest.mark.parametrize("kind", ["no maps", "no folder", "no truth", "broken", "size", "out"])
def test_what_cannot_be_scored_is_told_in_one_line(run, scored, kind):
    maps, truth, out = scored / "right", scored / "truth", scored / "report"
    if kind == "no maps":
        named = maps = scored / "empty"
        maps.mkdir()
    elif kind == "no folder":
        named = maps = scored / "none"
    elif kind == "no truth":
        named = truth = scored / "none"
    elif kind == "broken":
        named = maps / "b.blur.tif"
        named.write_bytes(named.read_bytes()[:100])
    elif kind == "size":
        named = maps / "b.blur.tif"
        write_tiff(named, np.zeros((5, 5), np.float32), axes="YX")
    else:
        named = out = scored / "truth" / "a.png"
    refused = run("evaluate", "--maps", maps, "--truth", truth, "--out", out)
    assert_refused(refused, named)
    assert not (scored / "report").exists()


# info


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


# demo


def test_demo_writes_results_of_all_samples(run, tmp_path):
    out = tmp_path / "demo"
    status, lines, err = run("demo", "--out", out)
    assert (status, err) == (0, [])
    assert names(out) == results(*SAMPLES, picture=True)
    score = next(line for line in lines if line.startswith("photo: "))
    assert float(score.split("AUC ")[1].split()[0]) > 0.95
    for name in SAMPLES:
        blur, mask = (read_image(out / f"{name}.{kind}.tif").data for kind in ("blur", "mask"))
        assert blur.shape == mask.shape
        assert blur.dtype == np.float32
    (out / "photo.mask.tif").write_text("mine")
    assert_refused(run("demo", "--out", out), "exists")
    assert (out / "photo.mask.tif").read_text() == "mine"


def test_a_reader_that_leaves_early_is_no_error(tmp_path):
    program = (
        "import sys; from napari_defocus.cli.main import main; sys.exit(main(['info', 'default']))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_a_detector_that_is_none_is_named(tmp_path, capsys):
    write_png(tmp_path / "a.png", np.eye(40, dtype=np.uint8))
    words = ["detect", str(tmp_path / "a.png"), "--out", str(tmp_path / "o")]
    assert main([*words, "--detector", "nowhere"]) == 2
    assert "choose one of auto, metric, dense" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()
