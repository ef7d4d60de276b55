"""One chooser for all that detects; the sharpness limit and profiles in detection."""

import os
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage import data

from napari_defocus.cli import main as cli
from napari_defocus.core.errors import DefocusError
from napari_defocus.dense.detector import cached_dense, save_dense
from napari_defocus.detection.api import DetectionConfig, detect
from napari_defocus.detection.detectors import (
    Detector,
    choose_detector,
    load_detector,
    settle,
)
from napari_defocus.detection.inference import predict_plane
from napari_defocus.detection.postprocess import postprocess
from napari_defocus.io.open import open_source
from napari_defocus.io.optics import Optics
from napari_defocus.io.tiff_writer import write_tiff
from napari_defocus.labels.classes import SHARP, UNLABELLED
from napari_defocus.metric.local_metric import LocalMetric, load_metric, save_metric
from napari_defocus.profile.limit import REFERENCE, shift
from napari_defocus.profile.profile import INPUTS, Profile, save_profile

pytestmark = pytest.mark.usefixtures("one_thread")

CAMERA = data.camera()[60:220, 140:300]
HALF = CAMERA.astype(np.float32)
HALF[80:] = ndimage.gaussian_filter(HALF, 4)[80:]
UNREFINED = DetectionConfig(refine=False)


@pytest.fixture(scope="module")
def prediction():
    return predict_plane(HALF, choose_detector("default", UNREFINED), UNREFINED)


@pytest.fixture(scope="module")
def profile():
    weights = np.random.default_rng(0).normal(0, 0.1, INPUTS).astype(np.float32)
    return Profile(weights, 0.5, 2.5, cached_dense().digest, {"taught_from": "nothing"})


@pytest.fixture
def files(tmp_path, metric, random_detector, profile):
    """A detector file of each kind, by its kind."""
    paths = {kind: tmp_path / f"{kind}.safetensors" for kind in ("metric", "dense", "profile")}
    save_metric(metric, paths["metric"])
    save_dense(random_detector, paths["dense"])
    save_profile(profile, paths["profile"])
    return paths


# The chooser


def test_files_of_every_kind_are_read(files, metric, profile):
    found = load_detector(files["metric"])
    assert isinstance(found, LocalMetric)
    assert found.digest == metric.digest
    assert load_detector(files["dense"]) == str(files["dense"])
    found = load_detector(str(files["profile"]))
    assert isinstance(found, Profile)
    assert found.digest == profile.digest
    assert found.record == profile.record
    assert load_detector("default").digest == load_metric().digest


def test_by_the_plainor_as_what_is_given_the_same_file_is_the_same_detector(files):
    for path in files.values():
        by_name = choose_detector("default", DetectionConfig(detector=str(path)))
        given = choose_detector(path, DetectionConfig())
        assert by_name.digest == given.digest
        assert (by_name.network is None) == (given.network is None)
    assert len({choose_detector(path, DetectionConfig()).digest for path in files.values()}) == 3


def test_a_detector_that_was_chosen_stays(metric):
    chosen = Detector(metric)
    assert choose_detector(chosen, DetectionConfig(detector="dense")) is chosen


def test_names_choose(metric, profile):
    assert choose_detector("default", DetectionConfig(detector="metric")).network is None
    assert choose_detector(profile, DetectionConfig()).profile is profile
    assert choose_detector(profile, DetectionConfig(detector="dense")).profile is profile
    with pytest.raises(DefocusError, match="the metric cannot use it"):
        choose_detector(profile, DetectionConfig(detector="metric"))
    with pytest.raises(DefocusError, match="nowhere"):
        choose_detector("nowhere", DetectionConfig())


def test_a_profile_of_another_network_is_refused(files, profile, tmp_path):
    other = replace(profile, network="0" * 16)
    save_profile(other, tmp_path / "other.safetensors")
    for detector, config in [
        (other, DetectionConfig()),
        (profile, DetectionConfig(detector=str(files["dense"]))),
        ("default", DetectionConfig(detector=str(tmp_path / "other.safetensors"))),
    ]:
        with pytest.raises(DefocusError, match="another version of the network; teach it anew"):
            choose_detector(detector, config)


def test_a_file_that_changed_is_read_again(files, profile):
    config = DetectionConfig(detector=str(files["profile"]))
    first = choose_detector("default", config).digest
    save_profile(replace(profile, bias=9.0), files["profile"])
    os.utime(files["profile"], ns=(1, 1))
    assert choose_detector("default", config).digest != first


def test_a_file_of_another_kind_is_named(patch_set, tmp_path):
    from napari_defocus.metric.patches import save_patch_set

    save_patch_set(patch_set, tmp_path / "p.safetensors")
    with pytest.raises(DefocusError, match=r"p\.safetensors: holds .* one of these is needed"):
        load_detector(tmp_path / "p.safetensors")


# The limit


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.tuples(st.floats(0.3, 12), st.floats(0.3, 12)).map(sorted))
def test_a_wider_limit_calls_nothing_less_sharp(prediction, limits):
    narrow, wide = (postprocess(prediction, replace(UNREFINED, limit=limit)) for limit in limits)
    assert (wide.blur <= narrow.blur).all()
    assert [float(found.limit) for found in (narrow, wide)] == limits
    np.testing.assert_array_equal(narrow.mask == UNLABELLED, wide.mask == UNLABELLED)


def test_the_map_is_the_probability_of_less_blur_than_the_limit(prediction):
    seen = prediction.valid
    assert seen.mean() > 0.5
    for limit in (REFERENCE, 3.0):
        found = postprocess(prediction, replace(UNREFINED, limit=limit))
        expected = 1 / (1 + np.exp(-(prediction.score.astype(float) + shift(limit))))
        np.testing.assert_allclose(found.sharpness[seen], expected[seen], atol=1e-5)


def test_the_network_is_as_sure_as_half_its_log_odds_say(prediction):
    found = postprocess(prediction, replace(UNREFINED, limit=3.0))
    log_odds = prediction.score.astype(float) + shift(3.0)
    expected = np.where(prediction.valid, np.tanh(np.abs(log_odds) / 4), 0)
    np.testing.assert_allclose(found.confidence, expected, atol=2e-3)
    # The metric's scores are calibrated as they are.
    by_metric = replace(prediction, edges=None)
    plain = replace(UNREFINED, adapt=0.0, caution=0.0, gain=1.0)
    expected = np.where(prediction.valid, np.tanh(np.abs(prediction.score.astype(float)) / 2), 0)
    np.testing.assert_allclose(postprocess(by_metric, plain).confidence, expected, atol=1e-5)


def test_auto_of_a_half_sharp_photo_calls_the_sharp_half_sharp():
    found = detect(HALF)
    sharp = found.mask == SHARP
    shown = found.mask != UNLABELLED
    assert sharp[:70][shown[:70]].mean() >= 0.6
    assert sharp[90:][shown[90:]].mean() <= 0.05
    assert 0 < found.sharpest < 1.5
    assert 1.7 <= found.limit <= 2.8


def test_a_limit_moves_what_is_sharp():
    strict, wide = (detect(HALF, config=DetectionConfig(limit=limit)) for limit in (0.5, 12.0))
    shown = strict.mask != UNLABELLED
    assert (strict.mask == SHARP)[shown].mean() < 0.3
    assert (wide.mask == SHARP)[shown].mean() > 0.95
    assert (float(strict.limit), float(wide.limit)) == (0.5, 12.0)


def test_micrometres_need_a_pixel_size():
    config = DetectionConfig(limit="0.8um")
    found = detect(HALF, config=config, pixel_size=0.25)
    expected = detect(HALF, config=DetectionConfig(limit=np.float64(0.8) / 0.25))
    np.testing.assert_array_equal(found.blur, expected.blur)
    with pytest.raises(DefocusError, match="the size of a pixel is not known"):
        detect(HALF, config=config)


@pytest.mark.parametrize("limit", [0, -1.0, float("nan"), "wide", "0um"])
def test_a_bad_limit_is_refused(limit):
    with pytest.raises(DefocusError, match="the limit is"):
        detect(HALF, config=DetectionConfig(limit=limit))


def test_the_metric_knows_no_limit():
    found = detect(HALF, config=DetectionConfig(detector="metric"))
    assert found.limit is None
    assert found.sharpest is None


def test_each_plane_of_a_stack_has_its_own():
    stack = np.stack([HALF, ndimage.gaussian_filter(HALF, 2), np.full_like(HALF, 3)])
    found = detect(stack, axes="ZYX")
    assert found.limit.shape == found.sharpest.shape == (3,)
    assert found.sharpest[0] < found.sharpest[1]
    assert np.isnan(found.sharpest[2])
    assert (found.mask[2] == UNLABELLED).all()
    assert found.limit[0] == detect(HALF).limit


def test_blank_glass_is_undecided():
    image = np.random.default_rng(0).normal(200, 2, (160, 200))
    assert (detect(image).mask == UNLABELLED).mean() >= 0.99


# Profiles


def test_a_profile_adds_to_the_score_what_its_classifier_says(profile):
    config = UNREFINED
    plain = predict_plane(HALF, choose_detector("default", config), config)
    constant = replace(profile, weights=np.zeros(INPUTS, np.float32), bias=2.0)
    found = predict_plane(HALF, choose_detector(constant, config), config)
    np.testing.assert_allclose(found.score, plain.score + 2, atol=1e-4)
    of_log_odds = replace(profile, weights=np.eye(INPUTS, dtype=np.float32)[-2], bias=0.0)
    found = predict_plane(HALF, choose_detector(of_log_odds, config), config)
    assert np.corrcoef((found.score - plain.score).ravel(), plain.score.ravel())[0, 1] > 0.8


def test_a_profile_brings_its_limit_where_none_is_given(profile):
    detector = choose_detector(profile, DetectionConfig())
    assert settle(DetectionConfig(), detector, None).limit == profile.limit
    assert settle(DetectionConfig(limit="1um"), detector, 0.5).limit == 2.0
    assert detect(HALF, profile).limit == profile.limit
    assert detect(HALF, profile, DetectionConfig(limit=4.0)).limit == 4.0


# The command line


@pytest.fixture
def image(tmp_path):
    write_tiff(tmp_path / "a.tif", HALF, axes="YX", pixel_size_um=0.25)
    return tmp_path / "a.tif"


@pytest.mark.parametrize("kind", ["metric", "dense", "profile"])
@pytest.mark.parametrize("option", ["--detector", "--metric"])
def test_detect_takes_files_of_every_kind(files, image, tmp_path, kind, option):
    from napari_defocus.io.open import read_image

    out = tmp_path / "out"
    assert cli.main(["detect", str(image), "--out", str(out), option, str(files[kind])]) == 0
    expected = detect(HALF, files[kind])
    np.testing.assert_array_equal(read_image(out / "a.blur.tif").data, expected.blur)


def test_a_file_of_no_detector_is_refused(image, tmp_path, capsys):
    (tmp_path / "no.safetensors").write_bytes(b"nothing")
    for option in ("--detector", "--metric"):
        words = [option, str(tmp_path / "no.safetensors")]
        assert cli.main(["detect", str(image), "--out", str(tmp_path / "out"), *words]) == 2
        assert "no.safetensors: damaged" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# The objective

OME = """<?xml version="1.0" encoding="UTF-8"?>
<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">
<Instrument ID="Instrument:0"><Objective ID="Objective:0" LensNA="{na}"/></Instrument>
<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="160"
SizeY="160" SizeC="1" SizeZ="1" SizeT="1" PhysicalSizeX="{pixel}" PhysicalSizeY="{pixel}">
<Channel ID="Channel:0:0" SamplesPerPixel="1" {emission}/><TiffData/></Pixels></Image></OME>"""
GREEN = 'EmissionWavelength="520"'


def of_a_microscope(path, na, pixel, emission=GREEN):
    text = OME.format(na=na, pixel=pixel, emission=emission)
    tifffile.imwrite(path, CAMERA, description=text.encode(), metadata=None)
    return path


@pytest.mark.parametrize(
    ("na", "pixel", "limit"),
    # Three times 2 x .21 wavelengths / NA, but where pixels are the wider.
    [(1.4, 0.1, 4.68), (0.75, 0.325, 2.688), (0.1, 6.5, 1.85)],
)
def test_the_automatic_limit_is_by_the_objective(tmp_path, capsys, na, pixel, limit):
    path = of_a_microscope(tmp_path / "a.ome.tif", na, pixel)
    assert cli.main(["detect", str(path), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().err
    assert f"by the objective (NA {na:g}, 520 nm)" in said
    assert f"sharp up to {limit:.1f} px" in said
    source = open_source(path)
    found = detect(CAMERA, pixel_size=source.pixel_size_um, optics=source.optics)
    assert float(found.limit) == pytest.approx(limit, abs=1e-3)


@pytest.mark.parametrize("given", [{"emission": ""}, {"na": "unknown"}])
def test_without_objective_or_wavelength_it_is_by_the_image(tmp_path, given):
    path = of_a_microscope(tmp_path / "a.ome.tif", **{"na": 1.4, "pixel": 0.1} | given)
    source = open_source(path)
    found = detect(CAMERA, pixel_size=source.pixel_size_um, optics=source.optics)
    assert found.limit == detect(CAMERA).limit


def test_what_the_user_tells_goes_before_the_objective(profile):
    optics, network = Optics(na=1.4, emission_nm=(520.0,)), cached_dense()
    given = settle(DetectionConfig(limit="0.3um"), Detector(load_metric(), network), 0.1, optics)
    assert given.limit == pytest.approx(3)
    taught = Detector(load_metric(), network, profile)
    assert settle(DetectionConfig(), taught, 0.1, optics).limit == profile.limit
    assert settle(DetectionConfig(), Detector(load_metric()), 0.1, optics).limit == "auto"
