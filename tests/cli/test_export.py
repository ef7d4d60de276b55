"""The command `export`: polygons and tables of masks."""

import csv
import json
from functools import partial

import numpy as np
import pytest
from skimage import data

from napari_defocus.cli.main import main
from napari_defocus.io.raster import write_png
from napari_defocus.io.results import mask_stem
from napari_defocus.io.tiff_writer import write_tiff
from napari_defocus.measure.regions import focus_scores
from tests.measure.test_polygons import painted

SHAPE = (40, 60)


@pytest.fixture
def run(run):
    """Run `export`; its exit status and the lines it prints to stdout and stderr."""
    return partial(run, "export")


@pytest.fixture
def mask():
    mask = np.ones(SHAPE, np.uint8)
    mask[10:30, 20:50] = 2
    mask[15:20, 30:35] = 0
    return mask


@pytest.fixture
def results(mask, tmp_path):
    """A folder as detection leaves it."""
    folder = tmp_path / "results"
    blur = np.where(mask == 1, 0.75, 0.25).astype(np.float32)
    write_tiff(folder / "cell.mask.tif", mask, axes="YX", pixel_size_um=0.5)
    write_tiff(folder / "cell.blur.tif", blur, axes="YX", pixel_size_um=0.5)
    return folder


def table(path):
    def value(name, text):
        return text if name == "image" or not text else float(text)

    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: value(name, text) for name, text in row.items()} for row in rows]


def features(path):
    return json.loads(path.read_text("utf-8"))["features"]


def test_polygons_and_shares(run, results, mask, tmp_path):
    status, out, _ = run(results / "cell.mask.tif", "--out", tmp_path)
    assert status == 0
    assert out == [str(tmp_path / "cell.geojson"), str(tmp_path / "cell.shares.csv")]
    found = features(tmp_path / "cell.geojson")
    back = painted(found, SHAPE)
    assert np.array_equal(np.where(back == 255, 0, back), mask)
    told = {f["properties"]["classification"]["name"]: f["properties"] for f in found}
    assert told["sharp"]["measurements"] == {
        "area px": 575,
        "area um^2": 143.75,
        "mean blur": 0.25,
    }
    (row,) = table(tmp_path / "cell.shares.csv")
    assert row["area"] == mask.size
    assert row["area_um2"] == mask.size / 4
    for name, label in (("undecided", 0), ("blurred", 1), ("sharp", 2)):
        assert row[name] == pytest.approx((mask == label).mean(), rel=1e-5)


def test_objects(run, results, mask, tmp_path):
    labels = np.zeros(SHAPE, np.uint16)
    labels[5:15, 5:30], labels[20:40, 30:60] = 7, 300
    image = np.random.default_rng(0).integers(0, 255, (*SHAPE, 3)).astype(np.uint8)
    write_tiff(tmp_path / "labels.tif", labels, axes="YX")
    write_png(tmp_path / "cell.png", image)
    status, *_ = run(
        *(results, "--out", tmp_path / "out", "--labels", tmp_path / "labels.tif"),
        *("--image", tmp_path / "cell.png"),
    )
    assert status == 0
    rows = table(tmp_path / "out" / "cell.objects.csv")
    assert [row["index"] for row in rows] == [7, 300]
    for row, focus in zip(rows, focus_scores(image, labels), strict=True):
        inside = labels == row["index"]
        assert row["area"] == inside.sum()
        assert row["area_um2"] == inside.sum() / 4
        assert row["blurred"] == pytest.approx((mask[inside] == 1).mean(), rel=1e-5)
        assert row["undecided"] == pytest.approx((mask[inside] == 0).mean(), rel=1e-5)
        assert np.isnan(focus) if np.isnan(row["focus"]) else row["focus"] == pytest.approx(focus)


def test_folders_give_what_belongs_to_a_mask(run, results, tmp_path):
    labels = np.ones(SHAPE, np.uint8)
    write_png(tmp_path / "labels" / "cell.png", labels)
    status, *_ = run(results, "--out", tmp_path / "out", "--labels", tmp_path / "labels")
    assert status == 0
    assert len(table(tmp_path / "out" / "cell.objects.csv")) == 1
    status, _, err = run(results, "--out", tmp_path / "more", "--labels", results)
    assert status == 2
    assert "has no image named cell; name one" in err[0]


def test_stacks_tell_their_planes(run, tmp_path):
    mask = np.ones((3, *SHAPE), np.uint8)
    mask[1, 5:10, 5:10] = 2
    write_tiff(tmp_path / "stack.mask.tif", mask, axes="ZYX")
    write_tiff(tmp_path / "stack.blur.tif", (mask == 1).astype(np.float32), axes="ZYX")
    labels = np.zeros(SHAPE, np.uint8)
    labels[:20, :20] = 4
    write_png(tmp_path / "roi.png", labels)
    status, *_ = run(
        *(tmp_path / "stack.mask.tif", "--out", tmp_path / "out", "--labels"),
        tmp_path / "roi.png",
    )
    assert status == 0
    shares = table(tmp_path / "out" / "stack.shares.csv")
    assert [(row["Z"], row["sharp"] > 0) for row in shares] == [(0, 0), (1, 1), (2, 0)]
    objects = table(tmp_path / "out" / "stack.objects.csv")
    assert [row["blurred"] for row in objects] == [1, 375 / 400, 1]
    planes = [f["geometry"]["plane"]["z"] for f in features(tmp_path / "out" / "stack.geojson")]
    assert planes == [0, 1, 1, 2]


def test_zarr_masks_of_images_worked_in_tiles(run, tmp_path):
    write_tiff(tmp_path / "coins.tif", data.coins()[:200, :260], axes="YX", pixel_size_um=0.5)
    detect = ["detect", str(tmp_path / "coins.tif"), "--detector", "metric", "--tile", "128"]
    for form in ("zarr", "tif"):
        assert main([*detect, "--out", str(tmp_path / form), "--format", form]) == 0
        assert run(tmp_path / form, "--out", tmp_path / f"{form}_out")[0] == 0
    one, other = ((tmp_path / f"{form}_out" / "coins.geojson") for form in ("zarr", "tif"))
    assert features(one)
    assert features(one) == features(other)


def test_micrometres_undecided_and_smallest(run, results, tmp_path):
    def found(*arguments):
        assert run(results, "--out", tmp_path / "out", "--overwrite", *arguments)[0] == 0
        return features(tmp_path / "out" / "cell.geojson")

    assert max(found("--micrometres")[0]["geometry"]["coordinates"][0]) == [30, 20]
    names = [f["properties"]["classification"]["name"] for f in found("--undecided")]
    assert names == ["blurred", "sharp", "undecided"]
    assert len(found("--smallest", 600)) == 1


def test_masks_of_a_folder_share_a_table_that_names_each(run, results, mask, tmp_path):
    """Also a stack among single planes; its rows alone have a Z."""
    stack = np.stack([mask, 3 - np.clip(mask, 1, 2)]).astype(np.uint8)
    write_tiff(results / "stack.mask.tif", stack, axes="ZYX")
    out = tmp_path / "out"
    status, printed, _ = run(results, "--out", out)
    assert status == 0
    assert printed[-1] == str(out / "shares.csv")
    rows = table(out / "shares.csv")
    assert [(row["image"], row["Z"]) for row in rows] == [("cell", ""), ("stack", 0), ("stack", 1)]
    planes = [mask, *stack]
    sharp = [(plane == 2).mean() for plane in planes]
    np.testing.assert_allclose([row["sharp"] for row in rows], sharp, rtol=1e-5)
    assert run(results, "--out", out)[0] == 2  # not without --overwrite
    assert run(results, "--out", out, "--overwrite")[0] == 0


def test_what_cannot_be_used_is_told_and_others_are_done(run, results, tmp_path):
    write_png(tmp_path / "truth.png", np.full(SHAPE, 255, np.uint8))
    empty = tmp_path / "empty"
    empty.mkdir()
    status, out, err = run(
        tmp_path / "truth.png", empty, results / "cell.mask.tif", "--out", tmp_path / "out"
    )
    assert status == 2
    assert len(out) == 2
    assert len(err) == 2
    assert "255 too" in " ".join(err)
    assert "without masks" in " ".join(err)
    status, _, err = run(results, "--out", tmp_path / "out")
    assert status == 2
    assert "exists already" in err[0]


def test_what_does_not_fit_is_told(run, results, mask, tmp_path):
    write_png(tmp_path / "small.png", np.ones((5, 5), np.uint8))
    for option in ("--labels", "--blur", "--image"):
        status, _, err = run(results, "--out", tmp_path / "out", option, tmp_path / "small.png")
        assert status == 2
        assert "give what belongs to it" in err[0]
    write_tiff(tmp_path / "alone.mask.tif", mask, axes="YX")
    write_png(tmp_path / "ones.png", np.ones(SHAPE, np.uint8))
    alone = (tmp_path / "alone.mask.tif", "--out", tmp_path / "out")
    assert "--blur" in run(*alone, "--labels", tmp_path / "ones.png")[2][0]
    assert "size of a pixel" in run(*alone, "--micrometres")[2][0]


def test_stems():
    assert mask_stem("a/photo.mask.tif") == "photo"
    assert mask_stem("a/photo.mask.ome.tif") == "photo"
    assert mask_stem("photo.v2.png") == "photo.v2"
    assert mask_stem("photo.blur.ome.zarr") == "photo"
