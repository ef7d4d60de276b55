"""The detector ``stack``: planes of a focus stack judged against each other."""

import numpy as np
import pytest

from napari_defocus.core.errors import DefocusError
from napari_defocus.data.samples import read_sample
from napari_defocus.detection.api import detect
from napari_defocus.detection.config import STACK, DetectionConfig
from napari_defocus.profile.evidence import from_planes, predictor
from napari_defocus.profile.teach import teach
from tests.detection.soft_stack import soft_stack

OWN = DetectionConfig(detector=STACK)


def test_it_is_the_profile_that_the_planes_teach():
    stack = soft_stack()
    found = detect(stack, config=OWN, axes="ZYX")
    profile = teach(from_planes(stack, predictor(), "stack"), held_out=False).profile
    expected = detect(stack, profile, axes="ZYX")
    np.testing.assert_array_equal(found.mask, expected.mask)
    assert found.limit.tolist() == [pytest.approx(profile.limit)] * 3
    assert found.note.startswith("judged against the stack itself: 3 of 3 planes taught")
    # Its best plane is 4 pixels wide: blurred, unless the stack says that it is the best.
    assert not (detect(stack, axes="ZYX").mask == 2).any()
    shares = (found.mask == 2).mean(axis=(1, 2))
    assert shares[1] > 0.9
    assert max(shares[0], shares[2]) < 0.05


def test_each_stack_of_an_image_teaches_for_itself():
    own, other = soft_stack(), soft_stack()[:, ::-1] * 0.5
    found = detect(np.stack([own, other], axis=1), config=OWN, axes="ZCYX")
    np.testing.assert_array_equal(found.mask[:, 0], detect(own, config=OWN, axes="ZYX").mask)
    np.testing.assert_array_equal(found.mask[:, 1], detect(other, config=OWN, axes="ZYX").mask)
    assert "2 stacks" in found.note


def test_a_plane_that_shows_nothing_does_not_teach():
    stack = soft_stack()
    stack[0] = 7
    found = detect(stack, config=OWN, axes="ZYX")
    assert (found.mask[0] == 0).all()
    assert "2 of 3 planes" in found.note


@pytest.mark.parametrize(
    ("shape", "axes", "message"),
    [
        (
            (64, 64),
            "YX",
            "the image is one plane; the detector stack compares the planes of a focus stack",
        ),
        ((1, 64, 64), "ZYX", "one plane; the detector stack"),
        ((3, 64, 64), "CYX", "the image has axes CYX, and none is Z or T"),
        ((3, 64, 64), "ZYX", "its planes do not differ in focus; give a stack"),
    ],
)
def test_what_is_no_stack_is_refused(shape, axes, message):
    image = np.broadcast_to(read_sample("photo").image[100:164, 200:264, 0], shape)
    with pytest.raises(DefocusError, match=message):
        detect(image, config=OWN, axes=axes)


def test_a_profile_beside_it_is_refused():
    stack = soft_stack()
    profile = teach(from_planes(stack, predictor(), "stack"), held_out=False).profile
    with pytest.raises(DefocusError, match="give a profile or stack, not both"):
        detect(stack, profile, OWN, axes="ZYX")
