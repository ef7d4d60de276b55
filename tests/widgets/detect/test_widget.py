"""The Detect widget by its buttons: the whole path, and each way it can go wrong."""

import shlex
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import dask.array as da
import numpy as np
import pytest
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import QApplication, QPushButton, QVBoxLayout, QWidget
from scipy import ndimage
from skimage import data

import napari_defocus
from napari_defocus.cli import main as cli
from napari_defocus.cli._detection_options import detection_config
from napari_defocus.core.progress import Event, Stopped
from napari_defocus.dense import detector as dense
from napari_defocus.dense import inference
from napari_defocus.detection.api import DetectionConfig, detect
from napari_defocus.detection.config import DETECTORS
from napari_defocus.io.open import read_image, read_labels
from napari_defocus.io.raster import write_png
from napari_defocus.measure.regions import focus_scores, region_shares, shares_text
from napari_defocus.metric.local_metric import save_metric
from napari_defocus.profile.profile import Profile, save_profile
from napari_defocus.widgets._shared import layers, preferences, reduced
from napari_defocus.widgets._shared.session import TAUGHT, session
from napari_defocus.widgets._shared.ui import Scrolled
from napari_defocus.widgets.detect import preview as preview_module
from napari_defocus.widgets.detect import widget as module
from napari_defocus.widgets.detect.settings import DETECTOR_TITLES
from napari_defocus.widgets.detect.widget import DetectWidget
from tests.detection.soft_stack import soft_stack

WIDGET = DetectWidget

CAMERA = data.camera()[100:340:2, 60:380:2]  # 120 x 160
Z = np.stack([CAMERA, CAMERA[::-1], CAMERA[:, ::-1]])


METRIC = DetectionConfig(detector="metric")


def press(qtbot, widget):
    with qtbot.waitSignal(widget.jobs.ended, timeout=20_000):
        widget.jobs.run_button.click()


def assert_same(found, expected):
    """The window's thread may have other cores, and the network adds up in another order then."""
    np.testing.assert_allclose(found, expected, atol=1e-5)


def result(viewer, source, role):
    return layers.find_owned(viewer, source, role)


@pytest.fixture(scope="session")
def detector_file(tmp_path_factory):
    """A dense detector whose weights are drawn at random."""
    torch = pytest.importorskip("torch")
    from napari_defocus.dense.network import DenseNet

    torch.manual_seed(5)
    weights = DenseNet(torch.randn(2, 7, 7)).state_dict()
    path = tmp_path_factory.mktemp("dense") / "random.safetensors"
    dense.save_dense(dense.DenseDetector({n: w.numpy() for n, w in weights.items()}), path)
    return path


@pytest.fixture
def packaged(detector_file, monkeypatch):
    """The random detector in place of the one that comes with the package."""
    monkeypatch.setitem(dense.PACKAGED, "default", detector_file)


def choose(widget, title):
    """Choose a detector as a person would, by its title."""
    widget.detector_chooser.setCurrentText(title)
    widget.detector_chooser.activated.emit(widget.detector_chooser.currentIndex())


def move_limit(widget, value):
    widget.settings.limit.slider.setValue(value)


def is_at_rest(widget):
    bar = widget.jobs
    return (
        bar.run_button.isEnabled()
        and not bar.cancel_button.isEnabled()
        and bar.bar.isHidden()
        and not bar.busy
    )


# The main path


def test_one_click_on_the_default_selection(viewer, widget, qtbot):
    viewer.add_image(Z, name="other")
    source = viewer.add_image(CAMERA, name="cells")
    assert widget.image.value == source
    assert widget.contents.text() == "120 x 160 pixels"
    press(qtbot, widget)
    expected = detect(CAMERA)
    assert_same(result(viewer, source, layers.BLUR).data, expected.blur)
    np.testing.assert_array_equal(result(viewer, source, layers.MASK).data, expected.mask)
    shares = region_shares(expected.mask, np.ones(CAMERA.shape, bool))
    assert widget.jobs.text.text() == shares_text(shares)
    assert viewer.layers.selection.active == source
    assert is_at_rest(widget)


@pytest.mark.parametrize("pixels", [CAMERA, data.astronaut()[::4, 0:480:4]], ids=["grey", "RGB"])
def test_window_and_command_line_give_the_same_arrays(viewer, widget, qtbot, tmp_path, pixels):
    path = tmp_path / "cells.png"
    write_png(path, pixels)
    (source,) = viewer.open(path, plugin="napari")
    assert widget.image.value == source
    move_limit(widget, 3)
    press(qtbot, widget)
    widget.copy_command.click()
    words = shlex.split(QApplication.clipboard().text())
    words[words.index("results")] = str(tmp_path / "out")
    assert cli.main(words[1:]) == 0
    blur = read_image(tmp_path / "out" / "cells.blur.tif").data
    assert_same(result(viewer, source, layers.BLUR).data, blur)
    mask = read_labels(tmp_path / "out" / "cells.mask.tif")
    np.testing.assert_array_equal(result(viewer, source, layers.MASK).data, mask)
    widget.copy_python.click()
    lines = {}
    exec(QApplication.clipboard().text().replace("found.blur, found.mask", ""), lines)
    assert_same(lines["found"].blur, blur)


def test_only_the_plane_on_screen(viewer, widget, qtbot):
    source = viewer.add_image(da.from_array(Z, chunks=(1, -1, -1)))
    assert not widget.shown_plane.isHidden()
    viewer.dims.set_current_step(0, 2)
    widget.shown_plane.setChecked(True)
    press(qtbot, widget)
    np.testing.assert_array_equal(result(viewer, source, layers.MASK).data, detect(Z[2]).mask)
    widget.shown_plane.setChecked(False)
    press(qtbot, widget)
    assert result(viewer, source, layers.MASK).data.shape == Z.shape
    viewer.add_image(CAMERA)
    assert widget.shown_plane.isHidden()


def test_a_chosen_plane_counts_also_while_the_widget_is_out_of_sight(viewer, widget, qtbot):
    source = viewer.add_image(Z)
    widget.shown_plane.setChecked(True)
    press(qtbot, widget)
    assert result(viewer, source, layers.MASK).data.shape == CAMERA.shape


def test_a_mask_that_is_hidden_is_renewed_too(viewer, widget, qtbot):
    source = viewer.add_image(Z)
    press(qtbot, widget)
    mask = result(viewer, source, layers.MASK)
    before = mask.data.copy()
    mask.visible = False
    viewer.dims.set_current_step(0, 0)
    move_limit(widget, 0.5)
    press(qtbot, widget)
    assert widget.jobs.text.text().startswith("of the structure: ")
    assert (mask.data != before).any()
    mask.visible = True
    mask.undo()
    np.testing.assert_array_equal(mask.data, before)


# The preview


def preview_of(viewer, source):
    return result(viewer, source, layers.PREVIEW)


def test_preview_follows_the_limit_and_goes_when_switched_off(viewer, widget, qtbot):
    source = viewer.add_image(CAMERA, scale=(0.5, 0.5), units=("um", "um"))
    control = widget.settings.limit
    with qtbot.waitSignal(widget._preview.ready, timeout=10_000):
        widget.preview.setChecked(True)
    shown, automatic = preview_of(viewer, source), detect(CAMERA)
    np.testing.assert_array_equal(shown.data, automatic.mask)
    # The slider shows what automatic means here.
    assert control.slider.value() == pytest.approx(float(automatic.limit), abs=0.01)
    assert control.text.text().startswith(f"sharp up to {automatic.limit:.1f} px (")
    assert widget.config.limit == "auto"
    with qtbot.waitSignal(widget._preview.ready, timeout=10_000):
        move_limit(widget, 0.6)
    assert not control.automatic.isChecked()
    expected = detect(CAMERA, config=DetectionConfig(limit=0.6)).mask
    assert (expected != automatic.mask).any()
    np.testing.assert_array_equal(preview_of(viewer, source).data, expected)
    np.testing.assert_allclose(preview_of(viewer, source).scale, (0.5, 0.5))
    # The same length in the other unit.
    control.unit.setCurrentText("µm")
    assert control.slider.value() == pytest.approx(0.3)
    assert widget.config.limit == "0.3um"
    press(qtbot, widget)
    np.testing.assert_array_equal(result(viewer, source, layers.MASK).data, expected)
    assert layers.owned(result(viewer, source, layers.MASK))["limit_px"] == pytest.approx(0.6)
    with qtbot.waitSignal(widget._preview.ready, timeout=10_000):
        widget.preview.setChecked(False)
        widget.preview.setChecked(True)
    widget.preview.setChecked(False)
    assert preview_of(viewer, source) is None
    viewer.layers.remove(source)
    # Without a pixel size there are pixels alone.
    viewer.add_image(CAMERA)
    assert widget.config.limit == pytest.approx(0.6)


def test_a_click_on_what_is_in_focus_sets_the_limit(viewer, widget, qtbot):
    soft = ndimage.gaussian_filter(CAMERA, 2)
    blank = np.concatenate([soft, np.full_like(soft, 128)])
    source = viewer.add_image(blank, scale=(0.5, 0.5))
    found = detect(blank)
    near = np.hypot(*np.ogrid[-60:180, -80:80]) <= 8
    pick = widget.settings.limit.pick
    with qtbot.waitSignal(widget._preview.ready, timeout=10_000):
        pick.click()
    for place, says in (((200, 80), "no structure"), ((999, 80), "beside the image")):
        click_canvas(viewer, np.multiply(place, 0.5))
        assert not pick.isChecked()
        assert says in widget.jobs.text.text()
        assert widget.config.limit == "auto"
        pick.click()
    click_canvas(viewer, (30, 40))
    expected = 1.25 * np.median(found.radius[near & (found.mask > 0)])
    assert expected > 1
    assert widget.config.limit == pytest.approx(expected, rel=0.02)
    click_canvas(viewer, (5, 5))
    assert widget.config.limit == pytest.approx(expected, rel=0.02)
    assert viewer.layers.selection.active == source


def click_canvas(viewer, position):
    """Do what napari does where the canvas is clicked."""
    event = SimpleNamespace(position=position, type="mouse_press")
    for callback in list(viewer.mouse_drag_callbacks):
        if "defocus" in callback.__module__:
            callback(viewer, event)


def test_preview_follows_the_plane_the_image_and_its_pixels(viewer, widget, qtbot):
    stack = viewer.add_image(Z, name="stack")
    viewer.dims.set_current_step(0, 0)
    with qtbot.waitSignal(widget._preview.ready, timeout=10_000):
        widget.preview.setChecked(True)
    with qtbot.waitSignal(widget._preview.ready, timeout=10_000):
        viewer.dims.set_current_step(0, 1)
    np.testing.assert_array_equal(preview_of(viewer, stack).data, detect(Z[1]).mask)
    with qtbot.waitSignal(widget._preview.ready, timeout=10_000):
        stack.data = Z[::-1].copy()[:, ::-1].copy()
    np.testing.assert_array_equal(preview_of(viewer, stack).data, detect(Z[1][::-1]).mask)
    with qtbot.waitSignal(widget._preview.ready, timeout=10_000):
        other = viewer.add_image(CAMERA, name="other")
    assert preview_of(viewer, other) is not None
    assert preview_of(viewer, stack) is None
    widget.preview.setChecked(False)
    assert viewer.layers == [stack, other]


def test_no_preview_comes_after_it_was_switched_off_or_detected(viewer, widget, qtbot):
    source = viewer.add_image(CAMERA)
    widget.preview.setChecked(True)
    widget.preview.setChecked(False)
    qtbot.wait(400)
    assert preview_of(viewer, source) is None
    with qtbot.waitSignal(widget._preview.ready, timeout=10_000):
        widget.preview.setChecked(True)
    press(qtbot, widget)
    assert {layers.owned(layer).get("role") for layer in viewer.layers} >= {"mask", "blur map"}


def test_preview_of_a_megapixel_is_quick(viewer, widget, qtbot):
    viewer.add_image(np.tile(data.camera(), (2, 2))[:1000, :1000])
    with qtbot.waitSignal(widget._preview.ready, timeout=20_000):
        widget.preview.setChecked(True)
    took = []
    for limit in (1.0, 1.5, 2.5, 4.0, 2.0):
        began = time.perf_counter()
        with qtbot.waitSignal(widget._preview.ready, timeout=10_000):
            move_limit(widget, limit)
        took.append(time.perf_counter() - began)
    print(f"\npreview of 1000 x 1000: {1000 * np.median(took):.0f} ms from slider to preview")
    assert np.median(took) < 2


def test_preview_follows_the_detector_and_predicts_once(
    viewer, widget, qtbot, monkeypatch, packaged
):
    valid = []

    def predict(image, metric, config, should_stop, **options):
        valid.append(config.detector)
        return predict_plane(image, metric, config, should_stop, **options)

    predict_plane = preview_module.predict_plane
    monkeypatch.setattr(preview_module, "predict_plane", predict)
    # So few pixels that the preview leaves some out.
    monkeypatch.setattr(reduced, "MOST_PIXELS", CAMERA.size // 2)
    source = viewer.add_image(CAMERA)
    shown = []
    choose(widget, "Local metric")
    with qtbot.waitSignal(widget._preview.ready, timeout=20_000):
        widget.preview.setChecked(True)
    for detector in ("Dense network", "Local metric"):
        shown.append(preview_of(viewer, source).data.copy())
        with qtbot.waitSignal(widget._preview.ready, timeout=20_000):
            choose(widget, detector)
        settings = widget.settings
        slider = settings.limit.slider if detector == "Dense network" else settings.caution
        for value in (3.5, 1.0):
            with qtbot.waitSignal(widget._preview.ready, timeout=20_000):
                slider.setValue(value)
    assert valid == ["metric", "dense", "metric"]
    assert (shown[0] != shown[1]).any()
    np.testing.assert_array_equal(preview_of(viewer, source).data, shown[0])
    with qtbot.waitSignal(widget._preview.ready, timeout=20_000):
        choose(widget, "Dense network")
    assert len(valid) == 3 or valid == ["metric", "dense", "metric", "dense"]


def test_preview_of_the_dense_detector_is_its_mask(viewer, widget, qtbot, packaged):
    source = viewer.add_image(CAMERA)
    choose(widget, "Local metric")
    # By this scale the metric decides in another way; the network does not.
    widget.settings.scale.setCurrentText("image")
    choose(widget, "Dense network")
    with qtbot.waitSignal(widget._preview.ready, timeout=20_000):
        widget.preview.setChecked(True)
    expected = detect(CAMERA, config=DetectionConfig(detector="dense")).mask
    np.testing.assert_array_equal(preview_of(viewer, source).data, expected)


# Detectors


def test_the_paper_as_written_takes_its_own_settings(viewer, widget, qtbot):
    source = viewer.add_image(CAMERA)
    widget.settings.keep.setValue(0.6)
    choose(widget, "Zeng et al. 2019")
    settings = widget.settings
    for control in (settings.keep, settings.iterations, settings.smallest, settings.caution):
        assert not control.isEnabled()
    assert not widget.more_layers.radius.isEnabled()
    with qtbot.waitSignal(widget._preview.ready, timeout=20_000):
        widget.preview.setChecked(True)
    expected = detect(CAMERA, "zeng2019").mask
    np.testing.assert_array_equal(preview_of(viewer, source).data, expected)
    choose(widget, "Local metric")
    assert settings.keep.isEnabled()
    assert widget.config.refinement.keep == 0.6


def test_a_stack_is_judged_against_itself(viewer, widget, qtbot):
    stack = soft_stack()
    source = viewer.add_image(stack, name="cells")
    choose(widget, "The stack itself")
    assert widget.more_layers.radius.isEnabled()
    expected = detect(stack, config=DetectionConfig(detector="stack"), axes="ZYX")
    viewer.dims.set_current_step(0, 1)
    with qtbot.waitSignal(widget._preview.ready, timeout=20_000):
        widget.preview.setChecked(True)
    np.testing.assert_array_equal(preview_of(viewer, source).data, expected.mask[1])
    widget.preview.setChecked(False)
    for plane_alone in (False, True):
        widget.shown_plane.setChecked(plane_alone)
        press(qtbot, widget)
        mask = result(viewer, source, layers.MASK)
        np.testing.assert_array_equal(mask.data if plane_alone else mask.data[1], expected.mask[1])
        assert expected.note in widget.jobs.text.text()
        assert layers.owned(mask)["taught"] == expected.note
    widget.copy_command.click()
    assert QApplication.clipboard().text().endswith("--detector stack")
    # Other pixels teach anew.
    source.data = np.stack([stack[0]] * 3)
    press(qtbot, widget)
    assert "its planes do not differ" in widget.jobs.text.text()
    viewer.add_image(CAMERA, name="photo")
    press(qtbot, widget)
    assert "is one plane; the detector stack" in widget.jobs.text.text()


def test_titles_of_the_detectors_are_complete(widget):
    assert tuple(DETECTOR_TITLES) == DETECTORS
    chooser = widget.detector_chooser
    assert [chooser.itemText(i) for i in range(chooser.count())] == [*DETECTOR_TITLES.values()]


def test_the_dense_network_by_clicks(viewer, widget, qtbot, packaged):
    source = viewer.add_image(CAMERA, name="cells", scale=(2, 0.5), units=("um", "um"))
    assert widget.config.detector == "auto"
    choose(widget, "Dense network")
    widget.more_layers.confidence.click()
    widget.more_layers.radius.click()
    press(qtbot, widget)
    expected = detect(CAMERA, config=DetectionConfig(detector="dense"))
    for role, data_of in (
        (layers.BLUR, expected.blur),
        (layers.MASK, expected.mask),
        (layers.CONFIDENCE, expected.confidence),
        (layers.RADIUS, expected.radius),
    ):
        layer = result(viewer, source, role)
        assert_same(layer.data, data_of)
        assert layers.owned(layer)["settings"]["detector"] == "dense"
    assert len(viewer.layers) == 5
    assert viewer.layers[-1] == result(viewer, source, layers.MASK)
    assert is_at_rest(widget)


def test_boxes_that_are_not_ticked_add_no_layer(viewer, widget, qtbot, packaged):
    source = viewer.add_image(CAMERA)
    choose(widget, "Dense network")
    press(qtbot, widget)
    assert len(viewer.layers) == 3
    widget.more_layers.confidence.click()
    choose(widget, "Local metric")
    press(qtbot, widget)
    confidence = result(viewer, source, layers.CONFIDENCE)
    np.testing.assert_array_equal(confidence.data, detect(CAMERA, config=METRIC).confidence)
    assert result(viewer, source, layers.RADIUS) is None


def test_what_the_metric_cannot_give_is_not_offered(viewer, widget, qtbot, packaged):
    source = viewer.add_image(CAMERA)
    radius = widget.more_layers.radius
    assert radius.isEnabled()
    choose(widget, "Local metric")
    assert not radius.isEnabled()
    radius.click()
    assert not radius.isChecked()
    choose(widget, "Dense network")
    assert radius.isEnabled()
    assert not widget.settings.scale.isEnabled()
    radius.click()
    choose(widget, "Local metric")
    assert not radius.isEnabled()
    assert widget.settings.scale.isEnabled()
    press(qtbot, widget)
    assert result(viewer, source, layers.RADIUS) is None
    choose(widget, "Dense network")
    assert widget.more_layers.names == ("radius",)


def test_a_metric_of_the_session_is_a_detector(viewer, widget, qtbot, packaged, metric):
    source = viewer.add_image(CAMERA)
    session().add_metric("mine", metric)
    assert widget.detector_chooser.currentText() == "mine"
    assert not widget.more_layers.radius.isEnabled()
    assert not widget.settings.limit.slider.isEnabled()
    assert "no limit" in widget.settings.limit.text.text()
    widget.settings.caution.setValue(2)
    press(qtbot, widget)
    expected = detect(CAMERA, metric, DetectionConfig(detector="metric", caution=2))
    assert_same(result(viewer, source, layers.BLUR).data, expected.blur)
    widget.copy_command.click()
    assert "'mine' is in memory alone; save it" in widget.jobs.text.text()


def test_a_profile_is_a_detector(viewer, widget, qtbot, tmp_path, metric):
    source = viewer.add_image(CAMERA)
    # All that is seen is sharp.
    profile = Profile(np.zeros(34, np.float32), 99.0, 2.0, dense.cached_dense().digest)
    session().add_profile(TAUGHT, profile)
    assert widget.detector_chooser.currentText() == TAUGHT
    press(qtbot, widget)
    assert set(np.unique(result(viewer, source, layers.MASK).data)) <= {0, 2}
    assert "100% sharp" in widget.jobs.text.text()
    assert widget.settings.limit.slider.value() == pytest.approx(2)
    # Taught on pixels twice as large: its limit is as wide in micrometres.
    source.scale, source.units = (0.5, 0.5), ("um", "um")
    session().add_profile(TAUGHT, replace(profile, record={"pixel_size_um": 1.0}))
    press(qtbot, widget)
    assert "taught on pixels of 1 um, these have 0.5 um" in widget.jobs.text.text()
    assert layers.owned(result(viewer, source, layers.MASK))["limit_px"] == pytest.approx(4)
    choose(widget, "Default")
    # Teaching it further leaves the choice alone.
    session().add_profile(TAUGHT, replace(profile, bias=-99.0))
    assert widget.config.detector == "auto"
    path = tmp_path / "smear.safetensors"
    save_profile(profile, path)
    widget.use_detector_file(path)
    assert widget.detector_chooser.currentText() == "smear.safetensors"
    widget.copy_command.click()
    assert QApplication.clipboard().text().endswith(f"--detector {path}")
    press(qtbot, widget)
    assert "100% sharp" in widget.jobs.text.text()
    save_profile(replace(profile, network="other"), tmp_path / "old.safetensors")
    widget.use_detector_file(tmp_path / "old.safetensors")
    assert "another version of the network" in widget.jobs.text.text()
    assert widget.detector_chooser.currentText() == "smear.safetensors"


def test_detector_files(viewer, widget, qtbot, tmp_path, detector_file):
    source = viewer.add_image(CAMERA)
    (tmp_path / "foreign.safetensors").write_bytes(b"no such thing" * 10)
    for name in ("foreign", "missing"):
        widget.use_detector_file(tmp_path / f"{name}.safetensors")
        assert f"{name}.safetensors" in widget.jobs.text.text()
        assert widget.detector_chooser.count() == 5
        assert widget.config.detector == "auto"
    for _ in range(2):
        widget.use_detector_file(detector_file)
    assert widget.detector_chooser.count() == 6
    assert widget.detector_chooser.currentText() == "random.safetensors"
    assert widget.more_layers.radius.isEnabled()
    press(qtbot, widget)
    expected = detect(CAMERA, config=DetectionConfig(detector=str(detector_file)))
    assert_same(result(viewer, source, layers.BLUR).data, expected.blur)


def test_a_missing_runtime_is_named(viewer, widget, qtbot, monkeypatch, packaged):
    viewer.add_image(CAMERA)
    inference.network_session.cache_clear()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr("napari_defocus.widgets._shared.jobs.show_error", lambda _: None)
    choose(widget, "Dense network")
    press(qtbot, widget)
    assert "needs onnxruntime" in widget.jobs.text.text()
    assert is_at_rest(widget)
    choose(widget, "Local metric")
    press(qtbot, widget)
    assert len(viewer.layers) == 3


def test_the_dense_network_by_the_command_that_was_copied(
    viewer, widget, qtbot, tmp_path, packaged
):
    path = tmp_path / "cells.png"
    write_png(path, CAMERA)
    (source,) = viewer.open(path, plugin="napari")
    choose(widget, "Dense network")
    widget.more_layers.confidence.click()
    widget.more_layers.radius.click()
    press(qtbot, widget)
    widget.copy_command.click()
    words = shlex.split(QApplication.clipboard().text())
    assert words[3:] == ["--out", "results", "--confidence", "--radius", "--detector", "dense"]
    words[words.index("results")] = str(tmp_path / "out")
    assert cli.main(words[1:]) == 0
    for name, role in (("confidence", layers.CONFIDENCE), ("radius_px", layers.RADIUS)):
        written = read_image(tmp_path / "out" / f"cells.{name}.tif").data
        assert_same(result(viewer, source, role).data, written)
    widget.copy_python.click()
    text = QApplication.clipboard().text()
    assert "config = DetectionConfig(detector='dense')" in text
    assert text.endswith("found.blur, found.mask, found.confidence, found.radius")


# As text


def test_copy_as_command_reads_back_as_the_same_settings(viewer, widget):
    viewer.add_image(CAMERA)
    settings = widget.settings
    choose(widget, "Local metric")
    for control, value in (
        (settings.caution, -1.5),
        (settings.gain, 3.25),
        (settings.adapt, 0.125),
        (settings.keep, 0.4),
        (settings.iterations, 60),
        (settings.smallest, 17),
    ):
        control.setValue(value)
    settings.refine.setChecked(False)
    settings.scale.setCurrentText("image")
    widget.copy_command.click()
    words = shlex.split(QApplication.clipboard().text())
    assert words[:3] == ["napari-defocus", "detect", "IMAGE"]
    assert detection_config(cli.build_parser().parse_args(words[1:])) == widget.config
    assert widget.config.caution == -1.5
    widget.copy_python.click()
    text = QApplication.clipboard().text()
    expression = text.split("config = ")[1].splitlines()[0]
    pasted = ("DetectionConfig", "MaskConfig", "RefinementConfig")
    names = {name: getattr(napari_defocus, name) for name in pasted}
    assert eval(expression, names) == widget.config


def test_untouched_settings_are_those_of_the_library(widget):
    assert widget.config == DetectionConfig()


# Regions and objects


def choose_objects(qtbot, widget, labels):
    widget.objects.value = labels
    qtbot.waitUntil(lambda: not widget.scores.busy, timeout=10_000)


def test_region_shares_and_objects(viewer, widget, qtbot):
    source = viewer.add_image(CAMERA)
    press(qtbot, widget)
    mask = result(viewer, source, layers.MASK).data
    painted = np.zeros(CAMERA.shape, int)
    painted[20:60, 30:90] = 1
    region = viewer.add_labels(painted, name="region")
    widget.region.value = region
    sharp = (mask[20:60, 30:90] == 2).mean() / (mask[20:60, 30:90] > 0).mean()
    assert widget.share.text().startswith(f"region: of the structure: {sharp:.0%} sharp; ")
    objects = np.zeros(CAMERA.shape, int)
    objects[5:50, 5:50], objects[60:110, 60:150] = 3, 8
    cells = viewer.add_labels(objects, name="cells")
    cells.features = {"index": [3, 8], "name": ["a", "b"]}
    choose_objects(qtbot, widget, cells)
    blur = result(viewer, source, layers.BLUR).data
    assert list(cells.features["index"]) == [3, 8]
    assert list(cells.features["name"]) == ["a", "b"]
    np.testing.assert_allclose(cells.features["mean_blur"][0], blur[5:50, 5:50].mean(), rtol=1e-5)
    np.testing.assert_allclose(cells.features["focus"], focus_scores(CAMERA, objects))
    assert not widget.scores.table.isHidden()
    assert [widget.scores.table.item(row, 0).text() for row in range(2)] == ["3", "8"]
    assert widget.scores.table.item(1, 1).text() == str(50 * 90)
    widget.objects.value = None
    assert widget.scores.table.isHidden()
    widget.region.value = None
    assert widget.share.text() == ""


def test_objects_of_the_plane_on_screen(viewer, widget, qtbot):
    viewer.add_image(Z)
    viewer.dims.set_current_step(0, 1)
    widget.shown_plane.setChecked(True)
    press(qtbot, widget)
    objects = np.zeros(Z.shape[1:], int)
    objects[5:50, 5:50] = 1
    cells = viewer.add_labels(objects, name="cells")
    choose_objects(qtbot, widget, cells)
    expected = focus_scores(Z[1], objects)
    np.testing.assert_allclose(cells.features["focus"].dropna(), expected)


def test_objects_of_any_form(viewer, widget, qtbot):
    """Pyramids count at full resolution, labels of a plane for every plane of a stack."""
    image = np.stack([data.astronaut()[:64, 160:240, 1]] * 2)
    source = viewer.add_image(image, name="z")
    viewer.layers.selection.active = source
    press(qtbot, widget)
    one = np.zeros((64, 80), np.int32)
    one[10:30, 10:30], one[35:60, 40:70] = 3, 8
    forms = {
        "plane": (one, {}),
        "pyramid": ([one, one[::2, ::2]], {"multiscale": True}),
        "stack": (np.stack([one] * 2), {}),
        "pyramid of stacks": ([np.stack([one] * 2), np.stack([one] * 2)[:, ::2, ::2]],
                              {"multiscale": True}),
    }  # fmt: skip
    blur = layers.find_owned(viewer, source, layers.BLUR).data
    wrong = viewer.add_labels(np.ones((9, 9), int), name="wrong")
    for name, (pixels, options) in forms.items():
        widget.objects.value = wrong
        assert "wrong" in widget.jobs.text.text()
        objects = viewer.add_labels(pixels, name=name, **options)
        choose_objects(qtbot, widget, objects)
        # What was said of the earlier choice is gone.
        assert "⚠" not in widget.jobs.text.text()
        found = objects.features.set_index("index")
        assert list(found.index) == [3, 8]
        assert found["area"].tolist() == [2 * 400, 2 * 750]
        np.testing.assert_allclose(found["mean_blur"][8], blur[:, one == 8].mean(), rtol=1e-5)
        widget.region.value = objects
        assert "region: of the structure" in widget.share.text() or "no structure" in (
            widget.share.text()
        )


def test_objects_of_a_stack_where_one_plane_was_detected(viewer, widget, qtbot):
    image = np.stack([data.astronaut()[:64, 160:240, 1]] * 3)
    source = viewer.add_image(image, name="z")
    viewer.layers.selection.active = source
    viewer.dims.set_current_step(0, 2)
    widget.shown_plane.setChecked(True)
    press(qtbot, widget)
    labels = np.zeros((3, 64, 80), np.int32)
    labels[1], labels[2, 20:40, 20:40] = 5, 7
    objects = viewer.add_labels(labels, name="objects")
    choose_objects(qtbot, widget, objects)
    assert objects.features["index"].tolist() == [7]
    assert objects.features["area"].tolist() == [400]


@pytest.mark.parametrize("with_index", [True, False])
def test_features_of_the_objects_are_kept(viewer, widget, qtbot, with_index):
    viewer.add_image(CAMERA)
    press(qtbot, widget)
    objects = np.zeros(CAMERA.shape, int)
    objects[5:50, 5:50], objects[60:110, 60:150] = 1, 3
    cells = viewer.add_labels(objects, name="cells")
    features = {"kind": ["background", "a", "gone", "b"]}
    cells.features = {"index": [0, 1, 2, 3], **features} if with_index else features
    for _ in range(2):
        widget.objects.value = None
        choose_objects(qtbot, widget, cells)
        assert list(cells.features["index"]) == [0, 1, 2, 3]
        assert list(cells.features["kind"]) == features["kind"]
        assert list(np.isfinite(cells.features["mean_blur"])) == [False, True, False, True]


def test_labels_of_another_shape_are_refused_beside_their_chooser(viewer, widget, qtbot):
    viewer.add_image(CAMERA)
    press(qtbot, widget)
    small = viewer.add_labels(np.ones((7, 8), int), name="small")
    widget.region.value = small
    assert "'small' are (7, 8)" in widget.share.text()
    widget.objects.value = small
    assert "labels 'small' are (7, 8)" in widget.jobs.text.text()
    assert widget.scores.table.isHidden()
    assert small.features.empty


# Bad input


def test_no_layer(viewer, widget):
    assert widget.contents.text() == "no image layer"
    widget.jobs.run_button.click()
    assert "no image layer is chosen" in widget.jobs.text.text()
    widget.preview.setChecked(True)
    widget._ask_preview()
    assert "no image layer" in widget.jobs.text.text()
    widget.copy_command.click()
    assert is_at_rest(widget)


def test_points_are_no_image(viewer, widget):
    viewer.add_points(np.zeros((3, 2)))
    widget.jobs.run_button.click()
    assert "no image layer is chosen" in widget.jobs.text.text()
    assert len(viewer.layers) == 1


@pytest.mark.parametrize(
    ("pixels", "says"),
    [
        (np.zeros((0, 20, 30), np.uint8), "is empty"),
        (np.full((40, 50), 7, np.uint8), "constant"),
        (np.full((40, 50), np.nan, np.float32), ""),
    ],
    ids=["empty", "constant", "nan"],
)
def test_images_that_cannot_be_detected_in(viewer, widget, qtbot, pixels, says):
    viewer.add_image(pixels, contrast_limits=(0, 255))
    widget.jobs.run_button.click()
    qtbot.waitUntil(lambda: is_at_rest(widget), timeout=10_000)
    assert widget.jobs.text.text().startswith("⚠")
    assert says in widget.jobs.text.text()
    assert len(viewer.layers) == 1


def slow(began):
    """Give a stand-in for `detect` that works until it is asked to stop."""

    def work(*_, on_event, should_stop, **__):
        on_event(Event("detecting", 1, 100))
        began.append(time.monotonic())
        while not should_stop():
            time.sleep(0.01)
            if time.monotonic() > began[0] + 20:
                raise AssertionError("never asked to stop")
        raise Stopped

    return work


def test_layer_deleted_while_the_job_runs(viewer, widget, qtbot, monkeypatch):
    source = viewer.add_image(CAMERA, name="cells")
    go_on = []

    def late(*args, **kwargs):
        while not go_on:
            time.sleep(0.01)
        return detect(*args, **kwargs)

    monkeypatch.setattr(module, "detect", late)
    widget.jobs.run_button.click()
    assert widget.jobs.busy
    assert not widget.jobs.run_button.isEnabled()
    viewer.layers.remove(source)
    with qtbot.waitSignal(widget.jobs.ended, timeout=10_000):
        go_on.append(True)
    assert "'cells' was deleted" in widget.jobs.text.text()
    assert len(viewer.layers) == 0
    assert is_at_rest(widget)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (RuntimeError("the engine broke"), "the engine broke"),
        (RuntimeError("CUDA out of memory"), "take a smaller image"),
        (MemoryError(), "MemoryError; close other programs"),
    ],
)
def test_errors_in_the_job_are_told_and_the_buttons_come_back(
    viewer, widget, qtbot, monkeypatch, error, says
):
    viewer.add_image(CAMERA)

    def broken(*_, **__):
        raise error

    monkeypatch.setattr(module, "detect", broken)
    told = []
    monkeypatch.setattr("napari_defocus.widgets._shared.jobs.show_error", told.append)
    press(qtbot, widget)
    assert says in widget.jobs.text.text()
    assert len(told) == 1
    assert says in told[0]
    assert is_at_rest(widget)
    assert len(viewer.layers) == 1
    monkeypatch.undo()
    press(qtbot, widget)
    assert len(viewer.layers) == 3


@pytest.mark.parametrize("part", ["put_image", "put_labels", "the limit", "the region"])
def test_what_cannot_be_shown_is_told_and_leaves_the_rest(
    viewer, widget, qtbot, monkeypatch, caplog, part
):
    source = viewer.add_image(CAMERA)

    def broken(*_, **__):
        raise RuntimeError("no picture of it")

    if part == "the limit":
        monkeypatch.setattr(widget.settings.limit, "show_used", broken)
    elif part == "the region":
        monkeypatch.setattr(widget, "_show_region", broken)
    else:
        monkeypatch.setattr(layers, part, broken)
    told = []
    monkeypatch.setattr("napari_defocus.widgets._shared.jobs.show_error", told.append)
    press(qtbot, widget)
    assert "could not be shown in full (RuntimeError: no picture of it)" in widget.jobs.text.text()
    assert len(told) == 1
    assert is_at_rest(widget)
    assert (result(viewer, source, layers.MASK) is None) == (part == "put_labels")
    assert (result(viewer, source, layers.BLUR) is None) == (part == "put_image")
    monkeypatch.undo()
    press(qtbot, widget)
    assert len(viewer.layers) == 3


def test_the_radius_of_a_stack_with_a_blank_plane_is_shown(viewer, widget, qtbot, packaged):
    stack = Z.copy()
    stack[1] = 0
    source = viewer.add_image(stack)
    choose(widget, "Dense network")
    widget.more_layers.radius.setChecked(True)
    for _ in range(2):  # a second time the layers are updated
        press(qtbot, widget)
        radius = result(viewer, source, layers.RADIUS)
        assert np.isnan(radius.data[1]).all()
        assert radius.contrast_limits == pytest.approx([0, np.nanmax(radius.data)])
        assert result(viewer, source, layers.MASK) is not None
    source.data = np.zeros_like(stack)  # all blank: no radius at all
    press(qtbot, widget)
    assert result(viewer, source, layers.MASK) is not None


def test_a_mask_that_was_painted_on_stays_and_is_told(viewer, widget, qtbot):
    source = viewer.add_image(CAMERA, name="camera")
    press(qtbot, widget)
    found = result(viewer, source, layers.MASK)
    press(qtbot, widget)
    assert result(viewer, source, layers.MASK) is found
    assert "stays" not in widget.jobs.text.text()
    found.paint((30, 30), 2)
    found.data[60:, :] = 1  # by other means than the brush
    mine = found.data.copy()
    press(qtbot, widget)
    assert "the mask as you painted it stays" in widget.jobs.text.text()
    np.testing.assert_array_equal(viewer.layers["camera mask (corrected)"].data, mine)
    new = result(viewer, source, layers.MASK)
    assert new is not found
    press(qtbot, widget)
    assert len(viewer.layers) == 4


def test_another_job_may_start_when_one_has_ended(viewer, widget, qtbot):
    viewer.add_image(CAMERA)
    free = []
    widget.jobs.ended.connect(lambda: free.append(is_at_rest(widget)))
    press(qtbot, widget)
    assert free == [True]


def test_cancel_comes_back_within_half_a_second(viewer, widget, qtbot, monkeypatch):
    viewer.add_image(CAMERA)
    began = []
    monkeypatch.setattr(module, "detect", slow(began))
    widget.jobs.run_button.click()
    qtbot.waitUntil(lambda: "1 of 100" in widget.jobs.text.text(), timeout=5_000)
    second = DetectWidget(viewer)
    viewer.window.add_dock_widget(second)
    assert not second.jobs.run_button.isEnabled()
    pressed = time.monotonic()
    widget.jobs.cancel_button.click()
    assert widget.jobs.cancel_button.text() == "Cancelling…"
    qtbot.waitUntil(lambda: is_at_rest(widget), timeout=5_000)
    assert time.monotonic() - pressed < 0.5
    assert widget.jobs.text.text() == "cancelled; nothing was changed"
    assert widget.jobs.cancel_button.text() == "Cancel"
    assert second.jobs.run_button.isEnabled()
    assert len(viewer.layers) == 1


def test_a_real_detection_can_be_cancelled_within_half_a_second(viewer, widget, qtbot):
    big = np.tile(data.camera(), (2, 2))[:1000, :1000]
    viewer.add_image(da.stack([da.from_array(big)] * 50))
    widget.jobs.run_button.click()
    qtbot.waitUntil(lambda: " of 50" in widget.jobs.text.text(), timeout=20_000)
    pressed = time.monotonic()
    widget.jobs.cancel_button.click()
    qtbot.waitUntil(lambda: is_at_rest(widget), timeout=10_000)
    took = time.monotonic() - pressed
    print(f"\ncancel amid planes of 1000 x 1000: {1000 * took:.0f} ms")
    assert took < 3
    assert len(viewer.layers) == 1


def test_viewer_closed_while_the_job_runs(make_napari_viewer_proxy, qtbot, monkeypatch):
    viewer = make_napari_viewer_proxy()
    viewer.add_image(CAMERA)
    _, widget = viewer.window.add_plugin_dock_widget("napari-defocus", "Detect")
    began = []
    monkeypatch.setattr(module, "detect", slow(began))
    widget.jobs.run_button.click()
    qtbot.waitUntil(lambda: bool(began), timeout=5_000)
    viewer.close()
    qtbot.waitUntil(lambda: session().jobs.current is None, timeout=5_000)


def test_dock_closed_while_the_job_runs_and_layers_change_afterwards(viewer, qtbot, monkeypatch):
    viewer.add_image(CAMERA)
    dock, widget = viewer.window.add_plugin_dock_widget("napari-defocus", "Detect")
    widget.preview.setChecked(True)
    began = []
    monkeypatch.setattr(module, "detect", slow(began))
    widget.jobs.run_button.click()
    qtbot.waitUntil(lambda: bool(began), timeout=5_000)
    viewer.window.remove_dock_widget(dock)
    dock.close()
    widget.deleteLater()
    del widget, dock
    qtbot.waitUntil(lambda: session().jobs.current is None, timeout=5_000)
    layer = viewer.add_image(Z, name="new")
    viewer.dims.set_current_step(0, 1)
    layer.name = "renamed"
    viewer.layers.selection.active = viewer.layers[0]
    viewer.layers.remove(layer)
    qtbot.wait(100)
    _, again = viewer.window.add_plugin_dock_widget("napari-defocus", "Detect")
    assert again.jobs.run_button.isEnabled()


# Metrics


def test_metric_files(viewer, widget, qtbot, tmp_path, metric):
    source = viewer.add_image(CAMERA)
    good = tmp_path / "mine.safetensors"
    save_metric(metric, good)
    content = good.read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(content[: len(content) // 2])
    (tmp_path / "foreign.safetensors").write_bytes(b"no such thing" * 10)
    (tmp_path / "empty.safetensors").write_bytes(b"")
    before = widget.detector_chooser.count()
    for name in ("cut", "foreign", "empty", "missing"):
        path = tmp_path / f"{name}.safetensors"
        widget.jobs.report("")
        widget.use_detector_file(path)
        assert widget.jobs.text.text().startswith("⚠")
        assert path.name in widget.jobs.text.text()
        assert widget.detector_chooser.count() == before
        assert widget.detector_chooser.name == "auto"
    widget.use_detector_file(good)
    assert widget.detector_chooser.name == str(good)
    assert widget.detector_chooser.currentText() == "mine.safetensors"
    press(qtbot, widget)
    expected = detect(CAMERA, metric)
    np.testing.assert_array_equal(result(viewer, source, layers.MASK).data, expected.mask)
    widget.copy_command.click()
    assert shlex.quote(str(good)) in QApplication.clipboard().text()


def test_the_metric_just_trained_is_chosen_at_once(viewer, widget, metric):
    viewer.add_image(CAMERA)
    session().add_metric("just trained", metric)
    assert widget.detector_chooser.name == "just trained"


@pytest.mark.parametrize(
    ("detector", "metric_file", "chosen"),
    [
        *[(name, "default", name) for name in DETECTORS],
        ("file", "default", "file"),
        ("auto", "file", "file"),
        ("dense", "file", "dense"),
        ("bad", "default", "auto"),
    ],
)
def test_preferred_detector(viewer, tmp_path, metric, monkeypatch, detector, metric_file, chosen):
    save_metric(metric, tmp_path / "file")
    paths = {name: str(tmp_path / name) for name in ("file", "bad")}
    preferred = {
        "detector": paths.get(detector, detector),
        "metric": paths.get(metric_file, metric_file),
        "device": "auto",
    }
    monkeypatch.setattr(module, "preferred", preferred.get)
    widget = DetectWidget(viewer)
    viewer.window.add_dock_widget(widget)
    assert widget.detector_chooser.name == paths.get(chosen, chosen)
    assert widget.more_layers.radius.isEnabled() == (chosen in ("auto", "dense", "stack"))
    assert widget.jobs.text.text().startswith("⚠") == (detector == "bad")


def test_preferences_are_those_of_the_manifest():
    from napari.settings import get_plugin_settings

    page = get_plugin_settings("napari-defocus").defaults
    assert preferences.preferred("metric") == "default"
    assert preferences.preferred("detector") == "auto"
    assert preferences.preferred("device") == "auto"
    page.device = "cpu"
    try:
        assert preferences.preferred("device") == "cpu"
    finally:
        page.device = "auto"


# Layers in other states


def test_hidden_and_locked_layers(viewer, widget, qtbot):
    source = viewer.add_image(CAMERA, visible=False)
    press(qtbot, widget)
    mask = result(viewer, source, layers.MASK)
    mask.editable, mask.visible = False, False
    move_limit(widget, 1)
    press(qtbot, widget)
    expected = detect(CAMERA, config=DetectionConfig(limit=1.0)).mask
    np.testing.assert_array_equal(mask.data, expected)
    assert not mask.visible
    assert not source.visible


def test_choosers_follow_the_layer_list(viewer, widget):
    first = viewer.add_image(CAMERA, name="first")
    second = viewer.add_image(CAMERA, name="second")
    assert list(widget.image.choices) == [first, second]
    viewer.layers.selection.active = first
    assert widget.image.value == first
    first.name = "renamed"
    assert "renamed" in [widget.image.native.itemText(i) for i in range(2)] or any(
        child.itemText(0) == "renamed"
        for child in widget.image.native.children()
        if hasattr(child, "itemText")
    )
    viewer.layers.remove(first)
    assert widget.image.value == second


# A low window


def test_scrolls_where_the_window_is_low(widget):
    assert widget.minimumSizeHint().height() < 400
    assert widget.minimumSizeHint().width() >= widget.exports.minimumSizeHint().width()


def test_is_as_wide_as_what_it_scrolls(qtbot):
    button, inner, outer = QPushButton("short"), QWidget(), QWidget()
    QVBoxLayout(inner).addWidget(button)
    QVBoxLayout(outer).addWidget(Scrolled(inner))
    qtbot.addWidget(outer)
    outer.show()
    before = outer.minimumSizeHint().width()
    button.setText("a much, much wider text of a button than the one before")
    qtbot.waitUntil(lambda: outer.minimumSizeHint().width() > before + 100)


def test_the_wheel_does_not_turn_what_was_not_clicked(viewer, widget, qtbot):
    before = widget.config
    for control in (widget.detector_chooser, widget.settings.limit.slider, widget.settings.scale):
        turn = QWheelEvent(
            QPointF(3, 3), QPointF(3, 3), QPoint(), QPoint(0, -120),
            Qt.MouseButton.NoButton, Qt.KeyboardModifier.NoModifier,
            Qt.ScrollPhase.NoScrollPhase, False,
        )  # fmt: skip
        QApplication.sendEvent(control, turn)
    assert widget.config == before
