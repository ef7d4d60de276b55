import errno
import os
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_defocus.core.errors import DefocusError
from napari_defocus.io.grid import Grid
from napari_defocus.io.open import open_source, read_image
from napari_defocus.io.tiff_writer import BigTiff, write_image

RNG = np.random.default_rng(0)
MAP = RNG.random((2, 3, 70, 101), np.float32)
UM = "micrometer"
SCALE = {"T": 60.0, "Z": 2.0, "Y": 0.25, "X": 0.25}
UNITS = {"T": "second", "Z": UM, "Y": UM, "X": UM}
GRID = Grid("TZYX", MAP.shape, SCALE, units=UNITS)


def pieces(shape, tile):
    for y in range(0, shape[0], tile[0]):
        for x in range(0, shape[1], tile[1]):
            rows, columns = (
                slice(y, min(y + tile[0], shape[0])),
                slice(x, min(x + tile[1], shape[1])),
            )
            yield rows, columns


def big_tiff(path):
    return BigTiff(path, GRID, "f4")


def write_all(path, data, axes, tile=(32, 48), scale=None, units=None):
    file = BigTiff(path, Grid(axes, data.shape, scale or {}, units=units or {}), data.dtype)
    file.create()
    for plane in np.ndindex(file.grid.leading):
        for rows, columns in pieces(file.grid.plane_shape, tile):
            file.write(plane, rows, columns, data[plane][rows, columns])
            np.testing.assert_array_equal(
                file.read(plane, rows, columns), data[plane][rows, columns]
            )
    file.finish()


def assert_refused(action, *words):
    with pytest.raises(DefocusError) as caught:
        action()
    for word in words:
        assert word in str(caught.value)


class TestBigTiff:
    def test_tifffile_and_our_readers_agree(self, tmp_path):
        path = tmp_path / "map.ome.tif"
        write_all(path, MAP, "TZYX", scale=SCALE, units=UNITS)
        with tifffile.TiffFile(path) as tif:
            assert tif.is_bigtiff
            assert tif.is_ome
            assert tif.series[0].axes == "TZYX"
            assert tif.pages.first.rowsperstrip * MAP.shape[-1] * 4 <= 4 * 2**20
            np.testing.assert_array_equal(tif.asarray(), MAP)
            pixels = tifffile.xml2dict(tif.ome_metadata)["OME"]["Image"]["Pixels"]
        assert pixels["PhysicalSizeX"] == pixels["PhysicalSizeY"] == 0.25
        assert pixels["PhysicalSizeZ"] == 2
        assert pixels["TimeIncrement"] == 60
        image = read_image(path)
        assert image.axes == "TZYX"
        assert image.pixel_size_um == 0.25
        source = open_source(path)
        assert source.grid.scale == SCALE
        assert source.grid.units == UNITS
        np.testing.assert_array_equal(source.read((1, 2)), MAP[1, 2])
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize(
        ("axes", "shape", "dtype"),
        [
            ("YX", (70, 101), "u1"),
            ("YX", (1, 1), "f4"),
            ("ZYX", (3, 70, 101), "i2"),
            ("YXS", (70, 101, 3), "u1"),
            ("YXS", (70, 101, 2), "u1"),
            ("ZYXS", (2, 70, 101, 3), "u2"),
            ("YX", (70, 101), "i8"),
            ("QYX", (3, 70, 101), "f4"),
            ("CZYX", (2, 3, 70, 101), "f8"),
        ],
    )
    def test_axes_and_types(self, tmp_path, axes, shape, dtype):
        path = tmp_path / "map.tif"
        data = RNG.integers(0, 100, shape).astype(dtype)
        write_all(path, data, axes, scale=SCALE, units=UNITS)
        image = read_image(path)
        assert image.axes == axes
        assert image.data.dtype == dtype
        np.testing.assert_array_equal(image.data.reshape(shape), data)
        assert image.pixel_size_um == pytest.approx(0.25)

    def test_bool_becomes_numbers(self, tmp_path):
        path = tmp_path / "map.tif"
        data = MAP[0, 0] > 0.5
        file = BigTiff(path, Grid("YX", data.shape), bool)
        file.create()
        file.write((), slice(0, 70), slice(0, 101), data)
        file.finish()
        np.testing.assert_array_equal(tifffile.imread(path), data.astype(np.uint8))

    def test_scale_of_unknown_unit_is_left_out(self, tmp_path):
        path = tmp_path / "map.tif"
        write_all(path, MAP, "TZYX", scale=SCALE)
        assert open_source(path).grid.scale == {}

    @settings(max_examples=25, deadline=None)
    @given(st.data())
    def test_any_tiles(self, tmp_path_factory, data):
        side = st.integers(1, 60)
        shape = data.draw(st.tuples(st.integers(1, 3), side, side))
        stack = RNG.random(shape, np.float32)
        path = tmp_path_factory.mktemp("tiff") / "map.tif"
        write_all(path, stack, "ZYX", tile=(data.draw(side), data.draw(side)))
        np.testing.assert_array_equal(
            tifffile.imread(path), stack.squeeze(0) if shape[0] == 1 else stack
        )

    def test_unfinished_is_recognised_and_kept(self, tmp_path):
        path = tmp_path / "map.tif"
        piece = ((1, 2), slice(3, 9), slice(5, 20))
        assert not big_tiff(path).begun
        assert_refused(lambda: big_tiff(path).read(*piece), "was not begun")
        assert_refused(lambda: big_tiff(path).finish(), "was not begun")
        big_tiff(path).create()
        assert not path.exists()
        assert big_tiff(path).begun
        big_tiff(path).write(*piece, MAP[1, 2, 3:9, 5:20])
        np.testing.assert_array_equal(big_tiff(path).read(*piece), MAP[1, 2, 3:9, 5:20])
        big_tiff(path).create()
        assert not big_tiff(path).read(*piece).any()

    def test_overwrite(self, tmp_path):
        path = tmp_path / "map.tif"
        write_all(path, MAP, "TZYX")
        before = path.read_bytes()
        big_tiff(path).create()
        assert_refused(lambda: big_tiff(path).finish(overwrite=False), "exists already")
        assert path.read_bytes() == before
        big_tiff(path).finish()
        assert not tifffile.imread(path).any()

    def test_equal_results_have_equal_bytes(self, tmp_path):
        paths = [tmp_path / name / "map.ome.tif" for name in "ab"]
        for path, tile in zip(paths, ((32, 48), (17, 101)), strict=True):
            write_all(path, MAP, "TZYX", tile, scale=SCALE, units=UNITS)
        assert paths[0].read_bytes() == paths[1].read_bytes()

    def test_larger_than_memory_is_sparse_at_first(self, tmp_path):
        path = tmp_path / "map.tif"
        shape = (65536, 65536)
        file = BigTiff(path, Grid("YX", shape), "u1")
        try:
            file.create()
        except DefocusError as error:
            pytest.skip(str(error))
        piece = ((), slice(65000, 65010), slice(65526, 65536))
        file.write(*piece, np.full((10, 10), 7, np.uint8))
        assert file.read(*piece).sum() == 700
        file.finish()
        if hasattr(os.stat_result, "st_blocks"):
            assert path.stat().st_blocks * 512 < 2**26
        assert open_source(path).read(*piece).sum() == 700

    def test_refused(self, tmp_path):
        path = tmp_path / "map.tif"
        assert_refused(lambda: Grid("YXZ", (3, 3, 3)), "must end in YX")
        big_tiff(path).create()
        with pytest.raises(ValueError, match="pixels for a piece"):
            big_tiff(path).write((0, 0), slice(0, 5), slice(0, 5), MAP[0, 0, :5, :6])

    def test_no_room(self, tmp_path, monkeypatch):
        monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
        path = tmp_path / "map.tif"
        assert_refused(lambda: big_tiff(path).create(), str(path), "GiB", "OME-Zarr")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
    def test_full_disk(self, tmp_path):
        path = tmp_path / "map.tif"
        file = big_tiff(path)
        file.create()
        assert file.read((0, 0), slice(0, 5), slice(0, 5)).shape == (5, 5)
        file.file.unlink()
        file.file.symlink_to("/dev/full")
        assert_refused(
            lambda: file.write((0, 0), slice(0, 5), slice(0, 5), MAP[0, 0, :5, :5]),
            os.strerror(errno.ENOSPC),
            "resume",
        )


def write_piece(file, plane, rows, columns):
    file.write(plane, rows, columns, MAP[plane][rows, columns])


def test_processes_write_at_once(tmp_path):
    path = tmp_path / "map.tif"
    file = big_tiff(path)
    file.create()
    assert pickle.loads(pickle.dumps(file)) == file
    tasks = [
        (file, plane, *part) for plane in np.ndindex(2, 3) for part in pieces((70, 101), (9, 50))
    ]
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        list(pool.map(write_piece, *zip(*tasks, strict=True)))
    file.finish()
    np.testing.assert_array_equal(tifffile.imread(path), MAP)


# How it was made

NOTE = "sharp up to 2.5 px: the sharpest <structure> is 1.4 px & wide"
GRIDS = {
    "ome": (GRID, MAP),
    "imagej": (Grid("YX", MAP.shape[-2:], {"Y": 0.25, "X": 0.25}, units=UNITS), MAP[0, 0]),
    "shaped": (Grid("QYX", MAP.shape[1:]), MAP[0]),
}


def note_of(path):
    with tifffile.TiffFile(path) as tif:
        if tif.is_ome:
            image = tifffile.xml2dict(tif.ome_metadata)["OME"]["Image"]
            return image["Description"]
        return (tif.imagej_metadata or tif.shaped_metadata[0])["note"]


@pytest.mark.parametrize("name", GRIDS)
def test_a_note_is_kept(tmp_path, name):
    grid, data = GRIDS[name]
    write_image(tmp_path / "whole.tif", data, grid, note=NOTE)
    file = BigTiff(tmp_path / "pieces.tif", grid, "f4")
    file.create()
    for index in np.ndindex(grid.leading):
        for piece in pieces(grid.plane_shape, (32, 64)):
            file.write(index, *piece, data[index][piece])
    file.add_note(NOTE)
    once = file.file.read_bytes()
    file.add_note(NOTE)
    assert file.file.read_bytes() == once
    file.finish()
    for path in (tmp_path / "whole.tif", tmp_path / "pieces.tif"):
        assert note_of(path) == NOTE
        np.testing.assert_array_equal(read_image(path).data, data)
        assert read_image(path).grid.known_scale() == pytest.approx(grid.known_scale())
