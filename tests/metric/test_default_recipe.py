import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_defocus.metric.default_recipe import (
    PICTURES,
    RecipeConfig,
    load_picture,
    random_crop,
    render_scenes,
    textured_annotation,
    train_default,
)
from napari_defocus.metric.fitting import FitConfig
from napari_defocus.metric.local_metric import load_metric, save_metric
from napari_defocus.metric.nets import TrainingConfig, load_base, save_nets
from napari_defocus.simulate.optics import Scene

TRAINING = TrainingConfig(base="none", nets=1, kernels=4, epochs=2, batch=16, device="cpu")
RECIPE = RecipeConfig(scenes=3, size=160, radius=(3, 6), seed=2, fit=FitConfig(training=TRAINING))


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def scenes():
    return list(render_scenes(RECIPE))


@pytest.fixture(scope="module")
def made():
    """Metric of the tiny recipe, its nets, and the events on the way."""
    events = []
    return *train_default(RECIPE, on_event=events.append), events


# Pictures


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_come_with_packages(name):
    picture = load_picture(name)
    assert picture.dtype == np.uint8
    assert picture.ndim == 2 or picture.shape[2:] == (3,)
    assert min(picture.shape[:2]) >= 300
    assert picture.std() > 10


def test_recipe_has_no_picture_twice():
    assert len(set(PICTURES)) == len(PICTURES) > 5


@pytest.mark.parametrize("shape", [(300, 200), (200, 300, 3), (40, 500)])
def test_crop_is_a_grey_square(shape):
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, shape, np.uint8)
    crop = random_crop(picture, RecipeConfig(size=96), rng)
    assert crop.shape == (96, 96)
    assert crop.dtype == np.uint8


def test_crop_keeps_brightness():
    colours = np.zeros((200, 200, 3), np.uint8)
    colours[...] = (200, 100, 50)
    crop = random_crop(colours, RecipeConfig(size=64), np.random.default_rng(0))
    # Rec. 709 luminance.
    assert np.abs(crop - (0.2125 * 200 + 0.7154 * 100 + 0.0721 * 50)).max() < 1


def test_crop_is_reduced_by_the_factor_asked_for():
    # A ramp of one grey value a pixel shows the scale.
    ramp = np.tile(np.arange(200, dtype=np.uint8), (200, 1))
    config = RecipeConfig(size=50, reduction=(2.0, 2.0))
    crop = random_crop(ramp, config, np.random.default_rng(0)).astype(float)
    steps = np.abs(np.diff(crop[25, 5:-5]))
    assert steps.mean() == pytest.approx(2, abs=0.1)


# Scenes


def test_scenes_are_the_same_for_the_same_seed(scenes):
    again = list(render_scenes(RECIPE))
    assert [name for name, _ in again] == [name for name, _ in scenes]
    for (_, scene), (_, other) in zip(again, scenes, strict=True):
        np.testing.assert_array_equal(scene.image, other.image)
        np.testing.assert_array_equal(scene.radius, other.radius)


def test_scenes_differ_with_the_seed_and_from_each_other(scenes):
    other = list(render_scenes(replace(RECIPE, seed=3)))
    images = [scene.image for _, scene in [*scenes, *other]]
    for index, image in enumerate(images):
        assert all((image != later).any() for later in images[index + 1 :])


def test_more_scenes_begin_with_the_same(scenes):
    name, scene = next(render_scenes(replace(RECIPE, scenes=40)))
    assert name == scenes[0][0]
    np.testing.assert_array_equal(scene.image, scenes[0][1].image)


def test_scenes_are_as_the_recipe_says(scenes):
    assert len(scenes) == 3
    assert len({name for name, _ in scenes}) == 3
    for name, scene in scenes:
        assert scene.image.shape == scene.radius.shape == (160, 160)
        assert scene.image.dtype == np.uint8
        radii = np.unique(scene.radius)
        assert radii[0] == 0
        assert len(radii) == 2
        assert 3 <= radii[1] <= 6
        back, front = name.split(" ", 1)[1].split(" behind ")
        assert {back, front} <= set(PICTURES)
        assert back != front


# Annotation


def test_flat_areas_are_not_labelled():
    image = np.full((120, 240), 128, np.uint8)
    image[:, :120] = np.kron(np.indices((20, 20)).sum(axis=0) % 2, np.full((6, 6), 255))
    radius = np.zeros(image.shape, np.float32)
    radius[60:] = 4
    labels = textured_annotation(Scene(image, radius), 0.02)
    assert (labels[:, 160:] == 0).all()
    assert (labels[:60, :100] == 2).all()
    assert (labels[60:, :100] == 1).all()
    np.testing.assert_array_equal(textured_annotation(Scene(image, radius), 0.0)[:60], 2)


def test_more_texture_asked_for_labels_less(scenes):
    for _, scene in scenes:
        all_labels, some, few = (textured_annotation(scene, t) for t in (0.0, 0.02, 0.05))
        np.testing.assert_array_equal(all_labels, scene.annotation)
        assert set(np.unique(some)) <= {0, 1, 2}
        np.testing.assert_array_equal(some[some > 0], all_labels[some > 0])
        np.testing.assert_array_equal(few[few > 0], some[few > 0])
        assert (few > 0).sum() < (all_labels > 0).sum()


# The recipe


def test_tiny_recipe_makes_a_metric_that_tells_sharp_from_blurred(made):
    metric, _, _ = made
    assert metric.filters.shape == (2, 7, 7)
    assert metric.record["held_out"]["auc"] > 0.85


def test_record_tells_the_recipe(made, tmp_path):
    metric, _, _ = made
    recipe = metric.record["recipe"]
    assert recipe["pictures"] == list(PICTURES)
    assert recipe["command"] == "napari-defocus train-default"
    assert (recipe["scenes"], recipe["size"], recipe["seed"]) == (3, 160, 2)
    assert metric.record["sources"] == 3
    path = tmp_path / "metric.safetensors"
    save_metric(metric, path)
    loaded = load_metric(path)
    assert loaded.record == json.loads(json.dumps(dict(metric.record)))
    assert loaded.digest == metric.digest


def test_recipe_is_repeatable(made):
    metric, _, _ = made
    assert train_default(RECIPE)[0].digest == metric.digest
    assert train_default(replace(RECIPE, seed=6))[0].digest != metric.digest


def test_nets_are_trained_after_rendering(made):
    metric, _, events = made
    assert [(event.stage, event.done, event.total) for event in events] == [
        *[("rendering scenes", done, 3) for done in (1, 2, 3)],
        *[("training net 1 of 1", done, 2) for done in (1, 2)],
    ]
    assert metric.record["method"] == "nets"
    assert metric.record["complete"] is True
    assert metric.record["recipe"]["scenes"] == 3


def test_nets_of_the_recipe_are_a_base(made, tmp_path):
    metric, nets, _ = made
    save_nets(nets, tmp_path / "base.safetensors")
    base = load_base(replace(TRAINING, base=str(tmp_path / "base.safetensors")))
    np.testing.assert_array_equal(base.kernels.reshape(metric.kernels.shape), metric.kernels)
    assert base.training.counts() == nets.training.counts()


def test_stops_while_it_renders():
    events = []
    metric = train_default(RECIPE, on_event=events.append, should_stop=lambda: len(events) >= 1)
    assert metric is None
    assert len(events) == 1


def test_stops_while_it_trains():
    events = []
    metric = train_default(RECIPE, on_event=events.append, should_stop=lambda: len(events) >= 3)
    assert metric is None
    assert len(events) == 3
