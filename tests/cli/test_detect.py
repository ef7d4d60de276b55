"""The command `detect` on stacks, in tiles, on broken input, and again after it was killed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from napari_defocus.detection.api import detect
from napari_defocus.io.manifest import NAME
from napari_defocus.io.open import open_source
from napari_defocus.io.raster import write_png
from napari_defocus.io.tiff_writer import write_tiff
from napari_defocus.metric.local_metric import load_metric, save_metric
from napari_defocus.tiled.api import TileConfig, detect_file_in_tiles
from napari_defocus.tiled.executors import Tasks
from tests.tiled.test_api import (
    IMAGE,
    METRIC,
    NAMES,
    SIDE,
    contents,
    picture,
    read_zarr,
    write_image,
)

BY_METRIC = ["--detector", "metric"]
TILED = [*BY_METRIC, "--tile", SIDE]
PLANES = [IMAGE[:80, :110], IMAGE[60:140, 100:210], IMAGE[::-1][:80, :110]]
STACK = np.stack(PLANES)


@pytest.fixture
def run(run):
    """Run the command; its exit status and the lines it prints to stdout and stderr."""
    return partial(run, "detect")


def errors(err):
    assert "Traceback" not in "".join(err)
    return [line for line in err if line.startswith("napari-defocus: ")]


def assert_refused(result, *words):
    """Bad input: status 2 and one line that says what is wrong, beside progress."""
    status, out, err = result
    assert status == 2
    assert out == []
    assert len(errors(err)) == 1, err
    for word in words:
        assert str(word) in errors(err)[0]


def whole(data, axes="ZYX"):
    return detect(data, load_metric(), METRIC, axes=axes)


def assert_close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def made(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


class TestAxes:
    @pytest.mark.parametrize("axes", ["ZYX", "YZX", "XYZ", "yxz"])
    @pytest.mark.parametrize("asked", [BY_METRIC, TILED])
    def test_of_a_tiff_in_any_order(self, run, tmp_path, axes, asked):
        stored = STACK.transpose(["ZYX".index(letter) for letter in axes.upper()])
        tifffile.imwrite(tmp_path / "stack.tif", stored, photometric="minisblack")
        status, out, _ = run(tmp_path / "stack.tif", "--out", tmp_path, "--axes", axes, *asked)
        assert status == 0
        assert len(out) == 2
        blur = open_source(tmp_path / "stack.blur.tif")
        assert (blur.axes, blur.shape) == ("ZYX", STACK.shape)
        assert_close(tifffile.imread(tmp_path / "stack.blur.tif"), whole(STACK).blur)

    def test_of_a_zarr_array_that_names_none(self, run, tmp_path):
        source = tmp_path / "plain.zarr"
        zarr.save_array(source, STACK)
        refused = run(source, "--out", tmp_path / "out", *BY_METRIC)
        assert_refused(refused, source, "(3, 80, 110)", "ZYX")
        assert not (tmp_path / "out").exists()
        assert run(source, "--out", tmp_path / "out", "--axes", "ZYX", *TILED)[0] == 0
        assert_close(read_zarr(tmp_path / "out/plain.blur.ome.zarr"), whole(STACK).blur)

    def test_of_time_channel_and_depth_together(self, run, tmp_path):
        stack = np.stack([STACK[:2] + 50 * i for i in range(4)]).reshape(2, 2, 2, 80, 110)
        tifffile.imwrite(tmp_path / "a.ome.tif", stack, metadata={"axes": "TCZYX"})
        write_image(tmp_path / "b.zarr", stack, "tczyx")
        expected = whole(stack, "TCZYX")
        for name, asked in (("a.ome.tif", BY_METRIC), ("a.ome.tif", TILED), ("b.zarr", TILED)):
            out = tmp_path / f"{name} {len(asked)}"
            assert run(tmp_path / name, "--out", out, *asked)[0] == 0
            path = next(path for path in out.iterdir() if ".blur" in path.name)
            source = open_source(path)
            order = [source.axes.index(letter) for letter in "TCZYX"]  # ImageJ has its own
            found = np.stack([source.read(plane) for plane in np.ndindex(2, 2, 2)])
            found = found.reshape(source.shape).transpose(order)
            assert_close(found, expected.blur)

    @pytest.mark.parametrize(
        ("axes", "words"),
        [
            ("YX", "do not fit an image of shape (3, 80, 110)"),
            ("ZY", "have no X"),
            ("ZZX", "have Z twice"),
            ("TZX", "have no Y"),
            ("Z?X", "are unknown"),
        ],
    )
    @pytest.mark.parametrize("asked", [BY_METRIC, TILED])
    def test_that_make_no_sense_are_refused(self, run, tmp_path, axes, words, asked):
        tifffile.imwrite(tmp_path / "stack.tif", STACK, photometric="minisblack")
        result = run(tmp_path / "stack.tif", "--out", tmp_path / "out", "--axes", axes, *asked)
        assert_refused(result, axes, words)
        assert not made(tmp_path / "out")


class TestForm:
    def test_tiff_gives_tiff_of_the_same_pixel_size(self, run, tmp_path):
        write_tiff(tmp_path / "image.tif", IMAGE, axes="YX", pixel_size_um=0.325)
        status, out, _ = run(tmp_path / "image.tif", "--out", tmp_path / "out", *TILED)
        assert status == 0
        assert out == [str(tmp_path / f"out/image.{name}.tif") for name in NAMES[:2]]
        for path in out:
            assert open_source(path).pixel_size_um == pytest.approx(0.325)
        assert_close(tifffile.imread(out[0]), whole(IMAGE, "YX").blur)
        np.testing.assert_array_equal(tifffile.imread(out[1]), whole(IMAGE, "YX").mask)

    def test_png_may_give_zarr(self, run, tmp_path):
        image = (IMAGE >> 8).astype(np.uint8)
        write_png(tmp_path / "image.png", image)
        asked = [*TILED, "--format", "zarr", "--confidence"]
        status, out, _ = run(tmp_path / "image.png", "--out", tmp_path / "out", *asked)
        assert status == 0
        assert [Path(line).name for line in out] == [
            "image.blur.ome.zarr",
            "image.confidence.ome.zarr",
        ]
        assert_close(read_zarr(out[0]), whole(image, "YX").blur)

    def test_zarr_may_give_tiff(self, run, tmp_path):
        source = write_image(
            tmp_path / "a.zarr", STACK, "zyx", scale=[3.0, 0.5, 0.5], translate=[0.0, 5.0, 7.0]
        )
        status, out, _ = run(source, "--out", tmp_path / "out", "--format", "tif", *TILED)
        assert status == 0
        found = open_source(out[0])
        assert found.grid.scale == pytest.approx({"Z": 3.0, "Y": 0.5, "X": 0.5})
        assert_close(tifffile.imread(out[0]), whole(STACK).blur)

    def test_memory_makes_tiles_smaller(self, run, tmp_path, monkeypatch):
        monkeypatch.setattr("napari_defocus.tiled.executors.cores", lambda: 1)
        source = write_image(tmp_path / "a.zarr", IMAGE)
        asked = [*BY_METRIC, "--memory", "0.4"]
        assert run(source, "--out", tmp_path / "out", *asked)[0] == 0
        described = json.loads((tmp_path / "out/a.blur.ome.zarr/0/zarr.json").read_text())
        side = described["chunk_grid"]["configuration"]["chunk_shape"][0]
        assert 64 < side < 2048
        refused = run(source, "--out", tmp_path / "two", *BY_METRIC, "--memory", "0.1")
        assert_refused(refused, source, "memory is 0.1 GiB", "need 0.")
        assert not made(tmp_path / "two")


@pytest.fixture
def source(tmp_path):
    return write_image(tmp_path / "image.zarr", IMAGE, chunk=48)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """An image beside bad ones."""
    path = tmp_path_factory.mktemp("good") / "good.tif"
    write_tiff(path, IMAGE[:80, :110], axes="YX")
    return path


GOOD = ["good.blur.tif", "good.mask.tif", NAME]


class TestBrokenInput:
    @pytest.mark.parametrize("asked", [BY_METRIC, TILED])
    def test_a_corrupt_plane_of_a_tiff_is_named(self, run, good, tmp_path, asked):
        path = tmp_path / "stack.tif"
        stack = np.stack([*PLANES, *PLANES])
        tifffile.imwrite(path, stack, compression="zlib", metadata={"axes": "ZYX"})
        with tifffile.TiffFile(path) as tif:
            start = tif.pages[3].dataoffsets[0]
        with path.open("r+b") as file:
            file.seek(start + 20)
            file.write(bytes(200))
        status, out, err = run(path, good, "--out", tmp_path / "out", *asked)
        assert status == 2
        assert len(errors(err)) == 1
        assert str(path) in errors(err)[0]
        if asked is TILED:
            assert "Z=3" in errors(err)[0]
        assert [Path(line).name for line in out] == GOOD[:2]
        kept = [name for name in made(tmp_path / "out") if not name.startswith(".partial-stack")]
        assert kept == sorted(GOOD)

    def test_a_lost_chunk_is_named_and_what_is_finished_stays(
        self, run, good, tmp_path, monkeypatch
    ):
        # As in large planes: what is measured first are windows of it.
        monkeypatch.setattr("napari_defocus.filters.noise.MOST_PIXELS", 100)
        monkeypatch.setattr("napari_defocus.filters.noise.WINDOWS", 1)
        source = write_image(tmp_path / "wide.zarr", np.tile(IMAGE, (1, 5)), chunk=48)
        (source / "0/c/3/23").unlink()
        out = tmp_path / "out"
        asked_tiles = [*BY_METRIC, "--tile", 160, "--missing", "error"]
        status, told, err = run(source, good, "--out", out, *asked_tiles)
        assert status == 2
        assert len(told) == 2
        (error,) = errors(err)
        for word in ("chunk 0/c/3/23", source, "is missing", "--missing fill"):
            assert str(word) in error
        valid = {
            path: path.stat().st_mtime_ns for path in (out / ".partial-wide/predict").iterdir()
        }
        assert valid
        # Judged again are only tiles that were not yet.
        asked = [source, "--out", out, *asked_tiles]
        assert run(*asked)[0] == 2
        assert {path: path.stat().st_mtime_ns for path in valid} == valid
        assert run(*asked, "--missing", "fill")[0] == 0
        assert run(source, "--out", tmp_path / "new", *asked_tiles, "--missing", "fill")[0] == 0
        found, expected = (
            contents(folder / "wide.blur.ome.zarr") for folder in (out, tmp_path / "new")
        )
        assert found == expected

    def test_a_chunk_that_is_back_is_used(self, run, source, tmp_path):
        chunk = source / "0/c/2/3"
        content = chunk.read_bytes()
        chunk.unlink()
        asked = [source, "--out", tmp_path / "out", *TILED, "--missing", "error"]
        assert run(*asked)[0] == 2
        chunk.write_bytes(content)
        assert run(*asked)[0] == 0
        assert_close(read_zarr(tmp_path / "out/image.blur.ome.zarr"), whole(IMAGE, "YX").blur)

    def test_a_lost_chunk_may_count_as_empty(self, run, source, tmp_path):
        (source / "0/c/2/3").unlink()
        status, _, err = run(source, "--out", tmp_path / "out", *TILED)
        assert status == 0
        assert any(" chunks are not stored, as of what is empty" in line for line in err)
        filled = IMAGE.copy()
        filled[96:144, 144:192] = 0
        assert_close(read_zarr(tmp_path / "out/image.blur.ome.zarr"), whole(filled, "YX").blur)
        asked = ["--resume", "--missing"]
        assert run(source, "--out", tmp_path / "out", *TILED, *asked, "fill")[0] == 0
        refused = run(source, "--out", tmp_path / "out", *TILED, *asked, "error")
        assert_refused(refused, "chunk 0/c/2/3")

    def test_a_chunk_that_does_not_decode_is_named(self, run, good, source, tmp_path):
        (source / "0/c/1/1").write_bytes(b"no zstd")
        status, out, err = run(source, good, "--out", tmp_path / "out", *TILED)
        assert status == 2
        assert len(out) == 2
        (error,) = errors(err)
        assert f"chunk 0/c/1/1 of {source} cannot be read" in error

    def test_a_plane_of_a_zarr_stack_is_named(self, run, tmp_path):
        source = write_image(tmp_path / "a.zarr", STACK, "zyx")
        (source / "0/c/1/1/2").write_bytes(b"")
        result = run(source, "--out", tmp_path / "out", *TILED)
        assert_refused(result, "chunk 0/c/1/1/2 of plane Z=1 of", source)

    def test_what_is_no_zarr_image_is_told(self, run, good, tmp_path):
        folder = tmp_path / "a.zarr"
        folder.mkdir()
        (folder / "zarr.json").write_text("{")
        status, out, err = run(folder, good, "--out", tmp_path / "out", *TILED)
        assert status == 2
        assert len(out) == 2
        assert len(errors(err)) == 1
        assert str(folder) in errors(err)[0]

    def test_an_address_that_does_not_answer_is_told(self, run, good, tmp_path):
        address = "http://127.0.0.1:9/image.zarr"
        status, out, err = run(address, good, "--out", tmp_path / "out", *TILED)
        assert status == 2
        assert len(out) == 2
        (error,) = errors(err)
        assert address in error


@pytest.fixture
def small_disk(tmp_path):
    """Mount a disk of a given size, where one may."""
    mounted = tmp_path / "disk"
    mounted.mkdir()
    options = ["-t", "tmpfs", "tmpfs", str(mounted)]

    def mount(how):
        done = subprocess.run(["mount", "-o", how, *options], capture_output=True, check=False)
        if done.returncode:
            pytest.skip("may not mount a disk here")
        return mounted

    try:
        mount("size=1m")
        yield mounted, mount
    except FileNotFoundError:
        pytest.skip("no mount here")
    finally:
        subprocess.run(["umount", str(mounted)], capture_output=True, check=False)


@pytest.mark.skipif(sys.platform != "linux", reason="mounts as Linux does")
class TestDisk:
    @pytest.mark.parametrize("form", ["zarr", "tif"])
    @pytest.mark.parametrize(
        "size",
        [
            pytest.param(80, marks=pytest.mark.slow),
            200,
            pytest.param(350, marks=pytest.mark.slow),
            500,
        ],
    )
    def test_a_full_one_is_told_and_the_run_goes_on_where_there_is_room(
        self, run, good, small_disk, tmp_path, form, size
    ):
        disk, mount = small_disk
        image = np.random.default_rng(0).integers(0, 2**16, (300, 300), np.uint16)
        image[150:] = picture(150, 300)
        source = write_image(tmp_path / "image.zarr", image)
        asked = [source, "--out", disk, *TILED, "--format", form]
        mount(f"remount,size={size}k")
        status, out, err = run(*asked)
        assert status == 2, err
        assert out == []
        (error,) = errors(err)
        assert "No space left on device" in error or "the disk has 0.0" in error
        assert str(disk) in error
        assert not list(disk.glob("image.*"))
        mount("remount,size=40m")
        assert run(*asked)[0] == 0
        assert run(source, "--out", tmp_path / "out", *TILED, "--format", form)[0] == 0
        found, expected = contents(disk), contents(tmp_path / "out")
        for record in (found, expected):
            del record[NAME]
        assert found == expected

    @pytest.mark.parametrize("asked", [BY_METRIC, TILED])
    def test_one_that_cannot_be_written_is_told(self, run, good, small_disk, asked):
        disk, mount = small_disk
        mount("remount,ro")
        for out in (disk, disk / "deeper"):
            result = run(good, "--out", out, *asked)
            assert_refused(result, "cannot write", out, "Read-only file system")

    def test_a_full_one_ends_one_image_only(self, run, good, small_disk, tmp_path):
        disk, mount = small_disk
        mount("remount,size=200k")
        large = tmp_path / "large.tif"
        write_tiff(large, picture(400, 800), axes="YX")
        status, out, err = run(large, good, "--out", disk, *BY_METRIC)
        assert status == 2
        (error,) = errors(err)
        assert "large" in error
        assert "No space left on device" in error
        assert made(disk) == sorted(GOOD)
        assert len(out) == 2


class TestResume:
    """A folder of images: what is finished and unchanged is left alone."""

    @pytest.fixture
    def folder(self, tmp_path):
        folder = tmp_path / "images"
        folder.mkdir()
        for i, plane in enumerate(PLANES):
            write_tiff(folder / f"plane{i}.tif", plane, axes="YX")
        return folder

    @pytest.fixture(params=["untiled", "tiled", "zarr"])
    def asked(self, request, folder, tmp_path):
        form = ["--format", "zarr"] if request.param == "zarr" else []
        tiled = [] if request.param == "untiled" else ["--tile", SIDE]
        return [folder, "--out", tmp_path / "out", *BY_METRIC, *tiled, *form]

    def seen(self, folder):
        """What changes when an output is written anew, by image."""
        found = {f"plane{i}": [] for i in range(3)}
        for path in sorted(folder.rglob("*")):
            stem = path.relative_to(folder).parts[0].partition(".")[0]
            if stem in found and path.is_file():
                found[stem].append((path, path.stat().st_mtime_ns, path.read_bytes()))
        return found

    def redone(self, run, asked, *more):
        out = asked[2]
        before = self.seen(out)
        status, told, err = run(*asked, "--resume", *more)
        assert status == 0, err
        assert len(told) % 3 == 0
        after = self.seen(out)
        assert list(after) == list(before)
        return [stem for stem in after if after[stem] != before[stem]]

    def test_finished_images_are_left_alone(self, run, asked):
        assert run(*asked)[0] == 0
        assert self.redone(run, asked) == []
        status, _, err = run(*asked)
        assert status == 2
        assert len(errors(err)) == 3
        assert all("exists already" in line for line in errors(err))

    def test_the_rest_is_done(self, run, asked, folder, tmp_path):
        (folder / "plane1.tif").rename(tmp_path / "plane1.tif")
        assert run(*asked)[0] == 0
        (tmp_path / "plane1.tif").rename(folder / "plane1.tif")
        before = self.seen(asked[2])
        assert self.redone(run, asked) == ["plane1"]
        assert before["plane1"] == []

    def test_a_changed_image_is_redone(self, run, asked, folder):
        assert run(*asked)[0] == 0
        write_tiff(folder / "plane2.tif", PLANES[2][:, ::-1].copy(), axes="YX", overwrite=True)
        assert self.redone(run, asked) == ["plane2"]

    @pytest.mark.parametrize("more", [["--gain", "1.5"], ["--mask-threshold", "0.4"]])
    def test_changed_settings_redo_all(self, run, asked, more):
        assert run(*asked)[0] == 0
        assert len(self.redone(run, asked, *more)) == 3
        assert self.redone(run, asked, *more) == []

    def test_a_changed_metric_redoes_all(self, run, asked, tmp_path):
        metric = load_metric()
        path = tmp_path / "own.safetensors"
        save_metric(metric, path)
        assert run(*asked, "--metric", path)[0] == 0
        assert self.redone(run, asked, "--metric", path) == []
        save_metric(replace(metric, filters=metric.filters[:, ::-1].copy()), path)
        assert len(self.redone(run, asked, "--metric", path)) == 3

    def test_more_outputs_are_made_on_request(self, run, asked):
        assert run(*asked)[0] == 0
        assert run(*asked, "--resume", "--confidence")[0] == 0
        assert len(list(asked[2].glob("plane?.confidence.*"))) == 3

    @pytest.mark.parametrize("how", ["damaged", "lost"])
    def test_lost_outputs_are_made_anew_and_changed_ones_on_request(self, run, asked, how):
        """What was changed may be a mask corrected by hand: it is not lost without a word."""
        assert run(*asked)[0] == 0
        before = self.seen(asked[2])
        path = max(p for p, _, _ in before["plane0"] if "blur" in p.parts[-1] or p.name == "0")
        if how == "lost":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:-1] + b"?")
        if how == "damaged" or "zarr" in asked:  # a Zarr that lacks a chunk is changed
            changed = path.read_bytes() if path.exists() else None
            status, told, err = run(*asked, "--resume")
            assert status == 2
            assert len(told) > 0  # the others are done
            (error,) = errors(err)
            assert "was changed since it was written" in error
            assert (path.read_bytes() if path.exists() else None) == changed
            asked = [*asked, "--overwrite"]
        assert self.redone(run, asked) == ["plane0"]
        after = self.seen(asked[2])
        assert [(p, b) for p, _, b in after["plane0"]] == [(p, b) for p, _, b in before["plane0"]]

    def test_what_the_folder_held_before_is_not_replaced(self, run, asked):
        name = f"plane1.blur.{'ome.zarr' if 'zarr' in asked else 'tif'}"
        asked[2].mkdir()
        (asked[2] / name).write_text("mine")
        status, told, err = run(*asked, "--resume")
        assert status == 2
        assert len(told) > 0
        (error,) = errors(err)
        assert f"{name} exists already; give --overwrite" in error
        assert (asked[2] / name).read_text() == "mine"
        if "zarr" not in asked:
            assert run(*asked, "--overwrite")[0] == 0
            assert self.redone(run, asked) == []

    def test_the_record_says_what_was_done_how(self, run, asked):
        assert run(*asked)[0] == 0
        lines = (asked[2] / NAME).read_text().splitlines()
        entries = {entry["stem"]: entry for entry in map(json.loads, lines[1:])}
        assert sorted(entries) == ["plane0", "plane1", "plane2"]
        entry = entries["plane1"]
        assert entry["identity"]["detector"] == load_metric().digest
        assert entry["identity"]["config"]["detector"] == "metric"
        assert set(entry["outputs"]) <= set(made(asked[2]))

    def test_an_unreadable_record_is_told(self, run, asked):
        assert run(*asked)[0] == 0
        before = self.seen(asked[2])
        (asked[2] / NAME).write_text("{")
        status, told, err = run(*asked, "--resume")
        assert status == 2
        assert told == []
        assert all(f"{asked[2] / NAME} cannot be read" in line for line in errors(err))
        assert all("move it away" in line for line in errors(err))
        assert self.seen(asked[2]) == before


class TestKilled:
    """The program is ended at any moment; the same command comes to the same bytes."""

    SIDE = 32
    ASKED = (*BY_METRIC, "--tile", str(SIDE), "--confidence")

    def start(self, source, out, *more):
        script = "import sys; from napari_defocus.cli.main import main; sys.exit(main())"
        command = [sys.executable, "-c", script, "detect", source, "--out", out, *self.ASKED]
        return subprocess.Popen(
            [*map(str, command), *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    def kept(self, out):
        """The marks of finished tiles: written last, and never again."""
        found = {}
        for path in (out / ".partial-image").rglob("*.safetensors"):
            if not path.name.startswith("."):
                found[path] = (path.stat().st_ino, path.stat().st_mtime_ns)
        return found

    def wait_for(self, process, out, marks, pause):
        """Let it run until so many tiles are finished, and a moment more."""
        while process.poll() is None and len(self.kept(out)) < marks:
            time.sleep(0.005)
        time.sleep(pause)

    @pytest.mark.parametrize(
        ("form", "kills"),
        [
            ("zarr", 3),
            pytest.param("zarr", 10, marks=pytest.mark.slow),
            pytest.param("tif", 10, marks=pytest.mark.slow),
        ],
    )
    def test_at_random_moments(self, run, source, tmp_path, form, kills):
        more = ["--format", form]
        with self.start(source, tmp_path / "undisturbed", *more) as process:
            assert process.wait() == 0
        dice = random.Random(kills)
        out = tmp_path / "out"
        tiles = int(np.prod([-(-size // self.SIDE) for size in IMAGE.shape]))
        total = 3 * tiles + 5
        worked_twice = 0
        for moment in sorted(dice.uniform(0, total) for _ in range(kills)):
            before = self.kept(out)
            with self.start(source, out, *more) as process:
                self.wait_for(process, out, moment, dice.uniform(0, 0.05))
                process.send_signal(signal.SIGKILL)
                assert process.wait() in (-signal.SIGKILL, 0)
            after = self.kept(out)
            if after:  # else it came to its end before
                worked_twice += sum(after.get(path) != mark for path, mark in before.items())
        assert worked_twice == 0
        left = self.kept(out)
        image = open_source(source)
        ended = (
            detect_file_in_tiles(
                image,
                out / "image",
                load_metric(),
                METRIC,
                TileConfig(self.SIDE, form, NAMES[2:]),
                Tasks("threads"),
            )
            if left
            else None
        )
        if ended:
            rounds = ("predict", "refine", "finish")
            for name in rounds:
                finished = sum(path.parent.name == name for path in left)
                assert ended.worked[name] == tiles - finished
        else:
            assert run(source, "--out", out, *self.ASKED, *more, "--resume")[0] == 0
        found, expected = contents(out), contents(tmp_path / "undisturbed")
        found.pop(NAME, None)
        del expected[NAME]
        assert found == expected

    def test_and_the_command_goes_on_by_itself(self, source, tmp_path):
        out = tmp_path / "out"
        for marks in (5, 50):
            with self.start(source, out) as process:
                self.wait_for(process, out, marks, 0)
                process.send_signal(signal.SIGKILL)
        with self.start(source, out) as process:
            told, _ = process.communicate()
            assert process.returncode == 0
        assert len(told.splitlines()) == 2
        assert made(out) == ["image.blur.ome.zarr", "image.confidence.ome.zarr", NAME]
        with self.start(source, out, "--resume") as process:
            again, err = process.communicate()
        assert again == told
        assert err == ""

    def test_ctrl_c_stops_after_the_tiles_that_run(self, source, tmp_path):
        out = tmp_path / "out"
        with self.start(source, out) as process:
            self.wait_for(process, out, 5, 0)
            process.send_signal(signal.SIGINT)
            told, err = process.communicate()
        assert process.returncode == 130
        assert told == ""
        assert "stopped; the same command goes on where it was" in err
        assert "Traceback" not in err
        kept = self.kept(out)
        assert len(kept) >= 5
        with self.start(source, out) as process:
            assert process.wait() == 0
