"""Saving what was detected: the same bytes as the command `export` writes, and what goes wrong."""

import csv
import json

import numpy as np
import pytest
from napari.layers import Image
from qtpy.QtCore import Qt
from skimage import data

from napari_defocus.cli.main import main
from napari_defocus.core.progress import Stopped
from napari_defocus.io.tiff_writer import write_tiff
from napari_defocus.measure.regions import region_shares
from napari_defocus.widgets._shared import layers
from napari_defocus.widgets._shared.axis_names import letters
from napari_defocus.widgets.detect import exports
from napari_defocus.widgets.detect.widget import DetectWidget

WIDGET = DetectWidget

DIALOG = "napari_defocus.widgets._shared.dialogs.QFileDialog.getSaveFileName"
CAMERA = data.camera()[100:340:2, 60:380:2]  # 120 x 160
STACK = np.stack([CAMERA, CAMERA[::-1], CAMERA[:, ::-1]])
CELLS = np.zeros(CAMERA.shape, np.uint16)
CELLS[10:50, 10:60], CELLS[60:100, 80:150] = 3, 7
MICROMETRES = {"scale": (0.5, 0.5), "units": ("um", "um")}


@pytest.fixture
def widget(widget):
    widget.detector_chooser.choose("metric")
    return widget


@pytest.fixture
def detect(widget, qtbot):
    def detect():
        with qtbot.waitSignal(widget.jobs.ended, timeout=20_000):
            widget.jobs.run_button.click()

    return detect


@pytest.fixture
def save(widget, qtbot, monkeypatch):
    """Click a button of the panel, answer its dialog, and wait until the file is there."""

    def save(button, path):
        asked = []
        monkeypatch.setattr(DIALOG, lambda *told: asked.append(told) or (str(path), ""))
        with qtbot.waitSignal(widget.jobs.ended, timeout=20_000):
            qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
        return asked[0]

    return save


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def by_command(folder, image, axes, labels, *options, **size):
    """Give what the command line writes of the same image."""
    write_tiff(folder / "cells.tif", image, axes=axes, **size)
    write_tiff(folder / "labels.tif", labels, axes=axes[-labels.ndim :])
    detect = ["detect", str(folder / "cells.tif"), "--detector", "metric"]
    assert main([*detect, "--out", str(folder / "results")]) == 0
    export = ["export", str(folder / "results"), "--out", str(folder), *options]
    export += ["--labels", str(folder / "labels.tif"), "--image", str(folder / "cells.tif")]
    assert main(export) == 0
    return [folder / f"cells.{ending}" for ending in ("geojson", "shares.csv", "objects.csv")]


@pytest.mark.parametrize("kind", ["micrometres", "no scale", "stack", "stack, labels of one plane"])
def test_files_are_those_of_the_command_line(viewer, widget, detect, save, tmp_path, kind):
    one = not kind.startswith("stack")
    image, axes = (CAMERA, "YX") if one else (STACK, "ZYX")
    labels = CELLS if one or "one plane" in kind else np.stack([0 * CELLS, CELLS, 2 * CELLS])
    known = kind == "micrometres"
    options, size = (
        (["--micrometres", "--undecided"], {"pixel_size_um": 0.5}) if known else ([], {})
    )
    expected = by_command(tmp_path, image, axes, labels, *options, **size)
    viewer.add_image(image, name="cells", **(MICROMETRES if known else {}))
    widget.objects.value = viewer.add_labels(labels)
    widget.exports.micrometres.setChecked(known)
    widget.exports.undecided.setChecked(known)
    detect()
    panel = widget.exports
    for button, path in zip(
        (panel.polygons_button, panel.shares_button, panel.objects_button), expected, strict=True
    ):
        saved = tmp_path / "saved" / path.name
        saved.parent.mkdir(exist_ok=True)
        asked = save(button, saved)
        assert asked[2] == path.name
        assert path.suffix in asked[3]
        assert saved.read_bytes() == path.read_bytes()
        assert widget.jobs.text.text() == f"saved to {saved}"


def test_suffix_and_a_dialog_that_is_closed(viewer, widget, detect, save, tmp_path, monkeypatch):
    viewer.add_image(CAMERA, name="a/b: cells")
    detect()
    asked = save(widget.exports.polygons_button, tmp_path / "mine")
    assert asked[2] == "a_b_ cells.geojson"
    monkeypatch.setattr(DIALOG, lambda *_: ("", ""))
    widget.exports.shares_button.click()
    assert not widget.jobs.busy
    assert [path.name for path in tmp_path.iterdir()] == ["mine.geojson"]


def test_shares_of_a_region(viewer, widget, detect, save, tmp_path):
    source = viewer.add_image(STACK, name="z", scale=(2, 0.5, 0.5), units=("um",) * 3)
    corners = np.array([[20, 30], [20, 90], [80, 90], [80, 30]]) / 2
    shapes = viewer.add_shapes([corners], name="tissue")
    detect()
    widget.region.value = shapes
    save(widget.exports.shares_button, tmp_path / "shares.csv")
    rows = rows_of(tmp_path / "shares.csv")
    assert [(row["Z"], row["region"]) for row in rows] == [
        (str(z), name) for z in range(3) for name in ("image", "tissue")
    ]
    mask = layers.find_owned(viewer, source, layers.MASK).data
    inside = layers.region_mask(shapes, source, CAMERA.shape)
    for z, row in enumerate(rows[1::2]):
        assert int(row["area"]) == inside.sum() == 4 * float(row["area_um2"])
        for name, share in region_shares(mask[z], inside).items():
            assert float(row[name]) == pytest.approx(share, rel=1e-5)


def test_a_mask_that_was_corrected_and_a_single_plane(viewer, widget, detect, save, tmp_path):
    source = viewer.add_image(STACK, name="z")
    viewer.dims.set_current_step(0, 2)
    widget.shown_plane.setChecked(True)
    detect()
    mask = layers.find_owned(viewer, source, layers.MASK)
    mask.data[:] = 2
    mask.data[10:20, 10:20] = 1
    save(widget.exports.polygons_button, tmp_path / "z.geojson")
    found = json.loads((tmp_path / "z.geojson").read_text("utf-8"))["features"]
    assert [f["properties"]["measurements"]["area px"] for f in found] == [
        100,
        mask.data.size - 100,
    ]
    assert {f["geometry"]["plane"]["z"] for f in found} == {2}
    # Without a blur map there are outlines still.
    viewer.layers.remove(layers.find_owned(viewer, source, layers.BLUR))
    save(widget.exports.polygons_button, tmp_path / "z.geojson")
    (first, _) = json.loads((tmp_path / "z.geojson").read_text("utf-8"))["features"]
    assert "mean blur" not in first["properties"]["measurements"]
    widget.objects.value = viewer.add_labels(np.stack([0 * CELLS, 0 * CELLS, CELLS]))
    save(widget.exports.objects_button, tmp_path / "z.csv")
    assert widget.jobs.text.text() == "⚠ the blur map layer is gone; press Detect again"
    detect()
    save(widget.exports.objects_button, tmp_path / "z.csv")
    assert [(row["Z"], row["index"]) for row in rows_of(tmp_path / "z.csv")] == [
        ("2", "3"),
        ("2", "7"),
    ]


def test_what_is_refused(viewer, widget, detect, save, tmp_path, monkeypatch):
    monkeypatch.setattr(DIALOG, lambda *_: pytest.fail("there is nothing to ask for"))
    panel, text = widget.exports, widget.jobs.text.text
    for _ in range(2):
        for button in (panel.polygons_button, panel.shares_button, panel.objects_button):
            button.click()
            assert text() == f"⚠ {exports.NOTHING_YET}"
        source = viewer.add_image(CAMERA)
    detect()
    panel.objects_button.click()
    assert "choose a labels layer as Objects" in text()
    panel.micrometres.setChecked(True)
    save(panel.polygons_button, tmp_path / "a.geojson")
    assert "size of a pixel is unknown" in text()
    (tmp_path / "taken.csv").mkdir()
    save(panel.shares_button, tmp_path / "taken.csv")
    assert text().startswith("⚠ cannot write")
    widget.objects.value = viewer.add_labels(np.zeros((5, 5), np.uint8), name="small")
    panel.save_objects(tmp_path / "a.csv")
    assert "labels 'small' are (5, 5), the image (120, 160)" in text()
    widget.objects.value = viewer.add_labels(0 * CELLS)
    save(panel.objects_button, tmp_path / "a.csv")
    assert "hold no object" in text()
    widget.region.value = viewer.add_shapes([[[900, 900], [900, 950], [950, 950], [950, 900]]])
    panel.save_shares(tmp_path / "a.csv")
    assert "covers nothing" in text()
    layers.find_owned(viewer, source, layers.MASK).data[0, 0] = 9
    panel.micrometres.setChecked(False)
    save(panel.polygons_button, tmp_path / "a.geojson")
    assert "this one 9 too" in text()
    assert [path.name for path in tmp_path.iterdir()] == ["taken.csv"]


def test_stops_between_planes():
    found = exports.Found("z", 0 * STACK.astype(np.uint8), None, STACK, "Z", None, None)
    with pytest.raises(Stopped):
        list(found.planes("", lambda _: None, lambda: True))


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ((), ""),
        (("-3",), "Z"),
        (("axis -3",), "Z"),
        (("-4", "-3"), "QI"),
        (("t", "-3"), "TZ"),
        (("z", "-3"), "ZQ"),
        (("Time", "channel", "focus plane"), "TCZ"),
        (("z", "z"), "ZQ"),
    ],
)
def test_letters_of_axes(labels, expected):
    assert letters(labels) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, None),
        ({"scale": (0.5, 0.5)}, None),
        (MICROMETRES, 0.5),
        ({"scale": (500, 500), "units": ("nm", "nm")}, 0.5),
        ({"scale": (500, 500), "units": ("nm", "um")}, None),
        ({"scale": (0.5, 0.6), "units": ("um", "um")}, None),
        ({"scale": (0.5, 0.5025), "units": ("um", "um")}, 0.5025),
        ({"scale": (1, 1), "units": ("um", "um"), "affine": np.diag([0.5, 0.5, 1])}, 0.5),
        ({**MICROMETRES, "rotate": 30}, 0.5),
        ({**MICROMETRES, "shear": [0.5]}, None),
        ({"scale": (1, 1), "units": ("s", "s")}, None),
    ],
)
def test_pixel_size_of_a_layer(options, expected):
    size = layers.pixel_size_um(Image(CAMERA, **options))
    assert size == (None if expected is None else pytest.approx(expected))


def test_pixel_size_of_a_stack_in_colours():
    colours = Image(np.zeros((2, 8, 8, 3), np.uint8), rgb=True, scale=(2, 0.5, 0.5), units="um")
    assert layers.pixel_size_um(colours) == pytest.approx(0.5)
