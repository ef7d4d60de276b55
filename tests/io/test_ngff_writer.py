import errno
import hashlib
import pickle
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from napari_defocus.core.errors import DefocusError
from napari_defocus.io.downsampling import mean, most_frequent
from napari_defocus.io.ngff_writer import (
    Block,
    build_block,
    count_levels,
    create_pyramid,
    finish_pyramid,
    open_level,
)
from napari_defocus.io.open import open_source
from napari_defocus.io.unfinished import partial_path

RNG = np.random.default_rng(0)
MAP = RNG.random((2, 3, 70, 101), np.float32)
LABELS = RNG.integers(0, 3, (70, 101), np.uint8)
UM = "micrometer"
SCALE = {"T": 60.0, "Z": 2.0, "Y": 0.5, "X": 0.25}
UNITS = {"T": "second", "Z": UM, "Y": UM, "X": UM}
FORM = {
    "axes": "TZYX",
    "shape": MAP.shape,
    "dtype": MAP.dtype,
    "chunk": (32, 48),
    "scale": SCALE,
    "units": UNITS,
    "levels": 3,
}


def write_level(path, data):
    level = open_level(path)
    for block in level.blocks():
        level.write(
            block.plane, block.rows, block.columns, data[block.plane][block.rows, block.columns]
        )


def build_levels(path):
    for number in range(1, count_levels(path)):
        for block in open_level(path, number).blocks():
            build_block(path, number, block)


def write_pyramid(path, data, **options):
    options = {"shape": data.shape, "dtype": data.dtype, "chunk": (32, 48)} | options
    create_pyramid(path, **options)
    write_level(path, data)
    build_levels(path)
    finish_pyramid(path)


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
        write_pyramid(path, MAP, **FORM, translate={"Y": 10, "X": 20})
        source = open_source(path)
        assert source.axes == "TZYX"
        assert source.scale == SCALE
        assert source.units == UNITS
        assert source.translate == {"T": 0, "Z": 0, "Y": 10, "X": 20}
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
        write_pyramid(path, data, axes=axes, levels=2)
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
        form = {"dtype": "u1", "chunk": (8, 8)}
        path = tmp_path / "a.zarr"
        for axes, shape, word in (
            ("CYXS", (2, 8, 8, 3), "write BigTIFF"),
            ("QIYX", (2, 2, 8, 8), "write BigTIFF"),
            ("YXZ", (8, 8, 2), "must end in YX"),
        ):
            assert_refused(
                lambda a=axes, s=shape: create_pyramid(path, axes=a, shape=s, **form), word
            )
        form = FORM | {"kind": "map"}
        assert_refused(lambda: create_pyramid(path, **form), "image, labels")
        assert list(tmp_path.iterdir()) == []

    def test_default_levels(self, tmp_path):
        form = {"axes": "YX", "dtype": "u1", "chunk": (512, 512)}
        for shape, levels in (((10, 10), 1), ((1024, 900), 1), ((1025, 7), 2), ((65536, 9), 7)):
            create_pyramid(tmp_path / "a.zarr", shape=shape, **form)
            assert count_levels(tmp_path / "a.zarr") == levels

    def test_unfinished_is_recognised(self, tmp_path):
        path = tmp_path / "a.zarr"
        assert_refused(lambda: open_level(path), "was not begun")
        assert_refused(lambda: finish_pyramid(path), "was not begun")
        create_pyramid(path, **FORM)
        assert_refused(lambda: open_level(path, 3), "no level 3")
        write_level(path, MAP)
        assert not path.exists()
        assert_refused(lambda: finish_pyramid(path), "level 1 lacks c/0/0/0/0", "resume")
        build_levels(path)
        chunk = partial_path(path) / "0" / "c" / "1" / "2" / "1" / "0"
        chunk.rename(chunk.with_suffix(".0123.partial"))  # a writer killed in the middle
        assert_refused(lambda: finish_pyramid(path), "level 0 lacks c/1/2/1/0")
        write_level(path, MAP)
        finish_pyramid(path)
        assert not list(tmp_path.rglob("*.partial"))

    def test_resume_keeps_what_is_written(self, tmp_path):
        path = tmp_path / "a.zarr"
        assert not create_pyramid(path, **FORM, resume=True)
        level = open_level(path)
        block = next(level.blocks())
        assert not level.has(block)
        level.write(block.plane, block.rows, block.columns, np.zeros((32, 48)))
        assert level.has(block)  # though it is empty
        assert create_pyramid(path, **FORM, resume=True)
        assert open_level(path).has(block)
        other = FORM | {"scale": SCALE | {"X": 1.0}}
        assert not create_pyramid(path, **other, resume=True)
        assert not open_level(path).has(block)
        level.write(block.plane, block.rows, block.columns, np.zeros((32, 48)))
        assert not create_pyramid(path, **other)
        assert not open_level(path).has(block)

    def test_resume_after_a_kill_at_the_beginning(self, tmp_path):
        path = tmp_path / "a.zarr"
        create_pyramid(path, **FORM)
        (partial_path(path) / "zarr.json").unlink()  # which is written last
        assert not create_pyramid(path, **FORM, resume=True)
        assert count_levels(path) == 3

    def test_overwrite(self, tmp_path):
        path = tmp_path / "a.zarr"
        write_pyramid(path, MAP, **FORM)
        before = contents(path)
        assert_refused(lambda: create_pyramid(path, **FORM, overwrite=False), "exists already")
        create_pyramid(path, **FORM)
        write_level(path, MAP / 2)
        build_levels(path)
        assert contents(path) == before
        assert_refused(lambda: finish_pyramid(path, overwrite=False), "exists already")
        finish_pyramid(path)
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
        kind = "labels" if labels else "image"
        write_pyramid(path, data, axes="YX", chunk=(rows, columns), levels=3, kind=kind)
        group = zarr.open_group(path, mode="r")
        for number in range(3):
            np.testing.assert_array_equal(group[str(number)][...], data)
            data = most_frequent(data) if labels else mean(data)

    def test_full_disk(self, tmp_path, monkeypatch):
        path = tmp_path / "a.zarr"
        create_pyramid(path, **FORM)
        level = open_level(path)
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


def build_one(path, number, block):
    build_block(path, number, block)


def test_processes_write_the_same_bytes(tmp_path):
    one, several = tmp_path / "one" / "a.zarr", tmp_path / "several" / "a.zarr"
    write_pyramid(one, MAP, **FORM)
    create_pyramid(several, **FORM)
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        level = open_level(several)
        blocks = list(level.blocks())
        list(pool.map(write_block, [level] * len(blocks), blocks))
        for number in (1, 2):
            blocks = list(open_level(several, number).blocks())
            list(pool.map(build_one, [several] * len(blocks), [number] * len(blocks), blocks))
    finish_pyramid(several)
    assert contents(several) == contents(one)


def test_level_is_pickled_without_its_array(tmp_path):
    create_pyramid(tmp_path / "a.zarr", **FORM)
    level = open_level(tmp_path / "a.zarr")
    level.read((0, 0), slice(0, 9), slice(0, 9))
    again = pickle.loads(pickle.dumps(level))
    assert len(pickle.dumps(level)) < 2000
    assert next(again.blocks()) == Block((0, 0), slice(0, 32), slice(0, 48))


COLORS = {1: (255, 120, 0, 255), 2: (0, 160, 255, 255)}


@pytest.fixture
def labelled(tmp_path):
    """An image and its labels, as a run leaves them."""
    path = tmp_path / "field.ome.zarr"
    form = {"axes": "YX", "scale": {"Y": 0.5, "X": 0.25}, "units": {"Y": UM, "X": UM}}
    data = MAP[0, 0]
    create_pyramid(path, shape=data.shape, dtype=data.dtype, chunk=(32, 48), levels=2, **form)
    write_level(path, data)
    build_levels(path)
    labels = partial_path(path) / "labels" / "mask"
    write_pyramid(labels, LABELS, kind="labels", levels=2, colors=COLORS, **form)
    finish_pyramid(path)
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
        write_pyramid(path, LABELS, axes="YX", kind="labels")
        write_pyramid(path, LABELS, axes="YX", kind="labels")
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
