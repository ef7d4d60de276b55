import csv
import gc
import threading
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import tifffile
from napari.layers import Image, Labels
from qtpy.QtCore import Qt

from napari_defocus.data.samples import read_sample
from napari_defocus.stacks.api import StackConfig, analyse_stack, apply_focus
from napari_defocus.stacks.objects import score_labels
from napari_defocus.stacks.timelapse import score_frames
from napari_defocus.widgets._shared import layers
from napari_defocus.widgets._shared.series import (
    ASKED,
    Series,
    is_time,
    series_of,
    stack_axis_of,
)
from napari_defocus.widgets._shared.session import TRAINED, session
from napari_defocus.widgets.annotate.widget import AnnotateWidget
from napari_defocus.widgets.detect.widget import DetectWidget
from napari_defocus.widgets.stacks import jobs as stack_jobs
from napari_defocus.widgets.stacks.layers import labels_at, put_map
from napari_defocus.widgets.stacks.settings import EVERY, TIME
from napari_defocus.widgets.stacks.widget import StacksWidget

WAIT = 60_000
Z_STACK = read_sample("z_stack").image


@pytest.fixture
def open_widget(viewer, qtbot):
    """Dock the widget once the layers are there."""

    def make(kind=StacksWidget):
        widget = kind(viewer)
        viewer.window.add_dock_widget(widget)
        return widget

    return make


@pytest.fixture
def click(qtbot):
    return lambda button: qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


@pytest.fixture
def settle(qtbot):
    return lambda widget: qtbot.waitUntil(lambda: not widget.jobs.busy, timeout=WAIT)


@pytest.fixture
def quiet(monkeypatch):
    """Errors are told in the widget; no notification pops up."""
    monkeypatch.setattr("napari_defocus.widgets._shared.jobs.show_error", lambda _: None)


def small():
    return Z_STACK[::2, :96, :96]


def plane_on_screen(viewer, layer, axis=0):
    return layers.visible_index(viewer, layer)[axis]


def objects():
    labels = np.zeros((96, 96), np.uint8)
    labels[5:40, 5:40], labels[50:90, 50:90] = 1, 7
    return labels


def two_times():
    return np.stack([small(), small()[::-1]])


# One stack


def test_the_whole_path(viewer, open_widget, click, settle):
    where = {"scale": (2.0, 0.65, 0.5), "translate": (4, 5, 6), "units": ("um",) * 3}
    source = viewer.add_image(small(), name="z", gamma=0.8, **where)
    widget = open_widget()
    assert "6 planes of 96 x 96" in widget.settings.contents.text()
    assert not widget.results.isVisibleTo(widget)
    click(widget.jobs.run_button)
    assert widget.jobs.busy
    settle(widget)
    found = analyse_stack(small())
    for role, expected in (
        ("altitude", found.depth_map),
        ("all in focus", found.fused),
        ("provenance", found.source_plane),
        ("altitude confidence", found.confidence),
    ):
        layer = viewer.layers[f"z {role}"]
        np.testing.assert_array_equal(layer.data, expected)
        assert layer.data.dtype == expected.dtype
        np.testing.assert_allclose(layer.scale, (0.65, 0.5))
        np.testing.assert_allclose(layer.translate, (5, 6))
        assert [str(unit) for unit in layer.units] == ["micrometer"] * 2
        assert layer.visible == (role in ("altitude", "all in focus"))
    depth_map = viewer.layers["z altitude"]
    assert (depth_map.colormap.name, tuple(depth_map.contrast_limits)) == ("viridis", (0, 5))
    assert viewer.layers["z all in focus"].gamma == 0.8
    assert viewer.layers.selection.active == source
    best = found.scores.best
    assert f"plane {best} is in focus" in widget.results.summary.text()
    assert widget.results.plot.figure.axes

    viewer.dims.set_current_step(0, 0)
    click(widget.results.best_button)
    assert plane_on_screen(viewer, source) == best
    assert not depth_map.visible
    assert source.visible
    # A second analysis takes the place of the first, with what the user chose to see.
    depth_map.colormap = "magma"
    click(widget.jobs.run_button)
    settle(widget)
    assert viewer.layers["z altitude"] == depth_map
    assert depth_map.colormap.name == "magma"
    assert len(viewer.layers) == 5


def test_a_click_on_the_curve_shows_the_plane(viewer, open_widget, click, settle, qtbot):
    source = viewer.add_image(small(), name="z")
    widget = open_widget()
    click(widget.jobs.run_button)
    settle(widget)
    plot = widget.results.plot
    plot.figure.canvas.draw()
    x, y = plot.figure.axes[0].transData.transform((1.2, 0.5))
    plot.figure.canvas.callbacks.process("button_press_event", mouse_press(plot, x, y))
    assert plane_on_screen(viewer, source) == 1


def mouse_press(plot, x, y):
    from matplotlib.backend_bases import MouseEvent

    return MouseEvent("button_press_event", plot.figure.canvas, x, y, 1)


def test_best_plane_of_each_label(viewer, open_widget, click, settle, qtbot, tmp_path):
    source = viewer.add_image(small(), name="z", scale=(3, 1, 1))
    viewer.add_labels(objects(), name="cells")
    viewer.layers.selection.active = source
    widget = open_widget()
    widget.settings.objects.value = viewer.layers["cells"]
    click(widget.jobs.run_button)
    settle(widget)
    expected = score_labels(small(), objects()).columns()
    table = widget.results.table
    assert [table.item(i, 0).text() for i in range(2)] == ["1", "7"]
    for i in (1, 0):
        viewer.dims.set_current_step(0, 5)
        place = table.visualItemRect(table.item(i, 1)).center()
        qtbot.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, pos=place)
        assert table.item(i, 1).text() == str(int(expected["best_plane"][i]))
        assert plane_on_screen(viewer, source) == expected["best_plane"][i]
    legend = widget.results.plot.figure.axes[0].get_legend()
    assert [text.get_text().split(" best")[0] for text in legend.get_texts()] == [
        "field",
        "label 1",
    ]
    widget.results.save_table(tmp_path / "cells.csv")
    rows = list(csv.DictReader((tmp_path / "cells.csv").open()))
    assert [int(row["best_plane"]) for row in rows] == expected["best_plane"].tolist()


def test_saves_the_curve(viewer, open_widget, click, settle, tmp_path, monkeypatch):
    viewer.add_image(small(), name="z")
    widget = open_widget()
    widget.results.save_csv(tmp_path / "early.csv")
    assert "press Analyse first" in widget.jobs.text.text()
    click(widget.jobs.run_button)
    settle(widget)
    answers = [("", ""), (str(tmp_path / "mine"), ""), (str(tmp_path / "mine.png"), "")]
    monkeypatch.setattr(
        "napari_defocus.widgets._shared.dialogs.QFileDialog.getSaveFileName",
        lambda *_: answers.pop(0),
    )
    click(widget.results.csv_button)
    assert not list(tmp_path.iterdir())
    click(widget.results.csv_button)
    click(widget.results.png_button)
    assert "mine.png" in widget.jobs.text.text()
    rows = list(csv.DictReader((tmp_path / "mine.csv").open()))
    assert [int(row["plane"]) for row in rows] == [*range(6)]
    assert [int(row["best"]) for row in rows].index(1) == analyse_stack(small()).scores.best
    assert (tmp_path / "mine.png").read_bytes().startswith(b"\x89PNG")
    for write, name in ((widget.results.save_csv, "a.csv"), (widget.results.save_png, "a.png")):
        write(tmp_path / "mine.csv" / name)
        assert "⚠" in widget.jobs.text.text()


def test_settings_are_those_of_the_library(viewer, open_widget, click, settle):
    viewer.add_image(Z_STACK[::2], name="z")
    widget = open_widget()
    assert widget.settings.config == StackConfig()
    widget.settings.extremum.setCurrentText("min")
    widget.settings.registering.click()
    assert widget.settings.config == StackConfig("min", True)
    click(widget.jobs.run_button)
    settle(widget)
    expected = analyse_stack(Z_STACK[::2], StackConfig("min", True))
    np.testing.assert_array_equal(viewer.layers["z altitude"].data, expected.depth_map)


def test_warnings_are_shown(viewer, open_widget, click, settle):
    rising = Z_STACK[:6, :96, :96]
    (warning,) = analyse_stack(rising).warnings
    viewer.add_image(rising, name="z")
    widget = open_widget()
    click(widget.jobs.run_button)
    settle(widget)
    assert warning in widget.results.warning.text()
    assert widget.results.warning.isVisibleTo(widget)


def test_a_plane_without_a_finite_pixel_is_told(viewer, open_widget, click, settle):
    planes = small().astype(np.float32)
    planes[2] = np.nan
    viewer.add_image(planes, name="z")
    widget = open_widget()
    click(widget.jobs.run_button)
    settle(widget)
    assert "plane 2 is blank" in widget.results.warning.text()


def test_colours(viewer, open_widget, click, settle):
    colours = np.stack([small(), small() // 2, 255 - small()], axis=-1)
    viewer.add_image(colours, name="z", rgb=True)
    widget = open_widget()
    click(widget.jobs.run_button)
    settle(widget)
    fused = viewer.layers["z all in focus"]
    assert fused.rgb
    np.testing.assert_array_equal(fused.data, analyse_stack(colours).fused)
    assert viewer.layers["z altitude"].data.shape == (96, 96)


def test_planes_of_lazy_data_are_read_one_at_a_time(viewer, open_widget, click, settle):
    read = []

    class Counted:
        shape, dtype, ndim = (6, 96, 96), np.dtype(np.uint8), 3

        def __getitem__(self, index):
            piece = small()[index]
            read.append(piece.size)
            return piece

    data = da.from_array(Counted(), chunks=(1, 96, 96), name="counted", meta=np.empty(0, np.uint8))
    viewer.add_image(data, name="z", contrast_limits=(0, 255))
    widget = open_widget()
    click(widget.jobs.run_button)
    settle(widget)
    assert max(read) == 96 * 96
    expected = analyse_stack(small())
    np.testing.assert_array_equal(viewer.layers["z altitude"].data, expected.depth_map)


def test_other_layers_take_the_focus(viewer, open_widget, click, settle):
    other = 255 - small()
    source = viewer.add_image(small(), name="z")
    viewer.add_image(other, name="second")
    viewer.add_image(small()[0], name="plane")
    viewer.layers.selection.active = source
    widget = open_widget()
    assert widget.settings.others.count() == 1
    widget.settings.others.item(0).setCheckState(Qt.CheckState.Checked)
    click(widget.jobs.run_button)
    settle(widget)
    expected = apply_focus(analyse_stack(small()), other)
    np.testing.assert_array_equal(viewer.layers["second all in focus"].data, expected)


# Many stacks


def test_the_stack_on_screen_of_many(viewer, open_widget, click, settle):
    labels = ("t", "z", "y", "x")
    viewer.add_image(two_times(), name="tz", axis_labels=labels, scale=(5, 2, 1, 1))
    viewer.dims.set_current_step(0, 1)
    widget = open_widget()
    assert widget.settings.axis.currentText() == "z, 6 planes"
    click(widget.jobs.run_button)
    settle(widget)
    layer = viewer.layers["tz altitude, t 1"]
    np.testing.assert_array_equal(layer.data, analyse_stack(small()[::-1]).depth_map)
    assert "t 1: plane" in widget.results.summary.text()
    viewer.dims.set_current_step(0, 0)
    click(widget.results.best_button)
    assert plane_on_screen(viewer, viewer.layers["tz"], 0) == 1


@pytest.mark.parametrize("large", [False, True])
def test_every_stack(viewer, open_widget, click, settle, qtbot, monkeypatch, large):
    if large:
        monkeypatch.setattr(stack_jobs, "IN_MEMORY", 0)
    # Planes are not along the last leading axis here.
    data = np.moveaxis(two_times(), 0, 1)
    source = viewer.add_image(
        data, name="zt", axis_labels=("z", "t", "y", "x"), scale=(2, 5, 0.5, 0.25), rotate=None
    )
    widget = open_widget()
    widget.settings.which.setCurrentText(EVERY)
    click(widget.jobs.run_button)
    settle(widget)
    expected = [analyse_stack(stack) for stack in two_times()]
    for role, name in stack_jobs.MAPS.items():
        layer = viewer.layers[f"zt {role}"]
        assert isinstance(layer.data, da.Array) == large
        np.testing.assert_array_equal(
            np.asarray(layer.data), [getattr(found, name) for found in expected]
        )
        np.testing.assert_allclose(layer.scale, (5, 0.5, 0.25))
        assert layer.axis_labels == ("t", "y", "x")
    # The curve follows the slider.
    for t in (1, 0):
        viewer.dims.set_current_step(1, t)
        text = f"t {t}: plane {expected[t].scores.best} "
        qtbot.waitUntil(lambda text=text: text in widget.results.summary.text(), timeout=WAIT)
    viewer.dims.set_current_step(1, 1)
    qtbot.waitUntil(lambda: "t 1" in widget.results.summary.text(), timeout=WAIT)
    click(widget.results.best_button)
    at = layers.visible_index(viewer, source)
    assert at == (expected[1].scores.best, 1)


def test_temporary_files_go_with_the_array(monkeypatch):
    made = stack_jobs.blank((2, 5, 7), np.dtype(np.uint8), 1)
    assert isinstance(made, np.ndarray)
    monkeypatch.setattr(stack_jobs, "IN_MEMORY", 0)
    made = stack_jobs.blank((2, 5, 7), np.dtype(np.uint8), 1)
    made[1] = 3
    shown = stack_jobs.to_show(made)
    folder = Path(made.store.root)
    del made
    gc.collect()
    assert np.asarray(shown).sum() == 3 * 35
    del shown
    gc.collect()
    assert not folder.exists()


def test_the_focus_of_one_channel_for_all(viewer, open_widget, click, settle):
    data = np.stack([small(), 255 - small()[::-1]])
    viewer.add_image(data, name="cz", axis_labels=("channel", "z", "y", "x"))
    viewer.dims.set_current_step(0, 0)
    widget = open_widget()
    widget.settings.one_focus.click()
    click(widget.jobs.run_button)
    settle(widget)
    focus = analyse_stack(data[0])
    follower = viewer.layers["cz all in focus, channel 1"]
    np.testing.assert_array_equal(follower.data, apply_focus(focus, data[1]))
    assert "cz altitude, channel 1" not in viewer.layers
    widget.settings.which.setCurrentText(EVERY)
    click(widget.jobs.run_button)
    settle(widget)
    np.testing.assert_array_equal(viewer.layers["cz all in focus"].data[1], follower.data)
    np.testing.assert_array_equal(viewer.layers["cz altitude"].data[1], focus.depth_map)


@pytest.fixture
def held(monkeypatch):
    """Hold every analysis but the first until it is released, or told to stop."""
    release, calls = threading.Event(), []
    analyse = stack_jobs.analyse_stack

    def wait(planes, config, **listeners):
        calls.append(planes)
        while len(calls) > 1 and not release.wait(0.01):
            if listeners["should_stop"]():
                raise stack_jobs.Stopped
        return analyse(planes, config, **listeners)

    monkeypatch.setattr(stack_jobs, "analyse_stack", wait)
    yield release
    release.set()


def test_stacks_are_shown_as_they_come_and_stay(viewer, open_widget, click, settle, qtbot, held):
    viewer.add_image(two_times(), name="tz", axis_labels=("t", "z", "y", "x"))
    widget = open_widget()
    widget.settings.which.setCurrentText(EVERY)
    viewer.dims.set_current_step(0, 0)
    click(widget.jobs.run_button)
    qtbot.waitUntil(lambda: len(widget._work.stacks) == 1, timeout=WAIT)
    widget.jobs.progressed.emit(None)
    assert widget.jobs.busy
    assert viewer.layers["tz altitude"].data[0].any()
    assert "t 0: plane" in widget.results.summary.text()
    click(widget.jobs.cancel_button)
    settle(widget)
    assert "1 of 2 stacks are done" in widget.jobs.text.text()
    assert "tz altitude" in viewer.layers


# Time series


def test_frames_out_of_focus(viewer, open_widget, click, settle, qtbot, tmp_path):
    rng = np.random.default_rng(0)
    sharp, blurred = Z_STACK[8, :96, 40:136], Z_STACK[0, :96, 40:136]
    frames = np.stack([blurred if t in (3, 7) else sharp for t in range(10)]).astype(np.float32)
    frames += rng.normal(0, 1, frames.shape)
    flagged = np.flatnonzero(score_frames(frames).out_of_focus)
    assert {3, 7} <= set(flagged)
    source = viewer.add_image(frames, name="film", axis_labels=("t", "y", "x"))
    widget = open_widget()
    assert widget.settings.kind.currentText() == TIME
    assert not widget.annotate_button.isEnabled()
    assert "time series" in widget.annotate_button.toolTip()
    click(widget.jobs.run_button)
    settle(widget)
    assert f"{len(flagged)} of 10 frames" in widget.results.summary.text()
    table = widget.results.table
    assert [int(table.item(i, 0).text()) for i in range(table.rowCount())] == flagged.tolist()
    place = table.visualItemRect(table.item(1, 0)).center()
    qtbot.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, pos=place)
    assert plane_on_screen(viewer, source) == flagged[1]
    widget.results.save_csv(tmp_path / "frames.csv")
    rows = list(csv.DictReader((tmp_path / "frames.csv").open()))
    assert [i for i, row in enumerate(rows) if row["out_of_focus"] == "1"] == flagged.tolist()
    widget.results.save_png(tmp_path / "frames.png")
    assert (tmp_path / "frames.png").exists()


def test_frames_of_one_channel_of_a_film(viewer, open_widget, click, settle):
    film = np.stack([np.stack([small()[4]] * 4), np.zeros((4, 96, 96), np.uint8)], axis=1)
    viewer.add_image(film, name="film", axis_labels=("time", "c", "y", "x"))
    viewer.dims.set_current_step(1, 1)
    widget = open_widget()
    click(widget.jobs.run_button)
    settle(widget)
    # Frames that show nothing are out of focus, and none is best.
    assert "4 of 4 frames are out of focus" in widget.results.summary.text()
    assert not widget.results.best_button.isEnabled()
    assert "Nothing is seen" in widget.results.best_button.toolTip()


# Labels without painting


def test_annotates_all_planes(viewer, open_widget, click, settle):
    source = viewer.add_image(small(), name="z", scale=(2, 0.5, 0.5))
    widget = open_widget()
    click(widget.annotate_button)
    assert not widget.annotate_button.isEnabled()
    assert "running" in widget.annotate_button.toolTip()
    settle(widget)
    labels = viewer.layers["z annotation, all planes"]
    assert labels.data.shape == (6, 96, 96)
    assert set(np.unique(labels.data)) == {0, 1, 2}
    np.testing.assert_allclose(labels.scale, source.scale)
    assert widget.annotate_button.isEnabled()
    # It is an annotation to Annotate, plane by plane.
    annotate = open_widget(AnnotateWidget)
    annotate.annotation.value = labels
    viewer.dims.set_current_step(0, 3)
    click(annotate.patches.jobs.run_button)
    settle(annotate.patches)
    assert session().patch_sets["z, plane 3"].counts()["sharp"] > 0


def test_a_registered_annotation_lies_on_the_planes(viewer):
    drifting = np.stack([np.roll(plane, 2 * z, axis=1) for z, plane in enumerate(Z_STACK[::2])])
    nothing = {"on_event": lambda _: None, "should_stop": lambda: False}
    series = series_of(Image(drifting, name="z"), 0)
    still = series_of(Image(Z_STACK[::2], name="z"), 0)
    wanted = stack_jobs.annotate_planes(still, (), False, **nothing)
    found = stack_jobs.annotate_planes(series, (), True, **nothing)
    for z in (1, 4):
        moved = np.roll(wanted[z], 2 * z, axis=1)[20:-20, 20:-20]
        inside = found[z][20:-20, 20:-20]
        valid = (moved > 0) & (inside > 0)
        assert valid.mean() > 0.3
        assert (moved == inside)[valid].mean() > 0.99


def test_fits_a_metric_in_one_step(viewer, open_widget, click, settle):
    viewer.add_image(Z_STACK[::2], name="z")
    widget = open_widget()
    widget.method.setCurrentText("instant")
    click(widget.fit_button)
    settle(widget)
    assert "AUC" in widget.jobs.text.text()
    assert session().metric(TRAINED).record["method"] == "instant"
    detect = open_widget(DetectWidget)
    assert detect.detector_chooser.findData(TRAINED) >= 0


def test_nets_are_handed_over(viewer, open_widget, click, settle, monkeypatch):
    asked = []

    def fit(patch_sets, config, on_event, should_stop):
        asked.append((patch_sets, config))
        return stack_jobs_metric, None

    stack_jobs_metric = session().metric("default")
    monkeypatch.setattr(stack_jobs, "fit_patches", fit)
    viewer.add_image(Z_STACK[::4], name="z")
    widget = open_widget()
    widget.settings.registering.click()
    click(widget.fit_button)
    settle(widget)
    ((patches,), config), *_ = asked
    assert config.method == "nets"
    assert {source.name for source in patches.sources} <= {f"z, plane {z}" for z in range(3)}
    assert session().metric(TRAINED) is stack_jobs_metric


# What goes wrong


def test_bad_input_is_told_in_the_widget(viewer, open_widget, click, settle, quiet):
    widget = open_widget()
    assert "no image layer" in widget.settings.contents.text()
    assert "choose a focus stack" in widget.fit_button.toolTip()
    click(widget.jobs.run_button)
    assert "no image layer" in widget.jobs.text.text()
    plane = viewer.add_image(small()[0], name="plane")
    click(widget.jobs.run_button)
    assert "'plane' is one plane" in widget.jobs.text.text()
    viewer.layers.remove(plane)

    flat = viewer.add_image(np.zeros((4, 64, 64), np.uint8), name="flat")
    click(widget.annotate_button)
    settle(widget)
    assert "no plane is clearly sharper" in widget.jobs.text.text()
    click(widget.fit_button)
    settle(widget)
    assert "nothing to learn from" in widget.jobs.text.text()
    assert TRAINED not in session().metric_names
    viewer.layers.remove(flat)

    viewer.add_image(small(), name="z")
    viewer.add_labels(np.ones((9, 9), np.uint8), name="small")
    widget.settings.objects.value = viewer.layers["small"]
    click(widget.jobs.run_button)
    assert "'small' are (9, 9)" in widget.jobs.text.text()
    assert not any(layers.owned(layer) for layer in viewer.layers)


def test_an_image_deleted_while_it_is_analysed(
    viewer, open_widget, click, settle, held, quiet, qtbot
):
    source = viewer.add_image(two_times(), name="tz", axis_labels=("t", "z", "y", "x"))
    widget = open_widget()
    widget.settings.which.setCurrentText(EVERY)
    click(widget.jobs.run_button)
    qtbot.waitUntil(lambda: widget._work is not None and bool(widget._work.stacks), timeout=WAIT)
    viewer.layers.remove(source)
    held.set()
    settle(widget)
    assert "'tz' was deleted" in widget.jobs.text.text()
    assert not widget.fit_button.isEnabled()


def test_another_image_chosen_while_one_is_analysed(viewer, open_widget, click, settle):
    first = viewer.add_image(small(), name="first")
    second = viewer.add_image(small(), name="second")
    viewer.layers.selection.active = first
    widget = open_widget()
    click(widget.jobs.run_button)
    viewer.layers.selection.active = second
    settle(widget)
    assert "first altitude" in viewer.layers
    assert "second altitude" not in viewer.layers


def test_results_go_with_their_image(viewer, open_widget, click, settle):
    first = viewer.add_image(small(), name="first")
    widget = open_widget()
    click(widget.jobs.run_button)
    settle(widget)
    assert widget.results.isVisibleTo(widget)
    viewer.layers.remove(first)
    assert not widget.results.isVisibleTo(widget)
    widget.go_to(2)
    viewer.add_image(small(), name="second")
    click(widget.jobs.run_button)
    settle(widget)
    third = viewer.add_image(small(), name="third")
    viewer.layers.selection.active = third
    assert not widget.results.isVisibleTo(widget)


def test_the_viewer_is_closed_while_work_runs(viewer, open_widget, click, held, qtbot):
    viewer.add_image(two_times(), name="tz", axis_labels=("t", "z", "y", "x"))
    widget = open_widget()
    widget.settings.which.setCurrentText(EVERY)
    click(widget.jobs.run_button)
    viewer.close()
    qtbot.waitUntil(lambda: session().jobs.current is None, timeout=WAIT)


def test_a_closed_widget_no_longer_listens(viewer, qtbot):
    source = viewer.add_image(small(), name="z")
    widget = StacksWidget(viewer)
    dock = viewer.window.add_dock_widget(widget)
    gone = []
    widget.destroyed.connect(lambda: gone.append(True))
    viewer.window.remove_dock_widget(dock)
    widget.deleteLater()
    qtbot.waitUntil(lambda: bool(gone), timeout=WAIT)
    viewer.dims.set_current_step(0, 1)
    viewer.add_image(small(), name="more")
    viewer.layers.remove(source)


# Axes


@pytest.mark.parametrize(
    ("labels", "axis", "time"),
    [
        (None, None, False),
        (("z", "t", "y", "x"), 0, False),
        (("c", "Z", "y", "x"), 1, False),
        (("z", "c", "y", "x"), 0, False),
        (("time", "channel", "y", "x"), 0, True),
        (("a", "b", "y", "x"), None, False),
        (("c", "axis -3", "axis -2", "axis -1"), 1, False),
        (("axis -4", "axis -3", "axis -2", "axis -1"), None, False),
    ],
)
def test_which_axis_the_planes_are_along(labels, axis, time):
    image = Image(np.zeros((2, 3, 4, 5)), axis_labels=labels)
    assert stack_axis_of(image) == axis
    assert axis is None or is_time(image, axis) == time


def test_channels_alone_are_no_stack():
    assert stack_axis_of(Image(np.zeros((3, 4, 5)), axis_labels=("c", "y", "x"))) is None
    assert stack_axis_of(Image(np.zeros((3, 4, 5)))) == 0


def two_channels_of_planes():
    """Six planes of two channels, (Z, C, Y, X): the channels differ more than the planes do."""
    planes = small()
    return np.stack([planes, np.zeros_like(planes)], 1)


def test_an_axis_that_nothing_tells_is_asked_for(viewer, open_widget, click, settle):
    viewer.add_image(two_channels_of_planes(), name="zc")
    widget = open_widget()
    assert widget.settings.axis.currentIndex() == -1
    assert widget.settings.axis.isVisibleTo(widget)
    click(widget.jobs.run_button)
    assert ASKED in widget.jobs.text.text()
    assert not widget.annotate_button.isEnabled()
    widget.settings.axis.setCurrentIndex(0)
    assert widget.jobs.text.text() == ""
    viewer.dims.set_current_step(1, 0)
    click(widget.jobs.run_button)
    settle(widget)
    depth_map = viewer.layers["zc altitude, axis1 0"].data
    np.testing.assert_array_equal(depth_map, analyse_stack(small()).depth_map)


@pytest.mark.parametrize("axes", ["ZCYX", "TCYX", "CZYX"])
def test_the_file_tells_what_labels_do_not(viewer, open_widget, tmp_path, axes):
    data = two_channels_of_planes()
    data = data.swapaxes(0, 1) if axes == "CZYX" else data
    path, form = tmp_path / "stack.tif", "ome" if axes == "CZYX" else "imagej"
    tifffile.imwrite(path, data.astype(np.uint8), metadata={"axes": axes}, **{form: True})
    viewer.open(path, plugin="napari")
    widget = open_widget()
    letter = "T" if axes[0] == "T" else "Z"
    assert widget.settings.axis.currentText() == f"{letter.lower()}, 6 planes"
    assert widget.settings.is_series == (letter == "T")
    assert f"{letter} 6" in widget.settings.contents.text()
    assert "C 2" in widget.settings.contents.text()
    annotate = open_widget(AnnotateWidget)
    assert annotate.axis.currentText() == f"{letter.lower()}, 6 planes"


@pytest.mark.parametrize("rotate", [0, 30])
def test_maps_lie_on_their_image(viewer, rotate):
    turn = np.eye(4)
    angle = np.deg2rad(rotate)
    turn[2:, 2:] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    where = {"scale": (2, 3, 0.5, 0.25), "translate": (1, 2, 3, 4), "rotate": turn}
    where["affine"] = np.diag([1, 1, 2, 2, 1])
    source = viewer.add_image(np.zeros((2, 3, 8, 9)), name="tz", **where)
    series = series_of(source, 1)
    every = put_map(viewer, np.zeros((2, 8, 9)), source, "altitude", series, None)
    one = put_map(viewer, np.zeros((8, 9)), source, "altitude", series, (1,))
    assert one.name == "tz altitude, axis0 1"
    for point in ((0, 0, 0, 0), (1, 2, 7, 5)):
        world = source.data_to_world(point)
        np.testing.assert_allclose(every.data_to_world(point[:1] + point[2:]), np.delete(world, 1))
        np.testing.assert_allclose(one.data_to_world(point[2:]), world[2:])
    # It follows an image that was moved since.
    source.scale = (2, 3, 1, 1)
    assert put_map(viewer, np.ones((8, 9)), source, "altitude", series, (1,)) == one
    np.testing.assert_allclose(one.data_to_world((7, 5)), source.data_to_world((0, 0, 7, 5))[2:])


@pytest.mark.parametrize("shape", [(8, 9), (2, 8, 9), (2, 3, 8, 9)])
def test_objects_of_a_stack(shape):
    data = np.arange(np.prod(shape)).reshape(shape)
    series = series_of(Image(np.zeros((2, 3, 8, 9))), 1)
    found = labels_at(Labels(data), series, (1,), (0, 2))
    expected = {2: data, 3: data[-1], 4: data[-1, -1]}[len(shape)]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("lazy", [False, True])
def test_one_stack_of_many_is_looked_at_without_reading(lazy):
    data, read = np.arange(2 * 3 * 4 * 5 * 6).reshape(2, 3, 4, 5, 6), []

    class Stored:
        """As Zarr and h5py are: what is sliced is read."""

        shape, dtype, ndim = data.shape, data.dtype, data.ndim

        def __getitem__(self, index):
            read.append(data[index].size)
            return data[index]

    series = Series("stored", Stored() if lazy else data, 1, (2, 3, 4), ("t", "z", "c"))
    look = series.array((1, 2))
    assert look.shape == (3, 5, 6)
    assert not any(read)
    np.testing.assert_array_equal(look[2, :, 1:3], data[1, 2, 2, :, 1:3])
    assert max(read, default=0) <= 5 * 6
