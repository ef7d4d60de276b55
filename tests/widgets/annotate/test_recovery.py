import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_defocus.core.errors import DefocusError
from napari_defocus.data.samples import read_sample
from napari_defocus.io.cards import save_container
from napari_defocus.widgets._shared import layers
from napari_defocus.widgets.annotate import recovery
from napari_defocus.widgets.annotate.recovery import Copy, load_copy, save_copy
from napari_defocus.widgets.annotate.widget import AnnotateWidget

WAIT = 90_000


@pytest.fixture
def open_widget(viewer, qtbot):
    made = []

    def make():
        widget = AnnotateWidget(viewer)
        viewer.window.add_dock_widget(widget)
        made.append(widget)
        return widget

    yield make
    for widget in made:
        widget.recovery._timer.stop()
        qtbot.waitUntil(lambda w=widget: idle(w), timeout=WAIT)


def idle(widget):
    waiting = widget._timer.isActive() or widget._learning.isActive()
    runners = (widget.jobs, widget.teach.latest, widget.recovery._writer)
    return not (waiting or any(r.busy for r in runners))


@pytest.fixture
def settle(qtbot):
    return lambda widget: qtbot.waitUntil(lambda: idle(widget), timeout=WAIT)


@pytest.fixture
def kept(qtbot):
    """Wait until all is written, now instead of after the pause; gives the files."""

    def wait(widget):
        qtbot.waitUntil(lambda: idle(widget), timeout=WAIT)
        widget.recovery.write()
        qtbot.waitUntil(lambda: not widget.recovery.busy, timeout=WAIT)
        return sorted(recovery.own_folder().glob("*"))

    return wait


def photo(viewer, name="photo", **options):
    return viewer.add_image(read_sample("photo").image[:128, :128], name=name, **options)


def stroke(labels, label, row=40):
    for column in range(20, 60, 3):
        labels.paint((row, column), label)


def left_by_a_crash(state, *copies):
    """Put copies where a process that is no more kept them."""
    paths = [state / "recovery" / "999999999-1" / f"{i}.safetensors" for i in range(len(copies))]
    for path, copy in zip(paths, copies, strict=True):
        save_copy(copy, path)
    return paths


def annotation(shape=(128, 128)):
    labels = np.zeros(shape, np.uint8)
    labels[10:20], labels[50:60] = 1, 2
    return labels


def test_strokes_are_copied_and_follow(viewer, open_widget, kept):
    photo(viewer, scale=(0.5, 0.25))
    widget = open_widget()
    widget.new.click()
    labels = viewer.layers["photo annotation"]
    assert kept(widget) == []
    stroke(labels, 1)
    (file,) = kept(widget)
    copy = load_copy(file)
    np.testing.assert_array_equal(copy.labels, labels.data)
    assert (copy.source, copy.index, copy.scale) == ("photo", (), (0.5, 0.25))
    stroke(labels, 2, row=90)
    assert kept(widget) == [file]
    np.testing.assert_array_equal(load_copy(file).labels, labels.data)
    labels.undo()
    labels.undo()
    kept(widget)
    np.testing.assert_array_equal(load_copy(file).labels, labels.data)


def test_the_timer_writes(viewer, open_widget, settle, qtbot, monkeypatch):
    monkeypatch.setattr(recovery, "PAUSE", 50)
    photo(viewer)
    widget = open_widget()
    widget.new.click()
    stroke(viewer.layers["photo annotation"], 1)
    settle(widget)
    qtbot.waitUntil(lambda: any(recovery.own_folder().glob("[!.]*")), timeout=WAIT)


def test_nothing_is_offered_at_first(viewer, open_widget):
    widget = open_widget()
    assert widget.recovery.isHidden()


def test_a_crash_is_offered_back(viewer, open_widget, settle, kept, own_state):
    (path,) = left_by_a_crash(own_state, Copy(annotation(), "photo", ()))
    image = photo(viewer, scale=(2, 3), translate=(4, 5))
    widget = open_widget()
    assert not widget.recovery.isHidden()
    assert "1 annotation of a session" in widget.recovery.text.text()
    widget.recovery.restore_button.click()
    settle(widget)
    labels = viewer.layers["photo annotation"]
    np.testing.assert_array_equal(labels.data, annotation())
    np.testing.assert_allclose(labels.scale, (2, 3))
    assert layers.owned(labels)["source_id"] == image.unique_id
    assert widget.annotation.value == labels
    assert widget.recovery.isHidden()
    assert not path.parent.exists()
    # Until it is closed, it is safe from the next crash too.
    (file,) = kept(widget)
    stroke(labels, 1, row=100)
    assert kept(widget) == [file]
    np.testing.assert_array_equal(load_copy(file).labels, labels.data)


def test_without_its_image_it_stands_alone(viewer, open_widget, settle, own_state):
    left_by_a_crash(
        own_state,
        Copy(annotation(), "photo", (3,), (0.5, 0.5), (7.0, 8.0)),
        Copy(annotation((64, 64)), "photo", ()),
    )
    photo(viewer)
    widget = open_widget()
    assert "2 annotations" in widget.recovery.text.text()
    widget.recovery.restore_button.click()
    settle(widget)
    names = [layer.name for layer in viewer.layers if "annotation" in layer.name]
    assert names == ["photo annotation, plane 3", "photo annotation"]
    labels = viewer.layers[names[0]]
    np.testing.assert_array_equal(labels.data, annotation())
    np.testing.assert_allclose((labels.scale, labels.translate), ((0.5, 0.5), (7, 8)))
    assert viewer.layers[names[1]].data.shape == (64, 64)


def test_what_is_discarded_is_gone(viewer, open_widget, own_state):
    left_by_a_crash(own_state, Copy(annotation(), "photo", ()), Copy(annotation(), "other", ()))
    widget = open_widget()
    widget.recovery.discard_button.click()
    assert widget.recovery.isHidden()
    assert len(viewer.layers) == 0
    assert list((own_state / "recovery").iterdir()) == []


def test_a_damaged_copy_is_told_and_the_others_come_back(viewer, open_widget, settle, own_state):
    bad, good = left_by_a_crash(
        own_state, Copy(annotation(), "bad", ()), Copy(annotation(), "good", ())
    )
    bad.write_bytes(bad.read_bytes()[:-100])
    widget = open_widget()
    widget.recovery.restore_button.click()
    settle(widget)
    assert [layer.name for layer in viewer.layers] == ["good annotation"]
    assert bad.name in widget.jobs.text.text()
    assert bad.exists()
    assert not good.exists()
    assert widget.recovery.discard_button.isEnabled()


def test_copies_of_a_living_process_are_its_own(viewer, open_widget, kept, own_state):
    photo(viewer)
    widget = open_widget()
    widget.new.click()
    stroke(viewer.layers["photo annotation"], 1)
    assert kept(widget)
    assert recovery.left_behind() == []
    # Another process of the same number is not the one that wrote them.
    number = recovery.own_folder().name.partition("-")[0]
    recovery.own_folder().rename(own_state / "recovery" / f"{number}-1")
    assert len(recovery.left_behind()) == 1


def test_a_full_disk_is_told_and_tried_again(viewer, open_widget, settle, kept, qtbot, monkeypatch):
    def fail(*_):
        raise DefocusError("cannot write it: No space left on device")

    photo(viewer)
    widget = open_widget()
    widget.new.click()
    labels = viewer.layers["photo annotation"]
    with monkeypatch.context() as patch:
        patch.setattr(recovery, "save_copy", fail)
        stroke(labels, 1)
        settle(widget)
        widget.recovery.write()
        qtbot.waitUntil(lambda: not widget.recovery.isHidden(), timeout=WAIT)
    assert "No space left" in widget.recovery.text.text()
    stroke(labels, 1, row=80)
    (file,) = kept(widget)
    np.testing.assert_array_equal(load_copy(file).labels, labels.data)
    assert widget.recovery.isHidden()


def test_closing_in_an_orderly_way_leaves_nothing(tmp_path):
    """Process ends: `atexit` clears, SIGKILL does not."""
    script = textwrap.dedent(
        """
        import os, signal, sys
        from pathlib import Path
        import numpy as np
        from napari_defocus.widgets.annotate import recovery
        folder = Path(sys.argv[1])
        recovery.platformdirs.user_state_path = lambda *_, **__: folder
        copy = recovery.Copy(np.ones((4, 4), np.uint8), "photo", ())
        recovery.save_copy(copy, recovery.own_folder() / "a.safetensors")
        if sys.argv[2] == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    for how, files in (("end", 0), ("crash", 1)):
        arguments = [sys.executable, "-c", script, str(tmp_path), how]
        subprocess.run(arguments, env={**os.environ, "QT_QPA_PLATFORM": "offscreen"}, check=False)
        found = list((tmp_path / "recovery").rglob("*.safetensors"))
        assert len(found) == files
    assert load_copy(found[0]).source == "photo"


@pytest.mark.parametrize(
    ("labels", "card"),
    [
        (np.ones((2, 3, 4), np.uint8), {}),
        (np.ones((2, 3), np.float32), {}),
        (np.ones((0, 3), np.uint8), {}),
        (np.ones((2, 3), np.uint8), {"source": 5}),
        (np.ones((2, 3), np.uint8), {"index": [-1]}),
        (np.ones((2, 3), np.uint8), {"index": 3}),
        (np.ones((2, 3), np.uint8), {"scale": [0, 1]}),
        (np.ones((2, 3), np.uint8), {"scale": ["a", 1]}),
        (np.ones((2, 3), np.uint8), {"scale": [[1], [1, 2]]}),
        (np.ones((2, 3), np.uint8), {"translate": [1.0]}),
        (np.ones((2, 3), np.uint8), {"translate": None}),
    ],
)
def test_copies_of_nonsense_are_refused(tmp_path, labels, card):
    path = tmp_path / "a.safetensors"
    usual = {"source": "photo", "index": [], "scale": [1.0, 1.0], "translate": [0.0, 0.0]}
    save_container(path, recovery.KIND, {"labels": labels}, {**usual, **card})
    with pytest.raises(DefocusError, match=r"a\.safetensors"):
        load_copy(path)


def test_a_dock_that_is_opened_again_offers_and_keeps(viewer, open_widget, kept, settle, qtbot):
    photo(viewer)
    widget = AnnotateWidget(viewer)
    dock = viewer.window.add_dock_widget(widget)
    widget.new.click()
    labels = viewer.layers["photo annotation"]
    stroke(labels, 1)
    (file,) = kept(widget)
    gone = []
    widget.destroyed.connect(lambda: gone.append(True))
    viewer.window.remove_dock_widget(dock)
    widget.deleteLater()
    qtbot.waitUntil(lambda: bool(gone), timeout=WAIT)
    stroke(labels, 2, row=90)
    again = open_widget()
    qtbot.mouseClick(again.patches.show_patches, Qt.MouseButton.LeftButton)
    assert again.annotation.value == labels
    assert kept(again) == [file]
    np.testing.assert_array_equal(load_copy(file).labels, labels.data)
