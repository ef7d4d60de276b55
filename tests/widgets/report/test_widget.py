"""The Report widget by its buttons."""

import numpy as np
import pytest

from napari_defocus.io.tiff_writer import write_tiff
from napari_defocus.widgets.report.layers import NO_MASKS
from napari_defocus.widgets.report.widget import ReportWidget

WIDGET = ReportWidget


@pytest.fixture
def results(tmp_path):
    for name, sharp in (("good_A01", 60), ("bad_A02", 0)):
        mask = np.ones((2, 40, 60), np.uint8)
        mask[1, :, :sharp] = 2
        write_tiff(tmp_path / f"{name}.mask.tif", mask, axes="TYX")
        write_tiff(tmp_path / f"{name}.blur.tif", (mask == 1).astype(np.float32), axes="TYX")
    return tmp_path


def press(qtbot, widget):
    with qtbot.waitSignal(widget.jobs.ended, timeout=20_000):
        widget.jobs.run_button.click()


def test_the_worst_first_and_a_double_click_opens_a_field(widget, viewer, results, qtbot):
    widget.choose(results)
    press(qtbot, widget)
    assert widget.jobs.text.text().startswith("of 4 fields: 1 in focus, 0 soft, 3 out of focus")
    shown = [widget.table.item(row, 2).text() for row in range(4)]
    assert shown[-1] == "good_A01, T 1"
    assert (results / "report.html").exists()
    assert widget.open_button.isEnabled()
    widget.table.cellDoubleClicked.emit(3, 0)
    assert [layer.name for layer in viewer.layers] == ["good_A01 blur", "good_A01 mask"]
    assert viewer.dims.current_step[0] == 1
    widget.table.cellDoubleClicked.emit(3, 0)
    assert len(viewer.layers) == 2


def test_of_the_open_layers(widget, viewer, qtbot):
    """Masks count that Detect made, or that were opened; a click shows the layer that is open."""
    mask = np.ones((2, 40, 60), np.uint8)
    mask[1] = 2
    where = {"scale": (1, 0.5, 0.5), "axis_labels": ("t", "y", "x")}
    viewer.add_image(np.random.default_rng(0).random((2, 40, 60)), name="a/b", **where)
    made = viewer.add_labels(mask, name="a/b mask", **where)
    viewer.add_labels(mask[0], name="cells")
    press(qtbot, widget)
    assert widget.jobs.text.text().startswith("of 2 fields: 1 in focus, 0 soft, 1 out of focus")
    assert [widget.table.item(row, 2).text() for row in range(2)] == ["a_b, T 0", "a_b, T 1"]
    assert widget.page.exists()
    assert widget.page.read_text("utf-8").count("<img") > 0
    made.visible = False
    widget.table.cellDoubleClicked.emit(1, 0)
    assert viewer.dims.current_step[0] == 1
    assert viewer.layers.selection.active.name == made.name
    assert made.visible
    assert len(viewer.layers) == 3


def test_without_masks_it_says_so(widget, viewer):
    viewer.add_image(np.zeros((9, 9)))
    widget.jobs.run_button.click()
    assert NO_MASKS in widget.jobs.text.text()


def test_thresholds_that_do_not_fit_are_refused(widget, results):
    widget.choose(results)
    widget.out_of_focus.setValue(90)
    widget.jobs.run_button.click()
    assert "out-of-focus" in widget.jobs.text.text()
