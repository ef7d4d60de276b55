import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import signal

from napari_defocus.core.errors import DefocusError
from napari_defocus.simulate import scenes
from napari_defocus.simulate.config import SceneConfig
from napari_defocus.simulate.scenes import (
    RADII,
    Layer,
    blur_varying,
    point_spread,
    read_book,
    render_scene,
)

APERTURES = ["disc", "blades", "gaussian"]
CONFIG = SceneConfig(size=96)


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """Two noisy backgrounds and two opaque objects with a transparent border."""
    folder = tmp_path_factory.mktemp("book")
    rng = np.random.default_rng(0)
    for name in ("backgrounds", "objects"):
        (folder / name).mkdir()
    for index in range(2):
        values = rng.integers(0, 256, (240, 300, 3), np.uint8)
        Image.fromarray(values).save(folder / "backgrounds" / f"{index}.png")
        cut = np.dstack([values[:80, :60], np.zeros((80, 60), np.uint8)])
        cut[5:75, 5:55, 3] = 255
        Image.fromarray(cut, "RGBA").save(folder / "objects" / f"{index}.png")
    return read_book(folder)


# The point spread


@pytest.mark.parametrize("aperture", APERTURES)
@given(radius=st.floats(1.5, 22))
def test_every_aperture_is_as_wide_as_the_disc(aperture, radius):
    kernel = point_spread(radius, aperture).astype(np.float64)
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    half = kernel.shape[0] // 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    # The mean square distance from the centre of a disc is half its squared radius.
    assert (kernel * (x * x + y * y)).sum() == pytest.approx(
        radius**2 / 2, rel=0.05, abs=0.25 * radius
    )


@pytest.mark.parametrize("aperture", APERTURES)
@pytest.mark.parametrize("radius", RADII[1:])
def test_an_even_radius_is_one_convolution(aperture, radius):
    values = np.random.default_rng(1).random((48, 40, 2)).astype(np.float32)
    kernel = point_spread(radius, aperture)
    half = kernel.shape[0] // 2
    padded = np.pad(values, ((half, half), (half, half), (0, 0)), mode="reflect")
    by_hand = [signal.convolve2d(padded[..., c], kernel, mode="valid") for c in range(2)]
    blurred = blur_varying(values, np.full((48, 40), radius, np.float32), aperture)
    np.testing.assert_allclose(blurred, np.stack(by_hand, -1), atol=2e-5)


def test_no_radius_changes_nothing():
    values = np.random.default_rng(2).random((20, 30, 4)).astype(np.float32)
    np.testing.assert_array_equal(blur_varying(values, np.zeros((20, 30), np.float32)), values)


@given(low=st.floats(0, 10), high=st.floats(0, 22))
@settings(max_examples=20)
def test_a_varying_radius_keeps_an_even_light_even(low, high):
    radius = np.linspace(low, high, 30 * 20).reshape(30, 20).astype(np.float32)
    light = np.full((30, 20, 1), 0.3, np.float32)
    np.testing.assert_allclose(blur_varying(light, radius), light, atol=1e-5)


# Layers


def layer(value, cover, nearness=0.0):
    cover = np.asarray(cover, np.float32)
    light = np.full((*cover.shape, 3), value, np.float32) * cover[..., np.newaxis]
    return Layer(light, cover, np.full(cover.shape, nearness, np.float32))


def test_a_sharp_front_layer_hides_what_is_behind():
    cover = np.zeros((40, 40))
    cover[10:30, 10:30] = 1
    layers = [layer(0.2, np.ones((40, 40))), layer(0.9, cover)]
    radii = [np.full((40, 40), 6.0, np.float32), np.zeros((40, 40), np.float32)]
    light, radius = scenes._photograph(layers, radii, "disc")
    np.testing.assert_allclose(light[..., 0], np.where(cover, 0.9, 0.2), atol=1e-5)
    np.testing.assert_array_equal(radius, np.where(cover, 0, 6))


def test_at_the_rim_of_a_blurred_front_layer_nobody_can_say():
    cover = np.zeros((60, 60))
    cover[:, 30:] = 1
    layers = [layer(0.0, np.ones((60, 60))), layer(1.0, cover)]
    radii = [np.zeros((60, 60), np.float32), np.full((60, 60), 8.0, np.float32)]
    light, radius = scenes._photograph(layers, radii, "disc")
    middle = radius[30]
    assert np.isnan(middle[27:33]).all()
    assert (middle[:20] == 0).all()
    assert (middle[40:] == 8).all()
    # The light rises over the width of the disc.
    assert light[30, 21, 0] < 0.02
    assert 0.4 < light[30, 30, 0] < 0.6


def test_radii_grow_with_the_distance_from_the_focus():
    layers = [layer(0.1, np.ones((8, 8)), nearness) for nearness in (0.0, 0.4, 1.0)]
    for seed in range(40):
        config = SceneConfig(size=8, wholly_sharp=0, wholly_blurred=0)
        radii = scenes._radii(layers, config, np.random.default_rng(seed))
        assert min(r.min() for r in radii) >= 0
        assert max(r.max() for r in radii) <= RADII[-1]
        # Equal steps of inverse depth: from 0 to .4 the radius changes by no more than 4 / 10.
        assert abs(radii[1] - radii[0]).max() <= 0.4 * config.aperture[1] + 1e-4


def test_wholly_sharp_and_wholly_blurred_scenes():
    layers = [layer(0.1, np.ones((8, 8)), nearness) for nearness in (0.0, 1.0)]
    rng = np.random.default_rng(0)
    sharp = scenes._radii(layers, SceneConfig(wholly_sharp=1, wholly_blurred=0), rng)
    assert all((radius == 0).all() for radius in sharp)
    blurred = scenes._radii(layers, SceneConfig(wholly_sharp=0, wholly_blurred=1), rng)
    assert all((radius >= 2.5).all() for radius in blurred)


# Scenes


@pytest.mark.parametrize("seed", range(12))
def test_scenes_are_images_with_known_radii(book, seed):
    scene = render_scene(book, CONFIG, np.random.default_rng(seed))
    assert scene.image.shape == (96, 96, 3)
    assert scene.image.dtype == np.uint8
    assert scene.radius.shape == (96, 96)
    known = scene.radius[np.isfinite(scene.radius)]
    assert known.size
    assert known.min() >= 0
    again = render_scene(book, CONFIG, np.random.default_rng(seed))
    np.testing.assert_array_equal(scene.image, again.image)
    np.testing.assert_array_equal(scene.radius, again.radius)


def test_a_book_without_objects_is_refused(tmp_path):
    (tmp_path / "backgrounds").mkdir()
    Image.new("RGB", (10, 10)).save(tmp_path / "backgrounds" / "a.png")
    with pytest.raises(DefocusError, match="objects has no"):
        read_book(tmp_path)
