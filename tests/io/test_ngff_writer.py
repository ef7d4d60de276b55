import errno
import hashlib
import pickle
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from napari_defocus.core.errors import DefocusError
from napari_defocus.io.atomic import partial_path
from napari_defocus.io.downsampling import mean, most_frequent
from napari_defocus.io.grid import Grid
from napari_defocus.io.ngff_writer import Block, Pyramid
from napari_defocus.io.open import open_source

RNG = np.random.default_rng(0)
MAP = RNG.random((2, 3, 70, 101), np.float32)
LABELS = RNG.integers(0, 3, (70, 101), np.uint8)
UM = "micrometer"
SCALE = {"T": 60.0, "Z": 2.0, "Y": 0.5, "X": 0.25}
UNITS = {"T": "second", "Z": UM, "Y": UM, "X": UM}
GRID = Grid("TZYX", MAP.shape, SCALE, units=UNITS)


def pyramid_of(path, grid=GRID):
    return Pyramid(path, grid, MAP.dtype, (32, 48), levels=3)


def write_level(pyramid, data):
    level = pyramid.level(0)
    for block in level.blocks():
        level.write(
            block.plane, block.rows, block.columns, data[block.plane][block.rows, block.columns]
        )


def write_pyramid(pyramid, data):
    pyramid.create()
    write_level(pyramid, data)
    pyramid.finish()


def contents(path):
    return {
        file.relative_to(path).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in path.rglob("*")
        if file.is_file()
    }


def assert_refused(action, *words):
    with pytest.raises(DefocusError) as caught:
        action()
    for word in words:
        assert word in str(caught.value)


class TestDownsampling:
    @pytest.mark.parametrize("dtype", ["u1", "i4", "f4", "f8"])
    def test_mean_of_known_pixels(self, dtype):
        pixels = np.array([[0, 4, 6], [2, 2, 8], [9, 5, 7]], dtype)
        halved = mean(pixels)
        assert halved.dtype == dtype
        assert halved.tolist() == [[2, 7], [7, 7]]

    def test_mean_leaves_out_nan(self):
        pixels = np.array([[np.nan, 4, np.nan], [2, np.nan, np.nan]], np.float32)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            np.testing.assert_array_equal(mean(pixels), np.float32([[3, np.nan]]))

    def test_mean_of_colours(self):
        pixels = RNG.random((6, 8, 3))
        expected = pixels.reshape(3, 2, 4, 2, 3).mean((1, 3))
        np.testing.assert_allclose(mean(pixels), expected)

    def test_most_frequent(self):
        labels = np.array([[1, 2, 0, 2, 7], [2, 0, 2, 0, 3]], np.uint16)
        assert most_frequent(labels).tolist() == [[2, 0, 7]]
        assert most_frequent(labels).dtype == np.uint16

    @given(npst.arrays(np.uint8, npst.array_shapes(min_dims=2, max_dims=2, max_side=9)))
    def test_laws(self, pixels):
        shape = tuple(-(-size // 2) for size in pixels.shape)
        halved, labels = mean(pixels), most_frequent(pixels)
        assert halved.shape == labels.shape == shape
        for i, j in np.ndindex(shape):
            part = pixels[2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
            assert part.min() <= halved[i, j] <= part.max()
            counts = [np.sum(part == value) for value in part.flat]
            assert np.sum(part == labels[i, j]) == max(counts)


class TestPyramid:
    def test_levels_and_calibration(self, tmp_path):
        path = tmp_path / "a.ome.zarr"
        write_pyramid(pyramid_of(path, replace(GRID, translate={"Y": 10, "X": 20})), MAP)
        source = open_source(path)
        assert source.axes == "TZYX"
        assert source.grid.scale == SCALE
        assert source.grid.units == UNITS
        assert source.grid.translate == {"T": 0, "Z": 0, "Y": 10, "X": 20}
        assert source.block == (32, 48)
        for index in np.ndindex(2, 3):
            np.testing.assert_array_equal(source.read(index), MAP[index])
        group = zarr.open_group(path, mode="r")
        for index in np.ndindex(2, 3):
            half = mean(MAP[index])
            np.testing.assert_array_equal(group["1"][index], half)
            np.testing.assert_array_equal(group["2"][index], mean(half))
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize(
        ("axes", "stored", "names"),
        [
            ("ZTYX", (1, 0, 2, 3), "tzyx"),
            ("ZCYX", (1, 0, 2, 3), "czyx"),
            ("QTYX", (1, 0, 2, 3), "tqyx"),
            ("TYXS", (0, 3, 1, 2), "tcyx"),
            ("YXS", (2, 0, 1), "cyx"),
        ],
    )
    def test_axes_are_in_the_order_of_ome(self, tmp_path, axes, stored, names):
        shapes = {"Z": 3, "T": 2, "C": 4, "Q": 4, "Y": 70, "X": 101, "S": 3}
        data = RNG.integers(0, 256, [shapes[letter] for letter in axes], np.uint8)
        path = tmp_path / "a.zarr"
        write_pyramid(Pyramid(path, Grid(axes, data.shape), "u1", (32, 48), levels=2), data)
        group = zarr.open_group(path, mode="r")
        np.testing.assert_array_equal(group["0"][...], data.transpose(stored))
        described = group.attrs["ome"]["multiscales"][0]["axes"]
        assert "".join(axis["name"] for axis in described) == names
        assert group["0"].metadata.dimension_names == tuple(names)
        index = (0,) * (len(axes.removesuffix("S")) - 2)
        half = np.moveaxis(mean(data[index]), -1, 0) if axes[-1] == "S" else mean(data[index])
        kept = tuple(
            slice(None) if name in ("yxc" if "S" in axes else "yx") else 0 for name in names
        )
        np.testing.assert_array_equal(group["1"][kept], half)

    def test_refused_axes(self, tmp_path):
        path = tmp_path / "a.zarr"
        for axes, shape, word in (
            ("CYXS", (2, 8, 8, 3), "write BigTIFF"),
            ("QIYX", (2, 2, 8, 8), "write BigTIFF"),
        ):
            pyramid = Pyramid(path, Grid(axes, shape), "u1", (8, 8))
            assert_refused(pyramid.create, word)
        assert list(tmp_path.iterdir()) == []

    def test_default_levels(self, tmp_path):
        for shape, levels in (((10, 10), 1), ((1024, 900), 1), ((1025, 7), 2), ((65536, 9), 7)):
            pyramid = Pyramid(tmp_path / "a.zarr", Grid("YX", shape), "u1", (512, 512))
            pyramid.create()
            assert len(pyramid.grids) == levels

    def test_unfinished_is_recognised(self, tmp_path):
        path = tmp_path / "a.zarr"
        pyramid = pyramid_of(path)
        assert not pyramid.begun
        assert_refused(lambda: pyramid.level(0), "was not begun")
        assert_refused(pyramid.finish, "was not begun")
        pyramid.create()
        assert pyramid.begun
        assert_refused(lambda: pyramid.level(3), "no level 3")
        block = next(pyramid.level(0).blocks())
        assert not pyramid.level(0).has(block)
        pyramid.level(0).write(block.plane, block.rows, block.columns, np.zeros((32, 48)))
        assert pyramid.level(0).has(block)  # though it is empty
        write_level(pyramid, MAP)
        assert not path.exists()
        chunk = partial_path(path) / "0" / "c" / "1" / "2" / "1" / "0"
        chunk.rename(chunk.with_suffix(".0123.partial"))  # a writer killed in the middle
        assert_refused(pyramid.finish, "level 0 lacks c/1/2/1/0", "resume")
        write_level(pyramid, MAP)
        pyramid.finish()
        assert not list(tmp_path.rglob("*.partial"))

    def test_one_killed_at_its_beginning_is_begun_anew(self, tmp_path):
        pyramid = pyramid_of(tmp_path / "a.zarr")
        pyramid.create()
        write_level(pyramid, MAP)
        (partial_path(pyramid.path) / "zarr.json").unlink()  # which is written last
        assert not pyramid.begun
        pyramid.create()
        assert not any(map(pyramid.level(0).has, pyramid.level(0).blocks()))

    def test_overwrite(self, tmp_path):
        path = tmp_path / "a.zarr"
        pyramid = pyramid_of(path)
        write_pyramid(pyramid, MAP)
        before = contents(path)
        pyramid.create()
        write_level(pyramid, MAP / 2)
        assert_refused(lambda: pyramid.finish(overwrite=False), "exists already")
        assert contents(path) == before
        pyramid.finish()
        assert contents(path) != before
        assert list(tmp_path.iterdir()) == [path]

    @settings(max_examples=15, deadline=None)
    @given(
        st.integers(1, 90),
        st.integers(1, 90),
        st.integers(5, 40),
        st.integers(5, 40),
        st.booleans(),
    )
    def test_any_chunks_give_the_same_levels(
        self, tmp_path_factory, height, width, rows, columns, labels
    ):
        path = tmp_path_factory.mktemp("pyramid") / "a.zarr"
        data = RNG.integers(0, 4, (height, width), np.uint8)
        colours, grid = {} if labels else None, Grid("YX", data.shape)
        chunk = (rows, columns)
        write_pyramid(Pyramid(path, grid, "u1", chunk, levels=3, colours=colours), data)
        group = zarr.open_group(path, mode="r")
        for number in range(3):
            np.testing.assert_array_equal(group[str(number)][...], data)
            data = most_frequent(data) if labels else mean(data)

    def test_full_disk(self, tmp_path, monkeypatch):
        path = tmp_path / "a.zarr"
        pyramid_of(path).create()
        level = pyramid_of(path).level(0)
        block = next(level.blocks())

        def fail(*args, **kwargs):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("zarr.storage._local._put", fail)
        assert_refused(
            lambda: level.write(block.plane, block.rows, block.columns, np.ones((32, 48))),
            "No space left",
            "resume",
        )


def write_block(level, block):
    level.write(block.plane, block.rows, block.columns, MAP[block.plane][block.rows, block.columns])


def test_processes_write_the_same_bytes(tmp_path):
    one, several = tmp_path / "one" / "a.zarr", tmp_path / "several" / "a.zarr"
    write_pyramid(pyramid_of(one), MAP)
    pyramid = pyramid_of(several)
    pyramid.create()
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        level = pyramid.level(0)
        blocks = list(level.blocks())
        list(pool.map(write_block, [level] * len(blocks), blocks))
        stages = []

        def run(work, items, stage):
            stages.append(stage)
            list(pool.map(work, items))

        pyramid.finish(run)
    assert stages == ["building level 1", "building level 2"]
    assert contents(several) == contents(one)


def test_level_is_pickled_without_its_array(tmp_path):
    pyramid = pyramid_of(tmp_path / "a.zarr")
    pyramid.create()
    pyramid.read((0, 0), slice(0, 9), slice(0, 9))
    assert len(pickle.dumps(pyramid)) < 3000
    level = pyramid.level(0)
    level.read((0, 0), slice(0, 9), slice(0, 9))
    again = pickle.loads(pickle.dumps(level))
    assert len(pickle.dumps(level)) < 2000
    assert next(again.blocks()) == Block((0, 0), slice(0, 32), slice(0, 48))


COLORS = {1: (255, 120, 0, 255), 2: (0, 160, 255, 255)}


@pytest.fixture
def labelled(tmp_path):
    """An image and its labels, as a run leaves them."""
    path = tmp_path / "field.ome.zarr"
    grid = Grid("YX", LABELS.shape, {"Y": 0.5, "X": 0.25}, units={"Y": UM, "X": UM})
    data = MAP[0, 0]
    image = Pyramid(path, grid, data.dtype, (32, 48), levels=2)
    image.create()
    write_level(image, data)
    labels = partial_path(path) / "labels" / "mask"
    write_pyramid(Pyramid(labels, grid, "u1", (32, 48), levels=2, colours=COLORS), LABELS)
    image.finish()
    return path


class TestOthersReadIt:
    def test_specification(self, labelled):
        models = pytest.importorskip("ome_zarr_models.v05")
        image = models.Image.from_zarr(zarr.open_group(labelled, mode="r"))
        assert image.labels is not None
        models.ImageLabel.from_zarr(zarr.open_group(labelled / "labels" / "mask", mode="r"))

    def test_ome_zarr(self, labelled):
        pytest.importorskip("ome_zarr")
        from ome_zarr.io import parse_url
        from ome_zarr.reader import Reader

        nodes = list(Reader(parse_url(labelled))())
        image, labels = (next(n for n in nodes if part(n)) for part in (is_image, is_labels))
        for node, data in ((image, MAP[0, 0]), (labels, LABELS)):
            np.testing.assert_array_equal(np.asarray(node.data[0]), data)
            assert node.data[1].shape == (35, 51)
            first, second = node.metadata["coordinateTransformations"]
            assert first[0]["scale"] == [0.5, 0.25]
            assert second[0]["scale"] == [1, 0.5]
            assert second[1]["translation"] == [0.25, 0.125]
            assert [axis["unit"] for axis in node.metadata["axes"]] == [UM, UM]

    def test_labels_are_listed_and_know_their_image(self, labelled):
        listed = zarr.open_group(labelled / "labels", mode="r").attrs["ome"]
        assert listed == {"version": "0.5", "labels": ["mask"]}
        described = zarr.open_group(labelled / "labels" / "mask", mode="r").attrs["ome"]
        assert described["image-label"]["source"] == {"image": "../../"}
        assert described["image-label"]["colors"][1] == {
            "label-value": 2,
            "rgba": [0, 160, 255, 255],
        }
        source = open_source(labelled / "labels" / "mask")
        np.testing.assert_array_equal(source.read(), LABELS)

    def test_labels_are_added_to_a_finished_image(self, labelled):
        path = labelled / "labels" / "other"
        for _ in range(2):
            grid = Grid("YX", LABELS.shape)
            write_pyramid(Pyramid(path, grid, "u1", (32, 48), colours={}), LABELS)
        listed = zarr.open_group(labelled / "labels", mode="r").attrs["ome"]["labels"]
        assert listed == ["mask", "other"]

    def test_opens_in_napari_with_scale_and_position(self, labelled, make_napari_viewer):
        pytest.importorskip("napari_ome_zarr")
        viewer = make_napari_viewer()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image, labels = viewer.open(labelled, plugin="napari-ome-zarr")
        assert type(labels).__name__ == "Labels"
        np.testing.assert_array_equal(np.asarray(labels.data[0]), LABELS)
        for layer in (image, labels):
            # The centre of a pixel far from the corner, in micrometres.
            np.testing.assert_allclose(layer.data_to_world((60, 80)), (30, 20))
            assert [str(unit) for unit in layer.units] == [UM, UM]


def is_image(node):
    return "image-label" not in node.zarr.root_attrs.get("ome", node.zarr.root_attrs)


def is_labels(node):
    return not is_image(node) and bool(node.data)
