import http.server
import os
import pickle
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import dask.array
import fsspec
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_defocus.core.errors import DefocusError, Notice
from napari_defocus.io.base import array_source, location
from napari_defocus.io.open import open_source, read_image

RNG = np.random.default_rng(0)
GREY8 = RNG.integers(0, 256, (70, 101), np.uint8)
GREY16 = RNG.integers(0, 2**16, (70, 101), np.uint16)
RGB8 = RNG.integers(0, 256, (70, 101, 3), np.uint8)
STACK16 = RNG.integers(0, 2**16, (4, 70, 101), np.uint16)
FIVE = RNG.integers(0, 2**16, (2, 3, 4, 50, 60), np.uint16)
UM = "micrometer"


def whole(source):
    """Read all planes, and each in two pieces too."""
    planes = []
    for index in np.ndindex(source.leading):
        plane = source.read(index)
        assert plane.dtype == source.dtype
        assert plane.dtype.isnative
        rows, columns = slice(13, 999), slice(5, 61)
        np.testing.assert_array_equal(source.read(index, rows, columns), plane[rows, columns])
        planes.append(plane)
    return np.stack(planes).reshape(source.shape)


def assert_source(source, data, axes):
    assert source.axes == axes
    assert source.shape == data.shape
    assert source.dtype == data.dtype
    np.testing.assert_array_equal(whole(source), data)
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(whole(again), data)
    assert again.fingerprint() == source.fingerprint()


def assert_refused(action, *words):
    with pytest.raises(DefocusError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def write_ome_zarr(store, data, axes, *, version="0.5", scale=None, unit=UM, chunks=None, **more):
    """Write level 0 as the specification says, by zarr alone."""
    old = version < "0.5"
    group = zarr.create_group(store, zarr_format=2 if old else 3, overwrite=True)
    keys = {"name": "v2", "separator": "/"} if old else None
    array = group.create_array(
        "full",
        shape=data.shape,
        dtype=data.dtype,
        chunks=chunks or (1,) * (data.ndim - 2) + (32, 48),
        chunk_key_encoding=keys,
        config={"write_empty_chunks": True},
        **more,
    )
    array[...] = data
    kinds = {"t": "time", "c": "channel"}
    described = [{"name": a, "type": kinds.get(a, "space")} for a in axes]
    for axis in described:
        if unit and axis["type"] == "space":
            axis["unit"] = unit
    change = {"type": "scale", "scale": scale or [1.0] * data.ndim}
    image = {
        "axes": list(axes) if version == "0.3" else described,
        "datasets": [{"path": "full", "coordinateTransformations": [change]}],
    }
    if version < "0.3":
        del image["axes"]
    image = {"multiscales": [image]}
    group.attrs.update(image if old else {"ome": {"version": version, **image}})
    return group


class TestTiff:
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"rowsperstrip": 9},
            {"compression": "zlib"},
            {"compression": "zlib", "rowsperstrip": 9, "predictor": True},
            {"tile": (32, 48)},
            {"tile": (32, 48), "compression": "lzw"},
            {"bigtiff": True},
            {"byteorder": ">"},
            {"byteorder": ">", "compression": "zlib"},
            {"ome": True, "metadata": {"axes": "ZYX"}},
            {"ome": True, "metadata": {"axes": "ZYX"}, "tile": (32, 48), "compression": "zlib"},
            {"imagej": True, "metadata": {"axes": "ZYX"}},
            {"metadata": None, "contiguous": False},
        ],
    )
    def test_stack(self, tmp_path, options):
        path = tmp_path / "stack.tif"
        tifffile.imwrite(path, STACK16, photometric="minisblack", **options)
        axes = read_image(path).axes
        assert_source(open_source(path), STACK16, axes)
        assert_source(open_source(path, "ZYX"), STACK16, "ZYX")

    @pytest.mark.parametrize("options", [{}, {"tile": (32, 48)}, {"compression": "zlib"}])
    @pytest.mark.parametrize("planar", ["contig", "separate"])
    def test_colours(self, tmp_path, options, planar):
        path = tmp_path / "image.tif"
        data = RGB8 if planar == "contig" else RGB8.transpose(2, 0, 1)
        tifffile.imwrite(path, data, photometric="rgb", planarconfig=planar, **options)
        assert_source(open_source(path), RGB8, "YXS")

    def test_channels_of_a_planar_file(self, tmp_path):
        path = tmp_path / "image.tif"
        data = RNG.integers(0, 256, (6, 70, 101), np.uint8)
        tifffile.imwrite(path, data, photometric="minisblack", planarconfig="separate")
        assert_source(open_source(path), data, read_image(path).axes)

    def test_planes_of_colours(self, tmp_path):
        path = tmp_path / "stack.ome.tif"
        data = RNG.integers(0, 256, (3, 70, 101, 3), np.uint8)
        tifffile.imwrite(
            path, data, photometric="rgb", metadata={"axes": "ZYXS"}, compression="zlib"
        )
        assert_source(open_source(path), data, "ZYXS")

    @pytest.mark.parametrize("form", ["ome", "imagej"])
    def test_five_axes_and_calibration(self, tmp_path, form):
        path = tmp_path / "five.tif"
        metadata = {"axes": "TZCYX"}
        if form == "ome":
            metadata |= {
                "PhysicalSizeX": 325,
                "PhysicalSizeXUnit": "nm",
                "PhysicalSizeY": 0.325,
                "PhysicalSizeZ": 2,
                "TimeIncrement": 5,
                "TimeIncrementUnit": "min",
            }
            options = {"ome": True}
        else:
            metadata |= {"spacing": 2, "unit": "um", "finterval": 300}
            options = {"imagej": True, "resolution": (1 / 0.325, 1 / 0.325)}
        tifffile.imwrite(path, FIVE, photometric="minisblack", metadata=metadata, **options)
        source = open_source(path)
        assert_source(source, FIVE, "TZCYX")
        assert source.grid.scale == pytest.approx(
            {"T": 300, "Z": 2, "Y": 0.325, "X": 0.325}, rel=1e-6
        )
        assert source.grid.units == {"T": "second", "Z": UM, "Y": UM, "X": UM}
        assert source.pixel_size_um == pytest.approx(0.325)

    def test_scale_goes_by_place_where_axes_are_given(self, tmp_path):
        path = tmp_path / "stack.ome.tif"
        metadata = {"axes": "TYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.25, "TimeIncrement": 7}
        tifffile.imwrite(path, STACK16, photometric="minisblack", metadata=metadata)
        source = open_source(path, "ZXY")
        assert_source(source, STACK16.swapaxes(1, 2), "ZYX")
        assert source.grid.scale["X"] == 0.25
        assert source.grid.scale["Y"] == 0.5
        assert source.pixel_size_um is None

    @pytest.mark.parametrize("axes", ["YXZ", "XZY", "ZXY", "YZX"])
    @pytest.mark.parametrize("options", [{}, {"compression": "zlib", "rowsperstrip": 16}])
    def test_axes_given_in_any_order(self, tmp_path, axes, options):
        path = tmp_path / "stack.tif"
        tifffile.imwrite(path, STACK16, photometric="minisblack", **options)
        order = [axes.index(letter) for letter in "ZYX"]
        assert_source(open_source(path, axes), STACK16.transpose(order), "ZYX")

    BANDS = RNG.integers(0, 256, (30, 40, 5), np.uint8)
    PLANAR = RNG.integers(0, 256, (3, 30, 40), np.uint8)

    @pytest.mark.parametrize(
        ("stored", "options", "axes", "expected", "found"),
        [
            (BANDS, {"photometric": "minisblack"}, "YXC", BANDS.transpose(2, 0, 1), "CYX"),
            (BANDS, {"photometric": "minisblack"}, "XYC", BANDS.transpose(2, 1, 0), "CYX"),
            (PLANAR, {"photometric": "rgb", "planarconfig": "separate"}, "ZYX", PLANAR, "ZYX"),
            (PLANAR, {"photometric": "rgb", "planarconfig": "separate"}, "SYX",
             PLANAR.transpose(1, 2, 0), "YXS"),
            (PLANAR[:1, None], {"ome": True, "metadata": {"axes": "CZYX"}}, "CZYX", PLANAR[0],
             "YX"),
            (PLANAR[None], {"photometric": "minisblack"}, "TZYX", PLANAR, "ZYX"),
        ],
    )  # fmt: skip
    def test_axes_name_dimensions_as_stored(self, tmp_path, stored, options, axes, expected, found):
        path = tmp_path / "image.tif"
        tifffile.imwrite(path, stored, compression="zlib", **options)
        assert_source(open_source(path, axes), expected, found)
        np.testing.assert_array_equal(read_image(path, axes).data, expected)

    @pytest.mark.parametrize("axes", ["ZYX", "ZYXS", "YXCZ"])
    def test_axes_that_cannot_fit_are_refused(self, tmp_path, axes):
        path = tmp_path / "image.ome.tif"
        tifffile.imwrite(path, GREY8[None, None], ome=True, metadata={"axes": "CZYX"})
        if axes == "ZYX":  # of which Z is one of the ones
            assert open_source(path, axes).axes == "YX"
        else:
            assert_refused(lambda: open_source(path, axes), axes, "do not fit", "instance YX")

    def test_axes_of_size_one_may_be_given(self, tmp_path):
        path = tmp_path / "stack.ome.tif"
        data = STACK16[None, :, None]
        tifffile.imwrite(path, data, photometric="minisblack", metadata={"axes": "TZCYX"})
        with tifffile.TiffFile(path) as tif:
            letters = tif.series[0].get_axes(squeeze=False)
        assert_source(open_source(path, letters), STACK16, "ZYX")

    def test_pyramid_gives_its_full_resolution(self, tmp_path):
        path = tmp_path / "slide.ome.tif"
        data = RNG.integers(0, 256, (256, 320), np.uint8)
        with tifffile.TiffWriter(path, bigtiff=True) as tif:
            tif.write(data, subifds=2, tile=(64, 64), compression="zlib")
            tif.write(data[::2, ::2], subfiletype=1, tile=(64, 64))
            tif.write(data[::4, ::4], subfiletype=1, tile=(64, 64))
        source = open_source(path)
        assert source.block == (64, 64)
        assert_source(source, data, "YX")

    def test_volumetric_tiles(self, tmp_path):
        path = tmp_path / "volume.tif"
        data = RNG.integers(0, 256, (20, 40, 50), np.uint8)
        options = {"volumetric": True, "tile": (16, 16, 16), "compression": "zlib"}
        tifffile.imwrite(path, data, photometric="minisblack", **options)
        assert_source(open_source(path, "ZYX"), data, "ZYX")

    def test_jpeg_tiles(self, tmp_path):
        path = tmp_path / "slide.tif"
        ramp = np.add.outer(np.arange(70) * 2, np.arange(101)).astype(np.uint8)
        data = np.stack([ramp, ramp[::-1], 255 - ramp], -1)
        tifffile.imwrite(path, data, photometric="ycbcr", tile=(32, 48), compression="jpeg")
        np.testing.assert_array_equal(whole(open_source(path)), read_image(path).data)

    @pytest.mark.parametrize("stored", [GREY8 % 16, np.stack([GREY8 % 16] * 3)])
    def test_palette(self, tmp_path, stored):
        path = tmp_path / "image.tif"
        table = RNG.integers(0, 2**16, (3, 256), np.uint16)
        tifffile.imwrite(path, stored, photometric="palette", colormap=table)
        image = read_image(path)
        assert image.axes.endswith("S")
        assert_source(open_source(path), image.data, image.axes)

    @pytest.mark.parametrize("data", [GREY8, GREY16, GREY8 > 99])
    def test_min_is_white(self, tmp_path, data):
        path = tmp_path / "image.tif"
        tifffile.imwrite(path, data, photometric="miniswhite")
        assert_source(open_source(path), read_image(path).data, "YX")

    def test_several_files(self, tmp_path):
        paths = [tmp_path / f"{index}.ome.tif" for index in range(2)]
        parts = "".join(
            f'<TiffData FirstZ="{z}" IFD="0" PlaneCount="1"><UUID FileName="{path.name}">'
            f"urn:uuid:{z}</UUID></TiffData>"
            for z, path in enumerate(paths)
        )
        xml = (
            '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:0">'
            '<Image><Pixels DimensionOrder="XYZCT" Type="uint8" SizeX="101" SizeY="70" SizeZ="2" '
            f'SizeC="1" SizeT="1">{parts}</Pixels></Image></OME>'
        )
        tifffile.imwrite(paths[0], GREY8, description=xml, metadata=None)
        tifffile.imwrite(paths[1], GREY8 // 2, metadata=None)
        source = open_source(paths[0])
        assert_source(source, np.stack([GREY8, GREY8 // 2]), "ZYX")
        before = source.fingerprint()
        os.utime(paths[1], (1, 1))
        assert source.fingerprint() != before
        paths[1].unlink()
        source = open_source(paths[0])
        np.testing.assert_array_equal(source.read((0,)), GREY8)
        for read in (lambda: source.read((1,)), source.read_whole):
            assert_refused(read, str(paths[0]), "lie in 1.ome.tif, which is not beside it")
        assert_refused(lambda: source.read((1,)), "plane Z=1")

    def test_damaged_plane_is_named_and_others_are_read(self, tmp_path):
        path = tmp_path / "stack.ome.tif"
        tifffile.imwrite(
            path,
            STACK16,
            photometric="minisblack",
            metadata={"axes": "ZYX"},
            compression="zlib",
            rowsperstrip=16,
        )
        with tifffile.TiffFile(path) as tif:
            start = tif.pages[2].aspage().dataoffsets[3]
        content = bytearray(path.read_bytes())
        content[start : start + 40] = b"\xff" * 40
        path.write_bytes(content)
        source = open_source(path)
        np.testing.assert_array_equal(source.read((1,)), STACK16[1])
        np.testing.assert_array_equal(source.read((2,), slice(0, 48)), STACK16[2, :48])
        assert_refused(lambda: source.read((2,)), "plane Z=2", str(path), "strip 3 is damaged")

    def test_plane_without_pixels_is_named(self, tmp_path):
        path = tmp_path / "stack.ome.tif"
        options = {"metadata": {"axes": "TYX"}, "compression": "zlib"}
        tifffile.imwrite(path, STACK16, photometric="minisblack", **options)
        with tifffile.TiffFile(path, mode="r+") as tif:
            counts = tif.pages[1].aspage().tags["StripByteCounts"]
            counts.overwrite([0] * counts.count)
        source = open_source(path)
        assert_refused(lambda: source.read((1,)), "plane T=1", "pixels of strip 0 are missing")
        np.testing.assert_array_equal(source.read((3,)), STACK16[3])

    @pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"imagej": True}])
    def test_cut_short(self, tmp_path, options):
        path = tmp_path / "stack.tif"
        tifffile.imwrite(path, STACK16, photometric="minisblack", **options)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        assert_refused(lambda: open_source(path).read((3,), slice(0, 5)), str(path))

    def test_cut_short_while_open(self, tmp_path):
        path = tmp_path / "stack.tif"
        tifffile.imwrite(path, STACK16, photometric="minisblack")
        source = open_source(path, "ZYX")
        os.truncate(path, 1000)
        assert_refused(lambda: source.read((1,)), "plane Z=1", str(path), "cut short")

    def test_fallback_to_whole_files(self, tmp_path):
        path = tmp_path / "empty.tif"
        with pytest.warns(UserWarning, match="zero-size"):
            tifffile.imwrite(path, np.zeros((0, 5), np.uint8))
        assert_refused(lambda: open_source(path), str(path), "no pixels")
        path.write_bytes(b"II*\0 and so on")
        assert_refused(lambda: open_source(path), str(path), "damaged")

    def test_only_a_part_is_read(self, tmp_path):
        path = tmp_path / "large.tif"
        shape = (40000, 30000)
        tifffile.imwrite(path, shape=shape, dtype=np.uint16, bigtiff=True)  # sparse on disk
        source = open_source(path)
        assert source.shape == shape
        assert source.read((), slice(39990, None), slice(0, 9)).shape == (10, 9)

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(data=st.data())
    def test_any_piece_of_any_tiling(self, tmp_path, data):
        path = tmp_path / "stack.tif"
        shape = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 70), st.integers(1, 70)))
        tile = data.draw(st.sampled_from([None, (16, 16), (32, 16)]))
        options = {"tile": tile} if tile else {"rowsperstrip": data.draw(st.integers(1, 80))}
        stack = RNG.integers(0, 256, shape, np.uint8)
        tifffile.imwrite(
            path,
            stack,
            photometric="minisblack",
            metadata={"axes": "ZYX"},
            ome=True,
            compression=data.draw(st.sampled_from([None, "zlib"])),
            **options,
        )
        part = st.slices(80).filter(lambda s: s.step in (None, 1))
        rows, columns = data.draw(part), data.draw(part)
        plane = data.draw(st.integers(0, shape[0] - 1))
        source = open_source(path)
        index = (plane,) if source.leading else ()
        rows, columns = (
            slice(*s.indices(n)[:2]) for s, n in zip((rows, columns), shape[1:], strict=True)
        )
        expected = stack[plane][rows, columns]
        np.testing.assert_array_equal(source.read(index, rows, columns), expected)


class TestZarr:
    @pytest.mark.parametrize("version", ["0.2", "0.3", "0.4", "0.5"])
    def test_five_axes(self, tmp_path, version):
        write_ome_zarr(tmp_path / "a.zarr", FIVE, "tczyx", version=version)
        source = open_source(tmp_path / "a.zarr")
        assert source.block == (32, 48)
        assert_source(source, FIVE, "TCZYX")

    def test_scale_position_and_units(self, tmp_path):
        group = write_ome_zarr(tmp_path / "a.zarr", STACK16, "zyx", unit="nanometer")
        ome = dict(group.attrs["ome"])
        image = ome["multiscales"][0]
        image["datasets"][0]["coordinateTransformations"] = [
            {"type": "scale", "scale": [2000, 500, 250]},
            {"type": "translation", "translation": [0, 1000, 3000]},
        ]
        image["coordinateTransformations"] = [
            {"type": "scale", "scale": [1, 2, 2]},
            {"type": "translation", "translation": [100, 0, 0]},
        ]
        group.attrs["ome"] = ome
        source = open_source(tmp_path / "a.zarr")
        assert source.grid.scale == pytest.approx({"Z": 2, "Y": 1, "X": 0.5})
        assert source.grid.translate == pytest.approx({"Z": 0.1, "Y": 2, "X": 6})
        assert source.grid.units == dict.fromkeys("ZYX", UM)
        assert source.pixel_size_um is None

    def test_unknown_unit(self, tmp_path):
        write_ome_zarr(tmp_path / "a.zarr", GREY16, "yx", unit=None, scale=[0.5, 0.5])
        source = open_source(tmp_path / "a.zarr")
        assert source.grid.scale == {"Y": 0.5, "X": 0.5}
        assert source.grid.units == {}
        assert source.pixel_size_um is None

    def test_axes_given(self, tmp_path):
        data = RGB8.transpose(2, 0, 1)
        write_ome_zarr(tmp_path / "a.zarr", data, "cyx", scale=[1, 0.5, 0.5])
        assert_source(open_source(tmp_path / "a.zarr"), data, "CYX")
        source = open_source(tmp_path / "a.zarr", "SYX")
        assert_source(source, RGB8, "YXS")
        assert source.pixel_size_um == 0.5
        assert_refused(lambda: open_source(tmp_path / "a.zarr", "YX"), "'YX'", "a.zarr")

    @pytest.mark.parametrize("form", [2, 3])
    def test_plain_array(self, tmp_path, form):
        path = tmp_path / "a.zarr"
        zarr.create_array(path, data=STACK16, chunks=(2, 32, 32), zarr_format=form)
        assert_source(open_source(path, "ZYX"), STACK16, "ZYX")
        assert_refused(lambda: open_source(path), "say so with axes")

    def test_plain_array_with_names(self, tmp_path):
        path = tmp_path / "a.zarr"
        zarr.create_array(path, data=STACK16, chunks=(2, 32, 32), dimension_names=["t", "x", "y"])
        assert_source(open_source(path), STACK16.swapaxes(1, 2), "TYX")

    def test_shards(self, tmp_path):
        chunks, shards = (1, 16, 16), (1, 64, 64)
        write_ome_zarr(tmp_path / "a.zarr", STACK16, "zyx", chunks=chunks, shards=shards)
        source = open_source(tmp_path / "a.zarr")
        assert_source(source, STACK16, "ZYX")
        (tmp_path / "a.zarr/full/c/2/1/0").unlink()
        source = open_source(tmp_path / "a.zarr", missing="error")
        assert_refused(lambda: source.read((2,)), "chunk full/c/2/1/0", "plane Z=2")
        with pytest.warns(Notice, match="1 of 16 chunks are not stored"):
            open_source(tmp_path / "a.zarr")

    def test_zip_file(self, tmp_path):
        write_ome_zarr(tmp_path / "a.zarr", STACK16, "zyx")
        shutil.make_archive(tmp_path / "a.zarr", "zip", tmp_path / "a.zarr")
        assert_source(open_source(tmp_path / "a.zarr.zip"), STACK16, "ZYX")

    def test_image_of_a_collection(self, tmp_path):
        group = zarr.create_group(tmp_path / "a.zarr", zarr_format=2)
        group.attrs["bioformats2raw.layout"] = 3
        write_ome_zarr(tmp_path / "a.zarr/0", STACK16, "zyx", version="0.4")
        assert_source(open_source(tmp_path / "a.zarr"), STACK16, "ZYX")

    @pytest.mark.parametrize(("key", "word"), [("plate", "fields"), ("well", "fields")])
    def test_plates(self, tmp_path, key, word):
        group = zarr.create_group(tmp_path / "a.zarr")
        group.attrs["ome"] = {key: {}}
        assert_refused(lambda: open_source(tmp_path / "a.zarr"), f"is a {key}", word)

    def test_other_groups(self, tmp_path):
        group = zarr.create_group(tmp_path / "a.zarr")
        group.create_array("pixels", data=GREY8)
        assert_refused(lambda: open_source(tmp_path / "a.zarr"), "no OME-Zarr", "pixels")
        group.attrs["ome"] = {"labels": ["cells"]}
        assert_refused(lambda: open_source(tmp_path / "a.zarr"), "name one of them: cells")
        group.attrs["ome"] = {"multiscales": [{"datasets": [{"path": "none"}]}]}
        assert_refused(lambda: open_source(tmp_path / "a.zarr"), "damaged OME-Zarr metadata")
        (tmp_path / "folder").mkdir()
        assert_refused(lambda: open_source(tmp_path / "folder"), "holds no Zarr")

    def test_missing_chunk(self, tmp_path):
        write_ome_zarr(tmp_path / "a.zarr", STACK16, "zyx")
        (tmp_path / "a.zarr/full/c/1/2/0").unlink()
        source = open_source(tmp_path / "a.zarr", missing="error")
        np.testing.assert_array_equal(source.read((1,), slice(0, 64)), STACK16[1, :64])
        for piece in (source, pickle.loads(pickle.dumps(source))):
            assert_refused(lambda piece=piece: piece.read((1,)), "chunk full/c/1/2/0", "plane Z=1")
        with pytest.warns(Notice, match="1 of 36 chunks are not stored.* count as 0"):
            source = open_source(tmp_path / "a.zarr")
        expected = STACK16[1].copy()
        expected[64:, :48] = 0
        np.testing.assert_array_equal(source.read((1,)), expected)
        assert_refused(lambda: open_source(tmp_path / "a.zarr", missing="maybe"), "error, fill")

    @pytest.mark.parametrize("version", ["0.4", "0.5"])
    def test_damaged_chunk_is_named(self, tmp_path, version):
        write_ome_zarr(tmp_path / "a.zarr", STACK16, "zyx", version=version)
        key = "full/2/1/1" if version == "0.4" else "full/c/2/1/1"
        (tmp_path / "a.zarr" / key).write_bytes(b"nothing of use")
        source = open_source(tmp_path / "a.zarr")
        assert_refused(lambda: source.read((2,)), f"chunk {key} of plane Z=2", "a.zarr")
        np.testing.assert_array_equal(source.read((3,)), STACK16[3])

    def test_fingerprint_sees_each_chunk(self, tmp_path):
        write_ome_zarr(tmp_path / "a.zarr", STACK16, "zyx")
        source = open_source(tmp_path / "a.zarr")
        before = source.fingerprint()
        assert open_source(tmp_path / "a.zarr").fingerprint() == before
        assert open_source(tmp_path / "a.zarr", "TYX").fingerprint() != before
        os.utime(tmp_path / "a.zarr/full/c/3/0/0", (1, 1))
        assert source.fingerprint() != before

    def test_sparse_array_larger_than_memory(self, tmp_path):
        shape = (65536, 65536)
        array = zarr.create_array(tmp_path / "a.zarr", shape=shape, chunks=(512, 512), dtype="u2")
        array[:512, :512] = 7
        source = open_source(tmp_path / "a.zarr", missing="fill")
        assert source.read((), slice(0, 8), slice(508, 516)).sum() == 7 * 32


class TestUrls:
    def test_memory(self):
        write_ome_zarr("memory://test-sources/a.zarr", STACK16, "zyx")
        assert_source(open_source("memory://test-sources/a.zarr"), STACK16, "ZYX")
        files = fsspec.filesystem("memory")
        files.rm("/test-sources/a.zarr/full/c/0/0/1")
        with pytest.warns(Notice, match="1 of 36 chunks are not stored"):
            open_source("memory://test-sources/a.zarr").read((0,))
        source = open_source("memory://test-sources/a.zarr", missing="error")
        assert_refused(
            lambda: source.read((0,)), "chunk full/c/0/0/1", "memory://test-sources/a.zarr"
        )
        assert_refused(lambda: open_source("memory://test-sources/b.zarr"), "holds no Zarr")

    def test_zip(self, tmp_path):
        write_ome_zarr(tmp_path / "a.zarr", STACK16, "zyx")
        shutil.make_archive(tmp_path / "b", "zip", tmp_path, "a.zarr")
        assert_source(open_source(f"zip://a.zarr::{tmp_path}/b.zip"), STACK16, "ZYX")

    def test_http(self, tmp_path):
        pytest.importorskip("aiohttp")
        write_ome_zarr(tmp_path / "a.zarr", STACK16, "zyx", chunks=(1, 70, 101))
        handler = partial(QuietHandler, directory=tmp_path)
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever).start()
            try:
                url = f"http://127.0.0.1:{server.server_port}/a.zarr"
                source = open_source(url, missing="error")
                assert_source(source, STACK16, "ZYX")
                assert source.name == url
                (tmp_path / "a.zarr/full/c/0/0/0").unlink()
                assert_refused(lambda: source.read((0,)), "chunk full/c/0/0/0", url)
                assert_refused(lambda: open_source(f"{url}-none"), "holds no Zarr", url)
            finally:
                server.shutdown()

    def test_no_answer(self):
        pytest.importorskip("aiohttp")
        url = "http://127.0.0.1:9/a.zarr"  # the port of a service that no one runs
        assert_refused(lambda: open_source(url), "cannot reach", url)
        assert_refused(lambda: open_source("nothing://here/a.zarr"), "nothing://here/a.zarr")

    def test_location(self, tmp_path):
        assert location(tmp_path) == tmp_path
        assert location(f"file://{tmp_path.as_posix().lstrip('/')}") == tmp_path
        assert location(tmp_path.__class__("https://host/a.zarr")) == "https://host/a.zarr"
        assert location("file:///a%20b.zarr") == tmp_path.__class__("/a b.zarr")
        assert location("file://localhost/a%25.zarr") == tmp_path.__class__("/a%.zarr")
        assert location(tmp_path / "a%20b.zarr") == tmp_path / "a%20b.zarr"
        assert location("C:/a.zarr") == tmp_path.__class__("C:/a.zarr")


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


class TestWholeFiles:
    @pytest.mark.parametrize("data", [GREY8, RGB8])
    def test_png(self, tmp_path, data):
        path = tmp_path / "image.png"
        Image.fromarray(data).save(path)
        source = open_source(path)
        assert_source(source, data, "YX" if data.ndim == 2 else "YXS")
        assert len(pickle.dumps(source)) < 2000
        before = source.fingerprint()
        os.utime(path, (1, 1))
        assert source.fingerprint() != before

    def test_errors(self, tmp_path):
        assert_refused(lambda: open_source(tmp_path / "none.png"), "does not exist", "none.png")
        Image.fromarray(GREY8).save(tmp_path / "image.png")
        assert_refused(lambda: open_source(tmp_path / "image.png", "ZYX"), "'ZYX'", "image.png")


class TestArrays:
    def test_numpy(self):
        source = array_source(STACK16, "ZXY", scale={"Z": 2}, units={"Z": UM}, name="layer")
        assert_source(source, STACK16.swapaxes(1, 2), "ZYX")
        assert source.grid.scale == {"Z": 2}
        assert source.name == "layer"
        source.read((0,))[...] = 0  # a copy
        np.testing.assert_array_equal(source.read((0,)), STACK16[0].T)
        changed = STACK16.copy()
        changed[2, 3, 4] += 1
        assert array_source(changed, "ZXY").fingerprint() != source.fingerprint()

    def test_guessed_axes(self):
        assert array_source(RGB8).axes == "YXS"
        assert array_source(GREY8.tolist()).axes == "YX"
        assert_refused(lambda: array_source(STACK16), "say so with axes")

    def test_dask_computes_what_is_read(self):
        computed = []

        def chunk(block_id):
            computed.append(block_id)
            return np.full((1, 10, 10), sum(block_id), np.uint8)

        array = dask.array.map_blocks(chunk, chunks=((1,) * 3, (10,) * 4, (10,) * 5), dtype="u1")
        computed.clear()
        source = array_source(array, "ZYX")
        assert source.block == (10, 10)
        assert (
            source.read((2,), slice(5, 15), slice(30, 35)).tolist() == [[5] * 5] * 5 + [[6] * 5] * 5
        )
        assert sorted(computed) == [(2, 0, 3), (2, 1, 3)]
        assert source.fingerprint() == array_source(array, "ZYX").fingerprint()

    def test_zarr(self):
        array = zarr.create_array(zarr.storage.MemoryStore(), data=STACK16, chunks=(1, 20, 30))
        source = array_source(array, "ZYX")
        assert source.block == (20, 30)
        np.testing.assert_array_equal(whole(source), STACK16)

    def test_failing_array_names_the_plane(self):
        def fail(block_id):
            raise OSError("no such chunk")

        array = dask.array.map_blocks(fail, chunks=((1, 1), (5,), (5,)), dtype="u1", meta=GREY8[:0])
        source = array_source(array, "TYX", name="movie")
        assert_refused(lambda: source.read((1,)), "plane T=1 of movie", "no such chunk")

    @pytest.mark.parametrize("data", [GREY8.astype(complex), np.zeros((0, 3)), GREY8.astype("U")])
    def test_refused_pixels(self, data):
        assert_refused(lambda: array_source(data, name="layer"), "layer")

    @pytest.mark.parametrize("plane", [(), (4,), (-1,), (0, 0)])
    def test_no_such_plane(self, plane):
        assert_refused(lambda: array_source(STACK16, "ZYX").read(plane), "count from 0")

    def test_numpy_index(self):
        source = array_source(STACK16, "ZYX")
        np.testing.assert_array_equal(source.read((np.int64(1),)), STACK16[1])


def test_threads_read_at_once(tmp_path):
    path = tmp_path / "stack.tif"
    options = {"compression": "zlib", "rowsperstrip": 8, "metadata": {"axes": "ZYX"}}
    stack = RNG.integers(0, 2**16, (40, 70, 101), np.uint16)
    tifffile.imwrite(path, stack, photometric="minisblack", **options)
    source = open_source(path, "ZYX")
    with ThreadPoolExecutor(8) as pool:
        planes = list(pool.map(source.read, [(z,) for z in range(40)]))
    np.testing.assert_array_equal(planes, stack)


def test_pickles_are_small(tmp_path):
    tifffile.imwrite(tmp_path / "stack.tif", STACK16, photometric="minisblack")
    write_ome_zarr(tmp_path / "a.zarr", STACK16, "zyx")
    for name in ("stack.tif", "a.zarr"):
        source = open_source(tmp_path / name)
        source.read((0,))
        assert len(pickle.dumps(source)) < 2000


def test_import_is_light():
    command = "import napari_defocus.io.open, sys; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, check=True
    )
    heavy = {"torch", "napari", "zarr", "dask", "fsspec", "skimage", "scipy"}
    assert not heavy & set(run.stdout.split())
