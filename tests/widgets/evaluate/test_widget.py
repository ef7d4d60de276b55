"""The Evaluate widget by its buttons."""

import csv

import numpy as np
import pytest

from napari_defocus.data.samples import read_sample
from napari_defocus.evaluate.scores import PROTOCOLS, score_map
from napari_defocus.labels.classes import annotation_from_mask
from napari_defocus.widgets._shared import layers
from napari_defocus.widgets.detect.widget import DetectWidget
from napari_defocus.widgets.evaluate import widget as module
from napari_defocus.widgets.evaluate.widget import EvaluateWidget

WIDGET = EvaluateWidget

SAMPLE = read_sample("photo")
STEP = 3
PHOTO = SAMPLE.image[::STEP, ::STEP]
BLURRED = SAMPLE.blurred[::STEP, ::STEP]
TRUTH = annotation_from_mask(255 * BLURRED.astype(np.uint8))


def press(qtbot, widget):
    with qtbot.waitSignal(widget.jobs.ended, timeout=20_000):
        widget.jobs.run_button.click()


@pytest.fixture
def photo(viewer, qtbot):
    """Give the photo's layer after a detection."""
    source = viewer.add_image(PHOTO, name="photo", scale=(0.5, 0.5), units=("um", "um"))
    detector = DetectWidget(viewer)
    viewer.window.add_dock_widget(detector)
    press(qtbot, detector)
    return source


@pytest.fixture
def widget(photo, widget):
    return widget


def detection(viewer, source):
    blur, mask = (layers.find_owned(viewer, source, role) for role in (layers.BLUR, layers.MASK))
    return blur.data, mask.data


def cell(widget, protocol, method="detection"):
    columns = [
        widget.table.horizontalHeaderItem(i).text().replace("\n", " ")
        for i in range(widget.table.columnCount())
    ]
    return widget.table.item(list(PROTOCOLS).index(protocol), columns.index(method)).text()


def test_one_click_scores_the_detection(viewer, widget, qtbot, photo, tmp_path):
    viewer.add_labels(TRUTH, name="truth")
    assert [layer.name for layer in widget.detection.choices] == ["photo blur map"]
    assert [layer.name for layer in widget.labels.choices] == ["truth"]
    assert widget._results.isHidden()
    press(qtbot, widget)
    blur, mask = detection(viewer, photo)
    expected = score_map(blur, BLURRED, mask=mask)
    assert cell(widget, "AUC") == f"{expected.values['AUC']:.3f}"
    assert cell(widget, "IoU(mask)") == f"{expected.values['IoU(mask)']:.3f}"
    assert cell(widget, "Fmax") == f"{expected.sharp.f_max:.3f}"
    assert cell(widget, "AUC", "constant .5") == "0.500"
    assert cell(widget, "IoU(mask)", "all sharp") == "-"
    assert cell(widget, "MAE", "all blurred") == f"{(~BLURRED).mean():.3f}"
    assert "read as an annotation" in widget.read_as.text()
    assert "100.0% of the pixels" in widget.read_as.text()
    assert not widget._results.isHidden()
    (axes,) = widget.plot.figure.axes
    assert axes.get_xlabel() == "recall"
    (curve, *_) = axes.lines
    drawn = expected.sharp.recall > 0
    np.testing.assert_allclose(curve.get_ydata(), expected.sharp.precision[drawn])

    differ = viewer.layers["photo disagreement"]
    np.testing.assert_array_equal(differ.data == 1, BLURRED & (mask == 2))
    np.testing.assert_array_equal(differ.data == 2, ~BLURRED & (mask == 1))
    np.testing.assert_allclose(differ.scale, (0.5, 0.5))
    assert differ.units == photo.units
    assert not np.allclose(differ.get_color(1), differ.get_color(2))
    assert list(differ.features["meaning"]) == ["blurred, called sharp", "sharp, called blurred"]
    assert str((differ.data == 1).sum()) in widget.jobs.text.text()

    widget.save(tmp_path / "scores.csv")
    rows = list(csv.DictReader((tmp_path / "scores.csv").open(encoding="utf-8")))
    assert float(rows[0]["AUC"]) == pytest.approx(expected.values["AUC"], abs=1e-6)
    assert {row["method"] for row in rows} >= {"detection", "all sharp"}
    widget.save(tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert "curve.png" in widget.jobs.text.text()


def test_buttons_ask_where_to_save(viewer, widget, qtbot, monkeypatch, tmp_path):
    viewer.add_labels(TRUTH)
    press(qtbot, widget)
    answers = [str(tmp_path / "a.csv"), str(tmp_path / "b"), ""]
    monkeypatch.setattr(
        "napari_defocus.widgets._shared.dialogs.QFileDialog.getSaveFileName",
        lambda *_: (answers.pop(0), ""),
    )
    widget.csv_button.click()
    widget.png_button.click()
    widget.png_button.click()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "b.png"]
    widget.save(tmp_path / "no" / "folder" / "x.csv")
    widget.save(tmp_path)
    assert widget.jobs.text.text().startswith("⚠")


@pytest.mark.parametrize(
    ("painted", "how"),
    [
        (255 * BLURRED.astype(np.uint8), "read as a mask: 255 blurred"),
        (BLURRED.astype(np.uint8), "read as a mask: 1 blurred"),
    ],
)
def test_masks_are_read_as_such(viewer, widget, qtbot, photo, painted, how):
    viewer.add_labels(painted)
    press(qtbot, widget)
    assert how in widget.read_as.text()
    blur, _ = detection(viewer, photo)
    assert cell(widget, "MAE") == f"{score_map(blur, BLURRED).values['MAE']:.3f}"


def test_scribbles_count_where_they_are_and_a_second_run_updates(viewer, widget, qtbot, photo):
    scribbles = np.zeros_like(TRUTH)
    scribbles[20:40], scribbles[-30:] = TRUTH[20:40], TRUTH[-30:]
    if len(np.unique(scribbles)) < 3:
        scribbles[:, ::4] = TRUTH[:, ::4]
    viewer.add_labels(scribbles, name="scribbles")
    press(qtbot, widget)
    part = scribbles > 0
    blur, mask = detection(viewer, photo)
    expected = score_map(blur[part], BLURRED[part], mask=mask[part])
    assert cell(widget, "AUC") == f"{expected.values['AUC']:.3f}"
    assert f"{part.mean():.1%} of the pixels" in widget.read_as.text()
    differ = viewer.layers["photo disagreement"]
    assert not differ.data[~part].any()
    count = len(viewer.layers)
    everything = viewer.add_labels(TRUTH, name="truth")
    widget.labels.value = everything
    press(qtbot, widget)
    assert len(viewer.layers) == count + 1
    np.testing.assert_array_equal(differ.data == 1, BLURRED & (mask == 2))
    widget.reading.setCurrentText("mask")
    press(qtbot, widget)
    assert "read it as annotation" in widget.jobs.text.text()


def test_a_detection_whose_image_or_mask_is_gone(viewer, widget, qtbot, photo):
    viewer.add_labels(TRUTH)
    blur = layers.find_owned(viewer, photo, layers.BLUR)
    viewer.layers.remove(layers.find_owned(viewer, photo, layers.MASK))
    press(qtbot, widget)
    assert cell(widget, "IoU(mask)") == "-"
    viewer.layers.remove(photo)
    press(qtbot, widget)
    differ = viewer.layers["photo blur map disagreement"]
    np.testing.assert_array_equal(differ.data == 1, BLURRED & (blur.data <= 0.5))


def test_nothing_to_evaluate(viewer, qtbot):
    widget = EvaluateWidget(viewer)
    viewer.window.add_dock_widget(widget)
    widget.jobs.run_button.click()
    assert "no detection yet" in widget.jobs.text.text()
    widget.save("scores.csv")
    assert "nothing is scored yet" in widget.jobs.text.text()
    viewer.add_image(PHOTO)
    assert not widget.detection.choices


def test_no_labels(viewer, widget):
    widget.jobs.run_button.click()
    assert "no labels layer is chosen" in widget.jobs.text.text()


@pytest.mark.parametrize(
    ("painted", "says"),
    [
        (TRUTH[:-1], "paint on a labels layer of the image's own size"),
        (np.where(TRUTH == 1, 1, 0) * (np.arange(TRUTH.shape[1]) < 0), "nothing is painted"),
        (np.full_like(TRUTH, 2), "no pixel is called blurred"),
        (TRUTH + 3, "label"),
    ],
)
def test_labels_that_cannot_be_used_are_refused(viewer, widget, qtbot, monkeypatch, painted, says):
    told = []
    monkeypatch.setattr("napari_defocus.widgets._shared.jobs.show_error", told.append)
    viewer.add_labels(painted, name="hand")
    count = len(viewer.layers)
    press(qtbot, widget)
    assert says in widget.jobs.text.text()
    assert "hand" in widget.jobs.text.text()
    assert len(told) == 1
    assert len(viewer.layers) == count
    assert widget.report is None
    assert widget.jobs.run_button.isEnabled()


def test_blur_map_deleted_and_engine_broken(viewer, widget, qtbot, photo, monkeypatch):
    viewer.add_labels(TRUTH)
    monkeypatch.setattr("napari_defocus.widgets._shared.jobs.show_error", lambda _: None)
    real = module.compare

    def broken(*_, **__):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(module, "compare", broken)
    press(qtbot, widget)
    assert "out of memory; close other programs" in widget.jobs.text.text()
    monkeypatch.setattr(module, "compare", real)
    with qtbot.waitSignal(widget.jobs.ended, timeout=20_000):
        widget.jobs.run_button.click()
        viewer.layers.remove(layers.find_owned(viewer, photo, layers.BLUR))
    assert "was deleted; its scores were dropped" in widget.jobs.text.text()
    assert "photo disagreement" not in viewer.layers
