import dask.array
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from benchmarks.trust import images as trust_images
from napari_defocus.core.errors import DefocusError
from napari_defocus.detection.api import detect
from napari_defocus.detection.config import DetectionConfig

METRIC = DetectionConfig(detector="metric")


def test_random_images():
    found = trust_images.run(60)
    assert found.faults == {}
    assert found.counts["detected"] > 30


@pytest.mark.slow
def test_many_random_images():
    assert trust_images.run(5000).faults == {}


def test_what_is_broken_is_found(monkeypatch):
    """The check itself: maps that break their promise are found."""
    image, axes = np.random.default_rng(0).random((40, 40)), None
    sound = detect(image, config=METRIC)
    assert trust_images._broken(sound, image.shape, axes) is None
    for name, values in {
        "blur": np.full((40, 40), 1.5, np.float32),
        "confidence": np.full((40, 40), np.nan, np.float32),
        "mask": np.full((40, 40), 3, np.uint8),
    }.items():
        found = type(sound)(**{**vars(sound), name: values})
        assert trust_images._broken(found, image.shape, axes)
    assert trust_images._broken(sound, (40, 41), axes)
    for error, words in ((ValueError("so"), "ValueError"), (DefocusError(""), "no good message")):

        def fail(*_, error=error, **__):
            raise error

        monkeypatch.setattr(trust_images, "detect", fail)
        assert words in trust_images.try_image(3)


TEXTURE = np.random.default_rng(1).integers(0, 200, (33, 47), np.uint8)


def same(image):
    expected = detect(TEXTURE, config=METRIC)
    found = detect(image, config=METRIC)
    for name in ("blur", "mask", "confidence"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize("kind", ["u1", "u2", ">u2", "i4", ">i8", "f4", ">f4", "f8", "<f2"])
def test_the_type_that_holds_a_picture_does_not_count(kind):
    same(TEXTURE.astype(kind))


def read_only(image):
    image = image.copy()
    image.flags.writeable = False
    return image


@pytest.mark.parametrize(
    "hold",
    [
        np.asfortranarray,
        lambda image: np.repeat(image, 2, 1)[:, ::2],
        lambda image: image[::-1].copy()[::-1],
        lambda image: image.tolist(),
        lambda image: dask.array.from_array(image, chunks=(5, 31)),
        lambda image: np.pad(image, 3)[3:-3, 3:-3],
        read_only,
    ],
)
def test_how_a_picture_is_held_does_not_count(hold):
    same(hold(TEXTURE))


@given(
    hnp.arrays(
        st.sampled_from(["f4", "f8", "f2"]),
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=7, max_side=20),
        elements=st.floats(width=16, allow_nan=True, allow_infinity=True),
    )
)
def test_any_floats_give_sound_maps_or_a_message(image):
    before = image.copy()
    if np.isfinite(image).any() and np.ptp(image[np.isfinite(image)]) > 0:
        found = detect(image, config=METRIC)
        assert trust_images._broken(found, image.shape, None) is None
        # Nothing can be told of a pixel without a value.
        assert (found.confidence[~np.isfinite(image)] == 0).all()
    else:
        with pytest.raises(DefocusError, match="nothing to detect"):
            detect(image, config=METRIC)
    np.testing.assert_array_equal(image, before)
