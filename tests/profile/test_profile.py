import numpy as np
import pytest

from napari_defocus.core.errors import DefocusError
from napari_defocus.dense.detector import cached_dense
from napari_defocus.detection.api import detect
from napari_defocus.detection.config import DetectionConfig
from napari_defocus.detection.detectors import Detector, choose_detector, scale_note, settle
from napari_defocus.io.cards import save_container
from napari_defocus.profile.limit import REFERENCE, score_of
from napari_defocus.profile.profile import (
    INPUTS,
    KIND,
    Profile,
    classifier_inputs,
    load_profile,
    save_profile,
)


def profile(weights=None, bias=0.0, limit=2.0, network=None, **record):
    weights = np.zeros(INPUTS, np.float32) if weights is None else weights
    return Profile(weights, bias, limit, network or cached_dense().digest, record)


def random_profile():
    weights = np.random.default_rng(0).normal(0, 0.1, INPUTS).astype(np.float32)
    return profile(weights, 0.5, 2.5, pixel_size_um=0.2)


def test_a_file_holds_the_profile(tmp_path):
    path = tmp_path / "p.safetensors"
    made = random_profile()
    save_profile(made, path)
    read = load_profile(path)
    np.testing.assert_array_equal(read.weights, made.weights)
    assert (read.bias, read.limit, read.network) == (made.bias, made.limit, made.network)
    assert read.record == {"pixel_size_um": 0.2}
    assert read.digest == made.digest
    assert path.stat().st_size < 2000


@pytest.mark.parametrize(
    ("tensors", "changes"),
    [
        ({"weights": np.zeros(5, np.float32)}, {}),
        ({"weights": np.full(INPUTS, np.nan, np.float32)}, {}),
        ({}, {}),
        ({"weights": np.zeros(INPUTS, np.float32)}, {"limit_px": -1.0}),
        ({"weights": np.zeros(INPUTS, np.float32)}, {"bias": None}),
        ({"weights": np.zeros(INPUTS, np.float32)}, {"network": 5}),
    ],
)
def test_a_damaged_file_is_refused(tensors, changes, tmp_path):
    path = tmp_path / "p.safetensors"
    card = {"bias": 0.0, "limit_px": 2.0, "network": "x", "record": {}} | changes
    save_container(path, KIND, tensors, card)
    with pytest.raises(DefocusError, match="not a whole profile; teach it anew"):
        load_profile(path)


def test_the_correction_is_a_weighted_sum_of_features_log_odds_and_log_radius(predict, photo):
    made, plane = random_profile(), predict(photo[0])
    found = made.correction(classifier_inputs(plane))
    y, x = 20, 30
    seen = [
        *plane.found.features[:, y, x],
        plane.found.log_odds[2 * y, 2 * x],
        np.log(plane.found.radius[2 * y, 2 * x] + 0.5),
    ]
    assert found[y, x] == pytest.approx(np.dot(made.weights, seen) + made.bias, abs=1e-4)
    corrected = made.correct(score_of(plane), plane) - score_of(plane)
    assert corrected[40:42, 60:62].mean() == pytest.approx(found[y, x], abs=0.5)


def test_a_profile_that_adds_nothing_is_its_limit(photo):
    by_profile = detect(photo[0], profile(limit=2.25))
    by_limit = detect(photo[0], config=DetectionConfig(limit=2.25))
    np.testing.assert_array_equal(by_profile.mask, by_limit.mask)
    np.testing.assert_array_equal(by_profile.blur, by_limit.blur)
    assert by_profile.limit == 2.25


def test_a_limit_that_is_given_goes_before_the_profiles_own(photo):
    wide = detect(photo[0], profile(limit=REFERENCE), DetectionConfig(limit=6.0))
    assert wide.limit == 6.0
    assert (wide.mask == 2).sum() > (detect(photo[0], profile(limit=REFERENCE)).mask == 2).sum()


def test_a_profile_of_another_network_is_refused(photo):
    with pytest.raises(DefocusError, match="another version of the network; teach it anew"):
        detect(photo[0], profile(network="other"))


def test_the_metric_can_not_use_a_profile():
    with pytest.raises(DefocusError, match="a profile corrects the network"):
        choose_detector(profile(), DetectionConfig(detector="metric"))


def test_the_limit_of_a_profile_is_as_wide_in_micrometres_on_other_pixels():
    given = Detector(None, "dense", profile(limit=3.0, pixel_size_um=0.2))
    automatic = DetectionConfig()
    assert settle(automatic, given, 0.2).limit == 3.0
    assert settle(automatic, given, 0.4).limit == pytest.approx(1.5)
    assert settle(automatic, given, None).limit == 3.0
    assert settle(DetectionConfig(limit="1um"), given, 0.4).limit == pytest.approx(2.5)
    assert scale_note(given, 0.2) == scale_note(given, None) == ""
    assert "0.2 um, these have 0.4 um: its limit is 0.5 times" in scale_note(given, 0.4)
