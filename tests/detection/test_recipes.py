import shlex
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage import data

from napari_defocus.cli._detection_options import detection_config
from napari_defocus.cli.main import build_parser
from napari_defocus.detection.api import DetectionConfig, detect
from napari_defocus.detection.config import SCALES, with_preset
from napari_defocus.detection.recipes import as_arguments, as_command, as_python
from napari_defocus.detection.refinement import RefinementConfig
from napari_defocus.detection.threshold import MaskConfig
from napari_defocus.io.open import read_image
from napari_defocus.io.raster import write_png
from napari_defocus.io.tiff_writer import write_tiff


def number(low, high):
    return st.floats(low, high).map(lambda value: round(value, 3))


CONFIGS = st.builds(
    DetectionConfig,
    detector=st.sampled_from(["metric", "dense", "zeng2019", "/a b/mine.dense.safetensors"]),
    limit=st.one_of(st.sampled_from(["auto", "0.8um", "650nm"]), number(0.1, 20)),
    scale=st.sampled_from(SCALES),
    adapt=number(0, 1),
    reach=number(0, 5),
    caution=number(-4, 4),
    gain=number(0.2, 5),
    refine=st.booleans(),
    refinement=st.builds(
        RefinementConfig,
        iterations=st.sets(st.integers(1, 200), min_size=3, max_size=3).map(sorted).map(tuple),
        neighbourhood=st.sampled_from([3, 5, 7]),
        threshold=st.one_of(st.none(), number(0, 1)),
        keep=number(0, 1),
        growing=st.booleans(),
    ),
    mask=st.builds(
        MaskConfig,
        threshold=st.one_of(st.sampled_from(["otsu", "mean"]), number(0, 1)),
        smallest=st.integers(0, 2000),
    ),
)


def as_run(config):
    """What is not given for the paper's method is its own."""
    scale = config.scale
    return replace(with_preset(config), scale=scale) if config.detector == "zeng2019" else config


def parsed(words):
    return build_parser().parse_args(words)


@given(CONFIGS)
def test_arguments_read_back_as_the_same_settings(config):
    options = parsed(["detect", "IMAGE", "--out", "results", *as_arguments(config)])
    assert detection_config(options) == as_run(config)


@given(CONFIGS, st.sampled_from(["default", "/a b/mine.safetensors"]))
def test_command_reads_back(config, metric):
    words = shlex.split(as_command("my 'image'.tif", metric, config))
    assert words[0] == "napari-defocus"
    options = parsed(words[1:])
    assert [str(path) for path in options.inputs] == ["my 'image'.tif"]
    assert options.metric == metric
    assert detection_config(options) == as_run(config)


@given(CONFIGS)
def test_python_says_the_same_settings(config):
    lines = as_python("IMAGE", "default", config).splitlines()
    names = {}
    exec("\n".join(line for line in lines if "import" in line or "config = " in line), names)
    assert names["config"] == config


def test_defaults_need_no_words():
    assert as_arguments(DetectionConfig()) == []
    assert as_command("a.png", "default", DetectionConfig()) == (
        "napari-defocus detect a.png --out results"
    )


def test_more_results_are_asked_for():
    config, more = DetectionConfig(detector="dense"), ("confidence", "radius")
    command = as_command("a.png", "default", config, more)
    options = parsed(shlex.split(command)[1:])
    assert (options.detector, options.confidence, options.radius) == ("dense", True, True)
    text = as_python("a.png", "default", config, more)
    assert "config = DetectionConfig(detector='dense')" in text
    assert text.splitlines()[-1] == "found.blur, found.mask, found.confidence, found.radius"


def test_a_limit_in_micrometres_takes_the_pixel_size_of_the_image(tmp_path):
    config = DetectionConfig(limit="0.8um")
    assert as_command("a.tif", "default", config) == (
        "napari-defocus detect a.tif --out results --limit 0.8um"
    )
    write_tiff(tmp_path / "a.tif", data.camera()[:96, :96], axes="YX", pixel_size_um=0.25)
    names = {}
    exec(as_python(str(tmp_path / "a.tif"), "default", config), names)
    assert names["found"].limit == pytest.approx(3.2)
    expected = detect(data.camera()[:96, :96], config=DetectionConfig(limit=3.2))
    np.testing.assert_array_equal(names["found"].mask, expected.mask)


def test_python_runs_and_gives_the_same_arrays(tmp_path):
    path = tmp_path / "it's.png"
    write_png(path, data.camera()[::4, ::4])
    config = DetectionConfig(caution=-1.5, mask=MaskConfig(threshold="mean"))
    names = {}
    exec(as_python(str(path), "default", config), names)
    expected = detect(read_image(path).data, config=config)
    np.testing.assert_array_equal(names["found"].blur, expected.blur)
    np.testing.assert_array_equal(names["found"].mask, expected.mask)
