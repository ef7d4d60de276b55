"""One image file, tile by tile, into OME-Zarr or BigTIFF: forms, bytes, memory, and going on."""

import importlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import tifffile
import zarr
from scipy import ndimage
from skimage import data

from napari_defocus.core.errors import DefocusError
from napari_defocus.core.progress import Stopped
from napari_defocus.detection.api import DetectionConfig, detect
from napari_defocus.detection.detectors import Detector
from napari_defocus.detection.refinement import RefinementConfig
from napari_defocus.io import atomic
from napari_defocus.io.atomic import partial_path
from napari_defocus.io.base import array_source
from napari_defocus.io.open import open_source
from napari_defocus.metric.local_metric import load_metric
from napari_defocus.tiled import api as tiled_files
from napari_defocus.tiled.api import TileConfig, detect_file_in_tiles, fit_memory, memory_needed
from napari_defocus.tiled.executors import Tasks, tasks_on

METRIC = DetectionConfig(detector="metric")
NAMES = ("blur", "mask", "confidence")
SIDE = 64
FORMATS = ("zarr", "tif")


def picture(rows=150, columns=230):
    """Sharp above, blurred below, smooth in a corner."""
    image = np.tile(data.camera(), (1, 2))[100 : 100 + rows, :columns].astype(np.float32)
    image[rows // 2 :] = ndimage.gaussian_filter(image[rows // 2 :], 4)
    image[:60, :70] = 20
    return (image * 200).astype(np.uint16)


IMAGE = picture()


def write_image(path, image, axes="yx", *, scale=None, translate=None, unit="micrometer", chunk=48):
    """Write an OME-Zarr 0.5 of one level as the specification says, by zarr alone."""
    group = zarr.create_group(path, zarr_format=3, overwrite=True)
    chunks = tuple(chunk if axis in "yx" else 1 for axis in axes)
    array = group.create_array(
        "0",
        shape=image.shape,
        dtype=image.dtype,
        chunks=chunks,
        config={"write_empty_chunks": True},
    )
    array[...] = image
    kinds = {"t": "time", "c": "channel"}
    described = [{"name": axis, "type": kinds.get(axis, "space")} for axis in axes]
    for axis in described:
        if axis["type"] == "space" and unit:
            axis["unit"] = unit
    changes = [{"type": "scale", "scale": scale or [1.0] * image.ndim}]
    if translate:
        changes.append({"type": "translation", "translation": translate})
    level = {"path": "0", "coordinateTransformations": changes}
    image = {"axes": described, "datasets": [level]}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [image]}
    return path


def contents(folder):
    """All files below a folder, hidden ones too, and their bytes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def run_tiles(source, out, tasks=None, form="zarr", config=METRIC, **options):
    tasks = tasks or Tasks("synchronous")
    tiling = TileConfig(SIDE, form, NAMES[2:], options.pop("overwrite", False))
    return detect_file_in_tiles(source, out, load_metric(), config, tiling, tasks, **options)


def read_zarr(path, level="0"):
    return zarr.open_array(path, path=level, mode="r")[...]


@pytest.mark.parametrize("form", FORMATS)
def test_files_hold_what_detection_in_one_piece_says(image, tmp_path, form):
    run = run_tiles(open_source(image), tmp_path / "image", form=form)
    whole = detect(IMAGE, load_metric(), METRIC)
    if form == "zarr":
        names = ["image.blur.ome.zarr", "image.confidence.ome.zarr"]
        found = {name: read_zarr(tmp_path / f"image.{name}.ome.zarr") for name in NAMES[::2]}
        found["mask"] = read_zarr(tmp_path / "image.blur.ome.zarr/labels/mask")
    else:
        names = [f"image.{name}.tif" for name in NAMES]
        found = {name: tifffile.imread(tmp_path / f"image.{name}.tif") for name in NAMES}
    assert [path.name for path in run.outputs] == names
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    for name, values in found.items():
        expected = getattr(whole, name)
        assert values.dtype == expected.dtype
        np.testing.assert_allclose(values, expected, rtol=0, atol=1e-6)
    assert set(np.unique(found["mask"])) >= {1, 2}


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("form", FORMATS)
def test_any_number_of_threads_writes_the_same_bytes(image, expected, tmp_path, form, workers):
    with tasks_on("threads", workers) as tasks:
        run_tiles(open_source(image), tmp_path / "image", tasks, form)
    assert contents(tmp_path) == expected[form]


def test_processes_write_the_same_bytes(image, expected, tmp_path):
    with tasks_on("processes", 2) as tasks:
        for form in FORMATS:
            (tmp_path / form).mkdir()
            run_tiles(open_source(image), tmp_path / form / "image", tasks, form)
            assert contents(tmp_path / form) == expected[form]


def test_the_mean_as_threshold_of_refinement_is_that_of_the_plane(image, tmp_path):
    config = replace(METRIC, refinement=RefinementConfig(threshold=None))
    run = run_tiles(open_source(image), tmp_path / "image", config=config)
    whole = detect(IMAGE, load_metric(), config)
    found = read_zarr(tmp_path / "image.blur.ome.zarr")
    np.testing.assert_allclose(found, whole.blur, rtol=0, atol=1e-6)
    assert run.worked["sum"] == run.worked["predict"]
    assert run.worked["mean"] == 1


class TestCalibration:
    SCALE = (2.5, 1.0, 0.5, 0.25, 0.75)
    TRANSLATE = (0.0, 0.0, 10.0, -20.0, 30.5)

    @pytest.fixture
    def stack(self):
        planes = [IMAGE[:80, :100], IMAGE[60:140, 100:200], IMAGE[70:150, 20:120]]
        stack = np.stack([planes[i % 3] + 100 * i for i in range(8)])
        return stack.reshape(2, 2, 2, 80, 100)

    @pytest.fixture
    def found(self, stack, tmp_path):
        path = write_image(
            tmp_path / "stack.zarr",
            stack,
            "tczyx",
            scale=list(self.SCALE),
            translate=list(self.TRANSLATE),
        )
        run_tiles(open_source(path), tmp_path / "stack")
        return tmp_path / "stack.blur.ome.zarr"

    def test_planes_are_those_detected_alone(self, found, stack):
        blur, mask = read_zarr(found), read_zarr(found / "labels/mask")
        assert blur.shape == mask.shape == stack.shape
        whole = detect(stack, load_metric(), METRIC, axes="TCZYX")
        np.testing.assert_allclose(blur, whole.blur, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(mask, whole.mask)

    @pytest.mark.parametrize("inside", [".", "labels/mask"])
    def test_axes_scale_and_place_are_those_of_the_image(self, found, inside):
        described = json.loads((found / inside / "zarr.json").read_text())
        image = described["attributes"]["ome"]["multiscales"][0]
        assert [axis["name"] for axis in image["axes"]] == list("tczyx")
        kinds = ["time", "channel", "space", "space", "space"]
        assert [axis["type"] for axis in image["axes"]] == kinds
        assert [axis.get("unit") for axis in image["axes"][2:]] == ["micrometer"] * 3
        scale, place = image["datasets"][0]["coordinateTransformations"]
        assert scale["scale"] == list(self.SCALE)
        assert place["translation"] == list(self.TRANSLATE)
        source = open_source(found / inside) if inside == "." else None
        if source:
            assert source.axes == "TCZYX"
            assert source.grid.scale["X"] == 0.75
            assert source.grid.translate["Y"] == -20
            assert source.grid.units["Z"] == "micrometer"

    def test_readers_of_ome_zarr_find_the_mask_as_labels(self, found):
        ome = pytest.importorskip("ome_zarr.reader")
        io = pytest.importorskip("ome_zarr.io")
        nodes = list(ome.Reader(io.parse_url(found))())
        labels = [node for node in nodes if ome.Label.matches(node.zarr)]
        assert len(labels) == 1
        labels = labels[0]
        np.testing.assert_array_equal(labels.data[0], read_zarr(found / "labels/mask"))

    def test_napari_shows_map_and_labels_where_the_image_is(self, tmp_path):
        readers = pytest.importorskip("napari_ome_zarr")
        scale, place = [0.5, 0.25, 0.75], [10.0, -20.0, 30.5]
        stack = np.stack([IMAGE, IMAGE[::-1]])
        path = write_image(tmp_path / "z.zarr", stack, "zyx", scale=scale, translate=place)
        run_tiles(open_source(path), tmp_path / "z")

        def layers(path):
            return readers.napari_get_reader(str(path))(str(path))

        (_, of_image, _) = layers(path)[0]
        found = layers(tmp_path / "z.blur.ome.zarr")
        assert [kind for _, _, kind in found] == ["image", "labels"]
        for _, options, _ in found:
            assert list(options["scale"]) == scale
            assert set(options["units"]) == {"micrometer"}
            # Where it shows the image; napari-ome-zarr 0.10 leaves out translations of both.
            matrices = [known["affine"].affine_matrix for known in (options, of_image)]
            np.testing.assert_array_equal(*matrices)

    def test_coarser_levels_are_made_for_large_planes(self, tmp_path, monkeypatch):
        monkeypatch.setattr("napari_defocus.io.ngff_metadata.TOP", 60)
        run_tiles(array_source(IMAGE), tmp_path / "image")
        blur = tmp_path / "image.blur.ome.zarr"
        assert [read_zarr(blur, str(i)).shape for i in range(3)] == [
            (150, 230),
            (75, 115),
            (38, 58),
        ]
        coarse = read_zarr(blur, "1")
        full = read_zarr(blur)
        means = full.reshape(75, 2, 115, 2).mean(axis=(1, 3), dtype=np.float64)
        np.testing.assert_allclose(coarse, means, rtol=0, atol=1e-6)
        assert set(np.unique(read_zarr(blur / "labels/mask", "2"))) <= {0, 1, 2}

    def test_colours_make_maps_without_colours(self, tmp_path):
        colours = np.stack([IMAGE, IMAGE // 2, IMAGE], axis=-1)
        for form in FORMATS:
            run_tiles(array_source(colours), tmp_path / form, form=form)
        assert read_zarr(tmp_path / "zarr.blur.ome.zarr").shape == IMAGE.shape
        assert tifffile.imread(tmp_path / "tif.blur.tif").shape == IMAGE.shape

    def test_tiff_keeps_axes_and_pixel_size(self, tmp_path):
        stack = np.stack([IMAGE, IMAGE[::-1]])
        source = array_source(
            stack,
            "ZYX",
            scale={"Z": 2.0, "Y": 0.5, "X": 0.5},
            units=dict.fromkeys("ZYX", "micrometer"),
        )
        run_tiles(source, tmp_path / "stack", form="tif")
        again = open_source(tmp_path / "stack.mask.tif")
        assert (again.axes, again.shape) == ("ZYX", stack.shape)
        assert again.grid.scale == pytest.approx({"Z": 2.0, "Y": 0.5, "X": 0.5})
        assert again.pixel_size_um == pytest.approx(0.5)


class TestGoingOn:
    """A run that ended at any point goes on to the same bytes."""

    def stopped(self, source, out, after, form="zarr"):
        asked = iter(range(10**6))
        with pytest.raises(Stopped):
            run_tiles(source, out, form=form, should_stop=lambda: next(asked) > after)

    @pytest.mark.parametrize("form", FORMATS)
    @pytest.mark.parametrize("after", [0, 5, 13, 24, 34, 44])
    def test_after_a_stop(self, image, expected, tmp_path, form, after):
        source = open_source(image)
        self.stopped(source, tmp_path / "image", after, form)
        assert not list(tmp_path.glob("image.*"))  # nothing unfinished bears a name
        run_tiles(source, tmp_path / "image", form=form)
        assert contents(tmp_path) == expected[form]

    def test_finished_tiles_are_not_worked_again(self, image, tmp_path):
        source = open_source(image)
        self.stopped(source, tmp_path / "image", 20)
        store = tmp_path / ".partial-image"
        kept = {path: path.stat().st_mtime_ns for path in store.rglob("*.safetensors")}
        valid = sum(path.parent.name == "predict" for path in kept)
        assert valid > 2
        seen = {}

        def look(event):
            if event.stage == "cutting masks" and event.done == event.total:
                seen.update({path: path.stat().st_mtime_ns for path in kept})

        run = run_tiles(source, tmp_path / "image", on_event=look)
        assert seen == kept
        assert run.worked["predict"] == 12 - valid

    @pytest.mark.parametrize("form", FORMATS)
    @pytest.mark.parametrize("named", [1, 2, 3])
    def test_between_the_names_of_outputs(
        self, image, expected, tmp_path, monkeypatch, form, named
    ):
        """Killed before output number `named` gets its name, or before it is told so."""
        source = open_source(image)
        for where in ("before", "after"):
            folder = tmp_path / where
            folder.mkdir()
            with monkeypatch.context() as patch:
                self.kill_at_name(patch, named, where)
                with pytest.raises(KeyboardInterrupt):
                    run_tiles(source, folder / "image", form=form)
            run = run_tiles(source, folder / "image", form=form)
            assert set(run.worked.values()) == {0}
            assert contents(folder) == expected[form]

    def kill_at_name(self, patch, named, where):
        count = iter(range(1, 100))
        real = atomic.finish

        def finish(*arguments):
            last = next(count) == named
            if last and where == "before":
                raise KeyboardInterrupt
            real(*arguments)
            if last:
                raise KeyboardInterrupt

        patch.setattr("napari_defocus.io.ngff_writer.finish", finish)
        patch.setattr("napari_defocus.io.tiff_writer.finish", finish)

    def test_between_the_record_and_the_end(self, image, expected, tmp_path):
        source = open_source(image)

        def fail(run):
            assert all(path.exists() for path in run.outputs)
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_tiles(source, tmp_path / "image", record=fail)
        told = []
        run = run_tiles(source, tmp_path / "image", record=lambda run: told.extend(run.outputs))
        assert told == run.outputs
        assert set(run.worked.values()) == {0}
        assert contents(tmp_path) == expected["zarr"]

    @pytest.mark.parametrize("changed", ["image", "settings", "tile", "names"])
    def test_what_another_run_left_is_not_used(self, image, tmp_path, changed):
        self.stopped(open_source(image), tmp_path / "image", 30)
        source, config = open_source(image), METRIC
        tiling = TileConfig(SIDE, maps=NAMES[2:])
        if changed == "image":
            source = array_source(IMAGE[::-1].copy())
        elif changed == "settings":
            config = replace(METRIC, caution=0.0)
        elif changed == "tile":
            tiling = replace(tiling, side=SIDE + 16)
        else:
            tiling = replace(tiling, maps=())
        for folder in (tmp_path / "image", tmp_path / "alone"):
            run = detect_file_in_tiles(
                source, folder, load_metric(), config, tiling, Tasks("synchronous")
            )
            assert run.worked["predict"] == len(
                list(np.ndindex(*[-(-s // tiling.side) for s in IMAGE.shape]))
            )
        found = [contents(tmp_path / f"{stem}.blur.ome.zarr") for stem in ("image", "alone")]
        assert {k: v for k, v in found[0].items() if not k.endswith("zarr.json")} == {
            k: v for k, v in found[1].items() if not k.endswith("zarr.json")
        }

    def test_a_damaged_leftover_is_told_with_what_to_do(self, image, tmp_path):
        self.stopped(open_source(image), tmp_path / "image", 20)
        left = sorted((tmp_path / ".partial-image/predict").iterdir())[0]
        left.write_bytes(left.read_bytes()[:100])
        with pytest.raises(DefocusError) as caught:
            run_tiles(open_source(image), tmp_path / "image")
        assert str(left) in str(caught.value)
        assert f"delete {tmp_path / '.partial-image'} and start again" in str(caught.value)

    def test_lost_maps_are_made_anew(self, image, expected, tmp_path):
        self.stopped(open_source(image), tmp_path / "image", 38)
        shutil.rmtree(partial_path(tmp_path / "image.blur.ome.zarr"))
        run_tiles(open_source(image), tmp_path / "image")
        assert contents(tmp_path) == expected["zarr"]


class TestExistingOutputs:
    def test_are_kept_unless_told_otherwise(self, image, tmp_path):
        folder = tmp_path / "image.blur.ome.zarr"
        folder.mkdir()
        (folder / "mine").write_text("mine")
        with pytest.raises(DefocusError, match=r"image\.blur\.ome\.zarr exists already"):
            run_tiles(open_source(image), tmp_path / "image")
        assert contents(tmp_path) == {"image.blur.ome.zarr/mine": b"mine"}

    @pytest.mark.parametrize("form", FORMATS)
    def test_are_replaced_whole_on_request(self, image, expected, tmp_path, form):
        source = array_source(IMAGE[::-1].copy())
        run_tiles(source, tmp_path / "image", form=form)
        assert contents(tmp_path) != expected[form]
        run_tiles(open_source(image), tmp_path / "image", form=form, overwrite=True)
        assert contents(tmp_path) == expected[form]


@pytest.mark.parametrize("form", ["png", "", "ome.zarr"])
def test_an_unknown_form_is_refused(image, tmp_path, form):
    with pytest.raises(DefocusError, match="choose one of zarr, tif"):
        run_tiles(open_source(image), tmp_path / "image", form=form)
    assert not list(tmp_path.iterdir())


def test_tiles_are_raised_to_what_the_detector_takes(image, tmp_path):
    tiling = TileConfig(1, "zarr")
    run = detect_file_in_tiles(
        array_source(IMAGE[:64, :64]),
        tmp_path / "a",
        load_metric(),
        METRIC,
        tiling,
        Tasks("synchronous"),
    )
    assert run.worked["predict"] == 16  # of 16 x 16 pixels
    with pytest.raises(DefocusError, match="tile is 0"):
        detect_file_in_tiles(
            open_source(image),
            tmp_path / "b",
            load_metric(),
            METRIC,
            TileConfig(0),
            Tasks("synchronous"),
        )


@pytest.mark.parametrize("left", [0, 5, 30])
@pytest.mark.parametrize(
    ("form", "write"),
    [
        ("zarr", "napari_defocus.tiled.checkpoint.save_file"),
        ("zarr", "zarr.storage._local._put"),
        ("tif", "napari_defocus.io.tiff_writer._write_all"),
    ],
)
def test_a_full_disk_is_told_and_what_is_finished_stays(
    image, expected, tmp_path, monkeypatch, form, write, left
):
    module, _, name = write.rpartition(".")
    real = getattr(importlib.import_module(module), name)
    writes = iter(range(10**6))

    def write_or_fail(*arguments, **options):
        if next(writes) >= left:
            raise OSError(28, "No space left on device")
        return real(*arguments, **options)

    source = open_source(image)
    with monkeypatch.context() as patch:
        patch.setattr(write, write_or_fail)
        with pytest.raises(DefocusError, match=r"cannot write .*: No space left on device"):
            run_tiles(source, tmp_path / "image", form=form)
    done = len(list((tmp_path / ".partial-image").rglob("*.safetensors")))
    assert done >= min(left, 5)
    run = run_tiles(source, tmp_path / "image", form=form)
    assert contents(tmp_path) == expected[form]
    assert sum(run.worked.values()) == 3 * 12 + 3 - max(done - 1, 0)


class TestMemory:
    """What `fit_memory` grants is kept; how closely, benchmarks/speed/large.py measures."""

    @pytest.mark.parametrize("memory", [0.4, 0.7, 1.0, 1.5, 4.0])
    @pytest.mark.parametrize("workers", [1, 2])
    def test_tiles_fit_and_larger_ones_would_not(self, memory, workers):
        tasks = Tasks("threads", workers)
        metric = Detector(load_metric())
        side = fit_memory(TileConfig(2048), memory, array_source(IMAGE), metric, tasks).side
        assert memory_needed(side, metric, workers) <= memory
        assert side == 2048 or memory_needed(side + 16, metric, workers) > memory

    def test_too_little_is_told_with_what_is_needed(self):
        asked = (array_source(IMAGE), Detector(load_metric()), Tasks("threads", 2))
        with pytest.raises(
            DefocusError, match=r"memory is 0\.01 GiB; 2 tiles at once need 0\.\d+ at least"
        ):
            fit_memory(TileConfig(), 0.01, *asked)

    def test_sums_over_a_very_large_plane_count(self):
        class Large:
            leading = (3,)
            shape = (3, 2**17, 2**17)

        asked = (Large(), Detector(load_metric()), Tasks("threads", 1))
        assert fit_memory(TileConfig(512), 3.0, *asked).side == 512
        with pytest.raises(DefocusError, match=r"need 2\.\d\d at least"):
            fit_memory(TileConfig(512), 2.0, *asked)

    def test_each_process_needs_its_own(self):
        needed = [memory_needed(512, Detector(load_metric()), 4, count) for count in (1, 4)]
        assert needed[1] - needed[0] == pytest.approx(3 * tiled_files.BASE_BYTES / 2**30)

    @pytest.mark.skipif(sys.platform != "linux", reason="told by Linux alone")
    @pytest.mark.parametrize("workers", [1, 2])
    def test_the_peak_of_a_run_stays_below(self, tmp_path, workers):
        image = np.tile(data.camera(), (2, 2)) + np.zeros((1024, 1024), np.uint16)
        write_image(tmp_path / "image.zarr", image, chunk=256)
        side = 512
        script = f"""
from pathlib import Path
from napari_defocus.detection.api import DetectionConfig
from napari_defocus.metric.local_metric import load_metric
from napari_defocus.io.open import open_source
from napari_defocus.tiled.executors import Tasks
from napari_defocus.tiled.api import TileConfig, detect_file_in_tiles
folder = Path({str(tmp_path)!r})
detect_file_in_tiles(
    open_source(folder / "image.zarr"), folder / "image", load_metric(),
    DetectionConfig(detector="metric"), TileConfig({side}), Tasks("threads", {workers}),
)
# Of this program alone: what getrusage tells begins with that of its parent.
status = Path("/proc/self/status").read_text()
print(status.partition("VmHWM:")[2].split()[0])
"""
        found = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        )
        peak = int(found.stdout) / 2**20
        assert peak < memory_needed(side, Detector(load_metric()), workers)
