import csv
from contextlib import nullcontext

import numpy as np
import pytest
import tifffile
from PIL import Image

from benchmarks.stacks import rendered as benchmark
from napari_defocus.cli import fit
from napari_defocus.cli import stack as stack_commands
from napari_defocus.cli._options import config_from
from napari_defocus.cli.main import build_parser
from napari_defocus.core.errors import DefocusError
from napari_defocus.evaluate.scores import auc
from napari_defocus.filters.plane import prepare_plane
from napari_defocus.io.folder import open_stack_source
from napari_defocus.io.names import natural_key
from napari_defocus.io.open import read_image
from napari_defocus.io.raster import write_png
from napari_defocus.io.tiff_writer import write_tiff
from napari_defocus.metric.local_metric import load_metric
from napari_defocus.metric.response import predict_log_odds
from napari_defocus.stacks.api import StackConfig, analyse_stack
from napari_defocus.stacks.training_labels import propose_annotation, propose_annotations
from tests.stacks.phase import render_phase

SIDE = 96
MAPS = ["altitude.tif", "confidence.tif", "fused.tif", "planes.csv", "provenance.tif"]


@pytest.fixture(scope="module")
def planes():
    depth = benchmark.slant((SIDE, SIDE), 5)
    return benchmark.render_surface(benchmark.picture("brick", SIDE), depth, 5, 1.5).planes


@pytest.fixture
def stack(planes, tmp_path):
    path = tmp_path / "stack.tif"
    write_tiff(path, planes, axes="ZYX", pixel_size_um=0.5)
    return path


@pytest.fixture
def folder(planes, tmp_path):
    folder = tmp_path / "planes"
    folder.mkdir()
    for z, plane in enumerate(planes):
        write_png(folder / f"p{z + 8}.png", plane)  # p10 sorts before p8 by its letters
    return folder


def table(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def told(err):
    """Stderr without progress."""
    return [line for line in err if " of " not in line]


def test_defaults_are_those_of_the_library():
    options = build_parser().parse_args(["stack", "x", "--out", "y"])
    assert config_from(options, StackConfig) == StackConfig()


def test_a_stack_file_becomes_maps(run, stack, planes, tmp_path):
    out = tmp_path / "out"
    status, lines, err = run("stack", stack, "--out", out, "--picture")
    assert status == 0
    expected = sorted([*(f"stack.{name}" for name in MAPS), "stack.planes.png"])
    assert sorted(path.name for path in out.iterdir()) == expected
    assert sorted(lines) == sorted(str(out / name) for name in expected)
    found = analyse_stack(planes)
    fields = {"altitude": "depth_map", "provenance": "source_plane"}
    for name in ("altitude", "confidence", "fused", "provenance"):
        image = read_image(out / f"stack.{name}.tif")
        np.testing.assert_array_equal(image.data, getattr(found, fields.get(name, name)))
        assert image.axes == "YX"
        assert image.pixel_size_um == pytest.approx(0.5)
    rows = table(out / "stack.planes.csv")
    assert list(rows[0]) == ["plane", "score", "error", "confidence", "best"]
    assert [int(row["plane"]) for row in rows] == [0, 1, 2, 3, 4]
    assert [row["best"] for row in rows].index("1") == found.scores.best
    np.testing.assert_allclose([float(row["score"]) for row in rows], found.scores.score, 1e-4)
    assert any(f"plane {found.scores.best} is in focus" in line for line in err)
    with Image.open(out / "stack.planes.png") as picture:
        assert picture.size[0] > 500


def test_a_folder_of_planes_is_a_stack_in_the_order_of_its_numbers(run, folder, planes, tmp_path):
    status, _, _ = run("stack", folder, "--out", tmp_path)
    assert status == 0
    depth_map = read_image(tmp_path / "planes.altitude.tif").data
    np.testing.assert_array_equal(depth_map, analyse_stack(planes).depth_map)


def test_natural_order():
    names = ["b2.png", "a10.png", "a9².png", "A1.png", "9.png", "a٣.png", "a9x.png"]
    expected = ["9.png", "A1.png", "a٣.png", "a9x.png", "a9².png", "a10.png", "b2.png"]
    assert sorted(names, key=natural_key) == expected


def test_colours_stay(run, planes, tmp_path):
    colours = np.stack([planes, planes // 2, planes // 4], axis=-1)
    tifffile.imwrite(tmp_path / "rgb.tif", colours, photometric="rgb", metadata={"axes": "ZYXS"})
    assert run("stack", tmp_path / "rgb.tif", "--out", tmp_path / "out")[0] == 0
    fused = read_image(tmp_path / "out" / "rgb.fused.tif")
    assert fused.axes == "YXS"
    np.testing.assert_allclose(fused.data[..., 1], fused.data[..., 0] / 2, atol=2)


def test_axes_in_another_order_are_told(run, planes, tmp_path):
    path = tmp_path / "odd.tif"
    tifffile.imwrite(path, planes.transpose(1, 2, 0), photometric="minisblack")
    assert run("stack", path, "--axes", "YXZ", "--out", tmp_path / "out")[0] == 0
    depth_map = read_image(tmp_path / "out" / "odd.altitude.tif").data
    np.testing.assert_array_equal(depth_map, analyse_stack(planes).depth_map)


def test_zarr_arrays_are_read(run, planes, tmp_path):
    zarr = pytest.importorskip("zarr")
    array = zarr.create_array(
        tmp_path / "z.zarr", shape=planes.shape, chunks=(1, 50, 50), dtype="u1"
    )
    array[:] = planes
    status, _, err = run("stack", tmp_path / "z.zarr", "--axes", "ZYX", "--out", tmp_path / "out")
    assert status == 0, err
    depth_map = read_image(tmp_path / "out" / "z.altitude.tif").data
    np.testing.assert_array_equal(depth_map, analyse_stack(planes).depth_map)


@pytest.fixture
def many(planes, tmp_path):
    """Two times of two channels, the second channel without any detail to focus by."""
    faint = np.full_like(planes, 90) + planes // 16
    path = tmp_path / "many.tif"
    times = [[planes, faint], [planes[::-1], faint[::-1]]]
    write_tiff(path, np.array(times).transpose(0, 2, 1, 3, 4), axes="TZCYX")
    return path


def test_times_and_channels_are_worked_one_by_one(run, many, planes, tmp_path):
    out = tmp_path / "out"
    assert run("stack", many, "--out", out, "--picture")[0] == 0
    for name in ("altitude", "fused", "confidence", "provenance"):
        image = read_image(out / f"many.{name}.tif")
        assert image.axes == "TCYX"
        assert image.data.shape == (2, 2, SIDE, SIDE)
    depth_map = read_image(out / "many.altitude.tif").data
    np.testing.assert_array_equal(depth_map[0, 0], analyse_stack(planes).depth_map)
    np.testing.assert_array_equal(depth_map[1, 0], analyse_stack(planes[::-1]).depth_map)
    rows = table(out / "many.planes.csv")
    assert list(rows[0])[:3] == ["T", "C", "plane"]
    assert len(rows) == 20


def test_one_channels_focus_is_applied_to_the_others(run, many, planes, tmp_path):
    out = tmp_path / "out"
    assert run("stack", many, "--out", out, "--channel", 0)[0] == 0
    assert read_image(out / "many.altitude.tif").axes == "TYX"
    fused = read_image(out / "many.fused.tif")
    assert fused.axes == "TCYX"
    np.testing.assert_allclose(fused.data[:, 1], 90 + fused.data[:, 0] / 16 - 0.5, atol=1.5)
    assert len(table(out / "many.planes.csv")) == 10
    status, _, err = run("stack", many, "--out", out, "--channel", 2, "--overwrite")
    assert status == 2
    assert "channels 0 to 1, not 2" in err[-1]


def test_objects_get_their_planes(run, stack, planes, tmp_path):
    labels = np.zeros((SIDE, SIDE), np.uint16)
    labels[10:40, 5:25], labels[50:80, 70:90] = 3, 8
    write_tiff(tmp_path / "labels.tif", labels, axes="YX")
    out = tmp_path / "out"
    assert run("stack", stack, "--out", out, "--labels", tmp_path / "labels.tif")[0] == 0
    rows = table(out / "stack.labels.csv")
    assert [row["index"] for row in rows] == ["3", "8"]
    assert int(rows[0]["best_plane"]) < int(rows[1]["best_plane"])


def test_an_empty_stack_has_an_empty_best_plane(run, tmp_path):
    write_tiff(tmp_path / "dark.tif", np.full((4, SIDE, SIDE), 100, np.uint16), axes="ZYX")
    labels = np.zeros((SIDE, SIDE), np.uint16)
    labels[10:40, 5:25] = 3
    write_tiff(tmp_path / "labels.tif", labels, axes="YX")
    arguments = ("--labels", tmp_path / "labels.tif", "--picture")
    status, _, err = run("stack", tmp_path / "dark.tif", "--out", tmp_path, *arguments)
    assert status == 0
    assert any("no plane is in focus" in line for line in err)
    assert any("warning: no plane shows detail" in line for line in err)
    rows = table(tmp_path / "dark.planes.csv")
    assert {(row["confidence"], row["best"]) for row in rows} == {("0", "0")}
    (row,) = table(tmp_path / "dark.labels.csv")
    assert (row["best_plane"], row["confidence"]) == ("", "0")


def test_a_minimum_is_warned_of_and_found(run, tmp_path):
    seen, depth = render_phase()
    write_tiff(tmp_path / "phase.tif", seen, axes="ZYX")
    _, _, err = run("stack", tmp_path / "phase.tif", "--out", tmp_path / "max")
    assert any("warning" in line and "extremum min" in line for line in err)
    run("stack", tmp_path / "phase.tif", "--out", tmp_path / "min", "--extremum", "min")
    depth_map = read_image(tmp_path / "min" / "phase.altitude.tif").data
    assert np.median(np.abs(depth_map - depth)) < 0.25


def test_frames_of_a_time_series_are_flagged(run, tmp_path):
    from tests.stacks.test_parts import series

    write_tiff(tmp_path / "series.tif", series([0, 0, 3, 0, 0]), axes="TYX")
    status, lines, err = run("stack", tmp_path / "series.tif", "--out", tmp_path)
    assert status == 0
    assert lines == [str(tmp_path / "series.frames.csv")]
    rows = table(tmp_path / "series.frames.csv")
    assert [row["out_of_focus"] for row in rows] == ["0", "0", "1", "0", "0"]
    assert "frames out of focus: 2" in err[-1]


# Bad input


def test_results_are_not_replaced_unasked(run, stack, tmp_path):
    out = tmp_path / "out"
    assert run("stack", stack, "--out", out)[0] == 0
    before = (out / "stack.fused.tif").stat().st_mtime_ns
    status, lines, err = run("stack", stack, "--out", out)
    assert (status, lines) == (2, [])
    assert "--overwrite" in err[-1]
    assert (out / "stack.fused.tif").stat().st_mtime_ns == before
    assert run("stack", stack, "--out", out, "--overwrite")[0] == 0


def test_mixed_sizes_name_the_file_and_other_stacks_are_worked(run, folder, stack, tmp_path):
    write_png(folder / "p10.png", np.zeros((SIDE, SIDE + 1), np.uint8))
    status, lines, err = run("stack", folder, stack, "--out", tmp_path / "out")
    assert status == 2
    assert len(lines) == len(MAPS)
    errors = [line for line in err if line.startswith("napari-defocus: ")]
    assert len(errors) == 1
    assert "p10.png is 97 x 96 uint8, p8.png 96 x 96 uint8" in errors[0]
    assert err[-1] == "1 of 2 stacks done"


def test_a_damaged_plane_is_named_and_nothing_is_written(run, folder, tmp_path):
    whole = (folder / "p10.png").read_bytes()
    (folder / "p10.png").write_bytes(whole[: len(whole) // 2])
    status, lines, err = run("stack", folder, "--out", tmp_path / "out")
    assert (status, lines) == (2, [])
    assert "p10.png is damaged" in err[-1]
    assert not (tmp_path / "out").exists()


def test_a_damaged_page_is_named(run, planes, tmp_path):
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, planes, compression="zlib", metadata={"axes": "ZYX"})
    with tifffile.TiffFile(path) as tif:
        page = tif.pages[2]
        start, length = page.dataoffsets[0], page.databytecounts[0]
    content = bytearray(path.read_bytes())
    content[start : start + length] = bytes(length)
    path.write_bytes(content)
    status, lines, err = run("stack", path, "--out", tmp_path / "out")
    assert (status, lines) == (2, [])
    assert "Z=2" in err[-1]
    assert "stack.tif" in err[-1]


@pytest.mark.parametrize(
    ("axes", "words"),
    [("QYX", "no Z"), ("ZYXC", "letter for each"), ("ZY1", "unknown"), ("ZZX", "twice")],
)
def test_unknown_axes_say_what_to_give(run, stack, tmp_path, axes, words):
    status, lines, err = run("stack", stack, "--axes", axes, "--out", tmp_path)
    assert (status, lines) == (2, [])
    assert words in err[-1]
    assert "stack.tif" in err[-1]


def test_missing_and_empty_inputs_are_named(run, stack, tmp_path):
    (tmp_path / "empty").mkdir()
    for place, words in (
        (tmp_path / "none.tif", "does not exist"),
        (tmp_path / "empty", "holds no images"),
    ):
        status, _, err = run("stack", place, "--out", tmp_path / "out")
        assert status == 2
        assert words in err[-1]
    status, _, err = run("stack", stack, stack, "--out", tmp_path / "out")
    assert status == 2
    assert "overwrite those of" in err[-2]
    status, _, err = run("stack", stack, "--channel", 0, "--out", tmp_path / "other")
    assert status == 2
    assert "no C" in err[-1]


def test_an_interrupt_stops_at_the_next_plane(run, stack, tmp_path, monkeypatch):
    for command in (fit, stack_commands):
        monkeypatch.setattr(command, "interruptible", lambda: nullcontext(lambda: True))
    for arguments in (["stack", stack], ["fit", "--from-stack", stack]):
        status, lines, _ = run(*arguments, "--out", tmp_path / "out")
        assert (status, lines) == (130, [])
    assert not (tmp_path / "out").exists()


def test_files_of_a_folder_are_not_along_rows(folder):
    with pytest.raises(DefocusError, match="along the files"):
        open_stack_source(folder, "YZX").read((0,))


# Labels from a stack


def test_proposals_for_all_planes_are_those_for_each():
    stack = read_image(sample_path()).data
    together = list(propose_annotations(stack[:5]))
    for z, labels in enumerate(together):
        np.testing.assert_array_equal(labels, propose_annotation(stack[:5], z))


def sample_path():
    from napari_defocus.data.samples import read_sample

    return read_sample("z_stack").path


def test_a_metric_is_fitted_to_a_stack_without_painting(run, tmp_path):
    """It tells sharp from blurred in a stack of another scene."""
    out = tmp_path / "own.safetensors"
    status, lines, _ = run("fit", "--from-stack", sample_path(), "--out", out, "--instant")
    assert status == 0
    assert "held-out AUC" in lines[-1]
    metric = load_metric(out)
    other = benchmark.RENDERED["slant brick"](192)
    for z in (1, 3):
        radius = 1.5 * np.abs(other.depth - z)
        log_odds, valid = predict_log_odds(prepare_plane(other.planes[z]), metric)
        known = valid & ((radius < 0.5) | (radius > 1.5))
        assert auc(log_odds[known], radius[known] < 0.5) > 0.9


@pytest.mark.parametrize("axes", ["QYX", "TYX", "IYX", "YX", "CYX"])
@pytest.mark.parametrize("method", [[], ["--instant"]])
def test_fits_from_what_has_no_z_say_what_to_give(run, planes, tmp_path, axes, method):
    image = planes if len(axes) == 3 else planes[0]
    options = {} if axes == "IYX" else {"metadata": {"axes": axes}}
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="minisblack", **options)
    told = ["--from-stack", tmp_path / "a.tif", "--out", tmp_path / "m", *method]
    status, _, err = run("fit", *told)
    assert status == 2
    words = "is one plane (YX)" if axes == "YX" else "no Z; say with --axes"
    assert words in err[-1]


def test_fits_need_images_or_a_stack_not_both(run, stack, tmp_path):
    out = tmp_path / "m.safetensors"
    for arguments, words in (
        (["a.png", "b.png", "--from-stack", stack], "not both"),
        ([], "no annotated image"),
    ):
        status, _, err = run("fit", "--instant", *arguments, "--out", out)
        assert status == 2
        assert words in err[-1]
    write_tiff(tmp_path / "same.tif", np.full((3, 64, 64), 9, np.uint8), axes="ZYX")
    status, _, err = run("fit", "--instant", "--from-stack", tmp_path / "same.tif", "--out", out)
    assert status == 2
    assert "nothing to learn" in err[-1]
