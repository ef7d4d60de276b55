"""Teaching by strokes and by buttons, as a person does it, and what cannot be learnt from."""

import numpy as np
import pytest
from scipy import ndimage
from skimage import data

from napari_defocus.detection.api import detect
from napari_defocus.profile.profile import load_profile
from napari_defocus.widgets._shared import layers
from napari_defocus.widgets._shared.session import TAUGHT, session
from napari_defocus.widgets.annotate import lessons
from napari_defocus.widgets.annotate.widget import AnnotateWidget
from napari_defocus.widgets.detect.widget import DetectWidget

WAIT = 60_000
SHARP = data.camera()[100:292, 120:312]
BLURRED = ndimage.gaussian_filter(SHARP, 6)
STACK = np.stack([SHARP, ndimage.gaussian_filter(SHARP, 3), BLURRED])


@pytest.fixture
def settle(qtbot):
    def wait(widget):
        def idle():
            waiting = widget._timer.isActive() or widget._learning.isActive()
            return not (waiting or widget.jobs.busy or widget.teach.latest.busy)

        qtbot.waitUntil(idle, timeout=WAIT)

    return wait


@pytest.fixture
def widget(viewer, settle):
    widget = AnnotateWidget(viewer)
    viewer.window.add_dock_widget(widget)
    yield widget
    settle(widget)


def paint(widget, label, rows, columns):
    """Paint a stroke on the annotation of the plane on screen, a new one if there is none."""
    widget.new.click()
    widget.paint(label)
    labels = widget.annotation.value
    labels.brush_size = 12
    with labels.block_history():
        for point in np.linspace((rows[0], columns[0]), (rows[1], columns[1]), 20):
            labels.paint(tuple(point), label)
    return labels


def taught_mask(viewer, source):
    return layers.find_owned(viewer, source, layers.TAUGHT)


def taught():
    return session().detector(TAUGHT)[0]


def sharp_share(mask):
    return (mask == 2).sum() / (mask > 0).sum()


def test_strokes_teach_at_once_and_detect_obeys(viewer, widget, settle, qtbot):
    source = viewer.add_image(STACK, name="cells")
    viewer.dims.set_current_step(0, 2)
    settle(widget)
    assert "press New annotation and paint" in widget.teach.text.text()
    # What blurs by up to 6 pixels is sharp enough here.
    paint(widget, 2, (40, 150), (40, 150))
    settle(widget)
    assert "holds; nothing blurred is taught" in widget.teach.text.text()
    shown = taught_mask(viewer, source)
    assert sharp_share(shown.data) > 0.95
    assert viewer.layers.selection.active == widget.annotation.value
    assert viewer.layers.index(shown) < viewer.layers.index(widget.annotation.value)
    first = taught()

    # The opposite is taught on the same plane, and on another one what is sharp.
    widget.annotation.value.undo()
    settle(widget)
    assert "nothing is painted yet" in widget.teach.text.text()
    assert taught() is first
    paint(widget, 1, (40, 150), (40, 150))
    viewer.dims.set_current_step(0, 0)
    paint(widget, 2, (40, 150), (150, 40))
    settle(widget)
    assert widget.teach.text.text() == "100% of what you taught holds"
    assert sharp_share(taught_mask(viewer, source).data) > 0.9

    detector = DetectWidget(viewer)
    viewer.window.add_dock_widget(detector)
    viewer.layers.selection.active = source
    assert detector.detector_chooser.currentText() == TAUGHT
    with qtbot.waitSignal(detector.jobs.ended, timeout=WAIT):
        detector.jobs.run_button.click()
    mask = layers.find_owned(viewer, source, layers.MASK).data
    assert sharp_share(mask[0]) > 0.9
    assert sharp_share(mask[2]) < 0.1
    np.testing.assert_array_equal(mask, detect(STACK, taught(), axes="ZYX").mask)


def test_planes_are_predicted_once_and_few_are_kept(viewer, widget, settle, monkeypatch):
    predicted = []

    def predictor(**_):
        def predict(image):
            predicted.append(image)
            return original()(image)

        return predict

    original = lessons.predictor
    monkeypatch.setattr(lessons, "predictor", predictor)
    monkeypatch.setattr(lessons, "MOST_PLANES", 2)
    source = viewer.add_image(STACK)
    for z in (0, 1, 2):
        viewer.dims.set_current_step(0, z)
        for start in (40, 100):
            paint(widget, 1 if z else 2, (start, start + 30), (40, 150))
            settle(widget)
    assert len(predicted) == 3
    record = taught().record
    assert (record["sharp"] > 0, record["blurred"] > 0, record["sources"]) == (True, True, 6)
    # The first plane has gone; what it taught has not, and it comes back.
    viewer.dims.set_current_step(0, 0)
    settle(widget)
    assert len(predicted) == 4
    source.data = STACK[::-1].copy()
    settle(widget)
    paint(widget, 1, (10, 20), (10, 20))
    settle(widget)
    assert (predicted[-1] == STACK[0]).all() or (predicted[-1] == STACK[2]).all()
    assert len(predicted) > 4


def test_a_plane_in_focus_and_a_stack_teach_without_painting(viewer, widget, settle, tmp_path):
    source = viewer.add_image(STACK, name="cells", scale=(1, 0.5, 0.5), units=("um",) * 3)
    viewer.dims.set_current_step(0, 0)
    assert not widget.teach.save_button.isEnabled()
    widget.jobs.run_button.click()
    settle(widget)
    assert widget.jobs.text.text() == "taught from: cells, plane 0"
    assert "holds" in widget.teach.text.text()
    assert sharp_share(taught_mask(viewer, source).data) > 0.9
    widget.teach.from_stack.click()
    settle(widget)
    assert widget.jobs.text.text() == "taught from: cells, plane 0, cells, stack"
    path = tmp_path / "cells.safetensors"
    widget.teach.save(path)
    settle(widget)
    saved = load_profile(path)
    assert saved.record["pixel_size_um"] == pytest.approx(0.5)
    assert "cells, plane 0, in focus" in saved.record["taught_from"]
    np.testing.assert_array_equal(saved.weights, taught().weights)
    before = taught()
    widget.teach.forget_button.click()
    settle(widget)
    assert taught_mask(viewer, source) is None
    assert taught() is before
    widget.teach.save(path)
    assert "nothing is taught yet" in widget.jobs.text.text()


def test_switched_off_it_neither_learns_nor_shows(viewer, widget, settle):
    source = viewer.add_image(SHARP)
    widget.teach.live.setChecked(False)
    paint(widget, 2, (40, 150), (40, 150))
    settle(widget)
    assert TAUGHT not in session().detector_names
    widget.teach.live.setChecked(True)
    settle(widget)
    assert taught_mask(viewer, source) is not None
    widget.teach.live.setChecked(False)
    settle(widget)
    assert taught_mask(viewer, source) is None


def test_what_cannot_be_learnt_from_is_told_and_changes_nothing(
    viewer, widget, settle, monkeypatch
):
    monkeypatch.setattr("napari_defocus.widgets._shared.jobs.show_error", lambda _: None)
    half = np.concatenate([SHARP, np.full_like(SHARP, 90)])
    source = viewer.add_image(half, name="half")
    paint(widget, 2, (40, 150), (40, 150))
    settle(widget)
    before = taught()
    widget.annotation.value.undo()
    # Strokes on nothing but background.
    labels = paint(widget, 1, (260, 350), (40, 150))
    settle(widget)
    assert "half: the strokes cover nothing that shows structure" in widget.teach.text.text()
    assert taught() is before
    assert (labels.data == 1).any()
    # What shows structure beside it counts.
    paint(widget, 2, (40, 150), (40, 150))
    settle(widget)
    assert "holds" in widget.teach.text.text()

    for name, pixels, says in (
        ("flat", np.full((150, 160), 7, np.uint8), "constant"),
        ("soft", ndimage.gaussian_filter(SHARP.astype(np.float32), 14), "it shows"),
    ):
        viewer.layers.selection.active = viewer.add_image(pixels, name=name)
        settle(widget)
        widget.jobs.run_button.click()
        settle(widget)
        assert widget.jobs.text.text().startswith(f"⚠ {name}: ")
        assert says in widget.jobs.text.text()
    viewer.layers.selection.active = viewer.add_image(np.stack([SHARP] * 3), name="still")
    settle(widget)
    widget.teach.from_stack.click()
    settle(widget)
    assert "still: its planes do not differ in focus" in widget.jobs.text.text()
    assert source in viewer.layers
    assert labels in viewer.layers
    assert TAUGHT in session().detector_names


def test_strokes_that_contradict_each_other_are_named(viewer, widget, settle):
    viewer.add_image(np.concatenate([SHARP, SHARP], axis=1), name="twins")
    # The same pixels, sharp on the left and blurred on the right.
    labels = paint(widget, 2, (40, 150), (40, 150))
    labels.data_setitem(np.nonzero(np.roll(labels.data, 192, 1) == 2), 1)
    labels.refresh()
    settle(widget)
    text = widget.teach.text.text()
    assert text.startswith("⚠ ")
    assert "twins, " in text
    assert "stroke 1 does not hold: erase it where it is wrong" in text
