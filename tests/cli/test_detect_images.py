import io
import json

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_defocus.cli._detection_options import detection_config
from napari_defocus.cli.main import build_parser, main
from napari_defocus.detection.api import DetectionConfig
from napari_defocus.detection.refinement import RefinementConfig
from napari_defocus.detection.threshold import MaskConfig
from napari_defocus.io.open import read_image
from napari_defocus.io.raster import write_png
from napari_defocus.io.tiff_writer import write_tiff
from tests.cli.helpers import assert_refused, bad_metric, names, picture, results, without_limits
from tests.detection.soft_stack import soft_stack


def test_defaults_of_detect_are_those_of_the_library():
    options = build_parser().parse_args(["detect", "x", "--out", "y"])
    assert detection_config(options) == DetectionConfig()
    assert options.metric == "default"


def test_every_setting_of_detect_arrives():
    told = (
        "--limit 0.8um --scale image --adapt 0.1 --reach 3 --caution -2 --gain 4 --no-refine "
        "--iterations 2 7 --weights 0.25 0.75 --neighbourhood 9 --refine-threshold mean --keep 0.6 "
        "--mask-threshold 0.4 --smallest 7 --mask-range 0.2 0.9 --no-growing"
    )
    options = build_parser().parse_args(["detect", "x", "--out", "y", *told.split()])
    assert detection_config(options) == DetectionConfig(
        limit="0.8um",
        scale="image",
        adapt=0.1,
        reach=3.0,
        caution=-2.0,
        gain=4.0,
        refine=False,
        refinement=RefinementConfig((2, 7), (0.25, 0.75), 9, None, 0.6, growing=False),
        mask=MaskConfig(0.4, (0.2, 0.9), 7),
    )


def test_thresholds_may_be_numbers_or_rules():
    told = ["--refine-threshold", "0.3", "--mask-threshold", "mean"]
    config = detection_config(build_parser().parse_args(["detect", "x", "--out", "y", *told]))
    assert config.refinement.threshold == 0.3
    assert config.mask.threshold == "mean"


def test_detect_writes_map_and_mask(run, tmp_path):
    image = tmp_path / "cells.tif"
    write_tiff(image, picture(), axes="YX", pixel_size_um=0.25)
    out = tmp_path / "new" / "out"
    status, written, err = run("detect", image, "--out", out)
    assert (status, without_limits(err)) == (0, [])
    assert written == [str(out / "cells.blur.tif"), str(out / "cells.mask.tif")]
    blur, mask = (read_image(out / f"cells.{kind}.tif") for kind in ("blur", "mask"))
    assert blur.data.dtype == np.float32
    assert mask.data.dtype == np.uint8
    for found in (blur, mask):
        assert found.data.shape == (48, 64)
        assert found.pixel_size_um == pytest.approx(0.25)
    assert blur.data.min() >= 0
    assert blur.data.max() <= 1
    assert set(np.unique(mask.data)) <= {0, 1, 2}


def test_maps_of_a_stack_are_stacks(run, tmp_path):
    image = tmp_path / "stack.tif"
    write_tiff(image, np.stack([picture(z) for z in range(3)]), axes="ZYX", pixel_size_um=2.0)
    status, _, err = run("detect", image, "--out", tmp_path / "out", "--picture")
    assert (status, without_limits(err)) == (0, [])
    for kind in ("blur", "mask"):
        found = read_image(tmp_path / "out" / f"stack.{kind}.tif")
        assert found.data.shape == (3, 48, 64)
        assert found.axes == "ZYX"
        assert found.pixel_size_um == pytest.approx(2.0)
    assert names(tmp_path / "out") == results("stack", picture=True)


def test_map_of_colours_is_one_plane(run, tmp_path):
    write_png(tmp_path / "a.png", np.dstack([picture()] * 3))
    assert run("detect", tmp_path / "a.png", "--out", tmp_path / "out")[0] == 0
    assert read_image(tmp_path / "out" / "a.blur.tif").axes == "YX"


def test_picture_is_drawn_on_request(run, tmp_path):
    write_png(tmp_path / "a.png", picture())
    status, out, _ = run("detect", tmp_path / "a.png", "--out", tmp_path / "out", "--picture")
    assert status == 0
    assert names(tmp_path / "out") == results("a", picture=True)
    assert out[2] == str(tmp_path / "out" / "a.overview.png")
    with Image.open(out[2]) as drawn:
        assert drawn.width > 3 * drawn.height / 2


def test_settings_change_the_result(run, tmp_path):
    write_png(tmp_path / "a.png", picture())
    maps = []
    metric = ["--detector", "metric"]
    for index, told in enumerate(
        [metric, [*metric, "--caution", "5"], ["--scale", "image"], [], ["--limit", "1"]]
    ):
        out = tmp_path / str(index)
        assert run("detect", tmp_path / "a.png", "--out", out, *told)[0] == 0
        maps.append(read_image(out / "a.blur.tif").data)
    assert maps[1].mean() > maps[0].mean()
    assert not np.array_equal(maps[0], maps[2])
    assert maps[4].mean() > maps[3].mean()


def test_folders_give_their_images_but_not_our_results(run, tmp_path):
    folder = tmp_path / "in"
    for name in ("a.png", "b.PNG", ".hidden.png"):
        write_png(folder / name, picture())
    write_tiff(folder / "a.blur.tif", np.zeros((8, 8), np.float32), axes="YX")
    (folder / "notes.txt").write_text("no image")
    status, out, err = run("detect", folder, "--out", tmp_path / "out")
    assert status == 0
    assert len(out) == 4
    assert without_limits(err) == ["2 of 2 images done"]
    assert names(tmp_path / "out") == results("a", "b")


def test_several_inputs_are_done_each_once(run, tmp_path):
    for name in ("in/a.png", "b.png"):
        write_png(tmp_path / name, picture())
    inputs = [tmp_path / "in", tmp_path / "b.png", tmp_path / "in" / "a.png"]
    status, _, err = run("detect", *inputs, "--out", tmp_path / "out")
    assert (status, without_limits(err)) == (0, ["2 of 2 images done"])
    assert names(tmp_path / "out") == results("a", "b")


BAD_IMAGES = {
    "empty.png": (lambda path: path.write_bytes(b""), "empty"),
    "text.png": (lambda path: path.write_text("no image"), "not a PNG"),
    "short.png": (lambda path: path.write_bytes(png_bytes()[:-900]), "damaged"),
    "missing.png": (lambda path: None, "does not exist"),
    "folder": (lambda path: path.mkdir(), "no PNG"),
    "pixel.png": (lambda path: write_png(path, np.full((1, 1), 7, np.uint8)), "constant"),
    "constant.png": (lambda path: write_png(path, np.full((40, 40), 7, np.uint8)), "constant"),
    "nan.tif": (
        lambda path: write_tiff(path, np.full((40, 40), np.nan, np.float32), axes="YX"),
        "no finite pixel",
    ),
}


def png_bytes():
    """Noise, whose bytes do not compress: a cut one lacks rows."""
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (48, 64)).astype(np.uint8)
    Image.fromarray(noise).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_bad_image_is_told_in_one_line(run, tmp_path, name):
    path = tmp_path / name
    make, words = BAD_IMAGES[name]
    make(path)
    assert_refused(run("detect", path, "--out", tmp_path / "out"), path, words)
    assert names(tmp_path / "out") == []


def test_an_image_smaller_than_a_filter_is_told_in_one_line(run, tmp_path):
    path = tmp_path / "narrow.png"
    write_png(path, picture()[:6])
    refused = run("detect", path, "--out", tmp_path / "out", "--detector", "metric")
    assert_refused(refused, path, "smaller than the metric's")


def test_other_inputs_are_done_beside_bad_ones(run, tmp_path):
    for name, (make, _) in BAD_IMAGES.items():
        make(tmp_path / name)
    for name in ("a.png", "z.png"):
        write_png(tmp_path / name, picture())
    inputs = [tmp_path / name for name in ("a.png", *BAD_IMAGES, "z.png")]
    status, out, err = run("detect", *inputs, "--out", tmp_path / "out")
    assert status == 2
    assert len(out) == 4
    assert names(tmp_path / "out") == results("a", "z")
    assert len(without_limits(err)) == len(BAD_IMAGES) + 1
    for name in BAD_IMAGES:
        assert sum(str(tmp_path / name) in line for line in err) == 1
    assert err[-1] == f"2 of {len(inputs)} images done"


def test_existing_result_is_kept_unless_told_otherwise(run, tmp_path):
    write_png(tmp_path / "a.png", picture())
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.mask.tif").write_text("mine")
    refused = run("detect", tmp_path / "a.png", "--out", out)
    assert_refused(refused, tmp_path / "a.png", out / "a.mask.tif", "exists", "--overwrite")
    assert names(out) == ["a.mask.tif"]
    assert (out / "a.mask.tif").read_text() == "mine"
    assert run("detect", tmp_path / "a.png", "--out", out, "--overwrite")[0] == 0
    assert names(out) == results("a")
    assert read_image(out / "a.mask.tif").data.shape == (48, 64)


def test_second_image_of_the_same_stem_is_refused(run, tmp_path):
    inputs = tmp_path / "one" / "a.png", tmp_path / "two" / "a.tif"
    write_png(inputs[0], picture(0))
    write_tiff(inputs[1], picture(1), axes="YX")
    alone = tmp_path / "alone"
    run("detect", inputs[0], "--out", alone)
    for overwrite in ([], ["--overwrite"]):
        status, out, err = run("detect", *inputs, "--out", tmp_path / "out", *overwrite)
        err = without_limits(err)
        assert status == 2
        assert len(out) == 2
        assert len(err) == 2
        assert str(inputs[1]) in err[0]
        assert str(inputs[0]) in err[0]
        assert err[1] == "1 of 2 images done"
    kept = [(folder / "a.blur.tif").read_bytes() for folder in (alone, tmp_path / "out")]
    assert kept[0] == kept[1]


@pytest.mark.parametrize("kind", ["missing", "cut short", "empty", "foreign", "image", "folder"])
def test_bad_metric_is_told_in_one_line(run, tmp_path, kind):
    write_png(tmp_path / "a.png", picture())
    path = bad_metric(kind, tmp_path)
    refused = run("detect", tmp_path / "a.png", "--out", tmp_path / "out", "--metric", path)
    assert_refused(refused, path)
    assert not (tmp_path / "out").exists()


def test_unknown_name_of_a_metric_is_told_with_the_choice(run, tmp_path):
    write_png(tmp_path / "a.png", picture())
    refused = run("detect", tmp_path / "a.png", "--out", tmp_path / "out", "--metric", "best")
    assert_refused(refused, "best", "default")


@pytest.mark.parametrize("deeper", [[], ["one", "two"]])
def test_file_in_the_place_of_the_output_folder_is_left_alone(run, tmp_path, deeper):
    write_png(tmp_path / "a.png", picture())
    place = tmp_path / "place"
    place.write_text("mine")
    refused = run("detect", tmp_path / "a.png", "--out", place.joinpath(*deeper))
    assert_refused(refused, tmp_path / "a.png", "cannot write", f"{place} is no folder")
    assert place.read_text() == "mine"


def test_folder_in_the_place_of_a_result_is_left_alone(run, tmp_path):
    write_png(tmp_path / "a.png", picture())
    (tmp_path / "out" / "a.mask.tif").mkdir(parents=True)
    refused = run("detect", tmp_path / "a.png", "--out", tmp_path / "out", "--overwrite")
    assert_refused(refused, tmp_path / "out" / "a.mask.tif", "folder")
    assert names(tmp_path / "out") == ["a.mask.tif"]


def test_name_too_long_for_its_results_is_told(run, tmp_path):
    path = tmp_path / ("a" * 250 + ".png")
    write_png(tmp_path / "a.png", picture())
    (tmp_path / "a.png").rename(path)  # which leaves no room for a longer ending
    assert_refused(run("detect", path, "--out", tmp_path / "out"), path, "cannot write")


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (["--adapt", "2"], ["adapt is 2.0", "0 to 1"]),
        (["--adapt", "nan"], ["adapt is nan"]),
        (["--reach", "-1"], ["reach is -1.0"]),
        (["--caution", "inf"], ["caution is inf"]),
        (["--limit", "0"], ["the limit is '0'", "2.5", "0.8um", "auto"]),
        (["--limit", "wide"], ["the limit is 'wide'"]),
        (["--limit=-1um"], ["the limit is '-1um'"]),
        (["--gain", "nan"], ["gain is nan"]),
        (["--iterations", "10", "50"], ["2 iterations and 3 weights"]),
        (["--iterations", "0", "1", "2"], ["iterations", "0; give a number from 1"]),
        (["--weights", "0.5", "2", "0.5"], ["weight is 2.0"]),
        (["--neighbourhood", "0"], ["neighbourhood is 0"]),
        (["--keep", "nan"], ["keep is nan"]),
        (["--refine-threshold", "5"], ["threshold is 5.0"]),
        (["--mask-threshold", "nan"], ["threshold is nan"]),
    ],
)
def test_setting_out_of_its_range_is_told_in_one_line(run, tmp_path, told, words):
    write_png(tmp_path / "a.png", picture())
    assert_refused(run("detect", tmp_path / "a.png", "--out", tmp_path / "out", *told), *words)
    assert not (tmp_path / "out").exists()


def test_the_limit_is_printed_and_written_into_results_and_record(run, tmp_path):
    image, out = tmp_path / "a.tif", tmp_path / "out"
    write_tiff(image, picture(), axes="YX", pixel_size_um=0.25)
    for limit, width in (("2.5", 2.5), ("0.8um", 3.2)):
        status, _, err = run("detect", image, "--out", out, "--limit", limit, "--overwrite")
        assert status == 0
        name, _, told = err[0].partition(": ")
        assert name == str(image)
        assert told.startswith(f"sharp up to {width} px: the sharpest structure is ")
        for kind in ("blur", "mask"):
            with tifffile.TiffFile(out / f"a.{kind}.tif") as tif:
                assert tif.imagej_metadata["note"] == told
        entry = json.loads((out / "napari-defocus.json").read_text().splitlines()[-1])
        assert entry["found"]["limit_px"] == pytest.approx([width])
        assert f" {entry['found']['sharpest_px'][0]:.1f} px wide" in told
        assert entry["identity"]["config"]["limit"] == (width if limit == "2.5" else limit)


def test_micrometres_without_a_pixel_size_are_refused(run, tmp_path):
    write_png(tmp_path / "a.png", picture())
    for more in ([], ["--tile", "64"]):
        words = ["--out", tmp_path / "out", "--limit", "0.8um", *more]
        refused = run("detect", tmp_path / "a.png", *words)
        assert_refused(refused, tmp_path / "a.png", "0.8um", "size of a pixel is not known")
    assert names(tmp_path / "out") == []


def test_by_the_metric_no_limit_is_told(run, tmp_path):
    write_tiff(tmp_path / "a.tif", picture(), axes="YX")
    words = ["--out", tmp_path / "out", "--detector", "metric"]
    assert run("detect", tmp_path / "a.tif", *words)[2] == []
    with tifffile.TiffFile(tmp_path / "out" / "a.blur.tif") as tif:
        assert "note" not in tif.imagej_metadata
    assert '"found"' not in (tmp_path / "out" / "napari-defocus.json").read_text()


def test_a_detector_that_is_none_is_named(tmp_path, capsys):
    write_png(tmp_path / "a.png", np.eye(40, dtype=np.uint8))
    words = ["detect", str(tmp_path / "a.png"), "--out", str(tmp_path / "o")]
    assert main([*words, "--detector", "nowhere"]) == 2
    assert "choose one of auto, metric, dense" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_a_stack_is_judged_against_itself_in_one_piece_and_in_tiles(run, tmp_path):
    image, photo = tmp_path / "stack.tif", tmp_path / "photo.png"
    write_tiff(image, soft_stack(), axes="ZYX")
    write_png(photo, picture())
    masks = []
    for out, more in (("whole", []), ("tiles", ["--tile", "64"])):
        status, _, err = run("detect", image, "--detector", "stack", "--out", tmp_path / out, *more)
        assert status == 0
        note = "judged against the stack itself: 3 of 3 planes taught what is sharp, up to 5.5 px"
        assert f"{image}: {note}" in err
        masks.append(read_image(tmp_path / out / "stack.mask.tif").data)
        record = (tmp_path / out / "napari-defocus.json").read_text()
        assert json.loads(record.splitlines()[1])["found"]["note"] == note
        with tifffile.TiffFile(tmp_path / out / "stack.mask.tif") as file:
            assert note in file.pages[0].description
    np.testing.assert_array_equal(*masks)
    assert (masks[0][1] == 2).mean() > 0.9
    for more in ([], ["--tile", "64"]):
        refused = run("detect", photo, "--detector", "stack", "--out", tmp_path / "no", *more)
        assert_refused(refused, photo, "one plane; the detector stack compares the planes")
