import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage
from skimage import data
from skimage.color import rgb2gray

from napari_defocus.core.errors import DefocusError
from napari_defocus.detection.api import Detection, DetectionConfig, detect
from napari_defocus.detection.fill import Surroundings, at_pixels
from napari_defocus.detection.threshold import MaskConfig
from napari_defocus.io.base import array_source
from napari_defocus.metric.default_recipe import (
    RecipeConfig,
    load_picture,
    random_crop,
    render_scenes,
    textured_annotation,
)
from napari_defocus.metric.fitting import instant_metric
from napari_defocus.metric.local_metric import save_metric
from napari_defocus.metric.patches import build_patch_set
from napari_defocus.metric.response import COARSER
from napari_defocus.simulate.optics import Camera, defocus, expose, to_light

RECIPE = RecipeConfig(scenes=4, size=192, radius=(3, 6), seed=2)
PICTURES = ("coins", "immunohistochemistry")


@pytest.fixture(scope="module")
def metric():
    return instant_metric(
        build_patch_set(
            (name, scene.image, textured_annotation(scene, 0.02))
            for name, scene in render_scenes(RECIPE)
        )
    )


def sharp_picture(name="coins"):
    return random_crop(load_picture(name), RECIPE, np.random.default_rng(1))


def photo(sharp, name="coins", radius=6.0):
    """Take a photo whose columns are in focus left of the share `sharp` of its width."""
    light = to_light(sharp_picture(name))
    seen = defocus(light, radius)
    edge = round(sharp * light.shape[1])
    seen[:, :edge] = light[:, :edge]
    return expose(seen, Camera(), np.random.default_rng(0))


def textured(name):
    """Where there is something to detect: on the photo of coins the coins, not the smooth table."""
    picture = sharp_picture(name)
    if name != "coins":
        return np.ones(picture.shape, bool)
    brighter = picture > ndimage.gaussian_filter(picture.astype(float), 24) + 20
    return ndimage.binary_opening(brighter, iterations=3)


HALF = photo(0.5)
SMALL = HALF[40:104, 60:140]


def assert_sound(detection, shape):
    for found, dtype in ((detection.blur, np.float32), (detection.mask, np.uint8)):
        assert found.shape == shape
        assert found.dtype == dtype
    assert np.isfinite(detection.blur).all()
    assert detection.blur.min() >= 0
    assert detection.blur.max() <= 1
    assert set(np.unique(detection.mask)) <= {0, 1, 2}


def assert_same(found, expected, tolerance=0.0):
    np.testing.assert_allclose(found.blur, expected.blur, rtol=0, atol=tolerance)
    np.testing.assert_array_equal(found.mask, expected.mask)


def assert_refused(image, metric, *words, **options):
    with pytest.raises(DefocusError) as caught:
        detect(image, metric, **options)
    for word in words:
        assert word in str(caught.value)


# The job


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize(
    "change",
    [
        lambda grey: grey,
        lambda grey: grey.astype(np.uint16) * 200 + 1000,
        lambda grey: (grey / 255).astype(np.float32),
        lambda grey: np.stack([grey] * 3, axis=-1),
    ],
    ids=["uint8", "uint16", "float", "RGB"],
)
def test_sharp_half_is_told_from_the_blurred_half(metric, name, change):
    detection = detect(change(photo(0.5, name)), metric)
    assert_sound(detection, (192, 192))
    # Beside the border, where the pooling mixes both.
    left, right = np.s_[:, :80], np.s_[:, 112:]
    assert detection.blur[left].mean() < 0.2
    assert detection.blur[right].mean() > 0.7
    assert (detection.mask[left] == 2).mean() > 0.85
    assert (detection.mask[right] == 1).mean() > 0.75


# In the last one nearly all pixels are equally sharp.
@pytest.mark.parametrize("name", [*PICTURES, "gravel"])
def test_wholly_sharp_picture_is_sharp(metric, name):
    detection = detect(photo(1, name), metric)
    there = textured(name)
    assert (detection.mask[there] == 2).mean() > 0.9
    assert detection.blur[there].mean() < 0.1


@pytest.mark.parametrize("noise", [0, 2])
@pytest.mark.parametrize("which", ["fitted", "default"])
def test_texture_all_over_is_not_taken_for_noise(metric, which, noise):
    # Were the gravel taken for noise, it would be measured after two halvings, where a disc of 4
    # pixels is a single one: all of it would be sharp.
    gravel = np.float32(data.gravel().reshape(256, 2, 256, 2).mean(axis=(1, 3)) / 255)
    seen = defocus(gravel, 4)
    seen[:, :128] = gravel[:, :128]
    seen = 255 * seen + np.random.default_rng(0).normal(0, noise, seen.shape)
    image = np.clip(seen, 0, 255).round().astype(np.uint8)
    detection = detect(image, metric if which == "fitted" else "default")
    left, right = np.s_[:, :112], np.s_[:, 144:]
    assert (detection.mask[left] == 2).mean() > 0.95
    assert (detection.mask[right] == 1).mean() > 0.9
    assert detection.blur[left].mean() < 0.05
    assert detection.blur[right].mean() > 0.85


@pytest.mark.parametrize("name", PICTURES)
def test_wholly_blurred_picture_is_blurred_by_the_calibrated_scale_alone(metric, name):
    image = photo(0, name)
    calibrated = detect(image, metric)
    assert (calibrated.mask == 1).mean() > 0.9
    assert calibrated.blur.mean() > 0.85
    own = detect(image, metric, DetectionConfig(scale="image", refine=False))
    assert own.blur.min() == 0
    assert own.blur.max() == 1
    assert (own.mask == 2).mean() > 2 * (calibrated.mask == 2).mean() + 0.02


@pytest.mark.parametrize("name", PICTURES)
def test_only_the_calibrated_scale_compares_images(metric, name):
    def difference(config):
        blurred, sharp = (detect(photo(s, name), metric, config).blur for s in (0, 1))
        return blurred - sharp

    assert difference(DetectionConfig())[textured(name)].mean() > 0.8
    assert abs(difference(DetectionConfig(scale="image")).mean()) < 0.3


def test_sharpness_is_1_minus_blur(metric):
    detection = detect(SMALL, metric)
    np.testing.assert_array_equal(detection.sharpness, 1 - detection.blur)
    assert detection.sharpness.dtype == np.float32
    by_hand = Detection(np.array([[0, 0.25, 1]], np.float32), np.zeros((1, 3), np.uint8))
    np.testing.assert_array_equal(by_hand.sharpness, [[1, 0.75, 0]])


def test_metric_may_be_its_file(metric, tmp_path):
    path = tmp_path / "metric.safetensors"
    save_metric(metric, path)
    expected = detect(SMALL, metric)
    assert_same(detect(SMALL, path), expected)
    assert_same(detect(SMALL, str(path)), expected)


def test_missing_metric_is_named(tmp_path):
    path = tmp_path / "none.safetensors"
    assert_refused(SMALL, path, str(path))


# The type that holds a picture does not matter


def as_layout(grey, layout):
    full = np.full_like(grey, 1)
    layers = {"Y": [grey], "RGB": [grey] * 3, "RGBA": [grey] * 3 + [full]}
    return grey if layout == "flat" else np.stack(layers[layout], axis=-1)


@settings(max_examples=60, deadline=None)
@given(
    type_gain_shift=st.one_of(
        st.tuples(st.just("u1"), st.just(1), st.just(0)),
        st.tuples(st.sampled_from(["u2", ">u2", "i4"]), st.integers(1, 200), st.integers(0, 9999)),
        st.tuples(st.sampled_from(["i2", "i8"]), st.integers(1, 60), st.integers(-9999, 9999)),
        st.tuples(st.sampled_from(["u4", "u8"]), st.integers(1, 10**6), st.integers(0, 10**6)),
        st.tuples(st.just("f2"), st.just(1), st.just(0)),
        st.tuples(st.sampled_from(["f4", ">f4"]), st.just(1 / 255), st.just(0)),
        st.tuples(st.sampled_from(["f8", ">f8"]), st.floats(1e-6, 1e6), st.just(0)),
    ),
    layout=st.sampled_from(["flat", "Y", "RGB", "RGBA"]),
    memory=st.sampled_from(["C", "F", "reversed", "read-only"]),
)
def test_result_does_not_depend_on_the_type(metric, type_gain_shift, layout, memory):
    dtype, gain, shift = type_gain_shift
    image = as_layout((SMALL * np.float64(gain) + shift).astype(dtype), layout)
    if memory == "F":
        image = np.asfortranarray(image)
    elif memory == "reversed":
        image = np.ascontiguousarray(image[::-1, ::-1])[::-1, ::-1]
    elif memory == "read-only":
        image.flags.writeable = False
    assert_same(detect(image, metric), detect(SMALL, metric), tolerance=1e-5)


def test_bool_is_a_picture_of_two_values(metric):
    binary = SMALL > 100
    assert 0.2 < binary.mean() < 0.8
    expected = detect(binary, metric)
    assert_sound(expected, SMALL.shape)
    assert_same(detect(binary.astype(np.uint8), metric), expected)
    assert_same(detect(binary.astype(np.uint8) * 255, metric), expected)


def test_colours_are_detected_by_their_luminance(metric):
    image = load_picture("astronaut")[100:180, 150:250]
    assert_same(detect(image, metric), detect(rgb2gray(image), metric), tolerance=1e-4)


def test_input_is_left_alone(metric):
    holes = SMALL.astype(np.float64)
    holes[10:20, 10:20] = np.nan
    for image in (SMALL.copy(), holes, np.dstack([SMALL / 255] * 4)):
        before = image.copy()
        detect(image, metric)
        np.testing.assert_array_equal(image, before)


@settings(max_examples=60, deadline=None)
@given(
    image=arrays(
        st.sampled_from([np.uint8, np.float32, np.bool_]),
        array_shapes(min_dims=2, max_dims=2, min_side=7, max_side=40),
        fill=st.nothing(),
        elements=None,
    )
    | st.builds(
        lambda shape, seed, score: np.random.default_rng(seed).poisson(score, shape),
        array_shapes(min_dims=2, max_dims=2, min_side=7, max_side=70),
        st.integers(0, 999),
        st.floats(0.01, 100),
    ),
    config=st.builds(
        DetectionConfig,
        scale=st.sampled_from(["calibrated", "image"]),
        refine=st.booleans(),
        adapt=st.sampled_from([0, 0.7, 1]),
        mask=st.sampled_from([MaskConfig(), MaskConfig("mean"), MaskConfig(0.5, smallest=0)]),
    ),
)
def test_any_picture_gives_a_sound_result_or_an_error_that_says_why(metric, image, config):
    problem = ""
    try:
        assert_sound(detect(image, metric, config), image.shape)
    except DefocusError as error:
        problem = str(error)
    assert not problem or "nothing to detect" in problem or "too large" in problem


# Axes


def test_stack_is_worked_through_plane_by_plane(metric):
    stack = np.stack([photo(share)[:64, :80] for share in (0, 0.2, 1)])
    detection = detect(stack, metric, axes="ZYX")
    assert_sound(detection, stack.shape)
    for index, plane in enumerate(stack):
        single = detect(plane, metric)
        np.testing.assert_array_equal(detection.blur[index], single.blur)
        np.testing.assert_array_equal(detection.mask[index], single.mask)


def test_planes_of_another_size_than_their_stack_tells_are_named(metric):
    # As a viewer stacks files of several sizes: the array tells the size of the first.
    planes = [
        da.from_array(np.tile(np.arange(width, dtype=np.uint8), (64, 1))) for width in (80, 70)
    ]
    planes = [da.Array(p.dask, p.name, ((64,), (80,)), dtype=p.dtype) for p in planes]
    stack = da.stack(planes)
    words = "Z=1.* is 64 x 70 and not 64 x 80.*differ in size"
    with pytest.raises(DefocusError, match=words):
        detect(stack, metric, axes="ZYX")
    with pytest.raises(DefocusError, match=words):
        array_source(stack, "ZYX").read_whole()


def test_leading_axes_may_be_many(metric):
    corners = [[(60, 40), (60, 100), (90, 80)], [(100, 30), (20, 70), (80, 110)]]
    stack = np.stack([[np.dstack([HALF[y:, x:][:40, :60]] * 3) for y, x in row] for row in corners])
    detection = detect(stack, metric, axes="TZYXS")
    assert_sound(detection, (2, 3, 40, 60))
    for t in range(2):
        for z in range(3):
            single = detect(stack[t, z], metric, axes="YXS")
            np.testing.assert_array_equal(detection.blur[t, z], single.blur)
            np.testing.assert_array_equal(detection.mask[t, z], single.mask)
    assert np.ptp([plane.mean() for plane in detection.blur.reshape(6, 40, 60)]) > 0.1


@pytest.mark.parametrize("axes", ["YXTZS", "SZXTY", "ZSYXT", "XTSYZ"])
def test_axes_come_in_any_order(metric, axes):
    stack = np.random.default_rng(0).random((2, 3, 14, 15, 3))  # TZYXS
    given = stack.transpose(["TZYXS".index(letter) for letter in axes])
    found = detect(given, metric, axes=axes).blur
    leading = [letter for letter in axes if letter in "TZ"]
    expected = detect(stack, metric, axes="TZYXS").blur
    np.testing.assert_array_equal(
        found, expected if leading == ["T", "Z"] else expected.swapaxes(0, 1)
    )


@pytest.mark.parametrize("axes", [None, "YX"])
def test_axes_of_one_plane(metric, axes):
    assert_same(detect(SMALL, metric, axes=axes), detect(SMALL, metric))


def test_axes_tell_a_thin_stack_from_colours(metric):
    stack = np.random.default_rng(0).random((20, 24, 3))
    assert detect(stack, metric).blur.shape == (20, 24)
    assert_refused(stack, metric, "smaller than the metric's filters", axes="ZYX")


@pytest.mark.parametrize(
    ("shape", "axes", "words"),
    [
        ((3, 40, 40), None, ["(3, 40, 40)", "axes", "ZYX"]),
        ((2, 3, 40, 40), None, ["(2, 3, 40, 40)", "axes"]),
        ((40,), None, ["(40,)"]),
        ((), None, ["()"]),
        ((3, 40, 40), "YX", ["'YX'", "(3, 40, 40)"]),
        ((40, 40), "ZYX", ["'ZYX'", "(40, 40)"]),
        ((40, 40, 3), "YZC", ["'YZC'", "no X"]),
        ((2, 40, 40, 5), "ZYXS", ["(2, 40, 40, 5)", "channels"]),
        ((0, 40, 40), "ZYX", ["empty", "(0, 40, 40)"]),
        ((2, 0, 40, 40, 3), "TZYXS", ["empty", "(2, 0, 40, 40, 3)"]),
    ],
)
def test_axes_that_do_not_fit_are_refused(metric, shape, axes, words):
    assert_refused(np.random.default_rng(0).random(shape), metric, *words, axes=axes)


# What cannot be detected


@pytest.mark.parametrize("hole", [np.nan, np.inf, -np.inf])
def test_holes_are_undecided(metric, hole):
    image = HALF / 255
    holes = np.zeros(image.shape, bool)
    holes[20:60, 30:90] = holes[100, 100] = holes[:, -5:] = True
    image[holes] = hole
    detection = detect(image, metric)
    assert_sound(detection, image.shape)
    assert (detection.mask[holes] == 0).all()
    assert (detection.mask[~holes] > 0).mean() > 0.9
    whole = detect(HALF, metric)
    far = np.s_[100:, :80]
    assert (detection.mask[far] == whole.mask[far]).mean() > 0.95


def test_transparent_pixels_are_undecided(metric):
    alpha = np.full_like(HALF, 255)
    alpha[50:90, 20:70] = 0
    detection = detect(np.dstack([HALF, HALF, HALF, alpha]), metric)
    assert (detection.mask[alpha == 0] == 0).all()
    assert (detection.mask[alpha > 0] > 0).mean() > 0.9


@pytest.mark.parametrize("noise", [0, 2])
def test_flat_region_far_from_texture_is_undecided(metric, noise):
    image = np.full((192, 384), 120.0)
    image[:, :128] = sharp_picture("coins")[:, :128]
    image += np.random.default_rng(0).normal(0, noise, image.shape)
    detection = detect(np.clip(image, 0, 255).round().astype(np.uint8), metric)
    # The widest average of contrast is a Gaussian of 1.5 times the pooling's, halved twice: within
    # three of its standard deviations the texture may still show, beyond them it does not.
    reach = round(3 * 1.5 * metric.pooling.sigma * 2**COARSER)
    assert (detection.mask[:, 128 + reach :] == 0).all()
    assert (detection.mask[:, 128 : 128 + reach] == 1).any()
    assert (detection.mask[:, :110] == 2).mean() > 0.8
    assert_sound(detection, image.shape)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_undecided_pixels_lean_on_valid_ones_the_less_the_farther(value):
    valid = np.zeros((8, 1500), bool)
    valid[:, :40] = True
    sharpness = np.where(valid, np.float32(value), np.float32(0.3))
    spread = Surroundings.of(sharpness * valid, valid).spread()
    around = at_pixels(spread, (slice(0, 8), slice(0, 1500)))
    filled = np.where(valid, sharpness, around)
    lean = np.abs(filled - 0.5).mean(axis=0)
    assert (filled[:, :40] == value).all()
    assert (np.diff(lean) < 1e-6).all()
    assert lean[100] > 0.45
    assert lean[40 + 256] > 0.2
    assert lean[-1] < 0.01
    assert ((filled - 0.5) * (value - 0.5) > -1e-6).all()


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((0, 5)), ["empty", "(0, 5)"]),
        (np.zeros((5, 0, 3)), ["empty", "(5, 0, 3)"]),
        (np.ones((1, 1)), ["constant"]),
        (np.eye(3), ["(3, 3)", "smaller than the metric's filters (7 x 7)"]),
        (np.eye(6, 500), ["(6, 500)", "smaller"]),
        (np.zeros((40, 40), np.uint8), ["constant", "nothing to detect"]),
        (np.full((40, 40, 3), 0.1), ["constant"]),
        (np.full((40, 40), np.nan), ["no finite pixel"]),
        (np.full((40, 40), np.inf), ["no finite pixel"]),
        (np.where(np.eye(40) > 0, np.nan, 3.0), ["constant"]),
        (np.zeros((40, 40, 4), np.uint8), ["every pixel of the image is transparent"]),
        (np.ones((40, 40), complex), ["complex128"]),
        (np.full((40, 40), "a"), ["numbers"]),
        (np.full((40, 40), None), ["object"]),
    ],
)
def test_images_without_anything_to_detect_are_refused(metric, image, words):
    assert_refused(image, metric, *words)


def test_least_image_is_as_large_as_the_filters(metric):
    image = np.random.default_rng(0).random((7, 7))
    assert_sound(detect(image, metric), (7, 7))


# Settings


def test_unknown_scale_is_refused_with_the_choice():
    with pytest.raises(DefocusError, match=r"'log'.*calibrated, image"):
        DetectionConfig(scale="log")


@pytest.mark.parametrize(
    ("setting", "value"),
    [("adapt", 1.5), ("adapt", np.nan), ("reach", -1.0), ("caution", np.inf), ("gain", np.nan)],
)
def test_setting_out_of_its_range_is_refused(setting, value):
    with pytest.raises(DefocusError, match=f"{setting} is {value}"):
        DetectionConfig(**{setting: value})


@pytest.mark.parametrize("scale", ["calibrated", "image"])
def test_refinement_may_be_left_out(metric, scale):
    plain, refined = (
        detect(HALF, metric, DetectionConfig(scale=scale, refine=refine))
        for refine in (False, True)
    )
    assert_sound(plain, HALF.shape)
    # The refinement drives values to the ends.
    assert (plain.blur != refined.blur).mean() > 0.5
    assert np.abs(refined.blur - 0.5).mean() > np.abs(plain.blur - 0.5).mean()


@settings(max_examples=15, deadline=None)
@given(caution=st.floats(-3, 3), more=st.floats(0.1, 3))
def test_more_caution_calls_nothing_sharper(metric, caution, more):
    def blur(caution):
        config = DetectionConfig(refine=False, adapt=0.0, caution=caution)
        return detect(SMALL, metric, config).blur

    assert (blur(caution + more) >= blur(caution)).all()


def test_caution_is_in_log_odds(metric):
    def log_odds(caution):
        config = DetectionConfig(refine=False, adapt=0.0, caution=caution, gain=0.5)
        sharpness = detect(SMALL, metric, config).sharpness.astype(float)
        return np.log(sharpness / (1 - sharpness))

    np.testing.assert_allclose(log_odds(0.0) - log_odds(1.0), 0.5, atol=1e-2)


@pytest.mark.parametrize("sharp", [0, 0.5, 1])
def test_adapting_only_ever_finds_more_sharp_and_within_reach(metric, sharp):
    image = photo(sharp)
    off = detect(image, metric, DetectionConfig(refine=False, adapt=0.0))
    reached = detect(image, metric, DetectionConfig(refine=False, adapt=0.0, caution=-1.0))
    adapted = detect(image, metric, DetectionConfig(refine=False, adapt=1.0, reach=2.0))
    assert (adapted.blur <= off.blur).all()
    assert (adapted.blur >= reached.blur).all()


def test_mask_threshold_cuts_the_map(metric):
    config = DetectionConfig(refine=False, mask=MaskConfig(threshold=0.25, smallest=0))
    detection = detect(SMALL, metric, config)
    decided = detection.mask > 0
    np.testing.assert_array_equal(
        detection.mask[decided], np.where(detection.sharpness >= 0.25, 2, 1)[decided]
    )
