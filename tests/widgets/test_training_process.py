"""The process of the window: torch stays out of it, and it outlives whatever trains nets."""

import json
import os
import subprocess
import sys
import tempfile
import textwrap
import threading
import time

import numpy as np
import psutil
import pytest

from napari_defocus.widgets._shared import layers
from napari_defocus.widgets._shared.session import TRAINED, session
from napari_defocus.widgets._shared.targets import ANNOTATION
from napari_defocus.widgets.train.widget import TrainWidget

WIDGET = TrainWidget
WAIT = 120_000
# A whole session with all widgets. Later sessions may add what needs no torch any more.
SESSION = """
import json, sys, time
import napari, numpy as np
from qtpy.QtTest import QTest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication
from napari_defocus.data.samples import read_sample

def wait(until, seconds=200):
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, "it takes too long"
        QApplication.processEvents()
        time.sleep(.005)

def press(widget):
    QTest.mouseClick(widget.jobs.run_button, Qt.MouseButton.LeftButton)
    assert widget.jobs.busy, widget.jobs.text.text()
    wait(lambda: not widget.jobs.busy)
    done.append(widget.jobs.text.text())

done = []
sample = read_sample("photo")
viewer = napari.Viewer()
photo = viewer.add_image(sample.image[:160, :160], name="photo")
stack = viewer.add_image(np.stack([sample.image[:96, :96, 1]] * 3), name="stack")
widgets = {
    name: viewer.window.add_plugin_dock_widget("napari-defocus", name)[1]
    for name in ("Detect", "Annotate", "Train", "Kernel PCA", "Evaluate", "Stacks")
}
detect, annotate, train, kernels, evaluate, stacks = widgets.values()
viewer.layers.selection.active = photo
viewer.screenshot(canvas_only=False, flash=False)
annotate.new.click()
labels = annotate.annotation.value
painted = np.zeros((160, 160), np.uint8)
painted[:75, :75], painted[85:, 85:] = 1, 2
labels.data_setitem(np.nonzero(painted), painted[np.nonzero(painted)])
annotate.patches.fold.expand(animate=False)
wait(annotate.patches.jobs.run_button.isVisible)
press(annotate.patches)
train.settings.nets.setValue(40)
train.settings.epochs.setValue(500)
QTest.mouseClick(train.jobs.run_button, Qt.MouseButton.LeftButton)
wait(lambda: train.curves.history)
QTest.mouseClick(train.jobs.cancel_button, Qt.MouseButton.LeftButton)
wait(lambda: not train.jobs.busy)
done.append(train.jobs.text.text())
train.settings.nets.setValue(1)
train.settings.epochs.setValue(1)
press(train)
kernels.metric_chooser.setCurrentText("just trained")
kernels.components.setValue(3)
wait(lambda: len(kernels.shown.filters) == 3)
viewer.layers.selection.active = photo
detect.detector_chooser.choose("metric")
detect.detector_chooser.setCurrentText("just trained")
press(detect)
evaluate.labels.value = labels
press(evaluate)
viewer.layers.selection.active = stack
press(stacks)
viewer.close()
print(json.dumps({"done": done, "torch": "torch" in sys.modules}))
"""


def run_session(tmp_path):
    environment = {**os.environ, "NAPARI_CONFIG": "", "XDG_STATE_HOME": str(tmp_path)}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    command = [sys.executable, "-c", textwrap.dedent(SESSION)]
    ended = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    return json.loads(ended.stdout.splitlines()[-1])


def assert_went_well(told):
    assert not [text for text in told["done"] if text.startswith("⚠")]
    assert told["done"][1].startswith("cancelled")
    assert "offered in Detect" in told["done"][2]
    assert not told["torch"]


@pytest.mark.timeout(900)
def test_torch_stays_out_of_the_process_of_the_window(tmp_path):
    assert_went_well(run_session(tmp_path))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_window_lives_ten_times(tmp_path):
    for _ in range(10):
        assert_went_well(run_session(tmp_path))


@pytest.fixture
def processes(started, monkeypatch, tmp_path):
    """The processes that were started; none of them and none of their files stay."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield started
    assert all(process.returncode is not None for process in started)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("napari-defocus-")]


@pytest.fixture
def painted(viewer):
    source = viewer.add_image(np.zeros((40, 60), np.uint8), name="photo")
    labels = np.zeros((40, 60), np.uint8)
    labels[5:9, 5:30] = 1
    note = layers.note_of(source, ANNOTATION, index=())
    return viewer.add_labels(labels, name="painted", metadata=note)


@pytest.fixture
def long(painted, widget, patch_set, metric):
    """A widget whose training takes long, with an earlier metric."""
    session().add_patches("scenes", patch_set)
    session().add_metric(TRAINED, metric)
    widget.settings.nets.setValue(60)
    widget.settings.epochs.setValue(500)
    return widget


def assert_nothing_lost(widget, labels, metric):
    assert session().metric(TRAINED) is metric
    assert labels.data.sum() == 4 * 25
    assert session().patch_sets
    assert widget.jobs.run_button.isEnabled()
    assert not widget.jobs.cancel_button.isEnabled()
    assert widget.jobs.bar.isHidden()


@pytest.mark.parametrize("after", [0, 0.3, "the first epoch"])
def test_cancel_is_certain(long, painted, metric, processes, qtbot, after):
    long.jobs.run_button.click()
    if isinstance(after, str):
        qtbot.waitUntil(lambda: bool(long.curves.history), timeout=WAIT)
    else:
        qtbot.wait(int(1000 * after))
    began = time.monotonic()
    long.jobs.cancel_button.click()
    qtbot.waitUntil(lambda: not long.jobs.busy, timeout=WAIT)
    # Half a second is what is promised; the machine may be busy.
    assert time.monotonic() - began < 3
    assert "cancelled" in long.jobs.text.text()
    assert_nothing_lost(long, painted, metric)
    long.settings.nets.setValue(1)
    long.settings.epochs.setValue(1)
    long.jobs.run_button.click()
    qtbot.waitUntil(lambda: not long.jobs.busy, timeout=WAIT)
    assert "offered in Detect" in long.jobs.text.text()
    assert session().metric(TRAINED) is not metric


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_the_process_is_killed(long, painted, metric, processes, qtbot, monkeypatch):
    told = []
    monkeypatch.setattr("napari_defocus.widgets._shared.jobs.show_error", told.append)
    long.jobs.run_button.click()
    qtbot.waitUntil(lambda: bool(long.curves.history), timeout=WAIT)
    processes[-1].kill()
    qtbot.waitUntil(lambda: not long.jobs.busy, timeout=WAIT)
    assert "was killed" in long.jobs.text.text()
    assert told
    assert_nothing_lost(long, painted, metric)


def test_closing_the_viewer_ends_the_process(long, viewer, processes, qtbot):
    before = threading.active_count()
    long.jobs.run_button.click()
    qtbot.waitUntil(lambda: bool(long.curves.history), timeout=WAIT)
    viewer.close()
    qtbot.waitUntil(lambda: not psutil.pid_exists(processes[-1].pid), timeout=WAIT)
    qtbot.waitUntil(lambda: session().jobs.current is None, timeout=WAIT)
    assert threading.active_count() <= before + 1
