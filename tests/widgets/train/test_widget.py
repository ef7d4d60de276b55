import time
from dataclasses import replace

import numpy as np
import pytest
from qtpy.QtCore import QTimer
from qtpy.QtGui import QImage

from napari_defocus.metric.fitting import FitConfig
from napari_defocus.metric.local_metric import load_metric
from napari_defocus.metric.nets import TrainingConfig
from napari_defocus.widgets._shared import fit_jobs, layers
from napari_defocus.widgets._shared.session import TRAINED, session
from napari_defocus.widgets._shared.targets import ANNOTATION
from napari_defocus.widgets.train import live
from napari_defocus.widgets.train.widget import TrainWidget

WIDGET = TrainWidget

TIMEOUT = 120_000
# What the window may do between two ticks of a timer of 10 ms while nets are trained, in seconds.
LONGEST_GAP = 0.1


@pytest.fixture
def widget(widget):
    widget.settings.nets.setValue(1)
    widget.settings.epochs.setValue(2)
    return widget


@pytest.fixture
def ready(widget, patch_set):
    session().add_patches("scenes", patch_set.sample(200))
    return widget


def run(widget, qtbot):
    widget.jobs.run_button.click()
    assert widget.jobs.busy
    qtbot.waitUntil(lambda: not widget.jobs.busy, timeout=TIMEOUT)
    assert widget.jobs.run_button.isEnabled()
    assert not widget.jobs.cancel_button.isEnabled()


def add_annotation(viewer, scene):
    name, image, labels = scene
    source = viewer.add_image(image, name=name)
    note = {"role": ANNOTATION, "source_id": source.unique_id, "source": name, "index": ()}
    return viewer.add_labels(np.zeros_like(labels), metadata={layers.KEY: note})


def test_shows_the_patch_set(widget, patch_set):
    assert "no patches yet" in widget.patches.text()
    session().add_patches("scenes", patch_set)
    counts = patch_set.counts()
    assert f"{counts['blurred']} blurred, {counts['sharp']} sharp" in widget.patches.text()
    assert f"{len(patch_set.sources)} images" in widget.patches.text()
    session().add_patches("more", patch_set)
    assert f"{2 * counts['blurred']} blurred" in widget.patches.text()
    assert "more: " in widget.patches.text()
    session().clear_patches()
    assert "no patches yet" in widget.patches.text()


def test_training_without_patches_says_what_to_do(widget):
    widget.jobs.run_button.click()
    assert not widget.jobs.busy
    assert "Annotate" in widget.jobs.text.text()


def test_trains_to_the_end(ready, qtbot):
    changed = []
    session().metrics_changed.connect(changed.append)
    run(ready, qtbot)
    assert changed == [TRAINED]
    assert "AUC" in ready.jobs.text.text()
    assert len(session().nets.nets) == 1
    assert len(ready.curves.history[0]) == 2
    assert session().metric(TRAINED).record["training"]["epochs"] == 2


def colours_of(curves):
    """The colours of the lines on screen."""
    picture = curves.grab().toImage().convertToFormat(QImage.Format.Format_RGB32)
    size = picture.height(), picture.width(), 4
    pixels = np.frombuffer(picture.constBits().asstring(picture.sizeInBytes()), np.uint8)
    return {tuple(pixel) for pixel in pixels.reshape(size)[..., 2::-1].reshape(-1, 3).tolist()}


def test_curves_of_several_nets(widget):
    curves, epoch = widget.curves, {"train_loss": 0.4, "loss": 0.3, "accuracy": 0.95}
    curves.clear(5)
    empty = colours_of(curves)
    for net in (0, 0, 1):
        curves.add(net, epoch)
    assert {net: len(epochs) for net, epochs in curves.history.items()} == {0: 2, 1: 1}
    assert curves.limits() == ((0, 0.5), (0.9, 1))
    drawn = colours_of(curves)
    blue, orange, green = ((31, 119, 180), (255, 127, 14), (44, 160, 44))
    assert {blue, orange} <= drawn
    assert not {blue, orange, green} & empty
    assert green not in drawn
    # A value beyond the limits makes for others.
    curves.add(2, {"train_loss": 2.0, "loss": 3.0, "accuracy": 0.4})
    (_, loss), (accuracy, _) = curves.limits()
    assert loss >= 3
    assert accuracy <= 0.4
    assert green in colours_of(curves)
    curves.clear(5)
    assert colours_of(curves) == empty


def test_curves_of_long_trainings_are_drawn_at_once(widget):
    widget.curves.clear(1000)
    for net in range(64):
        for _ in range(1000):
            widget.curves.add(net, {"train_loss": 0.4, "loss": 0.3, "accuracy": 0.95})
    began = time.process_time()
    widget.curves.grab()
    assert time.process_time() - began < 0.2


def test_the_window_answers_while_nets_are_trained(ready, patch_set, qtbot, capsys):
    # What is imported once in a process stalls it for its own time.
    fit_jobs.import_early()
    ready.settings.epochs.setValue(4)
    ready.show()
    qtbot.waitExposed(ready)
    ticks = []
    timer = QTimer()
    timer.setInterval(10)
    timer.timeout.connect(lambda: ticks.append((time.perf_counter(), time.process_time())))
    timer.start()
    run(ready, qtbot)
    timer.stop()
    gap, worked = np.diff(ticks, axis=0).max(axis=0)
    with capsys.disabled():
        print(f"longest gap {1000 * gap:.0f} ms, {1000 * worked:.0f} ms of them worked ", end="")
    # What it waits for a busy machine is not its own.
    assert worked < LONGEST_GAP


def test_cancelling_keeps_the_previous_metric(ready, qtbot, metric):
    session().add_metric(TRAINED, metric)
    ready.settings.nets.setValue(60)
    ready.settings.epochs.setValue(500)
    ready.jobs.run_button.click()
    qtbot.waitUntil(lambda: bool(ready.curves.history), timeout=TIMEOUT)
    ready.jobs.cancel_button.click()
    assert ready.jobs.cancel_button.text() == "Cancelling…"
    began = time.monotonic()
    qtbot.waitUntil(lambda: not ready.jobs.busy, timeout=TIMEOUT)
    assert time.monotonic() - began < 5
    assert session().metric(TRAINED) is metric
    assert session().nets is None
    assert "cancelled" in ready.jobs.text.text()
    assert ready.jobs.run_button.isEnabled()
    assert ready.jobs.cancel_button.text() == "Cancel"


def test_a_failing_job_is_told_and_the_buttons_come_back(ready, qtbot, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("CUDA out of memory")

    told = []
    monkeypatch.setattr(fit_jobs, "train_in_child", fail)
    monkeypatch.setattr("napari_defocus.widgets._shared.jobs.show_error", told.append)
    run(ready, qtbot)
    assert "CUDA out of memory; close other programs" in ready.jobs.text.text()
    assert told
    assert TRAINED not in session().metric_names


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: replace(p, config=replace(p.config, superpixel=20)), "cut them again alike"),
        (lambda p: p.take(p.labels == 2), "paint more blurred"),
    ],
)
def test_patches_that_do_not_do_are_told(widget, patch_set, qtbot, monkeypatch, change, words):
    monkeypatch.setattr("napari_defocus.widgets._shared.jobs.show_error", lambda _: None)
    if "alike" in words:
        session().add_patches("scenes", patch_set)
    session().add_patches("other", change(patch_set))
    run(widget, qtbot)
    assert words in widget.jobs.text.text()


def test_the_instant_method(ready, qtbot):
    ready.settings.method.setCurrentText("instant")
    assert not ready.settings.nets.isEnabled()
    run(ready, qtbot)
    assert session().metric(TRAINED).record["method"] == "instant"
    assert session().nets is None


def test_no_base_takes_a_larger_learning_rate(widget):
    widget.settings.base.setCurrentText("none")
    training = widget.settings.config.training
    assert (training.base, training.rate) == ("none", 2e-3)


def test_saves_the_trained_metric(ready, qtbot, metric, tmp_path):
    path = tmp_path / "metric.safetensors"
    assert not ready.save_button.isEnabled()
    ready.save(path)
    assert "press Train" in ready.jobs.text.text()
    session().add_metric(TRAINED, metric)
    assert ready.save_button.isEnabled()
    ready.save(path)
    assert load_metric(path).digest == metric.digest
    ready.save(path / "below a file")
    assert "⚠" in ready.jobs.text.text()


def test_the_save_button_asks_where(ready, metric, tmp_path, monkeypatch):
    session().add_metric(TRAINED, metric)
    answers = [("", ""), (str(tmp_path / "mine"), "")]
    monkeypatch.setattr(
        "napari_defocus.widgets._shared.dialogs.QFileDialog.getSaveFileName",
        lambda *_: answers.pop(0),
    )
    ready.save_button.click()
    assert not list(tmp_path.iterdir())
    ready.save_button.click()
    assert load_metric(tmp_path / "mine.safetensors").digest == metric.digest


def test_fits_as_the_user_paints(viewer, widget, scenes, qtbot):
    widget.show()
    annotation = add_annotation(viewer, scenes[1])
    widget.live.click()
    qtbot.waitUntil(lambda: "nothing is painted" in widget.live_text.text(), timeout=TIMEOUT)
    assert TRAINED not in session().metric_names
    labels = scenes[1][2]
    changed = np.nonzero(labels)
    annotation.data_setitem(changed, labels[changed])
    qtbot.waitUntil(lambda: TRAINED in session().metric_names, timeout=TIMEOUT)
    first = session().metric(TRAINED)
    assert first.record["method"] == "instant"
    assert "AUC" in widget.live_text.text()
    # More patches come from the patch set.
    session().add_patches("another", live.build_patch_set([scenes[4]]))
    qtbot.waitUntil(lambda: session().metric(TRAINED) is not first, timeout=TIMEOUT)
    widget.live.click()
    assert not widget.live_text.isVisible()


def test_nothing_is_fitted_while_switched_off(viewer, widget, scenes, qtbot, patch_set):
    annotation = add_annotation(viewer, scenes[1])
    annotation.data_setitem(np.nonzero(scenes[1][2]), 1)
    session().add_patches("scenes", patch_set)
    qtbot.wait(live.DEBOUNCE + 100)
    assert TRAINED not in session().metric_names


def test_an_image_is_not_taken_twice(scenes, patch_set):
    name, image, labels = scenes[0]
    from napari.layers import Image

    target = live.Target(Image(image, name=name), (), labels)
    earlier = {name: live.build_patch_set([scenes[0]]), "others": patch_set}
    nothing = {"on_event": lambda _: None, "should_stop": lambda: False}
    config = FitConfig("instant")
    with_strokes = live._fit([target], earlier, config, **nothing)
    without = live._fit([], earlier, config, **nothing)
    assert with_strokes.digest == without.digest


def test_a_method_of_the_job_itself(patch_set):
    config = FitConfig(training=TrainingConfig(nets=1, epochs=1))
    made = fit_jobs.fit_patches([patch_set], config, lambda _: None, lambda: False)
    assert made[0].record["method"] == "nets"
    assert fit_jobs.fit_patches([patch_set], config, lambda _: None, lambda: True) is None
