import threading
import time

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_defocus.data.samples import read_sample
from napari_defocus.labels.classes import COLOURS
from napari_defocus.metric.patches import build_patch_set, load_patch_set
from napari_defocus.stacks.training_labels import propose_annotation
from napari_defocus.widgets._shared import layers
from napari_defocus.widgets._shared.session import session
from napari_defocus.widgets.annotate import overlays
from napari_defocus.widgets.annotate import widget as annotate
from napari_defocus.widgets.annotate.widget import AnnotateWidget

WAIT = 90_000


@pytest.fixture
def open_widget(viewer, qtbot):
    """Dock the widget once the layers are there."""
    made = []

    def make():
        widget = AnnotateWidget(viewer)
        viewer.window.add_dock_widget(widget)
        widget.patches.fold.expand(animate=False)
        made.append(widget)
        return widget

    yield make
    for widget in made:
        qtbot.waitUntil(lambda w=widget: idle(w), timeout=WAIT)


def idle(widget):
    overlays = widget.patches.overlays
    runners = (overlays._patches, overlays._outlines, widget.teach.latest)
    bars = (widget.jobs, widget.patches.jobs)
    waiting = widget._timer.isActive() or widget._learning.isActive()
    return not (waiting or any(r.busy for r in (*bars, *runners)))


@pytest.fixture
def click(qtbot):
    return lambda button: qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


@pytest.fixture
def settle(qtbot):
    return lambda widget: qtbot.waitUntil(lambda: idle(widget), timeout=WAIT)


def photo(viewer, name="photo", **options):
    return viewer.add_image(read_sample("photo").image[:256, :256], name=name, **options)


def stroke(labels, start, end, label):
    for point in np.linspace(start, end, 20):
        labels.paint(tuple(point), label)


def test_the_whole_path(viewer, open_widget, click, settle, tmp_path):
    image = photo(viewer)
    widget = open_widget()
    settle(widget)
    assert "press New annotation" in widget.patches.counts.text()

    click(widget.new)
    labels = viewer.layers["photo annotation"]
    assert viewer.layers.selection.active == labels
    assert (labels.mode, labels.selected_label) == ("paint", 1)
    assert labels.data.shape == (256, 256)
    settle(widget)
    assert "nothing is painted" in widget.patches.counts.text()

    stroke(labels, (40, 20), (150, 60), 1)
    settle(widget)
    assert "no sharp patch yet: paint label 2 on sharp regions" in widget.patches.counts.text()

    click(widget.paint_sharp)
    assert labels.selected_label == 2
    stroke(labels, (110, 190), (150, 230), 2)
    settle(widget)
    expected = build_patch_set([("photo", image.data, labels.data)])
    overlay = layers.find_owned(viewer, image, "patches")
    assert overlay.data.shape == (4 * len(expected), 2, 2)
    np.testing.assert_array_equal(overlay.data[: len(expected), 0], expected.corner - 0.5)
    np.testing.assert_allclose(
        overlay.edge_color[: len(expected), :3], [COLOURS[label] for label in expected.labels]
    )
    counts = "{blurred} blurred, {sharp} sharp".format(**expected.counts())
    assert widget.patches.counts.text() == f"{counts} patches"
    assert viewer.layers.selection.active == labels

    before = overlay.data.copy()
    labels.undo()
    settle(widget)
    assert len(overlay.data) < len(before)
    labels.redo()
    settle(widget)
    np.testing.assert_array_equal(overlay.data, before)
    widget.patches.show_patches.click()
    assert not overlay.visible

    click(widget.patches.jobs.run_button)
    settle(widget)
    assert session().patch_sets["photo"].counts() == expected.counts()
    assert widget.patches.patch_set.list.item(0).text() == f"photo: {counts}"

    path = tmp_path / "set"
    widget.patches.patch_set.save(path)
    settle(widget)
    saved = path.with_suffix(".safetensors")
    np.testing.assert_array_equal(load_patch_set(saved).patches, expected.patches)
    click(widget.patches.patch_set.remove_button)
    assert widget.patches.patch_set.list.count() == 0
    widget.patches.patch_set.open(saved)
    settle(widget)
    assert session().patch_sets["set.safetensors"].counts() == expected.counts()


def test_an_annotation_is_never_overwritten(viewer, open_widget, click, settle):
    first, second = photo(viewer, "first"), photo(viewer, "second")
    widget = open_widget()
    click(widget.new)
    labels = viewer.layers["second annotation"]
    labels.data[:50] = 1
    viewer.layers.selection.active = first
    assert widget.image.value == first
    assert widget.annotation.value is None
    viewer.layers.selection.active = second
    click(widget.new)
    assert widget.annotation.value == labels
    assert (labels.data[:50] == 1).all()
    assert sum("annotation" in layer.name for layer in viewer.layers) == 1
    settle(widget)
    # Whoever selects an annotation annotates its image.
    viewer.layers.selection.active = first
    viewer.layers.selection.active = labels
    assert widget.image.value == second
    assert widget.annotation.value == labels


def test_one_plane_of_a_lazy_stack_with_calibrated_scale(viewer, open_widget, click, settle):
    dask = pytest.importorskip("dask.array")
    sample = read_sample("z_stack")
    scale, units = (2.0, 0.65, 0.5), ("um",) * 3
    data = dask.from_array(sample.image, chunks=(1, -1, -1))
    image = viewer.add_image(data, name="z", scale=scale, translate=(4, 5, 6), units=units)
    viewer.dims.set_current_step(0, 7)
    index = layers.visible_index(viewer, image)
    widget = open_widget()
    click(widget.from_stack)
    settle(widget)
    labels = viewer.layers[f"z annotation, plane {index[0]}"]
    assert labels.data.shape == (256, 256)
    np.testing.assert_allclose(labels.scale, (0.65, 0.5))
    np.testing.assert_allclose(labels.translate, (5, 6))
    assert layers.owned(labels)["index"] == index
    assert set(np.unique(labels.data)) == {0, 1, 2}
    viewer.dims.set_current_step(0, 2)
    settle(widget)
    assert f"plane {index[0]}, while plane 2" in widget.place.text()
    click(widget.patches.jobs.run_button)
    settle(widget)
    added = session().patch_sets[f"z, plane {index[0]}"]
    expected = build_patch_set([("z", sample.image[index], labels.data)])
    np.testing.assert_array_equal(added.patches, expected.patches)
    # The plane on screen gets an annotation of its own.
    click(widget.new)
    assert "z annotation, plane 2" in viewer.layers


def test_a_deleted_annotation_is_no_longer_counted(viewer, open_widget, click, settle):
    photo(viewer)
    widget = open_widget()
    click(widget.new)
    labels = viewer.layers["photo annotation"]
    stroke(labels, (40, 20), (150, 60), 1)
    settle(widget)
    viewer.layers.remove(labels)
    settle(widget)
    assert widget.annotation.value is None
    assert "press New annotation" in widget.patches.counts.text()
    assert not widget.paint_sharp.isEnabled()
    assert [layer.name for layer in viewer.layers] == ["photo"]


def test_superpixels_come_and_go(viewer, open_widget, settle):
    image = photo(viewer)
    widget = open_widget()
    widget.patches.show_superpixels.click()
    settle(widget)
    overlay = layers.find_owned(viewer, image, "super-pixels")
    few = overlay.data.sum()
    widget.patches.superpixel.setValue(8)
    settle(widget)
    assert overlay.data.sum() > few
    assert overlay not in widget.annotation.choices
    widget.patches.show_superpixels.click()
    settle(widget)
    assert layers.find_owned(viewer, image, "super-pixels") is None


def test_a_mask_becomes_an_annotation(viewer, open_widget, click, settle):
    image = photo(viewer)
    widget = open_widget()
    click(widget.from_mask)
    assert "run Detect" in widget.jobs.text.text()
    mask = np.ones((256, 256), np.uint8)
    mask[:, 128:] = 2
    layers.put_labels(viewer, mask, image, "mask")
    viewer.layers.selection.active = image
    click(widget.from_mask)
    settle(widget)
    labels = widget.annotation.value
    assert labels.name == "photo annotation"
    assert labels.data[0, [0, 127, 128, 255]].tolist() == [1, 0, 0, 2]
    assert (viewer.layers["photo mask"].data == mask).all()


def test_bad_input_is_told_in_the_widget(viewer, open_widget, click, settle, tmp_path):
    widget = open_widget()
    settle(widget)
    assert "no image layer" in widget.patches.counts.text()
    assert not widget.new.isEnabled()
    click(widget.patches.jobs.run_button)
    assert "no image layer" in widget.patches.jobs.text.text()
    widget.patches.patch_set.save(tmp_path / "a.safetensors")
    assert "empty" in widget.patches.jobs.text.text()
    foreign = tmp_path / "b.safetensors"
    foreign.write_bytes(b"nothing of the kind")
    widget.patches.patch_set.open(foreign)
    settle(widget)
    assert "b.safetensors" in widget.patches.jobs.text.text()

    image = photo(viewer)
    other = viewer.add_labels(np.ones((9, 9), np.uint8), name="small")
    assert widget.annotation.value is None
    widget.annotation.value = other
    settle(widget)
    assert "'small' are (9, 9), a plane of the image (256, 256)" in widget.patches.counts.text()
    click(widget.patches.jobs.run_button)
    assert "'small'" in widget.patches.jobs.text.text()
    strange = viewer.add_labels(np.full((256, 256), 7), name="strange")
    widget.annotation.value = strange
    settle(widget)
    assert "label 7" in widget.patches.counts.text()
    assert session().patch_sets == {}
    assert list(tmp_path.iterdir()) == [foreign]
    # One class alone is taken: another image may give the other.
    widget.annotation.value = viewer.add_labels(np.ones((256, 256), np.uint8), name="one")
    click(widget.patches.jobs.run_button)
    settle(widget)
    assert session().patch_sets["photo"].counts()["sharp"] == 0
    assert "no sharp patch yet" in widget.patches.counts.text()
    viewer.layers.remove(image)
    settle(widget)
    assert "no image layer" in widget.patches.counts.text()
    assert not any(layers.owned(layer) for layer in viewer.layers)


@pytest.fixture
def slow(monkeypatch):
    """Hold the comparison of planes until it is released, or told to stop."""
    release = threading.Event()

    def wait(stack, index, *, on_event, should_stop):
        while not release.wait(0.01):
            if should_stop():
                raise annotate.DefocusError("stopped")
        return np.ones(stack.shape[1:], np.uint8)

    monkeypatch.setattr(annotate, "propose_annotation", wait)
    yield release
    release.set()


@pytest.mark.parametrize("labels", [("z", "c", "y", "x"), ("c", "z", "y", "x"), None])
def test_a_plane_is_compared_along_z_alone(viewer, open_widget, click, settle, labels):
    planes = read_sample("z_stack").image[:, :96, :96]
    # A second channel that is far sharper than any plane of the first.
    noise = np.random.default_rng(0).integers(0, 256, planes.shape, np.uint8)
    at = 0 if labels is None or labels[0] == "z" else 1
    data = np.stack([planes, noise], 1 - at)
    viewer.add_image(data, name="zc", axis_labels=labels)
    for axis, step in ((at, 3), (1 - at, 0)):
        viewer.dims.set_current_step(axis, step)
    widget = open_widget()
    if labels is None:
        click(widget.from_stack)
        assert "choose the axis" in widget.jobs.text.text()
        widget.axis.setCurrentIndex(0)
    assert widget.axis.isVisibleTo(widget)
    click(widget.from_stack)
    settle(widget)
    proposed = next(layer for layer in viewer.layers if "annotation" in layer.name).data
    np.testing.assert_array_equal(proposed, propose_annotation(planes, 3))
    widget.teach.from_stack.click()
    settle(widget)
    assert "zc, plane 0, stack" in widget.jobs.text.text() or "⚠" in widget.jobs.text.text()


def test_channels_are_no_planes(viewer, open_widget, click):
    viewer.add_image(np.zeros((3, 40, 40)), name="c", axis_labels=("c", "y", "x"))
    widget = open_widget()
    click(widget.from_stack)
    assert "choose the axis" in widget.jobs.text.text()


def test_an_image_deleted_while_it_is_worked_on(viewer, open_widget, click, settle, slow):
    image = viewer.add_image(read_sample("z_stack").image, name="z")
    widget = open_widget()
    click(widget.from_stack)
    assert widget.jobs.busy
    assert not widget.from_stack.isEnabled()
    assert not widget.patches.patch_set.save_button.isEnabled()
    viewer.layers.remove(image)
    slow.set()
    settle(widget)
    assert "'z' was deleted" in widget.jobs.text.text()
    assert len(viewer.layers) == 0
    assert widget.patches.patch_set.open_button.isEnabled()


def test_the_viewer_is_closed_while_work_runs(viewer, click, slow, qtbot):
    viewer.add_image(read_sample("z_stack").image, name="z")
    widget = AnnotateWidget(viewer)
    viewer.window.add_dock_widget(widget)
    widget.patches.show_superpixels.click()
    click(widget.from_stack)
    assert widget.jobs.busy
    began = time.monotonic()
    viewer.close()
    assert time.monotonic() - began < 10
    qtbot.waitUntil(lambda: session().jobs.current is None, timeout=WAIT)


def test_a_failing_refresh_is_told(viewer, open_widget, click, settle, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("out of luck")

    photo(viewer)
    widget = open_widget()
    monkeypatch.setattr(overlays, "build_patch_set", fail)
    click(widget.new)
    stroke(viewer.layers["photo annotation"], (40, 20), (150, 60), 1)
    settle(widget)
    assert "out of luck" in widget.patches.counts.text()
    monkeypatch.undo()
    stroke(viewer.layers["photo annotation"], (140, 20), (150, 60), 1)
    settle(widget)
    assert "blurred" in widget.patches.counts.text()


def test_a_closed_widget_no_longer_listens(viewer, qtbot):
    image = photo(viewer)
    widget = AnnotateWidget(viewer)
    dock = viewer.window.add_dock_widget(widget)
    widget.new.click()
    labels = viewer.layers["photo annotation"]
    gone = []
    widget.destroyed.connect(lambda: gone.append(True))
    viewer.window.remove_dock_widget(dock)
    widget.deleteLater()
    qtbot.waitUntil(lambda: bool(gone), timeout=WAIT)
    stroke(labels, (40, 20), (150, 60), 1)
    viewer.layers.selection.active = image
    viewer.layers.selection.active = labels
    viewer.layers.remove(labels)
    viewer.layers.remove(image)
    session().clear_patches()
