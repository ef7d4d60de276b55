import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_defocus.simulate import fields
from napari_defocus.simulate.config import SceneConfig
from napari_defocus.simulate.fields import DISC_RADIUS, render_field
from napari_defocus.simulate.scenes import render_scene

CONFIG = SceneConfig(size=96)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=30)
def test_a_field_is_grey_and_all_in_one_focus(seed):
    scene = render_field(CONFIG, np.random.default_rng(seed))
    assert scene.image.shape == (96, 96, 3)
    assert scene.image.dtype == np.uint8
    np.testing.assert_array_equal(scene.image[..., 0], scene.image[..., 2])
    assert scene.image.min() == 0
    assert scene.image.max() == 255
    (radius,) = np.unique(scene.radius)
    assert radius == 0 or DISC_RADIUS[0] <= radius <= DISC_RADIUS[1]


def test_defocus_takes_the_fine_detail(monkeypatch):
    monkeypatch.setattr(fields, "_record", lambda light, rng: light)
    detail = {}
    for share in (1.0, 0.0):
        monkeypatch.setattr(fields, "IN_FOCUS", share)
        lights = [render_field(CONFIG, np.random.default_rng(seed)).image for seed in range(20)]
        detail[share] = np.mean([np.abs(np.diff(light)).max() / light.max() for light in lights])
    assert detail[1.0] > 1.5 * detail[0.0]


def test_scenes_are_fields_by_their_share():
    scene = render_scene(None, SceneConfig(size=64, fields=1.0), np.random.default_rng(3))
    again = render_scene(None, SceneConfig(size=64, fields=1.0), np.random.default_rng(3))
    np.testing.assert_array_equal(scene.image, again.image)
