import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from napari_defocus.core.errors import DefocusError
from napari_defocus.detection.api import Detection
from napari_defocus.measure.regions import focus_scores, region_shares, score_objects

SHAPES = st.tuples(st.integers(1, 6), st.integers(1, 6))


@given(st.data(), SHAPES, st.booleans())
def test_shares_against_a_literal_count(draw, shape, stack):
    full = (2, *shape) if stack else shape
    mask = draw.draw(arrays(np.uint8, full, elements=st.integers(0, 2)))
    region = draw.draw(arrays(np.bool_, shape).filter(np.any))
    counts = {"undecided": 0, "blurred": 0, "sharp": 0}
    for index in np.ndindex(full):
        if region[index[-2:]]:
            counts[("undecided", "blurred", "sharp")[mask[index]]] += 1
    shares = region_shares(mask, region)
    assert list(shares) == ["blurred", "sharp", "undecided"]
    assert sum(shares.values()) == pytest.approx(1)
    for name, count in counts.items():
        assert shares[name] == pytest.approx(count / sum(counts.values()))


@given(st.data(), st.one_of(SHAPES, st.tuples(st.just(2), st.integers(1, 5), st.integers(1, 5))))
def test_objects_against_literal_loops(draw, shape):
    mask = draw.draw(arrays(np.uint8, shape, elements=st.integers(0, 2)))
    blur = draw.draw(arrays(np.float32, shape, elements=st.floats(0, 1, width=32)))
    values = st.sampled_from([0, 0, 1, 2, 40, 2**20])
    objects = draw.draw(arrays(np.int64, shape, elements=values).filter(np.any))
    found = score_objects(Detection(blur, mask), objects)
    assert list(found) == ["index", "area", "mean_blur", "blurred", "undecided"]
    assert found["index"].tolist() == sorted(set(objects.ravel().tolist()) - {0})
    for row, label in enumerate(found["index"]):
        pixels = [index for index in np.ndindex(shape) if objects[index] == label]
        assert found["area"][row] == len(pixels)
        mean = sum(float(blur[index]) for index in pixels) / len(pixels)
        assert found["mean_blur"][row] == pytest.approx(mean, abs=1e-6)
        for name, value in (("blurred", 1), ("undecided", 0)):
            share = sum(int(mask[index]) == value for index in pixels) / len(pixels)
            assert found[name][row] == pytest.approx(share)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32, np.uint64])
def test_objects_of_any_integer_type(kind):
    objects = np.zeros((4, 5), kind)
    objects[1:3, 1:4] = 9
    found = score_objects(Detection(np.full((4, 5), 0.25, np.float32), objects // 9), objects)
    assert found["index"].tolist() == [9]
    assert found["area"].tolist() == [6]
    assert found["mean_blur"].tolist() == [0.25]
    assert found["blurred"].tolist() == [1]


def test_objects_that_cannot_be_scored():
    found = Detection(np.zeros((4, 5), np.float32), np.ones((4, 5), np.uint8))
    with pytest.raises(DefocusError, match=r"\(5, 4\).*\(4, 5\)"):
        score_objects(found, np.ones((5, 4), int))
    with pytest.raises(DefocusError, match="no object"):
        score_objects(found, np.zeros((4, 5), int))


# The focus of objects: textured discs in rows, on a flat ground

NOISE = [0, 2]


def scene(radii, contrasts=1.0, blur=0.0, noise=0.0, offsets=0.0, seed=0):
    """Image and labels: four rows of discs of the given radii, contrasts and offsets by column."""
    contrasts, offsets = (np.broadcast_to(x, len(radii)) for x in (contrasts, offsets))
    rng = np.random.default_rng(seed)
    shape = (4 * 110, 110 * len(radii))
    texture = ndimage.gaussian_filter(rng.normal(size=shape), 1)
    texture = 20 * ndimage.gaussian_filter(texture / texture.std(), blur)
    image, objects = np.full(shape, 100.0), np.zeros(shape, int)
    y, x = np.mgrid[: shape[0], : shape[1]]
    for column, (radius, contrast, offset) in enumerate(
        zip(radii, contrasts, offsets, strict=True)
    ):
        for row in range(4):
            distance = np.hypot(y - 110 * row - 55, x - 110 * column - 55)
            # What is blurred is blurred beside the object too.
            image = np.where(distance < radius + 9, 100 + offset + contrast * texture, image)
            objects[distance < radius] = 1 + row + 4 * column
    return image + rng.normal(0, noise, shape), objects


def by_column(image, objects):
    return focus_scores(image, objects).reshape(-1, 4).mean(axis=1)


@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("blur", [0, 1.5])
def test_focus_does_not_depend_on_the_contrast(blur, noise):
    image, objects = scene([30] * 4, [0.25, 0.5, 1, 4], blur, noise)
    found = by_column(image, objects)
    assert found == pytest.approx(np.full(4, found[2]), rel=0.1)
    for contrast in (0.25, 4):
        assert by_column(contrast * image, objects) == pytest.approx(found, rel=1e-3)


@pytest.mark.parametrize("noise", NOISE)
def test_focus_does_not_depend_on_the_brightness(noise):
    image, objects = scene([30] * 4, noise=noise, offsets=[-60, 0, 60, 120])
    found = by_column(image, objects)
    assert found == pytest.approx(np.full(4, found[1]), rel=0.1)
    assert by_column(image + 5000, objects) == pytest.approx(found, rel=1e-3)


@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("blur", [0, 1.5])
def test_focus_does_not_depend_on_the_size(blur, noise):
    found = by_column(*scene([12, 18, 30, 45], blur=blur, noise=noise))
    assert found == pytest.approx(np.full(4, found[-1]), rel=0.1)


@pytest.mark.parametrize("noise", NOISE)
def test_focus_falls_with_blur(noise):
    found = [focus_scores(*scene([30], blur=blur, noise=noise)) for blur in (0, 0.5, 1, 1.5, 2, 3)]
    assert (np.diff(found, axis=0) < 0).all()


def test_noise_alone_has_no_focus():
    _, objects = scene([30, 30])
    image = 100 + np.random.default_rng(1).normal(0, 3, objects.shape)
    assert np.isnan(focus_scores(image, objects)).all()


def test_focus_of_a_flat_image_is_nan():
    _, objects = scene([30])
    assert np.isnan(focus_scores(np.full(objects.shape, 7), objects)).all()


def test_rim_of_an_object_does_not_count():
    image, objects = scene([30])
    found = focus_scores(image, objects)
    image[objects == 0] = 400
    # The derivatives still see a little of an edge two pixels away.
    assert focus_scores(image, objects) == pytest.approx(found, rel=0.35)


def test_focus_of_objects_too_small_for_a_rim():
    image, objects = scene([1, 2, 3])
    assert np.isfinite(focus_scores(image, objects)).all()


def test_focus_of_stacks_and_colours():
    sharp, objects = scene([30], seed=1)
    soft, _ = scene([30], blur=2, seed=1)
    single = [focus_scores(image, objects) for image in (sharp, soft)]
    stacked = np.stack([objects, np.where(objects, objects + 4, 0)])
    # Each plane is one that was read by itself.
    both = focus_scores(np.stack([sharp, soft]), stacked)
    assert both == pytest.approx(np.concatenate(single), rel=1e-3)
    assert focus_scores(np.dstack([sharp] * 3), objects) == pytest.approx(single[0], rel=1e-3)
    together = focus_scores(np.stack([sharp, soft]), np.stack([objects] * 2))
    assert (together > single[1]).all()
    assert (together < single[0]).all()


def test_holes_do_not_count():
    image, objects = scene([30])
    found = focus_scores(image, objects)
    image[50:60, 50:60] = np.nan
    assert focus_scores(image, objects) == pytest.approx(found, rel=0.1)


def test_focus_is_a_column_where_an_image_is_given():
    image, objects = scene([30])
    found = Detection(np.zeros(image.shape, np.float32), np.ones(image.shape, np.uint8))
    columns = score_objects(found, 5 * objects, image)
    assert list(columns) == ["index", "area", "mean_blur", "blurred", "undecided", "focus"]
    assert columns["index"].tolist() == [5, 10, 15, 20]
    np.testing.assert_array_equal(columns["focus"], focus_scores(image, objects))


def test_focus_of_an_image_of_another_size_is_refused():
    image, objects = scene([30])
    with pytest.raises(DefocusError, match=r"\(440, 110\), the image \(439, 110\)"):
        focus_scores(image[1:], objects)
