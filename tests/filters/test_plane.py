import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import optimize
from skimage import data
from skimage.color import rgb2gray

from napari_defocus.core.errors import DefocusError
from napari_defocus.filters.noise import (
    NOISE_FLOOR,
    _line_that_never_falls,
    estimate_noise,
    second_difference,
)
from napari_defocus.filters.plane import Plane, prepare_plane

CAMERA = data.camera()[96:224, 160:320]
COLOURS = data.astronaut()[:96, 128:256]


def assert_same_grey(image, expected, atol=1e-5):
    plane = prepare_plane(image)
    assert plane.grey.dtype == np.float32
    assert plane.grey.dtype.isnative
    assert plane.holes.dtype == np.bool_
    assert not plane.holes.any()
    np.testing.assert_allclose(plane.grey, prepare_plane(expected).grey, rtol=0, atol=atol)
    return plane


def strided(image):
    wide = np.zeros((2 * image.shape[0], 3 * image.shape[1]), image.dtype)
    wide[::2, ::3] = image
    return wide[::2, ::3]


@pytest.mark.parametrize(
    "convert",
    [
        lambda x: x.astype(np.uint16) * 257,
        lambda x: x.astype(np.uint32) << 20,
        lambda x: x.astype(np.uint64),
        lambda x: x.astype(np.int16) - 128,
        lambda x: x.astype(np.int64),
        lambda x: x / 255,
        lambda x: (x / 255).astype(np.float32),
        lambda x: x.astype(np.float16),
        lambda x: x.astype(">u2"),
        lambda x: x.astype(">f4"),
        lambda x: x.astype("<f8"),
        strided,
        np.asfortranarray,
        lambda x: x[::-1, ::-1].copy()[::-1, ::-1],
        lambda x: x[..., np.newaxis],
    ],
)
def test_type_and_layout_do_not_matter(convert):
    assert np.ptp(prepare_plane(CAMERA).grey) >= 1
    assert_same_grey(convert(CAMERA), CAMERA)


@pytest.mark.parametrize("threshold", [100, CAMERA.max() - 1])
@pytest.mark.parametrize("bright", [np.uint8(1), np.uint8(255), np.uint16(65535), 1.0])
def test_a_picture_of_two_levels_may_be_bool(threshold, bright):
    picture = threshold < CAMERA
    assert 0 < picture.sum() < picture.size
    plane = assert_same_grey(picture * bright, picture)
    np.testing.assert_array_equal(plane.grey, picture)


@given(
    hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=30)),
    st.floats(1e-3, 1e3),
    st.floats(-1e3, 1e3),
)
def test_gain_and_offset_do_not_matter(picture, gain, offset):
    values = picture.astype(np.float64)
    plain, changed = prepare_plane(values), prepare_plane(gain * values + offset)
    np.testing.assert_allclose(changed.grey, plain.grey, rtol=0, atol=1e-5)
    # A single pixel per block of noise: the fit may turn on the last bit.
    np.testing.assert_allclose(changed.noise, plain.noise, rtol=1e-2, atol=1e-7)


def test_percentiles_become_0_and_1():
    rng = np.random.default_rng(0)
    grey = prepare_plane(rng.gamma(2, 100, (200, 300))).grey
    np.testing.assert_allclose(np.percentile(grey, [0.1, 99.9]), [0, 1], atol=1e-5)
    assert grey.min() < 0
    assert grey.max() > 1


def test_percentiles_are_those_of_pixels_that_are_no_holes():
    whole = np.random.default_rng(0).normal(size=(100, 120))
    image = whole.copy()
    image[:, 40:] = np.nan
    grey = prepare_plane(image).grey
    np.testing.assert_allclose(grey[:, :40], prepare_plane(whole[:, :40]).grey, atol=1e-6)


def test_a_few_bright_pixels_on_black_are_not_lost():
    image = np.zeros((100, 100), np.uint16)
    image[30, 40] = 1000
    image[50, 60] = 500
    grey = prepare_plane(image).grey
    assert grey[30, 40] == 1
    assert grey[50, 60] == 0.5
    assert np.count_nonzero(grey) == 2


def test_a_glint_does_not_darken_the_rest():
    glint = CAMERA.astype(np.float64)
    glint[40, 50] = 1e9
    grey = prepare_plane(glint).grey
    assert grey[40, 50] == 1.5
    grey[40, 50] = prepare_plane(CAMERA).grey[40, 50]
    np.testing.assert_allclose(grey, prepare_plane(CAMERA).grey, atol=0.02)


@pytest.mark.parametrize("value", [0, 7, 0.1, -1e9, 1e300])
@pytest.mark.parametrize("shape", [(1, 1), (5, 9), (40, 40, 3)])
def test_a_constant_image_is_zero(value, shape):
    plane = prepare_plane(np.full(shape, value))
    assert plane.grey.shape == shape[:2]
    assert (plane.grey == 0).all()


def test_rounding_is_no_picture():
    rounding = np.random.default_rng(0).uniform(-1e-7, 1e-7, (40, 40))
    assert (prepare_plane(1e6 + rounding).grey == 0).all()


def test_luminance_of_colours_is_that_of_scikit_image():
    assert_same_grey(COLOURS, rgb2gray(COLOURS))


def with_alpha(image, alpha):
    image = image.reshape(*image.shape[:2], -1)
    return np.concatenate([image, np.broadcast_to(alpha, (*image.shape[:2], 1))], -1)


@pytest.mark.parametrize("alpha", [np.uint8(1), np.uint8(255)])
@pytest.mark.parametrize("picture", [CAMERA, COLOURS], ids=["LA", "RGBA"])
def test_alpha_that_is_not_zero_changes_nothing(picture, alpha):
    image = with_alpha(picture, alpha)
    assert image.shape[-1] in (2, 4)
    assert_same_grey(image, picture)


@pytest.mark.parametrize("picture", [CAMERA, COLOURS], ids=["LA", "RGBA"])
def test_transparent_pixels_are_holes_whatever_lies_under_them(picture):
    alpha = np.full((*picture.shape[:2], 1), 255, np.uint8)
    alpha[10:30, 20:50] = 0
    plane = prepare_plane(with_alpha(picture, alpha))
    np.testing.assert_array_equal(plane.holes, alpha[..., 0] == 0)
    painted = picture.copy()
    painted[10:30, 20:50] = 255 - painted[10:30, 20:50]
    other = prepare_plane(with_alpha(painted, alpha))
    np.testing.assert_array_equal(plane.grey, other.grey)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("picture", [CAMERA, COLOURS], ids=["grey", "RGB"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pixels_that_are_not_finite_are_holes(picture, bad, dtype):
    image = picture.astype(dtype)
    where = np.zeros(image.shape[:2], bool)
    where[5:9, 100:120] = where[0, 0] = where[60, 7] = True
    image[where] = bad
    plane = prepare_plane(image)
    np.testing.assert_array_equal(plane.holes, where)
    assert np.isfinite(plane.grey).all()
    assert np.isfinite(plane.noise).all()
    image[where] = 1e6
    transparent = with_alpha(image, np.where(where, 0, 1)[..., np.newaxis])
    np.testing.assert_array_equal(plane.grey, prepare_plane(transparent).grey)


def test_one_bad_channel_makes_a_hole():
    image = COLOURS.astype(np.float32)
    image[3, 4, 2] = np.nan
    assert np.argwhere(prepare_plane(image).holes).tolist() == [[3, 4]]


def test_holes_are_filled_from_the_nearest_pixel():
    image = np.arange(40.0).reshape(5, 8)
    image[:, 3:5] = np.nan
    plane = prepare_plane(image)
    np.testing.assert_array_equal(plane.grey[:, 3], plane.grey[:, 2])
    np.testing.assert_array_equal(plane.grey[:, 4], plane.grey[:, 5])


def test_the_input_is_not_changed():
    image = CAMERA.astype(np.float32)
    image[3, 4] = np.nan
    before = image.copy()
    prepare_plane(image)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros(5), "(5,)"),
        (np.float64(3), "()"),
        (np.zeros((4, 4, 5)), "(4, 4, 5)"),
        (np.zeros((2, 4, 4, 3)), "(2, 4, 4, 3)"),
        (np.zeros((0, 5)), "empty"),
        (np.zeros((5, 0, 3)), "empty"),
        (np.full((4, 4), np.nan), "no finite pixel"),
        (np.full((4, 4, 3), np.inf), "no finite pixel"),
        (np.zeros((4, 4, 4), np.uint8), "every pixel of the image is transparent"),
        (np.ones((4, 4), complex), "complex128"),
        (np.full((4, 4), "a"), "give numbers"),
        (np.full((4, 4), None), "object"),
        (np.array([[-1.7e308, 1.7e308]]), "too large"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_is_no_image_is_refused(image, words):
    with pytest.raises(DefocusError) as caught:
        prepare_plane(image)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def hills(shape):
    y, x = np.mgrid[: shape[0], : shape[1]] / 100
    return 0.5 + 0.4 * np.sin(3 * x) * np.cos(2 * y)


def test_the_noise_kernel_keeps_variance_and_sees_no_slope():
    spike = np.zeros((7, 7), np.float32)
    spike[3, 3] = 1
    assert np.square(second_difference(spike)).sum() == pytest.approx(1)
    y, x = np.mgrid[:9, :9].astype(np.float32)
    for slope in (np.ones_like(x), x, y, x * y):
        np.testing.assert_allclose(second_difference(slope)[1:-1, 1:-1], 0, atol=1e-5)


@pytest.mark.parametrize("sigma", [0.005, 0.02, 0.08])
@pytest.mark.parametrize("shape", [(256, 256), (250, 403)])
@pytest.mark.parametrize("seed", [0, 1])
def test_noise_of_known_strength(sigma, shape, seed):
    rng = np.random.default_rng(seed)
    grey = hills(shape)
    a, b = estimate_noise(np.float32(grey + rng.normal(0, sigma, shape)))
    assert b >= 0
    estimate = np.sqrt(a + b * grey)
    np.testing.assert_allclose(estimate, sigma, rtol=0.2)


def test_shot_noise_grows_with_brightness():
    rng = np.random.default_rng(0)
    grey = hills((384, 512))
    electrons = 400
    a, b = estimate_noise(np.float32(rng.poisson(grey * electrons) / electrons))
    for brightness in (0.2, 0.5, 0.8):
        estimate = np.sqrt(a + b * brightness)
        assert estimate == pytest.approx(np.sqrt(brightness / electrons), rel=0.2)
    assert b > 10 * a


def test_noise_never_falls_with_brightness():
    rng = np.random.default_rng(0)
    grey = hills((256, 256))
    _, b = estimate_noise(np.float32(grey + rng.normal(size=grey.shape) * 0.05 * (1 - grey)))
    assert b == 0


@given(
    # Brightness differs by more than rounding: at 1e-200 any slope is as good as another.
    hnp.arrays(np.float64, 6, elements=st.floats(0, 1).map(lambda x: round(x, 6))),
    hnp.arrays(np.float64, 6, elements=st.floats(-1, 1)),
)
def test_the_line_of_the_noise_is_that_of_scipy(x, y):
    a, b = _line_that_never_falls(x, y)
    columns = np.stack([np.ones_like(x), x], 1)
    best, _ = optimize.nnls(columns, y)
    assert min(a, b) >= 0
    assert np.linalg.norm(columns @ (a, b) - y) <= np.linalg.norm(columns @ best - y) + 1e-9


@pytest.mark.parametrize("shape", [(256, 256), (15, 300), (300, 15), (1, 1)])
def test_noise_is_never_below_that_of_8_bits(shape):
    a, b = estimate_noise(np.full(shape, 0.4, np.float32))
    assert a == pytest.approx(NOISE_FLOOR**2)
    assert b == 0
    # An 8-bit step has the variance step^2 / 12.
    assert a == pytest.approx((1 / 255) ** 2 / 12)


def test_texture_in_part_of_the_image_is_not_taken_for_noise():
    rng = np.random.default_rng(0)
    grey = hills((256, 256))
    grey[:, 128:] += rng.uniform(-0.2, 0.2, (256, 128))
    a, b = estimate_noise(np.float32(grey))
    assert np.sqrt(a + b) < 0.01


def test_noise_variance_follows_the_brightness_around_a_pixel():
    grey = np.float32(hills((40, 60)) - 0.6)
    variance = Plane(grey, np.zeros(grey.shape, bool), (0.01, 0.5)).noise_variance
    assert variance.dtype == np.float32
    padded = np.pad(grey, 2, mode="symmetric")
    for y, x in [(0, 0), (13, 20), (39, 59), (20, 31)]:
        around = padded[y : y + 5, x : x + 5].mean()
        assert variance[y, x] == pytest.approx(0.01 + 0.5 * max(around, 0), rel=1e-4)
    assert variance.min() == pytest.approx(0.01)
