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
from napari_defocus.io.open import open_source
from napari_defocus.io.raster import read_image
from napari_defocus.io.tiff_writer import create_big_tiff, finish_big_tiff, open_big_tiff

RNG = np.random.default_rng(0)
MAP = RNG.random((2, 3, 70, 101), np.float32)
UM = "micrometer"
SCALE = {"T": 60.0, "Z": 2.0, "Y": 0.25, "X": 0.25}
UNITS = {"T": "second", "Z": UM, "Y": UM, "X": UM}
FORM = {"axes": "TZYX", "shape": MAP.shape, "dtype": "f4", "scale": SCALE, "units": UNITS}


def pieces(shape, tile):
    for y in range(0, shape[0], tile[0]):
        for x in range(0, shape[1], tile[1]):
            rows, columns = (
                slice(y, min(y + tile[0], shape[0])),
                slice(x, min(x + tile[1], shape[1])),
            )
            yield rows, columns


def write_all(path, data, axes, tile=(32, 48), **options):
    create_big_tiff(path, axes=axes, shape=data.shape, dtype=data.dtype, **options)
    file = open_big_tiff(path)
    size = data.shape[len(file.leading) :]
    for plane in np.ndindex(file.leading):
        for rows, columns in pieces(size, tile):
            file.write(plane, rows, columns, data[plane][rows, columns])
            np.testing.assert_array_equal(
                file.read(plane, rows, columns), data[plane][rows, columns]
            )
    finish_big_tiff(path)


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
        assert source.scale == SCALE
        assert source.units == UNITS
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
        create_big_tiff(path, axes="YX", shape=data.shape, dtype=bool)
        open_big_tiff(path).write((), slice(0, 70), slice(0, 101), data)
        finish_big_tiff(path)
        np.testing.assert_array_equal(tifffile.imread(path), data.astype(np.uint8))

    def test_scale_of_unknown_unit_is_left_out(self, tmp_path):
        path = tmp_path / "map.tif"
        write_all(path, MAP, "TZYX", scale=SCALE)
        assert open_source(path).scale == {}

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
        assert_refused(lambda: open_big_tiff(path), "was not begun")
        assert_refused(lambda: finish_big_tiff(path), "was not begun")
        assert not create_big_tiff(path, **FORM, resume=True)
        assert not path.exists()
        piece = ((1, 2), slice(3, 9), slice(5, 20))
        open_big_tiff(path).write(*piece, MAP[1, 2, 3:9, 5:20])
        assert create_big_tiff(path, **FORM, resume=True)
        np.testing.assert_array_equal(open_big_tiff(path).read(*piece), MAP[1, 2, 3:9, 5:20])
        assert not create_big_tiff(path, **FORM)
        assert not open_big_tiff(path).read(*piece).any()
        open_big_tiff(path).write(*piece, MAP[1, 2, 3:9, 5:20])
        assert not create_big_tiff(path, **FORM | {"scale": {"X": 1.0}}, resume=True)
        assert not open_big_tiff(path).read(*piece).any()

    def test_overwrite(self, tmp_path):
        path = tmp_path / "map.tif"
        write_all(path, MAP, "TZYX")
        before = path.read_bytes()
        assert_refused(lambda: create_big_tiff(path, **FORM, overwrite=False), "exists already")
        create_big_tiff(path, **FORM)
        assert_refused(lambda: finish_big_tiff(path, overwrite=False), "exists already")
        assert path.read_bytes() == before
        finish_big_tiff(path)
        assert not tifffile.imread(path).any()

    def test_equal_results_have_equal_bytes(self, tmp_path):
        paths = [tmp_path / name / "map.ome.tif" for name in "ab"]
        for path, tile in zip(paths, ((32, 48), (17, 101)), strict=True):
            write_all(path, MAP, "TZYX", tile, scale=SCALE, units=UNITS)
        assert paths[0].read_bytes() == paths[1].read_bytes()

    def test_larger_than_memory_is_sparse_at_first(self, tmp_path):
        path = tmp_path / "map.tif"
        shape = (65536, 65536)
        try:
            create_big_tiff(path, axes="YX", shape=shape, dtype="u1")
        except DefocusError as error:
            pytest.skip(str(error))
        file = open_big_tiff(path)
        piece = ((), slice(65000, 65010), slice(65526, 65536))
        file.write(*piece, np.full((10, 10), 7, np.uint8))
        assert file.read(*piece).sum() == 700
        finish_big_tiff(path)
        if hasattr(os.stat_result, "st_blocks"):
            assert path.stat().st_blocks * 512 < 2**26
        assert open_source(path).read(*piece).sum() == 700

    def test_refused(self, tmp_path):
        path = tmp_path / "map.tif"
        assert_refused(
            lambda: create_big_tiff(path, axes="YXZ", shape=(3, 3, 3), dtype="u1"), "must end in YX"
        )
        create_big_tiff(path, **FORM)
        with pytest.raises(ValueError, match="pixels for a piece"):
            open_big_tiff(path).write((0, 0), slice(0, 5), slice(0, 5), MAP[0, 0, :5, :6])

    def test_no_room(self, tmp_path, monkeypatch):
        monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
        path = tmp_path / "map.tif"
        assert_refused(lambda: create_big_tiff(path, **FORM), str(path), "GiB", "OME-Zarr")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
    def test_full_disk(self, tmp_path):
        path = tmp_path / "map.tif"
        create_big_tiff(path, **FORM)
        file = open_big_tiff(path)
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
    create_big_tiff(path, **FORM)
    file = open_big_tiff(path)
    assert pickle.loads(pickle.dumps(file)) == file
    tasks = [
        (file, plane, *part) for plane in np.ndindex(2, 3) for part in pieces((70, 101), (9, 50))
    ]
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        list(pool.map(write_piece, *zip(*tasks, strict=True)))
    finish_big_tiff(path)
    np.testing.assert_array_equal(tifffile.imread(path), MAP)
