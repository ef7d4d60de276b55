"""Faults at each stage of a job of each widget: buttons come back, threads end, paint stays."""

import gc
import threading

import numpy as np
import pytest
from qtpy.QtCore import QThreadPool

from napari_defocus.data.samples import read_sample
from napari_defocus.widgets._shared import jobs as jobs_module
from napari_defocus.widgets._shared import layers
from napari_defocus.widgets._shared.session import session
from napari_defocus.widgets._shared.targets import ANNOTATION
from napari_defocus.widgets.annotate.widget import AnnotateWidget
from napari_defocus.widgets.detect.widget import DetectWidget
from napari_defocus.widgets.evaluate.widget import EvaluateWidget
from napari_defocus.widgets.train.widget import TrainWidget

WAIT = 120_000
SAMPLE = read_sample("photo")
PHOTO, BLURRED = SAMPLE.image[:160, :160], SAMPLE.blurred[:160, :160]
# Before the work, between work and result, and when the result waits for the window.
STAGES = [
    pytest.param("before", marks=pytest.mark.slow),
    "after",
    pytest.param("received", marks=pytest.mark.slow),
]


class Gate:
    """Holds the widget's job at a stage, or lets it fail there."""

    def __init__(self, stage):
        self.stage = stage
        self.error = None
        self.reached = threading.Event()
        self.release = threading.Event()

    def wait(self, job):
        self.reached.set()
        while not (self.release.wait(0.005) or job.abort_requested):
            pass
        if self.error is not None:
            raise self.error


@pytest.fixture(params=STAGES)
def gate(request, monkeypatch):
    gate = Gate(request.param)
    work = jobs_module.Job.work

    def held(job):
        # Not the questions that widgets ask beside the one job.
        if job is not session().jobs.current:
            return work(job)
        if gate.stage == "before":
            gate.wait(job)
        result = work(job)
        if gate.stage == "after":
            gate.wait(job)
        if gate.stage == "received" and gate.error is not None:
            raise gate.error
        gate.reached.set()
        return result

    monkeypatch.setattr(jobs_module.Job, "work", held)
    yield gate
    gate.release.set()


@pytest.fixture(params=[AnnotateWidget, DetectWidget, TrainWidget, EvaluateWidget])
def prepared(request, viewer, patch_set):
    """Give a widget that is ready to run, its dock, and an annotation."""
    source = viewer.add_image(PHOTO, name="photo")
    painted = np.zeros(PHOTO.shape[:2], np.uint8)
    painted[20:60, 20:60], painted[100:140, 90:140] = 1, 2
    note = {"role": ANNOTATION, "source_id": source.unique_id, "source": "photo", "index": ()}
    labels = viewer.add_labels(painted.copy(), name="paint", metadata={layers.KEY: note})
    if request.param is TrainWidget:
        session().add_patches("scenes", patch_set)
    if request.param is EvaluateWidget:
        layers.put_image(viewer, BLURRED.astype(np.float32), source, layers.BLUR)
        viewer.add_labels(np.where(BLURRED, 1, 2).astype(np.uint8), name="truth")
    widget, dock = open_dock(viewer, request.param)
    return widget, dock, labels


def open_dock(viewer, kind):
    widget = kind(viewer)
    dock = viewer.window.add_dock_widget(widget)
    if kind is TrainWidget:
        widget.settings.nets.setValue(1)
        widget.settings.epochs.setValue(1)
    if kind is EvaluateWidget:
        widget.labels.value = viewer.layers["truth"]
    if kind is AnnotateWidget:
        widget.annotation.value = viewer.layers["paint"]
    return widget, dock


def begin(widget, gate, error=None):
    """Press the button, and wait, without the window's events, until the stage is reached."""
    gate.error = error
    widget.jobs.run_button.click()
    assert widget.jobs.busy
    if error is None or gate.stage != "received":
        assert gate.reached.wait(WAIT / 1000)


def settle(qtbot, gate, widget=None):
    gate.release.set()
    pool = QThreadPool.globalInstance()
    qtbot.waitUntil(lambda: session().jobs.current is None, timeout=WAIT)
    if widget is not None:
        qtbot.waitUntil(lambda: not widget.jobs.busy, timeout=WAIT)
    qtbot.waitUntil(lambda: pool.activeThreadCount() == 0, timeout=WAIT)


def assert_usable(widget):
    assert widget.jobs.run_button.isEnabled()
    assert not widget.jobs.cancel_button.isEnabled()
    assert widget.jobs.cancel_button.text() == "Cancel"
    assert widget.jobs.bar.isHidden()


def assert_painted(labels):
    assert labels.data[30, 30] == 1
    assert labels.data[120, 100] == 2
    assert (labels.data > 0).sum() == 40 * 40 + 40 * 50


def assert_runs(widget, gate, qtbot):
    gate.release.set()
    gate.error = None
    widget.jobs.run_button.click()
    settle(qtbot, gate, widget)
    assert not widget.jobs.text.text().startswith("⚠")
    assert_usable(widget)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA out of memory"),
        pytest.param(MemoryError(), marks=pytest.mark.slow),
        pytest.param(OSError(28, "No space left on device"), marks=pytest.mark.slow),
    ],
)
def test_it_fails(prepared, gate, qtbot, error):
    widget, _, labels = prepared
    begin(widget, gate, error)
    settle(qtbot, gate, widget)
    assert widget.jobs.text.text().startswith("⚠")
    assert_usable(widget)
    assert_painted(labels)
    assert_runs(widget, gate, qtbot)


def test_it_is_cancelled(prepared, gate, qtbot):
    widget, _, labels = prepared
    begin(widget, gate)
    widget.jobs.cancel_button.click()
    settle(qtbot, gate, widget)
    assert_usable(widget)
    assert_painted(labels)
    assert_runs(widget, gate, qtbot)


def test_its_layers_are_deleted(prepared, gate, qtbot, viewer):
    widget, _, labels = prepared
    begin(widget, gate)
    for name in [layer.name for layer in viewer.layers if layer.name != labels.name]:
        viewer.layers.remove(viewer.layers[name])
    settle(qtbot, gate, widget)
    assert_usable(widget)
    assert_painted(labels)
    assert [layer.name for layer in viewer.layers] == [labels.name]


def test_its_dock_is_closed_and_opened_again(prepared, gate, qtbot, viewer):
    widget, dock, labels = prepared
    kind = type(widget)
    begin(widget, gate)
    viewer.window.remove_dock_widget(dock)
    dock.close()
    widget.deleteLater()
    del widget, dock, prepared
    again, _ = open_dock(viewer, kind)
    settle(qtbot, gate)
    assert_usable(again)
    assert_painted(labels)
    assert_runs(again, gate, qtbot)


def test_the_viewer_is_closed(prepared, gate, qtbot, viewer):
    widget, _, labels = prepared
    before = threading.active_count()
    begin(widget, gate)
    viewer.close()
    settle(qtbot, gate)
    gc.collect()
    assert threading.active_count() <= before + 1
    assert_painted(labels)


def test_another_dock_starts_while_one_runs(prepared, gate, qtbot, viewer):
    """One job at a time: what is pressed meanwhile is refused, and nothing is lost."""
    widget, _, labels = prepared
    begin(widget, gate)
    again, _ = open_dock(viewer, type(widget))
    assert not again.jobs.run_button.isEnabled()
    again.jobs.run(lambda _: None, lambda on_event, should_stop: 1)
    assert "another job of this plugin is running" in again.jobs.text.text()
    settle(qtbot, gate, widget)
    assert_usable(widget)
    assert_usable(again)
    assert_painted(labels)
