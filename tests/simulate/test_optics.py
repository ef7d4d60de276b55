import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, signal

from napari_defocus.simulate.optics import (
    RADIUS_STEP,
    Camera,
    Scene,
    composite,
    defocus,
    defocus_varying,
    disc,
    expose,
    random_outline,
    render_layers,
    to_light,
)

RADII = st.floats(0, 20)
# Records light as it is, but for 8 bits and gamma.
PERFECT = Camera(softness=0.0, electrons=1e12, read_noise=0.0)


def random_light(shape=(40, 50), seed=0):
    return np.random.default_rng(seed).random(shape).astype(np.float32)


# The disc


@given(RADII)
def test_disc_sums_to_1_and_looks_the_same_from_all_sides(radius):
    kernel = disc(radius)
    assert kernel.dtype == np.float32
    assert kernel.shape[0] == kernel.shape[1]
    assert kernel.shape[0] % 2 == 1
    assert kernel.min() >= 0
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_array_equal(kernel, np.rot90(kernel))
    np.testing.assert_array_equal(kernel, kernel[::-1])


def test_disc_of_radius_0_is_one_pixel():
    np.testing.assert_array_equal(disc(0.0), [[1]])


@given(st.floats(3, 30))
def test_area_of_the_disc_grows_with_its_square(radius):
    kernel = disc(radius)
    area = (kernel >= kernel.max() / 2).sum()
    # A circle on a grid: off by some pixels of its rim.
    assert area == pytest.approx(np.pi * radius**2, abs=2.5 * radius)


@given(st.floats(2, 20))
def test_disc_spreads_light_as_a_uniform_disc_does(radius):
    kernel = disc(radius).astype(float)
    offset = np.arange(len(kernel)) - len(kernel) // 2
    variance = (kernel.sum(axis=0) * offset**2).sum()
    # The variance of a disc along an axis, and that of a pixel.
    assert variance == pytest.approx(radius**2 / 4 + 1 / 12, rel=0.05, abs=0.1)


@given(st.floats(0, 20), st.floats(0.3, 5))
def test_larger_disc_is_fainter_in_the_middle(radius, more):
    middle, fainter = (disc(r)[(int(np.ceil(r)),) * 2] for r in (radius, radius + more))
    assert fainter <= middle


# Defocus


@settings(deadline=None)
@given(st.floats(0.1, 8), st.sampled_from([(20, 30), (20, 30, 3)]))
def test_constant_light_stays(radius, shape):
    light = np.full(shape, 0.3, np.float32)
    blurred = defocus(light, radius)
    assert blurred.shape == shape
    assert blurred.dtype == np.float32
    np.testing.assert_allclose(blurred, light, atol=1e-5)


def test_radius_0_changes_nothing():
    light = random_light()
    np.testing.assert_array_equal(defocus(light, 0.0), light)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.6, 9))
def test_defocus_is_convolution_with_the_disc(radius):
    light = random_light()
    kernel = disc(radius)
    half = len(kernel) // 2
    expected = signal.convolve2d(light, kernel, mode="valid")
    inside = defocus(light, radius)[half:-half, half:-half]
    np.testing.assert_allclose(inside, expected, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.6, 9))
def test_light_is_mirrored_at_the_border(radius):
    light = random_light()
    expected = ndimage.convolve(light, disc(radius), mode="mirror")
    np.testing.assert_allclose(defocus(light, radius), expected, atol=1e-5)


def test_defocus_neither_makes_nor_takes_light():
    light = np.zeros((60, 60), np.float32)
    light[20:40, 20:40] = random_light((20, 20))
    assert defocus(light, 7.0).sum() == pytest.approx(light.sum(), rel=1e-5)


def test_colours_are_blurred_apart():
    light = random_light((30, 30, 3))
    blurred = defocus(light, 2.5)
    for channel in range(3):
        expected = defocus(light[..., channel], 2.5)
        np.testing.assert_allclose(blurred[..., channel], expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(40, 50), (40, 50, 3)])
@pytest.mark.parametrize("radius", [0.0, RADIUS_STEP, 2.0, 4.5])
def test_constant_radius_on_the_grid_is_plain_defocus(shape, radius):
    light = random_light(shape)
    varying = defocus_varying(light, np.full(shape[:2], radius, np.float32))
    np.testing.assert_allclose(varying, defocus(light, radius), atol=1e-6)


def test_radius_between_steps_gives_light_between():
    light = random_light()
    low, high = defocus(light, 2.0), defocus(light, 2.5)
    between = defocus_varying(light, np.full(light.shape, 2.125, np.float32))
    np.testing.assert_allclose(between, 0.75 * low + 0.25 * high, atol=1e-5)


def test_varying_radius_blurs_each_side_by_its_own():
    light = random_light((40, 80))
    radius = np.repeat([[0.0] * 40 + [4.0] * 40], 40, axis=0).astype(np.float32)
    blurred = defocus_varying(light, radius)
    np.testing.assert_allclose(blurred[:, :40], light[:, :40], atol=1e-6)
    np.testing.assert_allclose(blurred[:, 40:], defocus(light, 4.0)[:, 40:], atol=1e-5)


# Layers


@pytest.mark.parametrize("shape", [(40, 50), (40, 50, 3)])
@pytest.mark.parametrize("alpha", [0, 1])
def test_one_layer_alone_is_plain_defocus(shape, alpha):
    back, front = random_light(shape, 0), random_light(shape, 1)
    seen = composite(back, front, np.full(shape[:2], alpha, np.float32), 3.0, 1.5)
    expected = defocus(front, 1.5) if alpha else defocus(back, 3.0)
    assert seen.shape == shape
    np.testing.assert_allclose(seen, expected, atol=1e-5)


def half_covered(shape=(40, 60)):
    alpha = np.zeros(shape, np.float32)
    alpha[:, : shape[1] // 2] = 1
    return alpha


def test_blurred_front_rim_lets_the_back_through():
    white, black = np.ones((40, 60), np.float32), np.zeros((40, 60), np.float32)
    row = composite(black, white, half_covered(), 0.0, 6.0)[20]
    assert row[20] == pytest.approx(1, abs=1e-5)
    assert row[40] == pytest.approx(0, abs=1e-5)
    rim = row[25:35]
    assert ((rim > 0.01) & (rim < 0.99)).all()
    assert (np.diff(row[23:37]) < 0).all()
    assert row[29:31].mean() == pytest.approx(0.5, abs=1e-3)


def test_sharp_front_hides_a_blurred_back():
    back, front = random_light((40, 60), 0), random_light((40, 60), 1)
    seen = composite(back, front, half_covered(), 6.0, 0.0)
    np.testing.assert_allclose(seen[:, :30], front[:, :30], atol=1e-6)
    np.testing.assert_allclose(seen[:, 30:], defocus(back, 6.0)[:, 30:], atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.floats(0, 6), st.floats(0, 6), st.integers(0, 99))
def test_layers_of_the_same_light_show_no_rim(back_radius, front_radius, seed):
    light = np.full((40, 40), 0.4, np.float32)
    alpha = random_outline((40, 40), np.random.default_rng(seed))
    seen = composite(light, light, alpha, back_radius, front_radius)
    np.testing.assert_allclose(seen, light, atol=1e-5)


@given(st.integers(0, 999))
def test_outline_covers_a_third_to_two_thirds(seed):
    alpha = random_outline((32, 48), np.random.default_rng(seed))
    assert alpha.shape == (32, 48)
    assert set(np.unique(alpha)) == {0, 1}
    assert 0.3 < alpha.mean() < 0.7


# The camera


def test_8_bit_images_are_exposed_as_they_were():
    image = np.arange(256, dtype=np.uint8).reshape(16, 16)
    exposed = expose(to_light(image), PERFECT, np.random.default_rng(0))
    np.testing.assert_allclose(exposed, image.astype(int), atol=1)
    assert exposed.dtype == np.uint8


def test_light_is_the_image_to_the_power_of_gamma():
    light = to_light(np.array([[0, 128, 255]], np.uint8))
    np.testing.assert_allclose(light, [[0, (128 / 255) ** 2.2, 1]], rtol=1e-5)
    assert light.dtype == np.float32


@pytest.mark.parametrize("level", [0.15, 0.3, 0.6])
@pytest.mark.parametrize(("electrons", "read_noise"), [(150, 0.0), (300, 0.05), (1e9, 0.04)])
def test_noise_is_that_of_photons_and_of_reading(level, electrons, read_noise):
    camera = Camera(softness=0.0, electrons=electrons, read_noise=read_noise)
    light = np.full((300, 300), level, np.float32)
    recorded = to_light(expose(light, camera, np.random.default_rng(1))).astype(float)
    assert recorded.mean() == pytest.approx(level, abs=0.003)
    assert recorded.var() == pytest.approx(level / electrons + read_noise**2, rel=0.05)


def test_softness_blurs_the_light_but_not_the_noise():
    light = np.zeros((64, 64), np.float32)
    light[:, 32:] = 0.5
    soft = to_light(expose(light, Camera(2.0, 1e12, 0.0), np.random.default_rng(0)))
    np.testing.assert_allclose(soft, ndimage.gaussian_filter(light, 2.0), atol=0.01)
    flat = np.full((200, 200), 0.4, np.float32)
    noisy = to_light(expose(flat, Camera(2.0, 200, 0.0), np.random.default_rng(0))) - 0.4
    neighbours = (noisy[:, 1:] * noisy[:, :-1]).mean() / noisy.var()
    assert abs(neighbours) < 0.03


def test_softness_does_not_mix_colours():
    light = np.zeros((20, 20, 3), np.float32)
    light[..., 1] = 0.5
    exposed = expose(light, Camera(3.0, 1e9, 0.0), np.random.default_rng(0))
    assert exposed[..., [0, 2]].max() == 0
    assert np.ptp(exposed[..., 1].astype(int)) <= 1


def test_light_out_of_range_is_clipped():
    light = np.array([[-1.0, 0.0, 1.0, 5.0]], np.float32)
    exposed = expose(light, PERFECT, np.random.default_rng(0))
    np.testing.assert_array_equal(exposed, [[0, 0, 255, 255]])


@pytest.mark.parametrize("shape", [(64, 64), (64, 64, 3)])
def test_lower_jpeg_quality_loses_more(shape):
    light = defocus(random_light(shape), 1.0)
    images = {
        quality: expose(light, Camera(jpeg_quality=quality), np.random.default_rng(0)).astype(int)
        for quality in (None, 95, 60, 10)
    }
    assert {image.shape for image in images.values()} == {shape}
    errors = [np.abs(images[quality] - images[None]).mean() for quality in (95, 60, 10)]
    assert 0 < errors[0] < errors[1] < errors[2] < 60


def test_exposure_depends_on_its_source_of_chance_alone():
    light = random_light()
    first, again, other = (
        expose(light, Camera(electrons=200), np.random.default_rng(seed)) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


# Scenes


def test_annotation_leaves_out_what_people_disagree_on():
    radius = np.array([[0, 0.5, 0.51, 1.0, 1.49, 1.5, 9]], np.float32)
    scene = Scene(np.zeros(radius.shape, np.uint8), radius)
    np.testing.assert_array_equal(scene.annotation, [[2, 2, 0, 0, 0, 1, 1]])
    assert scene.annotation.dtype == np.uint8


@pytest.mark.parametrize("shape", [(48, 64), (48, 64, 3)])
def test_layers_are_rendered_with_one_of_them_in_focus(shape):
    rng = np.random.default_rng(0)
    back, front = (rng.integers(0, 256, shape, np.uint8) for _ in range(2))
    in_focus = set()
    for seed in range(12):
        outline = random_outline(shape[:2], np.random.default_rng(seed))
        scene = render_layers(back, front, 3.0, PERFECT, np.random.default_rng(seed))
        assert scene.image.shape == shape
        assert scene.image.dtype == np.uint8
        assert set(np.unique(scene.radius)) == {0, 3}
        which = "front" if (scene.radius[outline > 0] == 0).all() else "back"
        in_focus.add(which)
        sharp = scene.radius == 0
        np.testing.assert_array_equal(sharp, outline == (which == "front"))
        # Away from a blurred front's rim, what is in focus is seen as it is.
        inside = ndimage.binary_erosion(sharp, iterations=6)
        true = (front if which == "front" else back)[inside].astype(int)
        assert np.abs(scene.image[inside] - true).max(initial=0) <= 1
    assert in_focus == {"front", "back"}
