"""`detect` gives the same in memory and in tiles: every map, its pixels and its metadata."""

import json

import numpy as np
import pytest
import tifffile
import zarr

from napari_defocus.cli.main import main
from napari_defocus.dense.detector import save_dense
from napari_defocus.io.open import open_source
from napari_defocus.io.raster import write_png
from tests.tiled.test_api import IMAGE, write_image

SMALL = (IMAGE[30:126, :120] >> 8).astype(np.uint8)
STACK = np.stack([SMALL, SMALL[::-1], SMALL[:, ::-1]])
RGB = np.stack([SMALL, SMALL[::-1], SMALL // 2], -1)
OME = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.25, "PhysicalSizeZ": 3.0}
METRIC = ("--detector", "metric", "--confidence")


def imagej(path, data, axes, resolution, **metadata):
    metadata = {"axes": axes, "unit": "um", **metadata}
    tifffile.imwrite(path, data, imagej=True, resolution=resolution, metadata=metadata)


def ome(path, data, axes, **options):
    metadata = {"axes": axes, **OME}
    tifffile.imwrite(path, data, ome=True, photometric="minisblack", metadata=metadata, **options)


INPUTS = {
    "plane.png": lambda path: write_png(path, SMALL),
    "colours.png": lambda path: write_png(path, RGB),
    "plane.tif": lambda path: tifffile.imwrite(path, SMALL),
    "square.tif": lambda path: imagej(path, SMALL, "YX", (4, 4)),
    "oblong.tif": lambda path: imagej(path, SMALL, "YX", (2, 4)),
    "steps.tif": lambda path: imagej(path, STACK, "ZYX", (2, 2), spacing=3.0),
    "time.tif": lambda path: imagej(path, STACK, "TYX", (2, 4), finterval=1.5),
    "colour_steps.tif": lambda path: imagej(
        path, np.stack([RGB, RGB[::-1]]), "ZYXS", (2, 2), spacing=3.0
    ),
    "stack.ome.tif": lambda path: ome(path, STACK, "ZYX", compression="zlib"),
    "channels.ome.tif": lambda path: ome(path, np.stack([STACK, STACK // 2]), "CZYX"),
    "ones.ome.tif": lambda path: ome(path, SMALL[None, None], "CZYX"),
    "image.zarr": lambda path: write_image(
        path, STACK, "zyx", scale=[3.0, 0.25, 0.5], translate=[1.0, 5.0, 7.0]
    ),
}


def assert_same(found, expected, translated):
    assert (found.axes, found.shape, found.dtype) == (expected.axes, expected.shape, expected.dtype)
    assert found.grid.scale == pytest.approx(expected.grid.scale, rel=1e-6)
    assert found.grid.units == expected.grid.units
    if translated:
        assert found.grid.translate == expected.grid.translate
    np.testing.assert_allclose(found.read_whole(), expected.read_whole(), rtol=0, atol=1e-6)


def detected(source, out, *more):
    assert main(["detect", str(source), "--out", str(out), *more]) == 0
    found = {path.name: path for path in out.iterdir() if not path.name.startswith("napari")}
    inside = {f"{name}/mask": path / "labels/mask" for name, path in found.items()}
    return found | {name: path for name, path in inside.items() if path.exists()}


def compare(tmp_path, source, *more, form="tif"):
    whole = detected(source, tmp_path / "whole", "--format", form, *more)
    tiled = detected(source, tmp_path / "tiled", "--format", form, "--tile", "64", *more)
    assert whole.keys() == tiled.keys()
    for name in whole:
        assert_same(open_source(whole[name]), open_source(tiled[name]), form == "zarr")
    return whole


@pytest.mark.parametrize("form", ["tif", "zarr"])
@pytest.mark.parametrize("name", INPUTS)
def test_whole_and_in_tiles(tmp_path, monkeypatch, name, form):
    INPUTS[name](tmp_path / name)
    expected = open_source(tmp_path / name).grid.without("S")
    # A Zarr is otherwise always worked in tiles.
    monkeypatch.setattr("napari_defocus.cli.detect.is_zarr", lambda place: False)
    monkeypatch.setattr("napari_defocus.cli.detect.find_images", list)
    whole = compare(tmp_path, tmp_path / name, *METRIC, form=form)
    assert len(whole) == 3
    for path in whole.values():
        found = open_source(path)
        assert (found.axes, found.shape) == (expected.axes, expected.shape)
        assert found.grid.known_scale() == pytest.approx(expected.known_scale(), rel=1e-6)


@pytest.mark.parametrize("form", ["tif", "zarr"])
@pytest.mark.parametrize(
    ("data", "axes", "options"),
    [
        (np.moveaxis(STACK, 0, -1), "YXC", {"metadata": {"axes": "YXC"}, "compression": "zlib"}),
        (STACK, "ZYX", {"photometric": "rgb", "planarconfig": "separate", "compression": "zlib"}),
        (STACK, "ZXY", {}),
        (SMALL[None, None], "CZYX", {"ome": True, "metadata": {"axes": "CZYX"}}),
    ],
)
def test_axes_that_are_given(tmp_path, data, axes, options, form):
    tifffile.imwrite(tmp_path / "a.tif", data, **{"photometric": "minisblack"} | options)
    order = [axes.index(letter) for letter in "CZYX" if letter in axes]
    whole = compare(tmp_path, tmp_path / "a.tif", "--axes", axes, *METRIC, form=form)
    shape = tuple(size for size in data.transpose(order).shape if size > 1)
    for path in whole.values():
        assert open_source(path).shape == shape


@pytest.mark.parametrize("form", ["tif", "zarr"])
@pytest.mark.parametrize(("resolution", "units"), [((2, 2), ["px", "um"]), ((2, 4), ["px"])])
def test_radius_in_both_units(tmp_path, random_detector, resolution, units, form):
    imagej(tmp_path / "a.tif", SMALL, "YX", resolution)
    save_dense(random_detector, tmp_path / "dense.safetensors")
    dense = ("--detector", str(tmp_path / "dense.safetensors"), "--radius")
    whole = compare(tmp_path, tmp_path / "a.tif", *dense, form=form)
    radii = [name for name in whole if "radius" in name]
    suffix = "ome.zarr" if form == "zarr" else "tif"
    names = [f"a.{name}_{unit}.{suffix}" for name in ("radius", "radius_error") for unit in units]
    assert sorted(radii) == sorted(names)
    if "um" in units:
        px, um = (open_source(whole[f"a.radius_{unit}.{suffix}"]).read() for unit in ("px", "um"))
        np.testing.assert_array_equal(um, px * np.float32(0.5))


def note_in(path):
    """Return what the metadata of a result say of how it was made."""
    if path.suffix == ".tif":
        with tifffile.TiffFile(path) as tif:
            if tif.is_ome:
                return tif.ome_metadata.partition("<Description>")[2].partition("</Desc")[0]
            return (tif.imagej_metadata or tif.shaped_metadata[0])["note"]
    return zarr.open_group(path, mode="r").attrs["napari-defocus"]["note"]


@pytest.mark.parametrize("form", ["tif", "zarr"])
@pytest.mark.parametrize("limit", ["auto", "2.5", "0.8um"])
@pytest.mark.parametrize("name", ["square.tif", "steps.tif"])
def test_the_limit_is_written_alike(tmp_path, capsys, name, limit, form):
    INPUTS[name](tmp_path / name)
    whole = compare(tmp_path, tmp_path / name, "--limit", limit, form=form)
    stem = name.partition(".")[0]
    suffix = "ome.zarr" if form == "zarr" else "tif"
    told = [line for line in capsys.readouterr().err.splitlines() if ": sharp up to " in line]
    assert len(told) == 2
    assert told[0] == told[1]
    records = []
    for folder in ("whole", "tiled"):
        for result in whole:
            path = tmp_path / folder / result
            mask = tmp_path / folder / f"{stem}.blur.{suffix}" / "labels" / "mask"
            found = note_in(mask if result.endswith("/mask") else path)
            assert f"{tmp_path / name}: {found}" == told[0]
        lines = (tmp_path / folder / "napari-defocus.json").read_text().splitlines()
        records.append(json.loads(lines[-1])["found"])
    assert records[0] == records[1]
    if limit != "auto":
        width = 2.5 if limit == "2.5" else 0.8 * (4 if name == "square.tif" else 2)
        assert records[0]["limit_px"] == pytest.approx([width] * len(records[0]["limit_px"]))


def test_what_is_large_goes_by_pixels_not_by_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr("napari_defocus.cli.detect.MOST_PIXELS", 10_000)
    tifffile.imwrite(tmp_path / "small.tif", SMALL[:90, :90], compression="zlib")
    tifffile.imwrite(tmp_path / "large.tif", SMALL, compression="zlib")
    for name, tiled in (("small", False), ("large", True)):
        path = detected(tmp_path / f"{name}.tif", tmp_path / name, *METRIC)[f"{name}.blur.tif"]
        with tifffile.TiffFile(path) as tif:
            assert tif.is_bigtiff == tiled
