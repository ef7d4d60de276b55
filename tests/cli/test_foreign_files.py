"""Files of microscopes that cannot be used among others that can: a line each, the rest done."""

import sys
import time
import types

import pytest

from napari_defocus.io import foreign
from napari_defocus.io.raster import write_png
from tests.cli.helpers import picture, without_limits

QUICK = ["--detector", "metric"]


def fails(path):
    raise {"raises.lif": ValueError, "encrypted.lif": PermissionError}[path.name](path.name)


def opens(path):
    return time.sleep(0.4) if path.name == "hangs.lif" else fails(path)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Of Leica's files one hangs, one is encrypted, one raises; others are unknown or cut short."""
    library = types.ModuleType("liffile")
    library.LifFile = opens
    monkeypatch.setitem(sys.modules, "liffile", library)
    monkeypatch.setitem(sys.modules, "bioio", None)
    monkeypatch.setattr(foreign, "MOST_S", 0.05)
    folder = tmp_path / "in"
    write_png(folder / "good_A01.png", picture(0))
    write_png(folder / "good_P24.png", picture(1))
    for name in ("hangs.lif", "raises.lif", "encrypted.lif", "unknown.oir"):
        (folder / name).write_bytes(b"something of their own")
    (folder / "cut.svs").write_bytes(b"II*\0\x08\0\0\0")
    return folder


BAD = ("cut.svs", "encrypted.lif", "hangs.lif", "raises.lif", "unknown.oir")


def test_each_costs_a_line_and_the_rest_is_done(run, folder, tmp_path):
    status, out, err = run("detect", folder, "--out", tmp_path / "out", *QUICK)
    assert status == 2
    assert len(out) == 4
    told = without_limits(err)
    assert [sum(name in line for line in told) for name in BAD] == [1] * len(BAD)
    assert len(told) == len(BAD) + 1
    assert told[-1] == "2 of 7 images done"
    status, _, err = run("report", tmp_path / "out", "--out", tmp_path / "report.html")
    assert status == 0
    assert err[-1].startswith("of 2 fields")
    page = (tmp_path / "report.html").read_text("utf-8")  # a plate of which most wells are missing
    assert page.count('class="empty"') == 16 * 24 - 2


def test_a_report_that_cannot_be_written(run, folder, tmp_path):
    run("detect", folder / "good_A01.png", "--out", tmp_path / "out", *QUICK)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "fields.csv").mkdir()
    status, out, err = run("report", tmp_path / "out", "--out", tmp_path / "taken" / "report.html")
    assert (status, out, len(err)) == (2, [], 1)
    assert "fields.csv" in err[0]
