"""The paper's method end to end, against a reference of a few lines."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from napari_defocus.cli._detection_options import detection_config
from napari_defocus.cli.main import build_parser
from napari_defocus.core.errors import DefocusError
from napari_defocus.data.samples import read_sample
from napari_defocus.detection.api import DetectionConfig, detect
from napari_defocus.detection.config import ZENG2019, with_preset
from napari_defocus.detection.detectors import choose_detector
from napari_defocus.detection.refinement import RefinementConfig
from napari_defocus.filters.plane import prepare_plane
from napari_defocus.metric.local_metric import load_metric, save_metric


def reference(image):
    """Follow the review: filters, [0, 1], 100 times tanh or 0, .3 .2 .5, adaptive threshold."""
    metric = load_metric("zeng2019")
    first, second = (ndimage.correlate for _ in range(2))
    grey = prepare_plane(image).grey
    level = np.abs(second(first(grey, metric.filters[0]), metric.filters[1]))
    level = (level - level.min()) / (level.max() - level.min())
    threshold, kept = level.mean(dtype=float), {}
    for n in range(1, 101):
        means = ndimage.uniform_filter(level.astype(float), 5, mode="nearest")
        level = kept[n] = np.where(means < threshold * (1 - 1e-6), 0, np.tanh(level))
    return 0.3 * kept[10] + 0.2 * kept[50] + 0.5 * kept[100]


@pytest.fixture(scope="module")
def photo():
    return read_sample("photo").image[::2, ::2]


def test_end_to_end(photo):
    found, expected = detect(photo, "zeng2019"), reference(photo)
    # Sums in another order may let a pixel at the very threshold live or die.
    assert np.isclose(found.sharpness, expected, atol=2e-6).mean() > 0.999
    sharp = found.sharpness >= min(1.5 * found.sharpness.mean(), 1)
    assert ((found.mask == 2) == sharp).mean() > 0.99
    assert set(np.unique(found.mask)) == {1, 2}
    assert found.radius is None


def test_by_any_name_it_is_the_same(photo, tmp_path):
    expected = detect(photo, "zeng2019").blur
    save_metric(load_metric("zeng2019"), tmp_path / "own.safetensors")
    for given, config in (
        ("default", DetectionConfig(detector="zeng2019")),
        ("default", ZENG2019),
        (load_metric("zeng2019"), None),
        (tmp_path / "own.safetensors", None),
        ("default", DetectionConfig(detector=str(tmp_path / "own.safetensors"))),
    ):
        np.testing.assert_array_equal(detect(photo, given, config).blur, expected)


def test_the_preset_fills_what_was_not_given():
    assert with_preset(DetectionConfig(detector="zeng2019")) == ZENG2019
    given = DetectionConfig(refinement=RefinementConfig(neighbourhood=9))
    filled = with_preset(given)
    assert filled.refinement == given.refinement
    assert filled.mask == ZENG2019.mask
    assert with_preset(filled) == filled


def test_a_setting_of_the_command_line_changes_nothing_else_of_the_preset():
    def config(*told, **more):
        words = ["detect", "x", "--out", "y", "--detector", "zeng2019", *told]
        return with_preset(detection_config(build_parser().parse_args(words), **more))

    assert config() == ZENG2019
    fixed = replace(ZENG2019.refinement, threshold=0.5)
    assert config("--refine-threshold", "0.5").refinement == fixed
    assert config("--smallest", "100").mask == replace(ZENG2019.mask, smallest=100)
    own = ["detect", "x", "--out", "y", "--detector", "own.safetensors", "--keep", "0.3"]
    found = detection_config(build_parser().parse_args(own), literal=True)
    assert found.refinement == replace(ZENG2019.refinement, keep=0.3)


def test_other_metrics_keep_their_settings(photo):
    config = DetectionConfig(detector="metric")
    assert not choose_detector("default", config).literal
    assert choose_detector("default", DetectionConfig(detector="zeng2019")).literal


def test_nothing_sharp_in_a_constant_image():
    with pytest.raises(DefocusError, match="constant"):
        detect(np.full((40, 50), 7, np.uint8), "zeng2019")


def test_planes_and_types(photo):
    stack = np.stack([photo[..., 0]] * 2)
    found = detect(stack, "zeng2019", axes="ZYX")
    alone = detect(photo[..., 0].astype(np.float32), "zeng2019")
    np.testing.assert_array_equal(found.blur[1], alone.blur)
