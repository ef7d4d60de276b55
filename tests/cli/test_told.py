"""What is guessed, chosen or left out in reading is told on stderr, once, and can be said."""

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy import ndimage
from skimage import data

from napari_defocus.io.open import read_image

from .test_detect import BY_METRIC, errors

SHARP = data.camera()[80:144, 200:280]
PLANES = np.stack([ndimage.gaussian_filter(SHARP, abs(z - 1) * 1.5) for z in range(3)])


@pytest.fixture
def positions(tmp_path):
    path = tmp_path / "positions.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tif:
        for shift in range(2):
            tif.write(np.roll(PLANES, shift, 0), metadata={"axes": "ZYX"}, photometric="minisblack")
    return path


def best_planes(out):
    """Return the plane in focus, by the name of each table."""
    found = {}
    for path in sorted(out.glob("*.planes.csv")):
        rows = path.read_text().splitlines()
        best = rows[0].split(",").index("best")
        found[path.name] = [row.split(",")[best] for row in rows[1:]].index("1")
    return found


def test_series_of_stacks(run, positions, tmp_path):
    status, _, err = run("stack", positions, "--out", tmp_path / "one")
    assert status == 0
    assert sum("2 images" in line for line in err) == 1
    assert best_planes(tmp_path / "one") == {"positions.ome.planes.csv": 1}
    assert run("stack", positions, "--out", tmp_path / "second", "--series", 1)[0] == 0
    assert best_planes(tmp_path / "second") == {"positions.ome.planes.csv": 2}
    status, _, err = run("stack", positions, "--out", tmp_path / "all", "--series", "all")
    assert status == 0
    assert not any("2 images" in line for line in err)
    assert best_planes(tmp_path / "all") == {
        "positions.ome_series0.planes.csv": 1,
        "positions.ome_series1.planes.csv": 2,
    }


@pytest.mark.parametrize("tiles", [[], ["--tile", 64]])
def test_series_of_images(run, tmp_path, tiles):
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, SHARP[::4, ::4])
    tifffile.imwrite(path, SHARP, append=True)
    out = tmp_path / "out"
    status, _, err = run("detect", path, "--out", out, *BY_METRIC, *tiles)
    assert status == 0
    assert sum("number 1, the largest, is taken" in line for line in err) == 1
    assert read_image(out / "image.mask.tif").data.shape == SHARP.shape
    # Results of one are not those of the other.
    status, _, err = run("detect", path, "--out", out, *BY_METRIC, *tiles, "--resume",
                         "--series", 7)  # fmt: skip
    assert status == 2
    assert "there is no series 7" in errors(err)[0]


def test_a_folder_of_two_channels(run, tmp_path):
    folder = tmp_path / "planes"
    folder.mkdir()
    for channel in range(2):
        for z, plane in enumerate(np.roll(PLANES, channel, 0)):
            Image.fromarray(plane).save(folder / f"img_c{channel}_z{z:03}.png")
    for again in ([], ["--overwrite"]):
        status, _, err = run("stack", folder, "--out", folder, "--picture", *again)
        assert status == 0
        assert sum("2 C x 3 Z" in line for line in err) == 1
        told = [line for line in err if "is in focus" in line]
        assert [f"C={c}: plane {c + 1} is" in told[c] for c in range(2)] == [True, True]


def test_a_wrong_setting_is_said_once(run, tmp_path):
    for name in "ab":
        Image.fromarray(SHARP).save(tmp_path / f"{name}.png")
    for wrong in (
        ["--axes", "QQ"],
        ["--tile", 0],
        ["--detector", "foo"],
        ["--mask-threshold", 2],
        ["--neighbourhood", 4],
        ["--weights", 1, 1, 1],
        ["--keep", 9],
        ["--memory", -1],
        ["--memory", "nan"],
        ["--smallest", -5],
        ["--mask-range", 0.7, 0.3],
        ["--gain", 0],
    ):
        status, out, err = run("detect", tmp_path, "--out", tmp_path / "out", *wrong)
        assert (status, out) == (2, [])
        assert len(err) == 1


def test_fit_from_what_has_no_z_is_refused(run, tmp_path):
    for name, pixels, axes, hint in (
        ("time", PLANES, "TYX", "ZYX"),
        ("channels", np.stack([PLANES] * 3, -1), "CYXS", "ZYXS"),
        ("image", SHARP, "YX", "one plane"),
    ):
        path = tmp_path / f"{name}.ome.tif"
        kind = "rgb" if "S" in axes else "minisblack"
        tifffile.imwrite(path, pixels, ome=True, metadata={"axes": axes}, photometric=kind)
        for method in ("profile", "instant"):
            status, _, err = run("fit", "--from-stack", path, "--method", method,
                                 "--out", tmp_path / "m.safetensors")  # fmt: skip
            assert status == 2
            assert hint in err[-1]


def test_series_of_annotated_images_maps_and_masks(run, tmp_path):
    """One option everywhere: it counts in each file that holds several images."""
    wrong, labels = np.full_like(SHARP, 9), np.where(np.arange(80) < 40, 1, 2) + 0 * SHARP
    image, truth, maps = tmp_path / "a.tif", tmp_path / "truth", tmp_path / "maps"
    truth.mkdir()
    maps.mkdir()
    for path, pixels in (
        (image, SHARP),
        (truth / "a.tif", np.where(labels == 1, 255, 0).astype(np.uint8)),
        (maps / "a.tif", np.where(labels == 1, 255, 0).astype(np.uint8)),
    ):
        tifffile.imwrite(path, wrong)
        tifffile.imwrite(path, pixels, append=True)
    Image.fromarray(labels.astype(np.uint8)).save(tmp_path / "labels.png")
    cut = ["patches", image, tmp_path / "labels.png", "--out"]
    assert "holds 2 images" in run(*cut, tmp_path / "x.safetensors")[2][-1]
    for command in (cut, ["fit", image, tmp_path / "labels.png", "--out"]):
        out = tmp_path / f"{command[0]}.safetensors"
        status, _, err = run(*command, out, "--series", 1)
        assert (status, err) == (0, [])
        assert run(*command, out, "--series", "all", "--overwrite")[0] == 2
    score = ["evaluate", "--maps", maps, "--truth", truth, "--series", 1, "--out", tmp_path / "e"]
    status, lines, err = run(*score)
    assert status == 0
    assert not any("holds 2 images" in line for line in err)
    assert any(line.startswith("AUC") and "1.0000" in line for line in lines)


def test_a_result_that_is_named_as_an_image_is_told(run, tmp_path):
    Image.fromarray(SHARP).save(tmp_path / "a.overview.png")
    for command in (["detect", *BY_METRIC], ["stack"]):
        err = run(*command, tmp_path / "a.overview.png", "--out", tmp_path / "out")[2]
        assert sum("a result of an earlier run" in line for line in err) == 1


@pytest.mark.parametrize(
    ("detector", "given", "words"),
    [
        ("metric", ["--limit", "2"], "--limit: of the dense detector"),
        ("dense", ["--caution", 7, "--gain", 3], "--caution, --gain: of the local metric"),
        ("metric", ["--caution", 7], None),
    ],
)
def test_a_setting_that_does_not_count_is_told(run, tmp_path, detector, given, words):
    Image.fromarray(SHARP).save(tmp_path / "a.png")
    _, _, err = run("detect", tmp_path / "a.png", "--detector", detector, *given,
                    "--out", tmp_path / "out")  # fmt: skip
    assert [words in line for line in err if "left out" in line] == [True] * (words is not None)
