"""The command `watch`: images judged as they are written."""

import csv
import sys
import threading
import time
from functools import partial

import pytest

from napari_defocus.io import arrivals
from napari_defocus.io.raster import write_png
from tests.cli.helpers import assert_refused, names, picture, results
from tests.io.test_sources import write_ome_zarr

QUICK = ["--detector", "metric", "--settle", ".2", "--idle", ".6"]


@pytest.fixture
def run(run, monkeypatch):
    monkeypatch.setattr(arrivals, "PAUSE_S", 0.05)
    return partial(run, "watch")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def write_slowly(folder, count, tmp_path):
    """Write images in two halves each, with a pause between."""
    for k in range(count):
        write_png(tmp_path / "whole.png", picture(k))
        content = (tmp_path / "whole.png").read_bytes()
        with (folder / f"site_A{k + 1:02d}.png").open("wb") as file:
            for part in (content[: len(content) // 2], content[len(content) // 2 :]):
                file.write(part)
                file.flush()
                time.sleep(0.1)


def test_files_written_slowly_are_judged_once_each(run, folder, tmp_path):
    writer = threading.Thread(target=write_slowly, args=(folder, 5, tmp_path))
    writer.start()
    status, out, err = run(folder, "--out", tmp_path / "out", *QUICK)
    writer.join()
    assert status == 0
    assert err[-1] == "5 images judged, 0 not"
    stems = [f"site_A{k:02d}" for k in range(1, 6)]
    assert sorted(out) == sorted(
        str(tmp_path / "out" / f"{s}.{e}.tif") for s in stems for e in ("blur", "mask")
    )
    assert names(tmp_path / "out") == sorted([*results(*stems), "fields.csv", "report.html"])
    with (tmp_path / "out" / "fields.csv").open(newline="") as file:
        assert [row["field"] for row in csv.DictReader(file)] == stems


def test_another_run_goes_on(run, folder, tmp_path):
    write_png(folder / "a.png", picture(0))
    run(folder, "--out", tmp_path / "out", *QUICK)
    write_png(folder / "b.png", picture(1))
    status, out, err = run(folder, "--out", tmp_path / "out", *QUICK)
    assert (status, err[-1]) == (0, "1 images judged, 0 not")
    assert {path.rpartition("/")[2] for path in out} == {"b.blur.tif", "b.mask.tif"}
    write_png(folder / "a.png", picture(2))
    assert run(folder, "--out", tmp_path / "out", *QUICK)[2][-1] == "1 images judged, 0 not"


def test_a_bad_file_costs_a_line_and_status_2(run, folder, tmp_path):
    write_png(folder / "good.png", picture(0))
    content = (folder / "good.png").read_bytes()
    (folder / "cut.png").write_bytes(content[: len(content) // 2])
    status, _, err = run(folder, "--out", tmp_path / "out", *QUICK)
    assert status == 2
    assert sum("cut.png" in line for line in err) == 1
    assert err[-1] == "1 images judged, 1 not"


def test_two_images_of_one_name_do_not_overwrite_each_other(run, folder, tmp_path):
    write_png(folder / "a.png", picture(0))
    write_png(folder / "a.bmp.png", picture(1))
    (folder / "a.bmp.png").rename(folder / "a.jpg")
    status, out, err = run(folder, "--out", tmp_path / "out", *QUICK)
    assert status == 2
    assert len(out) == 2
    assert any("would overwrite those of" in line for line in err)


def test_zarr_and_subfolders(run, folder, tmp_path):
    """A Zarr is worked in tiles; another run does not judge it anew, nor tell of it."""
    write_ome_zarr(folder / "well_A01" / "s.ome.zarr", picture(0), "YX")
    write_png(folder / "well_A02" / "s.png", picture(1))
    status, out, err = run(folder, "--out", folder / "out", *QUICK, "--subfolders")
    assert (status, err[-1]) == (0, "2 images judged, 0 not")
    made = ["well_A01_s.blur.ome.zarr", "well_A02_s.blur.tif", "well_A02_s.mask.tif"]
    assert [path.rpartition("/")[2] for path in out] == made
    with (folder / "out" / "fields.csv").open(newline="") as file:
        assert [row["well"] for row in csv.DictReader(file)] == ["A01", "A02"]
    status, out, err = run(folder, "--out", folder / "out", *QUICK, "--subfolders")
    assert (status, out, err[-1]) == (0, [], "0 images judged, 0 not")


def test_alert(run, folder, tmp_path):
    write_png(folder / "site_B02.png", picture(0))
    told = tmp_path / "told"
    code = f"import sys; open({str(told)!r}, 'w').write(' '.join(sys.argv[1:]))"
    command = f'{sys.executable} -c "{code}" {{well}} {{image}}'
    options = ["--alert", "1", "--alert-command", command, "--mask-threshold", "1"]
    _, out, _ = run(folder, "--out", tmp_path / "out", *QUICK, *options)
    assert out[-1].startswith("alert: site_B02: 0%")
    assert told.read_text() == f"B02 {folder / 'site_B02.png'}"


def test_an_alert_command_that_fails_costs_a_line(run, folder, tmp_path):
    write_png(folder / "a.png", picture(0))
    options = ["--alert", "1", "--alert-command", "/no/such/program", "--mask-threshold", "1"]
    status, _, err = run(folder, "--out", tmp_path / "out", *QUICK, *options)
    assert status == 0
    assert sum("the alert's command" in line for line in err) == 1


def test_bad_input(run, folder, tmp_path):
    out = ["--out", tmp_path / "out"]
    assert_refused(run(tmp_path / "none", *out), "none", "no folder")
    assert_refused(run(folder, *out, "--settle", "-1"), "settle")
    assert_refused(run(folder, *out, "--alert", "2"), "alert")
    assert_refused(run(folder, *out, "--alert-command", "x"), "--alert")
    write_png(folder / "a.png", picture(0))
    assert_refused(run(folder, "--out", folder / "a.png"), "a.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "napari-defocus.json").write_text('{"version": 99, "results": {}}')
    assert_refused(run(folder, *out), "napari-defocus.json", "version 99")
