import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy import ndimage

from benchmarks.accuracy import robustness
from benchmarks.accuracy.photos import Photo
from benchmarks.accuracy.robustness_checks import (
    Measured,
    Settings,
    Target,
    calibration_error,
    crisp_light,
    defocus_in_name,
    discs,
    focus_series,
    photo_changes,
    sharper,
    whole_rows,
)
from napari_defocus.detection.api import Detection
from napari_defocus.metric.default_recipe import load_picture
from napari_defocus.simulate.optics import GAMMA

QUICK = Settings(pictures=("gravel",), reduction=4, radii=(2,), noises=(2,), rendered=2, size=96)


def texture(size=96):
    """Fine detail that is no noise: a part of a picture, reduced."""
    light = crisp_light(load_picture("gravel"), 3)[:size, :size]
    return np.round(255 * light ** (1 / GAMMA)).astype(np.uint8)


def soften(image, sigma):
    soft = ndimage.gaussian_filter(image.astype(float), sigma)
    return np.clip(128 + 100 * (soft - soft.mean()) / soft.std(), 0, 255).astype(np.uint8)


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, image.astype(np.uint16))
    else:
        Image.fromarray(image).save(path)


@pytest.fixture
def data(tmp_path):
    """A little of everything: a photo, a focus series, a pair, two fields of cells."""
    folder = tmp_path / "data"
    right = np.arange(96) >= 48
    sharp, soft = texture(), soften(texture(), 3)
    write(folder / "photos/images/a.png", np.dstack([np.where(right, soft, sharp)] * 3))
    write(folder / "photos/masks/a.png", np.where(right, 255, 0 * sharp).astype(np.uint8))
    for name, sigma in (("ON", 0.4), ("ON(1)", 0.4), ("OffM0p2um", 1), ("OffP0p2um", 1),
                        ("OffM0p5um", 2), ("OffP0p5um", 2)):  # fmt: skip
        write(folder / f"lightsheet/cell{name}.tif", soften(sharp, sigma))
    write(folder / "pairs_lytro/color_lytro_01_1.png", np.where(right, soften(sharp, 3), sharp))
    write(folder / "pairs_lytro/color_lytro_01_2.png", np.where(right, sharp, soften(sharp, 3)))
    write(folder / "bbbc006/sharp/a.png", sharp)
    write(folder / "bbbc006/blurred/b.tif", soft)
    return folder


def test_table_of_everything(data, tmp_path):
    report = robustness.benchmark(data, tmp_path / "out", ["metric"], QUICK)
    written = (tmp_path / "out" / "robustness.md").read_text(encoding="utf-8")
    lines = [line for line in written.splitlines() if line.startswith("|")]
    assert lines[0] == "|  | target | metric |"
    rows = {line.split(" | ")[0].strip("| "): line for line in lines[2:]}
    assert len(rows) == 1 + 14 + 3 + 1 + 4 + 4 + 1
    assert rows["photos, as uint16: change of AUC"].endswith("| ± 0.005 | +0.000 pass |")
    assert all(("pass" in line) ^ ("fail" in line) for line in rows.values() if "± " in line)
    assert report.left_out == ["discs left out of metric: it measures no radius"]
    assert report.left_out[0] in written
    assert report.rows["photos: AUC"]["metric"].value > 0.9
    assert report.rows["pairs: pixels where the sharper has less blur"]["metric"].value > 0.9


def test_results_repeat(data, tmp_path):
    for name in ("one", "two"):
        robustness.benchmark(data, tmp_path / name, ["metric"], QUICK)
    assert (tmp_path / "one/robustness.md").read_text() == (
        tmp_path / "two/robustness.md"
    ).read_text()


def test_what_is_missing_is_listed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(robustness.checks, "Settings", lambda: QUICK)
    (tmp_path / "photos" / "images").mkdir(parents=True)
    folders = [str(tmp_path), "--out", str(tmp_path / "out")]
    robustness.main([*folders, "--detectors", "metric", "none.safetensors"])
    printed = capsys.readouterr().out
    for line in (
        "- photos left out: no images in photos/images, photos/masks",
        "- light sheet left out: no images in lightsheet",
        "- pairs left out: no images in pairs_lytro",
        "- BBBC006 left out: no images in bbbc006/sharp, bbbc006/blurred",
        "- calibration left out: no images in photos/images, photos/masks",
        "- discs left out of none: ",
    ):
        assert line in printed
    assert "rendered blurred, 2 images: mean blur" in printed


def roughness(image, radius=True):
    """Return as blurred what has little detail, the same all over."""
    values = np.full(image.shape, 1 / np.abs(ndimage.laplace(image.astype(float))).mean(), "f4")
    mask = np.ones(image.shape, np.uint8)
    return Detection(values, mask, mask.astype("f4"), *([values] * 2 if radius else []))


@pytest.mark.parametrize("radius", [True, False])
def test_focus_series(data, radius):
    rows = list(focus_series(lambda x: roughness(x, radius), data, QUICK))
    assert [row.value for row in rows] == pytest.approx([1, 1, 1])
    assert all(row.detail.startswith("median radius" if radius else "mean blur") for row in rows)
    flat = Detection(np.ones((96, 96), "f4"), np.ones((96, 96), "u1"), np.zeros((96, 96), "f4"))
    rows = focus_series(lambda _: flat, data, QUICK)
    assert all(np.isnan(row.value) for row in rows)


def test_radius_of_discs():
    def detector(image):
        shape = image.shape[:2]
        radius = np.full(shape, 2.2, np.float32)
        return Detection(radius, np.ones(shape, np.uint8), radius, radius, radius)

    single, together = discs(detector, None, QUICK)
    assert single.value == pytest.approx(0.1)
    assert single.detail == "median 2.20 px"
    assert together.value == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("name", "defocus"),
    [
        ("cell11G3Dz0p5umOffM0p3um.tif", -0.3),
        ("cell11G3Dz0p5umOffP1p25um.tif", 1.25),
        ("cell11G3Dz0p5umON.tif", 0.0),
        ("cell11G3Dz0p5umON(1).tif", 0.0),
        ("cell11.tif", None),
    ],
)
def test_defocus_is_in_the_name(name, defocus):
    assert defocus_in_name(name) == defocus


@pytest.mark.parametrize(
    ("kind", "met", "missed"),
    [("<", 0.0, 0.1), ("<=", 0.1, 0.2), (">=", 0.1, 0.0), ("within", -0.1, -0.2)],
)
def test_targets(kind, met, missed):
    target = Target(kind, 0.1)
    assert target.met(met)
    assert not target.met(missed)
    assert not target.met(np.nan)


def test_a_figure_that_cannot_be_measured_does_not_pass():
    missing = Measured("row", np.nan, Target("<", 1))
    report = robustness.Report(["metric"], {"row": {"metric": missing}})
    written = robustness.table(report)
    assert "| row | < 1 | - |" in written
    assert "meets 0 of 1" in written


def half_blurred(image):
    return Photo("a", image, np.arange(image.shape[1]) >= np.zeros((image.shape[0], 1)) + 20)


def test_changes_leave_the_photo_as_it_was():
    image = np.dstack([texture(size=40)] * 3)
    photo = half_blurred(image)
    for change in photo_changes():
        changed = change.apply(photo, np.random.default_rng(0))
        assert changed.image.shape[:2] == changed.blurred.shape
    np.testing.assert_array_equal(photo.image, np.dstack([texture(size=40)] * 3))


def test_nothing_clips_where_brightness_and_contrast_change():
    photo = half_blurred(np.dstack([texture(size=40)] * 3))
    changes = [c for c in photo_changes() if c.name.startswith(("brightness", "contrast"))]
    assert len(changes) == 6
    for change in changes:
        changed = change.apply(photo, np.random.default_rng(0)).image
        assert len(np.unique(changed)) == len(np.unique(photo.image))


def test_calibration_error_against_counts():
    chance = np.array([0.55] * 10 + [0.99] * 10)
    right = np.array([True] * 5 + [False] * 5 + [True] * 10)
    assert calibration_error(chance, right) == pytest.approx((0.05 + 0.01) / 2)
    assert calibration_error(np.ones(3), np.ones(3, bool)) == 0
    assert np.isnan(calibration_error(np.ones(0), np.ones(0, bool)))


def test_which_of_two_is_sharper():
    image = texture()
    image[:32] = 128  # no texture to compare
    first, clear = sharper(image, soften(image, 2))
    assert first[clear].all()
    assert clear[64:].all()
    assert not clear[:16].any()
    assert not sharper(image, image)[1].any()


def test_wholes_leave_out_undecided_pixels():
    mask = np.array([[0, 1, 2, 2]], np.uint8)
    blur = np.array([[1, 0.6, 0, 0.3]], np.float32)
    answers = iter([Detection(blur, mask), Detection(blur, 0 * mask), Detection(0 * blur, mask)])
    mean, worst = whole_rows("some", "sharp", lambda _: next(answers), [None] * 3)
    assert mean.value == pytest.approx(0.15)
    assert worst.value == pytest.approx(0.3)
    assert worst.detail == "1 undecided"
    assert mean.detail == "0.50 decided"
