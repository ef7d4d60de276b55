"""Folders: which images count, which are left out, and of how many stacks their names tell."""

import numpy as np
import pytest
from PIL import Image

from napari_defocus.core.errors import DefocusError, Notice
from napari_defocus.io.folder import find_images, open_stack_source
from napari_defocus.io.names import arrange

from .test_sources import write_ome_zarr

PLANE = np.arange(20 * 30, dtype=np.uint8).reshape(20, 30)


def fill(folder, names):
    """Write images of which the first pixel is the number of the name."""
    folder.mkdir(exist_ok=True)
    for number, name in enumerate(names):
        plane = PLANE.copy()
        plane[0, 0] = number
        Image.fromarray(plane).save(folder / name)
    return folder


def numbers(source):
    """Return, for each plane, the number of the name."""
    return source.read_whole()[..., 0, 0].tolist()


class TestWhatIsLeftOut:
    RESULTS = ("planes.fused.tif", "planes.planes.png", "0.blur.tif", "0.overview.png")

    def test_own_results_are_no_planes(self, tmp_path):
        folder = fill(tmp_path / "planes", [f"{z}.png" for z in range(6)])
        fill(folder, self.RESULTS)
        with pytest.warns(Notice, match="4 results of earlier runs"):
            source = open_stack_source(folder)
        assert numbers(source) == [*range(6)]

    def test_of_an_other_stack_too(self, tmp_path):
        folder = fill(tmp_path / "planes", ["b.png", "a.png"])
        fill(folder, ["other.fused.tif", "other.radius_px.tif"])
        (folder / "a.confidence.ome.zarr").mkdir()
        with pytest.warns(Notice, match="3 results"):
            assert open_stack_source(folder).shape == (2, 20, 30)

    def test_an_all_in_focus_image_is_an_image(self, tmp_path):
        folder = fill(tmp_path / "images", ["a.png", *self.RESULTS])
        found = find_images([folder])
        assert [path.name for path in found] == ["a.png", "planes.fused.tif"]

    def test_zarrs_count_and_others_are_named(self, tmp_path):
        folder = fill(tmp_path / "mixed", ["a.png", "b.webp"])
        write_ome_zarr(folder / "c.ome.zarr", PLANE, "yx")
        write_ome_zarr(folder / "a.blur.ome.zarr", PLANE, "yx")
        for name in ("d.heic", "notes.txt", ".hidden"):
            (folder / name).write_bytes(b"x")
        (folder / "deep").mkdir()
        with pytest.warns(Notice, match=r"left out are 2 of other kinds \(d.heic, deep\)"):
            found = find_images([folder])
        assert [path.name for path in found] == ["a.png", "b.webp", "c.ome.zarr"]
        zarrs = tmp_path / "zarrs"
        write_ome_zarr(zarrs / "a.zarr", PLANE, "yx")
        assert find_images([zarrs]) == [zarrs / "a.zarr"]
        assert find_images([zarrs / "a.zarr"]) == [zarrs / "a.zarr"]

    def test_nothing(self, tmp_path):
        (tmp_path / "notes.txt").write_text("none")
        with pytest.raises(DefocusError, match="holds no images"):
            find_images([tmp_path])


class TestArrange:
    """Expected: the axes, the sizes, and the first and last of the names."""

    @pytest.mark.parametrize(
        ("names", "axes", "sizes"),
        [
            ([f"img_c{c}_z{z:03}.png" for c in range(2) for z in range(6)], "CZ", (2, 6)),
            ([f"z{z}_ch{c}.tif" for z in range(3) for c in range(2)], "ZC", (3, 2)),
            ([f"w{c}_{z}.png" for c in (1, 2) for z in range(9, 12)], "CZ", (2, 3)),
            ([f"im_t{t}_c{c}_z{z}.png" for t in (1, 2) for c in (0, 1) for z in (5, 6)], "TCZ",
             (2, 2, 2)),
            ([f"img_{c}_z{z}.png" for c in ("DAPI", "GFP") for z in range(4)], "CZ", (2, 4)),
            ([f"pos{p}_z{z}.png" for p in range(2) for z in range(3)], "PZ", (2, 3)),
            (["near.png", "mid.png", "far.png"], "Z", (3,)),
            ([f"{z}.png" for z in range(12)], "Z", (12,)),
            ([f"z_{z / 2}.png" for z in range(4)], "Z", (4,)),
            ([f"run7_z{z}_t{100 * z + 3}.png" for z in range(4)], "Z", (4,)),
            (["one.png"], "Z", (1,)),
            (["z1.png", "z².png"], "Z", (2,)),
        ],
    )  # fmt: skip
    def test_names_tell(self, names, axes, sizes, recwarn):
        layout = arrange("folder", names[::-1])
        assert (layout.axes, layout.sizes) == (axes, sizes)
        assert sorted(layout.names) == sorted(names)
        if len(sizes) > 1:
            assert layout.names == tuple(names)
            told = " x ".join(f"{n} {letter}" for letter, n in zip(axes, sizes, strict=True))
            notices = [str(each.message) for each in recwarn.list if each.category is Notice]
            assert [told in text for text in notices] == [True]
        else:
            assert not [each for each in recwarn.list if each.category is Notice]

    @pytest.mark.parametrize(
        ("names", "words"),
        [
            ([f"a{i}_{k}.png" for i in range(2) for k in range(3)], "one stack or several"),
            (["1.png", "2.png", "overview.png"], "several kinds"),
            (["z1.png", "z2.png", "z1.tif"], "several kinds"),
            (["c0_z0.png", "c0_z1.png", "c1_z0.png"], "C 1, Z 1 is missing"),
        ],
    )
    def test_what_names_do_not_tell_is_asked(self, names, words):
        with pytest.raises(DefocusError, match=words):
            arrange("folder", names)
        assert arrange("folder", names, "Z").sizes == (len(names),)

    def test_what_is_said_counts(self):
        names = [f"a{i}_{k}.png" for i in range(2) for k in range(3)]
        layout = arrange("folder", names, "TZ")
        assert (layout.axes, layout.sizes, layout.names) == ("TZ", (2, 3), tuple(names))
        with pytest.raises(DefocusError, match="3 axes along the files, in whose names 2 numbers"):
            arrange("folder", names, "TCZ")


def test_two_channels_are_two_stacks(tmp_path):
    names = [f"img_c{c}_z{z:03}.png" for c in range(2) for z in range(6)]
    folder = fill(tmp_path / "planes", names)
    with pytest.warns(Notice, match="2 C x 6 Z"):
        source = open_stack_source(folder)
    assert (source.axes, source.shape) == ("CZYX", (2, 6, 20, 30))
    assert numbers(source) == [[*range(6)], [*range(6, 12)]]
    assert open_stack_source(folder, "ZYX").shape == (12, 20, 30)
    assert open_stack_source(folder, "TZYX").axes == "TZYX"


def test_a_slide_of_several_dicom_files_counts_once(tmp_path):
    """Its levels and its label are files of one series, each of which opens the whole slide."""
    for name, series in (("a0", b"1.2.34"), ("a1", b"1.2.34"), ("b", b"1.2.35"), ("c", b"")):
        element = b"\x20\x00\x0e\x00UI\x06\x00" + series
        (tmp_path / f"{name}.dcm").write_bytes(b"\0" * 128 + b"DICM" + element + b"\0")
    with pytest.warns(Notice, match="1 files that are parts of slides"):
        found = find_images([tmp_path])
    assert [path.stem for path in found] == ["a0", "b", "c"]
    assert find_images([tmp_path / "a1.dcm"]) == [tmp_path / "a1.dcm"]
