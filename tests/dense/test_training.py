from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from napari_defocus.cli import main as cli
from napari_defocus.core.errors import DefocusError
from napari_defocus.core.progress import ignore_event, never_stop
from napari_defocus.dense.config import DenseConfig
from napari_defocus.dense.detector import RADIUS_OFFSET, load_dense
from napari_defocus.dense.inference import predict_dense
from napari_defocus.dense.network import DenseNet
from napari_defocus.dense.training import (
    BLURRED_FROM,
    SHARP_UP_TO,
    RenderedScenes,
    _train_once,
    dense_losses,
    random_crops,
    read_scenes,
    render_scenes,
    train_dense,
)
from napari_defocus.metric.local_metric import load_metric
from napari_defocus.simulate.config import SceneConfig
from napari_defocus.simulate.optics import disc, spread
from napari_defocus.simulate.scenes import read_book

TINY = DenseConfig(
    scenes=4, scene=SceneConfig(size=96), steps=3, batch=2, crop=64, warm_up=1, runs=1
)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    folder = tmp_path_factory.mktemp("book")
    rng = np.random.default_rng(0)
    for name, channels in (("backgrounds", 3), ("objects", 4)):
        (folder / name).mkdir()
        values = rng.integers(0, 256, (120, 140, channels), np.uint8)
        Image.fromarray(values).save(folder / name / "a.png")
    return folder


@pytest.fixture(scope="module")
def halves():
    """Noisy pictures, left halves sharp, right halves blurred by a disc of 4 pixels."""
    rng = np.random.default_rng(0)
    images = np.empty((6, 96, 96, 3), np.uint8)
    radii = np.zeros((6, 96, 96), np.float16)
    radii[..., 48:] = 4
    for image in images:
        light = rng.random((96, 96, 3)).astype(np.float32)
        light[:, 48:] = spread(light, disc(4))[:, 48:]
        image[:] = 255 * light
    return RenderedScenes(images, radii)


# Losses


def test_losses_are_those_of_the_formulae():
    rng = np.random.default_rng(3)
    predicted = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
    # Even all over, so that doubling it by interpolation changes nothing.
    predicted[:] = predicted[:, :, :1, :1]
    radii = rng.choice([0.0, 0.6, 1.2, 3.0, np.nan], (2, 8, 10)).astype(np.float32)
    sharp_loss, radius_loss = dense_losses(torch.from_numpy(predicted), torch.from_numpy(radii))
    entropies, likelihoods = [], []
    for n, y, x in np.ndindex(radii.shape):
        log_odds, level, log_error = predicted[n, :, 0, 0].astype(np.float64)
        radius = radii[n, y, x]
        if np.isnan(radius):
            continue
        likelihoods.append(
            abs(level - np.log(radius + RADIUS_OFFSET)) * np.exp(-log_error) + log_error
        )
        if radius <= SHARP_UP_TO:
            entropies.append(np.log1p(np.exp(-log_odds)))
        elif radius >= BLURRED_FROM:
            entropies.append(np.log1p(np.exp(log_odds)))
    assert sharp_loss.item() == pytest.approx(np.mean(entropies), rel=1e-4)
    assert radius_loss.item() == pytest.approx(np.mean(likelihoods), rel=1e-4)


def test_nothing_known_costs_nothing():
    nobody = torch.full((1, 8, 8), torch.nan)
    losses = dense_losses(torch.randn(1, 3, 4, 4), nobody)
    assert [loss.item() for loss in losses] == [0, 0]


# Crops


def test_crops_stay_with_their_radii(halves):
    config = DenseConfig(crop=32, batch=16)
    images, radii = random_crops(halves, config, np.random.default_rng(0))
    assert images.shape == (16, 3, 32, 32)
    assert radii.shape == (16, 32, 32)
    rough = images.diff(dim=3).abs().mean(dim=1)
    sharp = radii[..., 1:] == 0
    assert rough[sharp].mean() > 5 * rough[~sharp].mean()


# Training


@pytest.mark.slow
def test_training_learns_what_is_sharp(halves):
    config = DenseConfig(runs=1, steps=40, batch=4, crop=64, warm_up=5, memory=0.9)
    events = []
    detector = train_dense(halves, load_metric(), None, config, on_event=events.append)
    log_odds = predict_dense(halves.images[0] / np.float32(255), detector).log_odds
    assert log_odds[:, :40].mean() > log_odds[:, 56:].mean() + 1
    assert detector.record["steps"] == [40]
    assert detector.record["metric"] == load_metric().digest


def test_the_same_seed_gives_the_same_weights(halves):
    first, second = (train_dense(halves, load_metric(), None, TINY) for _ in range(2))
    for name, values in first.weights.items():
        np.testing.assert_array_equal(values, second.weights[name])


def test_a_stop_keeps_what_was_trained(halves):
    config = replace(TINY, runs=3, steps=2)

    def stopped_after(asked):
        answers = iter([False] * asked + [True] * 9)
        return train_dense(halves, load_metric(), None, config, should_stop=lambda: next(answers))

    assert stopped_after(2).record["steps"] == [1]
    first = stopped_after(4)  # within the second, which is dropped
    assert first.record["steps"] == [2]
    alone = train_dense(halves, load_metric(), None, replace(config, runs=1))
    for name, values in alone.weights.items():
        np.testing.assert_array_equal(values, first.weights[name])
    with pytest.raises(DefocusError, match="nothing to keep"):
        stopped_after(0)


@pytest.mark.slow
def test_weights_of_several_runs_are_averaged(halves):
    both = train_dense(halves, load_metric(), None, replace(TINY, runs=2))
    first, other = (
        _train_once(halves, load_metric(), None, TINY, run, ignore_event, never_stop)[0]
        for run in (0, 1)
    )
    assert both.record["steps"] == [TINY.steps] * 2
    assert any((first[name] != other[name]).any() for name in first)
    for name, values in both.weights.items():
        np.testing.assert_allclose(values, (first[name] + other[name]) / 2, rtol=1e-6)


def test_scenes_are_the_same_on_one_process_and_two(book, tmp_path):
    for workers in (1, 2):
        render_scenes(read_book(book), tmp_path / str(workers), TINY, workers=workers)
    one, two = (read_scenes(tmp_path / str(workers), TINY) for workers in (1, 2))
    np.testing.assert_array_equal(one.images, two.images)
    np.testing.assert_array_equal(one.radii, two.radii)
    with pytest.raises(DefocusError, match="name another folder"):
        read_scenes(tmp_path / "1", DenseConfig())


@pytest.mark.slow
def test_the_command_trains_from_a_book(book, tmp_path, capsys):
    torch.save(_as_imagenet(), tmp_path / "imagenet.pth")
    words = ["train-dense", str(book), "--scenes-in", str(tmp_path / "scenes")]
    words += ["--imagenet", str(tmp_path / "imagenet.pth"), "--workers", "1"]
    words += ["--scenes", "2", "--runs", "1", "--steps", "1", "--batch", "1", "--crop", "64"]
    assert cli.main([*words, "--out", str(tmp_path / "d.safetensors")]) == 0
    assert load_dense(tmp_path / "d.safetensors").record["imagenet"] is True
    assert cli.main([*words, "--out", str(tmp_path / "d.safetensors")]) == 2
    assert "exists already" in capsys.readouterr().err


def _as_imagenet():
    """Give random weights under the names of the ImageNet file."""
    weights = {}

    def put(conv, norm, target):
        weights[f"{conv}.weight"] = torch.randn_like(target.weight)
        for part in ("weight", "bias", "running_mean", "running_var"):
            weights[f"{norm}.{part}"] = torch.rand(target.out_channels)

    backbone = DenseNet(torch.zeros(2, 7, 7)).backbone
    put("_conv_stem", "_bn0", backbone.stem)
    for index, block in enumerate(b for stage in backbone.stages for b in stage):
        name = f"_blocks.{index}."
        if block.expand is not None:
            put(name + "_expand_conv", name + "_bn0", block.expand)
        put(name + "_depthwise_conv", name + "_bn1", block.depthwise)
        put(name + "_project_conv", name + "_bn2", block.project)
    return weights


def test_missing_pictures_and_weights_are_named(book, tmp_path, capsys):
    words = ["train-dense", str(tmp_path / "no"), "--scenes-in", str(tmp_path / "s")]
    words += ["--out", str(tmp_path / "d.safetensors")]
    assert cli.main([*words, "--imagenet", str(tmp_path / "none.pth")]) == 2
    assert "none.pth: no such file" in capsys.readouterr().err
    torch.save({}, tmp_path / "empty.pth")
    assert cli.main([*words, "--imagenet", str(tmp_path / "empty.pth")]) == 2
    assert "nothing to render" in capsys.readouterr().err
