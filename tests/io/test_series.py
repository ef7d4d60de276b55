"""Files of several images, and samples that are no colours: what is taken, and what is told."""

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from napari_defocus import DetectionConfig, detect
from napari_defocus.core.errors import DefocusError, Notice
from napari_defocus.io.open import count_images, open_source, read_image

from .test_sources import write_ome_zarr

RNG = np.random.default_rng(3)
GREY = RNG.integers(1, 256, (64, 80), np.uint8)
ZLIB = {"compression": "zlib"}


@pytest.fixture
def positions(tmp_path):
    path = tmp_path / "positions.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tif:
        for place in range(3):
            metadata = {"axes": "YX", "Name": f"at {place}", "PhysicalSizeX": 0.1 + place}
            metadata["PhysicalSizeY"] = metadata["PhysicalSizeX"]
            tif.write(GREY + place, metadata=metadata, **ZLIB)
    return path


def assert_series(path, images):
    """Check that each image is read by its number, and that others are refused."""
    assert count_images(path) == len(images)
    for number, data in enumerate(images):
        np.testing.assert_array_equal(read_image(path, series=number).data, data)
        source = open_source(path, series=number)
        np.testing.assert_array_equal(source.read((), slice(3, 9)), data[3:9])
    for number in (-1, len(images)):
        with pytest.raises(DefocusError, match=f"there is no series {number}"):
            open_source(path, series=number)


class TestSeriesOfTiff:
    def test_positions(self, positions):
        with pytest.warns(Notice, match="3 images .*2: at 2, 64 x 80.*the first is taken"):
            np.testing.assert_array_equal(read_image(positions).data, GREY)
        assert_series(positions, [GREY, GREY + 1, GREY + 2])

    def test_each_has_its_own_pixel_size_and_fingerprint(self, positions):
        sources = [open_source(positions, series=number) for number in range(3)]
        assert [source.pixel_size_um for source in sources] == pytest.approx([0.1, 1.1, 2.1])
        assert len({source.fingerprint() for source in sources}) == 3

    def test_never_the_thumbnail(self, tmp_path):
        path = tmp_path / "image.tif"
        tifffile.imwrite(path, GREY[::8, ::8])
        tifffile.imwrite(path, GREY, append=True, **ZLIB)
        with pytest.warns(Notice, match="number 1, the largest, is taken"):
            np.testing.assert_array_equal(read_image(path).data, GREY)
        assert_series(path, [GREY[::8, ::8], GREY])

    def test_a_stack_is_larger_than_its_overview(self, tmp_path):
        path = tmp_path / "image.ome.tif"
        stack = np.stack([GREY] * 5)
        with tifffile.TiffWriter(path, ome=True) as tif:
            tif.write(np.tile(GREY, (2, 2)), metadata={"axes": "YX"})
            tif.write(stack, metadata={"axes": "ZYX"}, photometric="minisblack")
        with pytest.warns(Notice, match="number 1, the largest"):
            source = open_source(path)
        assert (source.axes, source.shape) == ("ZYX", stack.shape)

    def test_one_image_is_not_worth_a_word(self, tmp_path, recwarn):
        path = tmp_path / "image.tif"
        tifffile.imwrite(path, GREY)
        assert_series(path, [GREY])
        assert not [each for each in recwarn.list if each.category is Notice]


class TestSeriesOfZarr:
    def test_collection(self, tmp_path):
        group = zarr.create_group(tmp_path / "a.zarr", zarr_format=2)
        group.attrs["bioformats2raw.layout"] = 3
        images = [GREY[::4, ::4], GREY, GREY[::2]]
        for number, data in enumerate(images):
            write_ome_zarr(tmp_path / f"a.zarr/{number}", data, "yx", version="0.4")
        with pytest.warns(Notice, match="3 images .*number 1, the largest"):
            np.testing.assert_array_equal(read_image(tmp_path / "a.zarr").data, GREY)
        assert_series(tmp_path / "a.zarr", images)

    def test_several_multiscales_of_a_group(self, tmp_path):
        group = write_ome_zarr(tmp_path / "a.zarr", GREY, "yx")
        group.create_array("other", data=GREY + 1)
        ome = group.attrs["ome"]
        other = {**ome["multiscales"][0], "name": "b", "datasets": [{"path": "other"}]}
        group.attrs["ome"] = {**ome, "multiscales": [*ome["multiscales"], other]}
        with pytest.warns(Notice, match=r"2 images \(0: 64 x 80; 1: b, 64 x 80\); the first"):
            np.testing.assert_array_equal(read_image(tmp_path / "a.zarr").data, GREY)
        assert_series(tmp_path / "a.zarr", [GREY, GREY + 1])


def test_pictures_of_an_animation(tmp_path):
    frames = [Image.fromarray(GREY), Image.fromarray(GREY[::-1].copy())]
    for name in ("a.png", "a.webp"):
        options = {"lossless": True} if name == "a.webp" else {}
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
        with pytest.warns(Notice, match="2 pictures; the first"):
            data = read_image(tmp_path / name).data
        np.testing.assert_array_equal(data if data.ndim == 2 else data[..., 0], GREY)


def test_webp(tmp_path):
    colours = RNG.integers(0, 256, (40, 50, 3), np.uint8)
    Image.fromarray(colours).save(tmp_path / "a.webp", lossless=True)
    image = read_image(tmp_path / "a.webp")
    assert image.axes == "YXS"
    np.testing.assert_array_equal(image.data, colours)


class TestExtraSamples:
    """Only ExtraSamples 1 and 2 are alpha."""

    SECOND = np.where(np.arange(80) < 20, GREY, 0).astype(np.uint8)

    @pytest.mark.parametrize("planar", ["contig", "separate"])
    @pytest.mark.parametrize(
        ("kind", "colours", "alpha", "axes"),
        [
            ("minisblack", 1, "unspecified", "CYX"),
            ("minisblack", 1, "unassalpha", "YXS"),
            ("minisblack", 1, "assocalpha", "YXS"),
            ("rgb", 3, "unspecified", "CYX"),
            ("rgb", 3, "unassalpha", "YXS"),
            ("rgb", 3, "assocalpha", "YXS"),
        ],
    )
    def test_what_is_alpha(self, tmp_path, planar, kind, colours, alpha, axes):
        path = tmp_path / "image.tif"
        data = np.stack([GREY] * colours + [self.SECOND], 0 if planar == "separate" else -1)
        options = {"photometric": kind, "planarconfig": planar, "extrasamples": [alpha]}
        tifffile.imwrite(path, data, **options, **ZLIB)
        if axes == "CYX" and kind == "rgb":
            with pytest.warns(Notice, match="sample 4 of 4 alone is alpha: all 4 are taken"):
                source = open_source(path)
        else:
            source = open_source(path)
        assert source.axes == axes
        expected = data if planar == "separate" else data.transpose(2, 0, 1)
        expected = expected if axes == "CYX" else expected.transpose(1, 2, 0)
        np.testing.assert_array_equal(source.read_whole(), expected)

    def test_colours_as_stated_hide_nothing(self, tmp_path):
        path = tmp_path / "image.tif"
        data = np.dstack([GREY] * 3 + [self.SECOND])
        tifffile.imwrite(path, data, photometric="rgb", extrasamples=["unspecified"])
        with pytest.warns(Notice, match="sample 4 of 4 alone is alpha: it is left out"):
            source = open_source(path, "YXS")
        np.testing.assert_array_equal(source.read_whole(), data[..., :3])
        np.testing.assert_array_equal(source.read((), slice(5, 9)), data[5:9, :, :3])

    def test_a_second_channel_as_stated_hides_nothing(self, tmp_path):
        path = tmp_path / "image.tif"
        tifffile.imwrite(path, np.dstack([GREY, self.SECOND]), planarconfig="contig")
        with pytest.warns(Notice, match="sample 2 of 2 alone is alpha: it is left out"):
            source = open_source(path, "YXS")
        np.testing.assert_array_equal(source.read_whole(), GREY[..., np.newaxis])

    def test_arrays_of_two(self):
        two = np.dstack([GREY, self.SECOND])
        with pytest.raises(DefocusError, match=r"two channels, or be grey with alpha.*YXC or YXS"):
            detect(two, config=DetectionConfig(detector="metric"))
        found = detect(two, config=DetectionConfig(detector="metric"), axes="YXC")
        assert found.mask.shape == (2, 64, 80)

    def test_transparent_all_over(self):
        clear = np.dstack([GREY] * 3 + [0 * GREY])
        for detector in ("metric", "dense"):
            with pytest.raises(DefocusError, match="every pixel of the image is transparent"):
                detect(clear, config=DetectionConfig(detector=detector))
        with pytest.raises(DefocusError, match="no finite pixel"):
            detect(np.full((64, 80), np.nan), config=DetectionConfig(detector="metric"))


def test_pixel_size_of_a_slide(tmp_path):
    path = tmp_path / "slide.svs"
    text = "Aperio Image Library v12 \r\n64x80 [0,0 64x80]|AppMag = 20|MPP = 0.4990"
    colours = np.dstack([np.tile(GREY, (4, 4))] * 3)
    with tifffile.TiffWriter(path) as tif:
        options = {"photometric": "rgb", "metadata": None, "compression": "jpeg"}
        tif.write(colours, tile=(64, 64), description=text, **options)
        tif.write(colours[::8, ::8], description=text, **options)
    with pytest.warns(Notice, match="2 images"):
        assert open_source(path).pixel_size_um == 0.499
    # Of the reduced image it is not known.
    assert open_source(path, series=1).pixel_size_um is None


def test_cmyk_is_not_called_damaged(tmp_path):
    path = tmp_path / "print.tif"
    data = np.dstack([GREY] * 4)
    tifffile.imwrite(path, data, photometric="separated")
    with pytest.raises(DefocusError, match=r"holds CMYK .* pixels.*convert it to RGB") as caught:
        read_image(path)
    assert "damaged" not in str(caught.value)
