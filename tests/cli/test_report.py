"""The command `report`: a folder of results in, a page out."""

import csv
import os
import re
import sys
from functools import partial
from html.parser import HTMLParser

import numpy as np
import pytest

from napari_defocus.io.manifest import RunRecord
from napari_defocus.io.raster import write_png
from napari_defocus.io.tiff_writer import write_tiff
from tests.cli.helpers import assert_refused, picture


@pytest.fixture
def run(run):
    return partial(run, "report")


class Page(HTMLParser):
    """Tags that are open, and the texts of cells and captions."""

    VOID = ("meta", "img", "br", "input")

    def __init__(self, text):
        super().__init__()
        self.open, self.rows, self.addresses = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        self.addresses += [v for k, v in attributes if k in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "td":
            self.rows[-1].append(data)


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "results"
    for name, share in (("<b>_A01_s1", 0.9), ("x_A02_s1", 0.4), ("x_P24_s2", 0.0)):
        mask = np.ones((40, 60), np.uint8)
        mask[:, : round(60 * share)] = 2
        write_tiff(folder / f"{name}.mask.tif", mask, axes="YX")
    return folder


def test_page_and_table(run, results, tmp_path):
    status, out, err = run(results, "--out", tmp_path / "r" / "report.html")
    assert status == 0
    assert out == [str(tmp_path / "r" / name) for name in ("report.html", "fields.csv")]
    assert err == ["of 3 fields: 1 in focus, 1 soft, 1 out of focus, 0 nothing to see"]
    text = (tmp_path / "r" / "report.html").read_text("utf-8")
    page = Page(text)
    assert page.open == []
    shown = [row[:2] for row in page.rows if len(row) > 2]
    assert shown == [["out of focus", "x_P24_s2"], ["soft", "x_A02_s1"], ["in focus", "<b>_A01_s1"]]
    assert 'data-well="P24"' in text
    assert all(address.startswith("data:image/jpeg;base64,") for address in page.addresses)
    assert len(re.findall("<figure>", text)) == 2
    assert "https://" not in text
    with (tmp_path / "r" / "fields.csv").open(newline="") as file:
        rows = {row["field"]: row for row in csv.DictReader(file)}
    assert float(rows["x_A02_s1"]["sharp_of_structure"]) == pytest.approx(0.4)
    assert rows["x_P24_s2"]["well"] == "P24"


def test_thresholds_are_options_and_stand_on_the_page(run, results, tmp_path):
    path = tmp_path / "report.html"
    _, _, err = run(results, "--out", path, "--in-focus", ".95", "--out-of-focus", ".5")
    assert err == ["of 3 fields: 0 in focus, 1 soft, 2 out of focus, 0 nothing to see"]
    assert "In focus: 95% or more" in path.read_text("utf-8")


def test_images_and_settings_come_from_the_record(run, tmp_path, capsys):
    from napari_defocus.cli.main import main

    write_png(tmp_path / "blobs.png", picture(shape=(96, 128)))
    assert main(["detect", str(tmp_path / "blobs.png"), "--out", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    options = ["--in-focus", "1", "--out-of-focus", "1"]  # so that it is shown
    status, _, _ = run(tmp_path / "out", "--out", tmp_path / "report.html", *options)
    assert status == 0
    text = (tmp_path / "report.html").read_text("utf-8")
    assert "Sharpness limit used" in text
    with (tmp_path / "fields.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["image"] == str(tmp_path / "blobs.png")
    assert float(row["limit_px"]) > 0


def test_wells_come_from_the_record_where_the_file_told_them(run, results, tmp_path):
    """Scenes of one file of a plate have the file's name; the well counts before other words."""
    for number, well in enumerate(("D6", "D7")):
        mask = np.full((9, 9), 2, np.uint8)
        place = results / f"A01_series{number}.mask.tif"
        write_tiff(place, mask, axes="YX")
        RunRecord(results).add(f"A01_series{number}", {}, [place], well=well)
    assert run(results, "--out", tmp_path / "report.html")[0] == 0
    with (tmp_path / "fields.csv").open(newline="") as file:
        wells = {row["field"]: row["well"] for row in csv.DictReader(file)}
    assert (wells["A01_series0"], wells["A01_series1"]) == ("D06", "D07")


def test_a_series_has_a_time_line(run, tmp_path):
    write_tiff(tmp_path / "in" / "s.mask.tif", np.full((3, 9, 9), 2, np.uint8), axes="TYX")
    assert run(tmp_path / "in", "--out", tmp_path / "report.html")[0] == 0
    text = (tmp_path / "report.html").read_text("utf-8")
    assert "<h2>Over time</h2>" in text
    assert text.count("<circle") == 3


def test_a_damaged_mask_costs_one_line(run, results, tmp_path):
    (results / "bad.mask.tif").write_bytes(b"II*\0 cut short")
    status, out, err = run(results, "--out", tmp_path / "report.html")
    assert status == 2
    assert len(out) == 2
    assert "bad.mask.tif" in err[0]
    assert err[1].startswith("of 3 fields")


@pytest.mark.skipif(sys.platform != "linux", reason="names are text elsewhere")
def test_a_name_that_is_no_text(run, results, tmp_path):
    (results / "x_A02_s1.mask.tif").rename(results / os.fsdecode(b"\xff.mask.tif"))
    assert run(results, "--out", tmp_path / "report.html")[0] == 0
    assert "?.mask" not in (tmp_path / "report.html").read_text("utf-8")
    assert len((tmp_path / "fields.csv").read_text("utf-8").splitlines()) == 4


def test_bad_input(run, results, tmp_path):
    assert_refused(run(tmp_path / "none", "--out", tmp_path / "r.html"), "none", "no folder")
    run(results, "--out", tmp_path / "report.html")
    assert_refused(run(results, "--out", tmp_path / "report.html"), "report.html", "--overwrite")
    (tmp_path / "file").write_text("")
    assert_refused(run(results, "--out", tmp_path / "file" / "report.html"), "no folder")
    (results / "napari-defocus.json").write_text('{"version": 99, "results": {}}')
    assert_refused(run(results, "--out", tmp_path / "new" / "r.html"), "napari-defocus.json", "99")
