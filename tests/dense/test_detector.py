import os

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from napari_defocus.cli import main as cli
from napari_defocus.core.errors import DefocusError
from napari_defocus.dense import inference as dense
from napari_defocus.dense.detector import DenseDetector, cached_dense, load_dense, save_dense
from napari_defocus.dense.inference import network_session, predict_dense, standardise
from napari_defocus.dense.network import (
    LEAST,
    Backbone,
    DenseNet,
    MetricResponse,
    SameConv2d,
    read_imagenet,
)
from napari_defocus.detection.api import DetectionConfig, detect
from napari_defocus.detection.detectors import choose_detector
from napari_defocus.detection.inference import predict_plane
from napari_defocus.filters.luminance import LUMINANCE
from napari_defocus.io.open import read_image
from napari_defocus.io.tiff_writer import write_tiff
from napari_defocus.labels.classes import UNLABELLED
from napari_defocus.metric.local_metric import load_metric, save_metric

RNG = np.random.default_rng(0)
COLOURS = ndimage.gaussian_filter(RNG.random((70, 90, 3)), (1, 1, 0)).astype(np.float32)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def detector(random_detector):
    return random_detector


@pytest.fixture
def file(detector, tmp_path):
    save_dense(detector, tmp_path / "random.dense.safetensors")
    return tmp_path / "random.dense.safetensors"


# The network


def test_same_convolution_of_stride_2_is_every_second_value_of_stride_1():
    torch.manual_seed(1)
    for size in (3, 5):
        conv = SameConv2d(4, 6, size, 2)
        x = torch.randn(1, 4, 12, 16)
        whole = nn.functional.conv2d(x, conv.weight, conv.bias, padding=size // 2)
        # TensorFlow pads even sizes more behind than before: windows centre on odd pixels.
        torch.testing.assert_close(conv(x), whole[:, :, 1::2, 1::2])


def test_imagenet_weights_are_taken_with_their_normalisation():
    torch.manual_seed(2)
    backbone = Backbone()
    weights = {}

    def norm(name, channels):
        weights[f"{name}.weight"] = torch.rand(channels) + 0.5
        weights[f"{name}.bias"] = torch.randn(channels)
        weights[f"{name}.running_mean"] = torch.randn(channels)
        weights[f"{name}.running_var"] = torch.rand(channels) + 0.5

    def literal(x, conv, name, like):
        total = like.kernel_size[0] - like.stride[0]
        pads = (total // 2, total - total // 2) * 2
        x = nn.functional.conv2d(
            nn.functional.pad(x, pads), weights[f"{conv}.weight"], None, like.stride,
            groups=like.groups,
        )  # fmt: skip
        keys = ("running_mean", "running_var", "weight", "bias")
        return nn.functional.batch_norm(x, *(weights[f"{name}.{key}"] for key in keys), eps=1e-3)

    weights["_conv_stem.weight"] = torch.randn(32, 3, 3, 3)
    norm("_bn0", 32)
    blocks = [block for stage in backbone.stages for block in stage]
    for index, block in enumerate(blocks):
        parts = [
            ("_depthwise_conv", "_bn1", block.depthwise),
            ("_project_conv", "_bn2", block.project),
        ]
        if block.expand is not None:
            parts.insert(0, ("_expand_conv", "_bn0", block.expand))
        for conv, name, target in parts:
            weights[f"_blocks.{index}.{conv}.weight"] = 0.3 * torch.randn_like(target.weight)
            norm(f"_blocks.{index}.{name}", target.out_channels)
    read_imagenet(weights, backbone)

    x = torch.randn(1, 3, 64, 64)
    expected = literal(x, "_conv_stem", "_bn0", backbone.stem).clamp(0, 6)
    torch.testing.assert_close(nn.functional.relu6(backbone.stem(x)), expected)
    block = blocks[2]
    x = torch.randn(1, 24, 16, 16)
    expected = literal(x, "_blocks.2._expand_conv", "_blocks.2._bn0", block.expand).clamp(0, 6)
    expected = literal(expected, "_blocks.2._depthwise_conv", "_blocks.2._bn1", block.depthwise)
    expected = literal(
        expected.clamp(0, 6), "_blocks.2._project_conv", "_blocks.2._bn2", block.project
    )
    torch.testing.assert_close(block(x), x + expected, rtol=1e-4, atol=1e-4)


def test_metric_response_is_that_of_the_filters():
    image = RNG.random((3, 32, 40)).astype(np.float32)
    filters = RNG.normal(size=(2, 7, 7)).astype(np.float32)
    found = MetricResponse(torch.from_numpy(filters))(torch.from_numpy(image)[None])[0].numpy()
    assert found.shape == (6, 16, 20)
    grey = np.tensordot(np.float32([0.2125, 0.7154, 0.0721]), image, 1)
    energy = sum(ndimage.correlate(grey, f, mode="nearest") ** 2 for f in filters)
    inner = np.log(ndimage.uniform_filter(np.sqrt(energy), 5) + LEAST)
    halved = inner.reshape(16, 2, 20, 2).mean(axis=(1, 3))
    # Away from the rim, where the two pad differently.
    np.testing.assert_allclose(found[0, 2:-2, 2:-2], halved[2:-2, 2:-2], rtol=1e-4)


def test_the_network_judges_at_half_size_and_turns_with_nothing():
    torch.manual_seed(0)
    network = DenseNet(torch.randn(2, 7, 7)).eval()
    with torch.inference_mode():
        assert network(torch.randn(2, 3, 64, 96)).shape == (2, 3, 32, 48)
    assert sum(p.numel() for p in network.parameters()) < 5e6


# Judging an image


@pytest.mark.parametrize("shape", [(70, 90), (33, 31), (16, 200)])
def test_judgements_have_the_image_s_size(detector, shape):
    colours = RNG.random((*shape, 3)).astype(np.float32)
    found = predict_dense(colours, detector)
    for values in (found.log_odds, found.radius, found.radius_error):
        assert values.shape == shape
        assert values.dtype == np.float32
        assert np.isfinite(values).all()
    assert found.radius.min() >= 0
    assert found.radius_error.min() > 0


def test_tiles_join_to_the_whole(detector, monkeypatch):
    """A tile with its halo says in its middle what the whole image says, but for the far view."""
    colours = ndimage.gaussian_filter(RNG.random((256, 320, 3)), (1, 1, 0)).astype(np.float32)
    whole = predict_dense(colours, detector).log_odds
    monkeypatch.setattr(dense, "TILE", 128)
    tiled = predict_dense(colours, detector).log_odds
    assert np.abs(tiled - whole).max() < 0.25 * whole.std() + 1e-3


def test_standardise_knows_neither_brightness_nor_contrast():
    def standardised(image):
        return standardise(image, image.mean(), image.std())

    once, again = standardised(COLOURS), standardised(3 * COLOURS + 0.2)
    np.testing.assert_allclose(again / again.std(), once / once.std(), atol=1e-3)
    assert abs(once.mean()) < 1e-3
    assert not standardised(np.full((4, 4, 3), 0.7, np.float32)).any()


def test_stops_before_a_tile(detector):
    from napari_defocus.core.progress import Stopped

    with pytest.raises(Stopped):
        predict_dense(COLOURS, detector, should_stop=lambda: True)


# Files


def test_files_keep_a_detector_in_half_precision(detector, file):
    loaded = load_dense(file)
    assert loaded.record == {"random": True}
    for name, values in detector.weights.items():
        assert loaded.weights[name].dtype == np.float16
        np.testing.assert_allclose(loaded.weights[name], values, rtol=2e-3, atol=1e-4)
    np.testing.assert_allclose(
        predict_dense(COLOURS, loaded).log_odds,
        predict_dense(COLOURS, detector).log_odds,
        atol=0.05,
    )


def test_other_files_are_refused(tmp_path):
    with pytest.raises(DefocusError, match="no such file"):
        load_dense(tmp_path / "none.safetensors")
    save_metric(load_metric(), tmp_path / "metric.safetensors")
    with pytest.raises(DefocusError, match="holds a metric, a dense detector is needed"):
        load_dense(tmp_path / "metric.safetensors")


@pytest.mark.parametrize("damage", ["missing", "shape", "nan"])
def test_weights_that_do_not_fit_are_refused(detector, tmp_path, damage):
    weights = dict(detector.weights)
    if damage == "missing":
        del weights["judge.bias"]
    elif damage == "shape":
        weights["judge.bias"] = np.zeros(5, np.float32)
    else:
        weights["judge.bias"] = np.full(3, np.nan, np.float32)
    save_dense(DenseDetector(weights), tmp_path / "a.safetensors")
    with pytest.raises(DefocusError, match=r"do not fit|no finite"):
        network_session(load_dense(tmp_path / "a.safetensors"))


# In detection


def test_detection_tells_blur_confidence_and_radius(file):
    found = detect(COLOURS, config=DetectionConfig(detector=str(file)))
    for values in (found.blur, found.confidence, found.radius, found.radius_error):
        assert values.shape == COLOURS.shape[:2]
        assert values.dtype == np.float32
        assert np.isfinite(values).all()
    assert found.confidence.min() >= 0
    assert found.confidence.max() <= 1
    assert not found.confidence[found.mask == UNLABELLED].any()


def test_the_metric_tells_confidence_but_no_radius():
    found = detect(COLOURS, config=DetectionConfig(detector="metric"))
    assert found.confidence.shape == COLOURS.shape[:2]
    assert found.radius is None


def test_auto_is_dense_but_for_a_metric_of_one_s_own(metric, monkeypatch):
    assert choose_detector(load_metric(), DetectionConfig()).network == "dense"
    assert choose_detector(metric, DetectionConfig()).network is None
    assert choose_detector(load_metric(), DetectionConfig(scale="image")).network is None
    assert choose_detector(metric, DetectionConfig(detector="dense")).network == "dense"
    monkeypatch.setattr("napari_defocus.detection.detectors.find_spec", lambda name: None)
    assert choose_detector(load_metric(), DetectionConfig()).network is None


def test_the_type_of_the_image_does_not_matter(file):
    config = DetectionConfig(detector=str(file))
    image = (255 * COLOURS).astype(np.uint8)
    expected = detect(image, config=config).blur
    for other in (image.astype(np.uint16) * 257, image / 255, image.astype(np.float32) - 1000):
        np.testing.assert_allclose(detect(other, config=config).blur, expected, atol=0.01)


def test_grey_and_colours_that_are_grey_are_the_same(file):
    config = DetectionConfig(detector=str(file))
    grey = (255 * COLOURS[..., 0]).astype(np.uint8)
    threefold = np.repeat(grey[..., np.newaxis], 3, axis=2)
    np.testing.assert_allclose(
        detect(grey, config=config).blur, detect(threefold, config=config).blur, atol=1e-3
    )


def test_stacks_are_worked_through_plane_by_plane(file):
    config = DetectionConfig(detector=str(file))
    stack = np.stack([COLOURS[..., 0], COLOURS[..., 1]])
    found = detect(stack, config=config, axes="ZYX")
    assert found.radius.shape == stack.shape
    np.testing.assert_array_equal(found.radius[1], detect(stack[1], config=config).radius)


def test_what_shows_no_structure_is_undecided_whatever_the_network_says(file):
    image = np.full((96, 128), 0.5, np.float32)
    image[:, :40] = 20 * (ndimage.gaussian_filter(RNG.random((96, 40)), 3) - 0.5) + 0.5
    found = detect(image, config=DetectionConfig(detector=str(file)))
    assert (found.mask[:, 80:] == UNLABELLED).all()
    assert (found.mask[:, :32] != UNLABELLED).all()


def test_the_network_judges_alone(file, metric):
    config = DetectionConfig(detector=str(file))
    one, other = (
        predict_plane(COLOURS, choose_detector(given, config), config)
        for given in (load_metric(), metric)
    )
    np.testing.assert_array_equal(one.score, other.score)
    np.testing.assert_array_equal(one.valid, other.valid)


def test_a_detector_that_is_no_file_is_named():
    with pytest.raises(DefocusError, match="nowhere"):
        detect(COLOURS, config=DetectionConfig(detector="nowhere"))


# The command line


def test_detect_writes_confidence_and_radius(file, tmp_path):
    write_tiff(tmp_path / "a.tif", COLOURS[..., 0], axes="YX", pixel_size_um=0.5)
    words = ["detect", str(tmp_path / "a.tif"), "--out", str(tmp_path / "o")]
    assert cli.main([*words, "--detector", str(file), "--radius", "--confidence"]) == 0
    written = read_image(tmp_path / "o" / "a.radius_um.tif")
    found = detect(COLOURS[..., 0], config=DetectionConfig(detector=str(file)))
    np.testing.assert_allclose(written.data, 0.5 * found.radius, rtol=1e-5)
    pixels = read_image(tmp_path / "o" / "a.radius_px.tif").data
    np.testing.assert_array_equal(pixels, found.radius)
    for unit in ("px", "um"):
        assert (tmp_path / "o" / f"a.radius_error_{unit}.tif").exists()
    confidence = read_image(tmp_path / "o" / "a.confidence.tif").data
    np.testing.assert_array_equal(confidence, found.confidence)


def test_a_radius_needs_the_dense_detector(tmp_path, capsys):
    write_tiff(tmp_path / "a.tif", COLOURS[..., 0], axes="YX")
    words = ["detect", str(tmp_path / "a.tif"), "--out", str(tmp_path / "o"), "--radius"]
    words += ["--detector", "metric"]
    assert cli.main(words) == 2
    assert "--detector dense" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_the_package_brings_a_detector():
    found = cached_dense()
    assert found.record["averaged"] == {"all": 0.7, "no_szu": 0.3}
    assert len(found.digest) == 16


def test_the_digest_names_weights_and_correction(detector):
    def changed(name):
        return {**detector.weights, name: detector.weights[name] + 1}

    others = [
        DenseDetector(changed("judge.bias"), detector.record),
        DenseDetector(changed("judge.weight"), detector.record),
        DenseDetector(detector.weights, {"radius": {"told": [1.0], "true": [2.0]}}),
    ]
    assert len({detector.digest, *(other.digest for other in others)}) == 4
    assert DenseDetector(detector.weights, {"author": "other"}).digest == detector.digest


def test_a_file_is_read_again_only_when_it_changed(file, detector):
    first = cached_dense(file)
    assert cached_dense(file) is first
    save_dense(DenseDetector(detector.weights, {"again": 1}), file)
    os.utime(file, ns=(1, 1))
    assert cached_dense(file).record == {"again": 1}
    file.unlink()
    with pytest.raises(DefocusError, match="no such file"):
        cached_dense(file)


def test_loading_weights_changes_no_constant_of_others():
    before = LUMINANCE.copy()
    response = MetricResponse(torch.zeros(2, 7, 7))
    state = {name: torch.zeros_like(value) for name, value in response.state_dict().items()}
    response.load_state_dict(state)
    np.testing.assert_array_equal(LUMINANCE, before)
