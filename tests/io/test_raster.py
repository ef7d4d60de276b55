import errno
import io
import json
import logging
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_defocus.core.errors import DefocusError
from napari_defocus.io.atomic import whole_file, write_json
from napari_defocus.io.folder import find_images
from napari_defocus.io.open import read_image, read_labels
from napari_defocus.io.raster import write_png
from napari_defocus.io.tiff_writer import write_tiff

RNG = np.random.default_rng(0)
GREY8 = RNG.integers(0, 256, (21, 34), np.uint8)
GREY16 = RNG.integers(0, 2**16, (21, 34), np.uint16)
RGB8 = RNG.integers(0, 256, (21, 34, 3), np.uint8)
RGBA8 = RNG.integers(0, 256, (21, 34, 4), np.uint8)
STACK8 = RNG.integers(0, 256, (3, 21, 34), np.uint8)
# JPEG keeps a ramp, not noise.
RAMP8 = np.add.outer(np.arange(40) * 2, np.arange(60) * 2).astype(np.uint8)


def assert_image(path, data, axes, pixel_size_um=None):
    image = read_image(path)
    assert image.axes == axes
    assert image.data.dtype == data.dtype
    np.testing.assert_array_equal(image.data, data)
    assert image.data.dtype.isnative
    assert image.path == path
    if pixel_size_um is None:
        assert image.pixel_size_um is None
    else:
        assert image.pixel_size_um == pytest.approx(pixel_size_um)


def assert_refused(read, path, *words):
    with pytest.raises(DefocusError) as caught:
        read(path)
    message = str(caught.value)
    assert "\n" not in message
    for word in (str(path), *words):
        assert word in message


class TestPngJpegBmp:
    @pytest.mark.parametrize("suffix", [".png", ".bmp"])
    @pytest.mark.parametrize("data", [GREY8, RGB8, GREY8 > 99])
    def test_lossless(self, tmp_path, suffix, data):
        path = tmp_path / f"image{suffix}"
        Image.fromarray(data).save(path)
        assert_image(path, data, "YX" if data.ndim == 2 else "YXS")

    @pytest.mark.parametrize("data", [RGBA8, RGBA8[..., :2]])
    def test_png_alpha(self, tmp_path, data):
        path = tmp_path / "image.png"
        Image.fromarray(np.ascontiguousarray(data)).save(path)
        assert_image(path, data, "YXS")

    @pytest.mark.parametrize("samples", [None, 2, 3, 4])
    def test_png_16_bit(self, tmp_path, samples):
        shape = (21, 34) if samples is None else (21, 34, samples)
        data = RNG.integers(0, 2**16, shape, np.uint16)
        path = tmp_path / "image.png"
        path.write_bytes(imagecodecs.png_encode(data))
        assert_image(path, data, "YX" if samples is None else "YXS")

    def test_png_16_bit_by_pillow(self, tmp_path):
        path = tmp_path / "image.png"
        Image.fromarray(GREY16).save(path)
        assert_image(path, GREY16, "YX")

    @pytest.mark.parametrize("suffix", [".png", ".bmp"])
    def test_palette(self, tmp_path, suffix):
        indexed = Image.fromarray(RGB8).quantize(16)
        path = tmp_path / f"image{suffix}"
        indexed.save(path)
        assert_image(path, np.asarray(indexed.convert("RGB")), "YXS")
        np.testing.assert_array_equal(read_labels(path), np.asarray(indexed))

    def test_palette_with_transparency(self, tmp_path):
        indexed = Image.fromarray(RGB8).quantize(4)
        path = tmp_path / "image.png"
        indexed.save(path, transparency=1)
        data = read_image(path).data
        np.testing.assert_array_equal(data[..., 3] == 0, np.asarray(indexed) == 1)

    @pytest.mark.parametrize("progressive", [False, True])
    @pytest.mark.parametrize("data", [RAMP8, np.stack([RAMP8] * 3, -1)])
    def test_jpeg(self, tmp_path, data, progressive):
        path = tmp_path / "image.jpg"
        Image.fromarray(data).save(path, quality=95, progressive=progressive)
        image = read_image(path)
        assert image.axes == ("YX" if data.ndim == 2 else "YXS")
        np.testing.assert_allclose(image.data.astype(int), data, atol=6)

    def test_cmyk_jpeg_becomes_rgb(self, tmp_path):
        data = np.stack([RAMP8, RAMP8 // 2, 255 - RAMP8], -1)
        path = tmp_path / "image.jpg"
        Image.fromarray(data).convert("CMYK").save(path, quality=98, subsampling=0)
        image = read_image(path)
        assert image.axes == "YXS"
        np.testing.assert_allclose(image.data.astype(int), data, atol=8)

    def test_exif_orientation_keeps_the_grid(self, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6
        path = tmp_path / "image.jpg"
        Image.fromarray(RAMP8).save(path, exif=exif)
        assert read_image(path).data.shape == RAMP8.shape

    def test_print_density_is_no_pixel_size(self, tmp_path):
        path = tmp_path / "image.png"
        Image.fromarray(GREY8).save(path, dpi=(300, 300))
        assert_image(path, GREY8, "YX")

    def test_content_rules_over_suffix(self, tmp_path):
        path = tmp_path / "image.tif"
        Image.fromarray(GREY8).save(path, format="PNG")
        assert_image(path, GREY8, "YX")


class TestTiff:
    @pytest.mark.parametrize("compression", [None, "lzw", "zlib", "deflate", "packbits"])
    @pytest.mark.parametrize("tile", [None, (16, 16)])
    @pytest.mark.parametrize("byteorder", ["<", ">"])
    def test_layouts(self, tmp_path, compression, tile, byteorder):
        path = tmp_path / "image.tif"
        for data in (GREY16, RGB8):
            tifffile.imwrite(path, data, compression=compression, tile=tile, byteorder=byteorder)
            assert_image(path, data, "YX" if data.ndim == 2 else "YXS")

    @pytest.mark.parametrize(
        "dtype", ["?", "u1", "u2", "u4", "i1", "i2", "i4", "i8", "f2", "f4", "f8"]
    )
    def test_number_types(self, tmp_path, dtype):
        data = (GREY16 % 120).astype(dtype)
        path = tmp_path / "image.tif"
        tifffile.imwrite(path, data, photometric="minisblack")
        assert_image(path, data, "YX")

    def test_predictors(self, tmp_path):
        path = tmp_path / "image.tif"
        for data in (GREY8, GREY8 / np.float32(3)):
            tifffile.imwrite(path, data, compression="zlib", predictor=True, rowsperstrip=4)
            assert_image(path, data, "YX")

    @pytest.mark.parametrize("suffix", [".tif", ".TIFF", ".unknown"])
    def test_by_pillow(self, tmp_path, suffix):
        path = tmp_path / f"image{suffix}"
        Image.fromarray(RGB8).save(path, format="TIFF", compression="tiff_lzw")
        assert_image(path, RGB8, "YXS")

    @pytest.mark.parametrize("data", [RAMP8, np.stack([RAMP8] * 3, -1)])
    def test_jpeg_compression(self, tmp_path, data):
        path = tmp_path / "image.tif"
        tifffile.imwrite(path, data, compression="jpeg", compressionargs={"level": 95})
        image = read_image(path)
        assert image.axes == ("YX" if data.ndim == 2 else "YXS")
        np.testing.assert_allclose(image.data.astype(int), data, atol=6)

    def test_bigtiff(self, tmp_path):
        path = tmp_path / "image.tif"
        tifffile.imwrite(path, GREY16, bigtiff=True, compression="lzw")
        assert_image(path, GREY16, "YX")

    @pytest.mark.parametrize("compression", [None, "zlib"])
    def test_planar_rgb_to_last_axis(self, tmp_path, compression):
        path = tmp_path / "image.tif"
        planes = np.moveaxis(RGB8, -1, 0)
        tifffile.imwrite(
            path, planes, photometric="rgb", planarconfig="separate", compression=compression
        )
        assert_image(path, RGB8, "YXS")

    def test_grey_samples_are_channels(self, tmp_path):
        path = tmp_path / "image.tif"
        tifffile.imwrite(path, STACK8, photometric="minisblack", planarconfig="separate")
        assert_image(path, STACK8, "CYX")

    def test_grey_and_alpha(self, tmp_path):
        path = tmp_path / "image.tif"
        Image.fromarray(np.ascontiguousarray(RGBA8[..., :2])).save(path)
        assert_image(path, RGBA8[..., :2], "YXS")

    @pytest.mark.parametrize("compression", [None, "lzw"])
    def test_pages(self, tmp_path, compression):
        path = tmp_path / "image.tif"
        tifffile.imwrite(path, STACK8, photometric="minisblack", compression=compression)
        assert_image(path, STACK8, "QYX")
        first, *others = (Image.fromarray(plane) for plane in STACK8)
        first.save(path, save_all=True, append_images=others)
        assert_image(path, STACK8, "IYX")

    def test_first_series(self, tmp_path):
        path = tmp_path / "image.tif"
        with tifffile.TiffWriter(path) as tif:
            tif.write(GREY8)
            tif.write(RGB8[:9])
        assert_image(path, GREY8, "YX")

    def test_full_resolution_of_a_pyramid(self, tmp_path):
        path = tmp_path / "image.tif"
        data = RNG.integers(0, 256, (128, 128), np.uint8)
        with tifffile.TiffWriter(path) as tif:
            tif.write(data, subifds=1, tile=(64, 64), compression="zlib")
            tif.write(data[::2, ::2], subfiletype=1, tile=(64, 64), compression="zlib")
        assert_image(path, data, "YX")

    def test_min_is_white(self, tmp_path):
        path = tmp_path / "image.tif"
        for data in (GREY8, GREY16, GREY8 > 99):
            tifffile.imwrite(path, data, photometric="miniswhite")
            assert_image(path, ~data, "YX")
            np.testing.assert_array_equal(read_labels(path), data)
        tifffile.imwrite(path, GREY16 % 4096, photometric="miniswhite", bitspersample=12)
        assert_image(path, 4095 - GREY16 % 4096, "YX")

    def test_palette(self, tmp_path):
        path = tmp_path / "image.tif"
        indexed = Image.fromarray(RGB8).quantize(16)
        indexed.save(path)
        assert_image(path, np.asarray(indexed.convert("RGB")), "YXS")
        np.testing.assert_array_equal(read_labels(path), np.asarray(indexed))

    def test_look_up_table_of_imagej_is_not_applied(self, tmp_path):
        path = tmp_path / "image.tif"
        table = RNG.integers(0, 2**16, (3, 256), np.uint16)
        tifffile.imwrite(path, GREY8, imagej=True, colormap=table)
        with tifffile.TiffFile(path) as tif:
            assert tif.pages.first.photometric == tifffile.PHOTOMETRIC.PALETTE
        assert_image(path, GREY8, "YX")

    @pytest.mark.parametrize("unit", ["um", "micron", "\\u00B5m"])
    def test_imagej_stack(self, tmp_path, unit):
        path = tmp_path / "image.tif"
        data = np.stack([STACK8, STACK8 // 2], 1)
        metadata = {"axes": "ZCYX", "unit": unit}
        tifffile.imwrite(path, data, imagej=True, resolution=(4, 4), metadata=metadata)
        assert_image(path, data, "ZCYX", 0.25)

    def test_ome_stack(self, tmp_path):
        path = tmp_path / "image.ome.tif"
        metadata = {"axes": "ZYX", "PhysicalSizeX": 250, "PhysicalSizeXUnit": "nm"}
        metadata |= {"PhysicalSizeY": 0.25, "PhysicalSizeYUnit": "µm"}
        tifffile.imwrite(path, STACK8, photometric="minisblack", metadata=metadata)
        assert_image(path, STACK8, "ZYX", 0.25)

    @pytest.mark.parametrize(
        ("resolution", "unit", "pixel_size_um"),
        [
            ((1e4 / 0.5, 1e4 / 0.5), "CENTIMETER", 0.5),
            ((1e4 / 0.5, 1e4 / 0.6), "CENTIMETER", None),  # not square
            ((118.11, 118.11), "CENTIMETER", None),  # 300 dots per inch
            ((50800, 50800), "INCH", None),
            ((0, 0), "CENTIMETER", None),
        ],
    )
    def test_resolution_tags(self, tmp_path, resolution, unit, pixel_size_um):
        path = tmp_path / "image.tif"
        tifffile.imwrite(path, GREY8, resolution=resolution, resolutionunit=unit)
        assert_image(path, GREY8, "YX", pixel_size_um)

    def test_cmyk_and_complex_are_refused(self, tmp_path):
        path = tmp_path / "image.tif"
        tifffile.imwrite(path, RGBA8, photometric="separated")
        assert_refused(read_image, path, "SEPARATED", "RGB")
        tifffile.imwrite(path, GREY8.astype(np.complex64))
        assert_refused(read_image, path, "complex64")


class TestLabels:
    @pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
    def test_values_as_stored(self, tmp_path, suffix):
        path = tmp_path / f"labels{suffix}"
        labels = GREY8 % 3
        Image.fromarray(labels).save(path)
        np.testing.assert_array_equal(read_labels(path), labels)

    def test_16_bit(self, tmp_path):
        path = tmp_path / "labels.png"
        Image.fromarray(GREY16).save(path)
        np.testing.assert_array_equal(read_labels(path), GREY16)

    @pytest.mark.parametrize("depth", [2, 4])
    def test_png_of_few_bits_is_not_scaled(self, tmp_path, depth):
        labels = GREY8 % 2**depth
        bits = np.unpackbits(labels[..., None], axis=-1)[..., -depth:].reshape(len(labels), -1)
        rows = np.pad(np.packbits(bits, axis=1), ((0, 0), (1, 0))).tobytes()
        height, width = labels.shape
        chunks = [
            (b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)),
            (b"IDAT", imagecodecs.zlib_encode(rows)),
            (b"IEND", b""),
        ]
        path = tmp_path / "labels.png"
        with path.open("wb") as file:
            file.write(b"\x89PNG\r\n\x1a\n")
            for name, value in chunks:
                check = imagecodecs.zlib_crc32(name + value)
                file.write(struct.pack(">I", len(value)) + name + value + struct.pack(">I", check))
        np.testing.assert_array_equal(read_labels(path), labels)

    @pytest.mark.parametrize("suffix", [".png", ".tif"])
    def test_bool(self, tmp_path, suffix):
        path = tmp_path / f"labels{suffix}"
        Image.fromarray(GREY8 > 99).save(path)
        labels = read_labels(path)
        assert labels.dtype == np.uint8
        np.testing.assert_array_equal(labels, GREY8 > 99)

    def test_whole_floats(self, tmp_path):
        path = tmp_path / "labels.tif"
        tifffile.imwrite(path, (GREY8 % 3).astype(np.float32))
        labels = read_labels(path)
        assert labels.dtype == np.int32
        np.testing.assert_array_equal(labels, GREY8 % 3)

    @pytest.mark.parametrize("value", [0.5, np.nan, np.inf, 1e30])
    def test_other_floats_are_refused(self, tmp_path, value):
        path = tmp_path / "labels.tif"
        tifffile.imwrite(path, np.array([[1, value]], np.float32))
        assert_refused(read_labels, path, "whole numbers")

    def test_colours_and_stacks_are_refused(self, tmp_path):
        path = tmp_path / "labels.png"
        Image.fromarray(RGB8).save(path)
        assert_refused(read_labels, path, "colour")
        path = tmp_path / "labels.tif"
        tifffile.imwrite(path, STACK8, photometric="minisblack")
        assert_refused(read_labels, path, "stack")


def encoded_png():
    file = io.BytesIO()
    Image.fromarray(RGB8).save(file, format="PNG")
    return file.getvalue()


def encoded_jpeg():
    file = io.BytesIO()
    Image.fromarray(RGB8).save(file, format="JPEG")
    return file.getvalue()


def encoded_tiff(data, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, data, photometric="minisblack", **options)
    return file.getvalue()


SMALL_FILES = {
    "png": encoded_png(),
    "png16": imagecodecs.png_encode(RGB8.astype(np.uint16) * 257),
    "jpeg": encoded_jpeg(),
    "tiff": encoded_tiff(GREY8),
    "tiff-deflate": encoded_tiff(GREY8, compression="zlib", rowsperstrip=5),
    "tiff-tiled": encoded_tiff(GREY8, compression="lzw", tile=(16, 16)),
    "tiff-stack": encoded_tiff(STACK8, compression="zlib"),
    "tiff-plain-stack": encoded_tiff(STACK8, metadata=None),
    "tiff-imagej": encoded_tiff(STACK8, imagej=True, metadata={"axes": "ZYX"}),
    "tiff-ome": encoded_tiff(STACK8, ome=True, metadata={"axes": "ZYX"}),
}
FUZZ = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.mark.parametrize("content", SMALL_FILES.values(), ids=SMALL_FILES.keys())
class TestBrokenFiles:
    @FUZZ
    @given(share=st.floats(0, 1, exclude_max=True))
    def test_truncated_is_refused_unless_whole(self, tmp_path, content, share):
        path = tmp_path / "image"
        path.write_bytes(content)
        whole = read_image(path).data
        path.write_bytes(content[: int(share * len(content))])
        try:
            data = read_image(path).data
        except DefocusError:
            return
        np.testing.assert_array_equal(data, whole)  # only what follows the pixels was cut off

    @FUZZ
    @given(data=st.data())
    def test_changed_bytes(self, tmp_path, content, data):
        position = st.integers(0, len(content) - 1) | st.integers(0, 400)
        value = st.integers(0, 255) | st.sampled_from([0, 255])
        broken = bytearray(content)
        for at, byte in data.draw(st.lists(st.tuples(position, value), min_size=1, max_size=6)):
            broken[at] = byte
        path = tmp_path / "image"
        path.write_bytes(broken)
        for read in (read_image, read_labels):
            with suppress(DefocusError):
                read(path)


class TestErrors:
    @pytest.mark.parametrize("read", [read_image, read_labels])
    def test_no_file(self, tmp_path, read):
        assert_refused(read, tmp_path / "none.png", "does not exist")
        assert_refused(read, tmp_path, "is a folder")
        file = tmp_path / "file"
        file.touch()
        assert_refused(read, file, "is empty")
        assert_refused(read, file / "image.png", "cannot read")

    def test_unsupported_format(self, tmp_path):
        path = tmp_path / "image.png"
        path.write_bytes(b"GIF89a and so on")
        assert_refused(read_image, path, "is not a PNG, JPEG, BMP or TIFF")

    @pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"II*\0"])
    def test_only_the_first_bytes(self, tmp_path, content):
        path = tmp_path / "image.png"
        path.write_bytes(content)
        assert_refused(read_image, path, "damaged")

    @pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
    def test_half_a_file(self, tmp_path, suffix):
        path = tmp_path / f"image{suffix}"
        Image.fromarray(RGB8).save(path)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        assert_refused(read_image, path, "cut short", "copy it again")

    def test_half_a_progressive_jpeg(self, tmp_path):
        path = tmp_path / "image.jpg"
        Image.fromarray(RGB8).save(path, progressive=True)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) * 9 // 10])
        assert_refused(read_image, path, "truncated")

    def test_unwritten_strips(self, tmp_path):
        path = tmp_path / "image.tif"
        tifffile.imwrite(path, GREY8, compression="zlib", rowsperstrip=5)
        with tifffile.TiffFile(path, mode="r+") as tif:
            counts = tif.pages.first.tags["StripByteCounts"]
            counts.overwrite((*counts.value[:-1], 0))
        assert tifffile.imread(path)[-1].max() == 0  # what makes the check necessary
        assert_refused(read_image, path, "pixels are missing")

    def test_pages_in_a_circle(self, tmp_path):
        path = tmp_path / "image.tif"
        tifffile.imwrite(path, STACK8, photometric="minisblack", metadata=None)
        with tifffile.TiffFile(path) as tif:
            first, *_, last = (page.offset for page in tif.pages)
            tags = len(tif.pages[-1].aspage().tags)
        content = bytearray(path.read_bytes())
        struct.pack_into("<I", content, last + 2 + 12 * tags, first)
        path.write_bytes(content)
        assert_refused(read_image, path, "circle")

    def test_missing_pages(self, tmp_path):
        path = tmp_path / "image.tif"
        tifffile.imwrite(path, STACK8, photometric="minisblack", metadata=None)
        with tifffile.TiffFile(path) as tif:
            last = tif.pages[-1].offset
        path.write_bytes(path.read_bytes()[:last])
        assert_refused(read_image, path, "pages are missing")

    def test_planes_in_a_missing_file(self, tmp_path):
        paths = [tmp_path / f"{index}.ome.tif" for index in range(2)]
        for path in paths:
            tifffile.imwrite(path, GREY8, metadata=None)
        data = "".join(
            f'<TiffData FirstZ="{z}" IFD="0" PlaneCount="1"><UUID FileName="{path.name}">'
            f"urn:uuid:{z}</UUID></TiffData>"
            for z, path in enumerate(paths)
        )
        xml = (
            '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:0">'
            '<Image><Pixels DimensionOrder="XYZCT" Type="uint8" SizeX="34" SizeY="21" SizeZ="2" '
            f'SizeC="1" SizeT="1">{data}</Pixels></Image></OME>'
        )
        tifffile.imwrite(paths[0], GREY8, description=xml, metadata=None)
        assert_image(paths[0], np.stack([GREY8, GREY8]), "ZYX")
        paths[1].unlink()
        assert_refused(read_image, paths[0], "missing")

    def test_no_pixels(self, tmp_path):
        path = tmp_path / "image.tif"
        with pytest.warns(UserWarning, match="zero-size"):
            tifffile.imwrite(path, np.zeros((0, 5), np.uint8))
        assert_refused(read_image, path)

    def test_size_limits(self, tmp_path, monkeypatch):
        path = tmp_path / "image.png"
        Image.fromarray(GREY8).save(path)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
        assert_image(path, GREY8, "YX")  # the limit of Pillow does not bind
        monkeypatch.setattr("napari_defocus.io.raster.MAX_PIXELS", 100)
        assert_refused(read_image, path, "34 x 21")

    def test_no_memory(self, tmp_path, monkeypatch):
        def fail(*args, **kwargs):
            raise MemoryError

        monkeypatch.setattr(tifffile.TiffPageSeries, "asarray", fail)
        path = tmp_path / "image.tif"
        tifffile.imwrite(path, GREY8)
        assert_refused(read_image, path, "memory")

    def test_tifffile_stays_quiet(self, tmp_path, caplog):
        path = tmp_path / "image.tif"
        path.write_bytes(SMALL_FILES["tiff-ome"][:2000])
        with tifffile.TiffFile(path) as tif:
            tif.asarray()
        assert caplog.records  # it warns where nobody asks it not to
        caplog.clear()
        assert_refused(read_image, path)
        assert not caplog.records
        assert not logging.getLogger("tifffile").filters


class TestFindImages:
    def test_files_and_folders(self, tmp_path):
        names = ["b.png", "a.TIF", "c.blur.tif", "c.mask.tif", ".d.png", "notes.txt", "e.JPG"]
        for name in names:
            (tmp_path / name).touch()
        for what in ("confidence", "radius_error_um", "altitude", "provenance"):
            (tmp_path / f"c.{what}.tif").touch()
        (tmp_path / "c.overview.png").touch()
        (tmp_path / "folder.png").mkdir()
        (tmp_path / "folder.png" / "deeper.png").touch()
        given_files = [tmp_path / "notes.txt", tmp_path / "c.mask.tif", tmp_path / "b.png"]
        found = find_images([*given_files, tmp_path])
        assert found == [*given_files, tmp_path / "a.TIF", tmp_path / "e.JPG"]

    def test_errors(self, tmp_path):
        with pytest.raises(DefocusError, match=r"none\.png does not exist"):
            find_images([tmp_path / "none.png"])
        with pytest.raises(DefocusError, match="holds no"):
            find_images([tmp_path])


class TestWriteTiff:
    @pytest.mark.parametrize("data", [GREY8, GREY16, (GREY8 / 255).astype(np.float32)])
    def test_plane_for_imagej(self, tmp_path, data):
        path = tmp_path / "deep" / "image.blur.tif"
        write_tiff(path, data, axes="YX", pixel_size_um=0.325)
        assert_image(path, data, "YX", 0.325)
        with tifffile.TiffFile(path) as tif:
            assert tif.is_imagej
            assert tif.imagej_metadata["unit"] == "um"
            assert tif.pages.first.compression == tifffile.COMPRESSION.ADOBE_DEFLATE

    def test_stack_for_imagej_is_in_one_piece(self, tmp_path):
        path = tmp_path / "stack.tif"
        data = (np.stack([STACK8, STACK8 // 2]) / 255).astype(np.float32)
        write_tiff(path, data, axes="ZCYX", pixel_size_um=2)
        assert_image(path, data, "ZCYX", 2)
        with tifffile.TiffFile(path) as tif:
            assert tif.is_imagej
            assert tif.series[0].dataoffset is not None

    def test_an_order_that_imagej_does_not_know_is_kept_by_ome(self, tmp_path):
        data = (np.stack([STACK8, STACK8 // 2]) / 255).astype(np.float32)
        for name in ("a.tif", "b.tif"):
            write_tiff(tmp_path / name, data, axes="CZYX", pixel_size_um=2)
            assert_image(tmp_path / name, data, "CZYX", 2)
            with tifffile.TiffFile(tmp_path / name) as tif:
                assert tif.is_ome
        assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()

    def test_colours(self, tmp_path):
        path = tmp_path / "image.tif"
        for data in (RGB8, RGBA8, RGB8.astype(np.uint16), RGB8.astype(np.float32)):
            write_tiff(path, data, axes="YXS", pixel_size_um=0.5)
            assert_image(path, data, "YXS", 0.5)

    @pytest.mark.parametrize("dtype", ["f8", "i4", "?"])
    def test_what_imagej_does_not_know(self, tmp_path, dtype):
        path = tmp_path / "stack.tif"
        data = (STACK8 % 2).astype(dtype)
        write_tiff(path, data, axes="QYX", pixel_size_um=0.5)
        assert_image(path, data, "QYX", 0.5)
        with tifffile.TiffFile(path) as tif:
            assert tif.pages.first.compression == tifffile.COMPRESSION.ADOBE_DEFLATE

    def test_narrow_stack_is_not_a_colour(self, tmp_path):
        path = tmp_path / "stack.tif"
        data = STACK8[:, :, :3]
        write_tiff(path, data, axes="ZYX")
        assert_image(path, data, "ZYX")

    def test_overwrite(self, tmp_path):
        path = tmp_path / "image.tif"
        write_tiff(path, GREY8, axes="YX")
        with pytest.raises(DefocusError, match="exists already"):
            write_tiff(path, GREY8 // 2, axes="YX", overwrite=False)
        assert_image(path, GREY8, "YX")
        write_tiff(path, GREY8 // 2, axes="YX")
        assert_image(path, GREY8 // 2, "YX")


@pytest.mark.parametrize("data", [GREY8, RGB8, RGBA8, RGB8[:, ::2]])
def test_write_png(tmp_path, data):
    path = tmp_path / "image.png"
    write_png(path, data)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), data)
    with pytest.raises(DefocusError, match="exists already"):
        write_png(path, data, overwrite=False)


def test_write_json(tmp_path):
    path = tmp_path / "value.json"
    value = {"a": np.float32(0.5), "b": [np.nan, np.arange(2)], "µ": Path("x"), "c": (True, None)}
    write_json(path, value)
    text = path.read_text(encoding="utf-8")
    assert json.loads(text) == {"a": 0.5, "b": [None, [0, 1]], "µ": "x", "c": [True, None]}
    assert "µ" in text
    with pytest.raises(DefocusError, match="exists already"):
        write_json(path, 1, overwrite=False)
    with pytest.raises(TypeError):
        write_json(path, object())
    assert path.read_text(encoding="utf-8") == text


class TestWholeFile:
    def test_all_or_nothing(self, tmp_path):
        path = tmp_path / "file.txt"
        path.write_text("earlier")

        def write_half():
            with whole_file(path) as temporary:
                temporary.write_text("half")
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            write_half()
        assert path.read_text() == "earlier"
        assert list(tmp_path.iterdir()) == [path]
        with whole_file(path) as temporary:
            assert temporary.parent == path.parent
            assert temporary.suffix == path.suffix
            temporary.write_text("whole")
        assert path.read_text() == "whole"
        assert list(tmp_path.iterdir()) == [path]

    def test_refuses_to_overwrite(self, tmp_path):
        path = tmp_path / "file.txt"
        path.write_text("earlier")
        with pytest.raises(DefocusError, match="exists already"), whole_file(path, overwrite=False):
            pytest.fail("the block must not run")
        assert list(tmp_path.iterdir()) == [path]

    def test_where_nothing_can_be_written(self, tmp_path):
        file = tmp_path / "file"
        file.touch()
        folder = tmp_path / "folder"
        (folder / "inside").mkdir(parents=True)
        for path in (file / "image.png", folder, tmp_path / ("x" * 300 + ".png")):
            with pytest.raises(DefocusError, match="cannot write"):
                write_png(path, GREY8)
        assert sorted(tmp_path.iterdir()) == [file, folder]

    def test_full_disc(self, tmp_path):
        def write_half():
            with whole_file(tmp_path / "file.txt") as temporary:
                temporary.write_text("half")
                raise OSError(errno.ENOSPC, "No space left on device")

        with pytest.raises(DefocusError, match="No space left"):
            write_half()
        assert list(tmp_path.iterdir()) == []


def test_import_is_light():
    command = "import napari_defocus.io.raster, sys; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, check=True
    )
    assert not {"torch", "napari", "qtpy", "skimage", "scipy"} & set(run.stdout.split())
