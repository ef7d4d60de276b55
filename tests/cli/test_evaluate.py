import csv
import json
import shutil

import numpy as np
import pytest

from napari_defocus.evaluate.scores import PROTOCOLS
from napari_defocus.io.open import read_image
from napari_defocus.io.raster import write_png
from napari_defocus.io.tiff_writer import write_tiff
from tests.cli.helpers import assert_refused, names, picture


@pytest.fixture
def scored(tmp_path):
    """A folder of two masks, and two of maps: a right one and a rough one."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        blurred = picture(ord(name)) > 128
        write_png(tmp_path / "truth" / f"{name}.png", np.where(blurred, 255, 0).astype(np.uint8))
        right = blurred.astype(np.float32)
        rough = np.clip(right + rng.normal(0, 0.5, right.shape), 0, 1)
        for method, values in (("right", right), ("rough", rough)):
            path = tmp_path / method / f"{name}.blur.tif"
            write_tiff(path, values.astype(np.float32), axes="YX")
    return tmp_path


REPORT = ["precision_recall.png", "report.json", "scores.csv"]


def test_one_folder_is_scored(run, scored):
    out = scored / "report"
    status, lines, err = run(
        "evaluate", "--maps", scored / "right", "--truth", scored / "truth", "--out", out
    )
    assert (status, err) == (0, [])
    assert names(out) == REPORT
    report = json.loads((out / "report.json").read_text())
    assert list(report["methods"]) == ["right"]
    mean = report["methods"]["right"]["mean"]
    assert mean["AUC"] == mean["Fmax"] == 1
    assert mean["MAE"] == 0
    table = {line[:14].strip(): line for line in lines}
    assert set(PROTOCOLS) <= set(table)
    assert "1.0000" in table["AUC"]


def test_several_folders_are_compared(run, scored):
    out = scored / "report"
    maps = ["--maps", scored / "right", scored / "rough"]
    status, lines, err = run("evaluate", *maps, "--truth", scored / "truth", "--out", out)
    assert (status, err) == (0, [])
    assert "right" in lines[0]
    assert "rough" in lines[0]
    with (out / "scores.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["row"] == "mean"]
    auc = {row["method"]: float(row["AUC"]) for row in rows}
    assert auc["right"] == 1 > auc["rough"] > auc["constant .5"] == 0.5


def test_folders_of_the_same_name_are_told_apart(run, scored):
    folders = [scored / method / "maps" for method in ("right", "rough")]
    for folder in folders:
        shutil.copytree(folder.parent, folder)
    out = scored / "report"
    status, *_ = run("evaluate", "--maps", *folders, "--truth", scored / "truth", "--out", out)
    assert status == 0
    report = json.loads((out / "report.json").read_text())
    assert list(report["methods"]) == [str(folder) for folder in folders]


def test_maps_may_be_of_sharpness(run, scored):
    out = scored / "report"
    for path in (scored / "right").iterdir():
        write_tiff(path, 1 - read_image(path).data, axes="YX")
    given = ["evaluate", "--maps", scored / "right", "--truth", scored / "truth", "--out", out]
    for told, auc in ((["--maps-are", "sharpness"], 1), ([], 0)):
        assert run(*given, *told, "--overwrite")[0] == 0
        report = json.loads((out / "report.json").read_text())
        assert report["methods"]["right"]["mean"]["AUC"] == auc


def test_missing_map_is_told_and_the_others_are_scored(run, scored):
    (scored / "rough" / "b.blur.tif").unlink()
    out = scored / "report"
    maps = ["--maps", scored / "right", scored / "rough"]
    status, lines, err = run("evaluate", *maps, "--truth", scored / "truth", "--out", out)
    assert status == 2
    assert err == [f"napari-defocus: {scored / 'truth'}: no map for b"]
    assert lines[-1] == "no map of rough for 1: b"
    report = json.loads((out / "report.json").read_text())
    assert report["methods"]["rough"]["missing"] == ["b"]
    assert report["methods"]["right"]["missing"] == []


def test_existing_report_is_kept_unless_told_otherwise(run, scored):
    out = scored / "report"
    out.mkdir()
    (out / "scores.csv").write_text("mine")
    given = ["evaluate", "--maps", scored / "right", "--truth", scored / "truth", "--out", out]
    assert_refused(run(*given), out / "scores.csv", "exists", "--overwrite")
    assert names(out) == ["scores.csv"]
    assert (out / "scores.csv").read_text() == "mine"
    assert run(*given, "--overwrite")[0] == 0
    assert names(out) == REPORT


@pytest.mark.parametrize("kind", ["no maps", "no folder", "no truth", "broken", "size", "out"])
def test_what_cannot_be_scored_is_told_in_one_line(run, scored, kind):
    maps, truth, out = scored / "right", scored / "truth", scored / "report"
    if kind == "no maps":
        named = maps = scored / "empty"
        maps.mkdir()
    elif kind == "no folder":
        named = maps = scored / "none"
    elif kind == "no truth":
        named = truth = scored / "none"
    elif kind == "broken":
        named = maps / "b.blur.tif"
        named.write_bytes(named.read_bytes()[:100])
    elif kind == "size":
        named = maps / "b.blur.tif"
        write_tiff(named, np.zeros((5, 5), np.float32), axes="YX")
    else:
        named = out = scored / "truth" / "a.png"
    refused = run("evaluate", "--maps", maps, "--truth", truth, "--out", out)
    assert_refused(refused, named)
    assert not (scored / "report").exists()
