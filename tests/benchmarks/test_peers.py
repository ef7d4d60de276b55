import csv
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from benchmarks.accuracy import peers
from napari_defocus.evaluate.baselines import BASELINES
from napari_defocus.evaluate.report import evaluate_folders
from napari_defocus.evaluate.scores import TRIVIAL_MAPS, auc

SIZE = (96, 128)
NAMES = ("one", "two")


def blurred_half(seed):
    """Return a picture of spots whose right half is out of focus, and the truth of it."""
    noise = np.random.default_rng(seed).random((*SIZE, 3))
    sharp = (ndimage.gaussian_filter(noise, (2, 2, 0)) > 0.5).astype(float)
    soft = ndimage.gaussian_filter(sharp, (3, 3, 0))
    blurred = np.zeros(SIZE, bool)
    blurred[:, SIZE[1] // 2 :] = True
    image = np.where(blurred[..., np.newaxis], soft, sharp)
    return (255 * image).astype(np.uint8), blurred


@pytest.fixture
def folder(tmp_path):
    """Two photos, their masks, and maps of two stored peers, one of which lacks a map."""
    for seed, name in enumerate(NAMES):
        image, blurred = blurred_half(seed)
        rough = np.random.default_rng(seed).integers(0, 90, SIZE) + 120 * ~blurred
        arrays = {"images": image, "masks": 255 * blurred, "peer_maps/old": rough}
        for place, array in arrays.items():
            (tmp_path / place).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array.astype(np.uint8)).save(tmp_path / place / f"{name}.png")
    (tmp_path / "half").mkdir()
    Image.fromarray(np.full(SIZE, 9, np.uint8)).save(tmp_path / "half" / "one.png")
    return tmp_path


def packages(monkeypatch, *runs):
    """Let the given functions stand for the packages that install from PyPI."""
    entries = [
        peers.Package(f"peer-{place}", "json", run, slow=place == 0, remark="of a test")
        for place, run in enumerate(runs)
    ]
    monkeypatch.setattr(peers, "PACKAGES", tuple(entries))
    monkeypatch.setattr(peers.metadata, "version", lambda name: "1.0")


def failing(module, image):
    raise RuntimeError("no |room|\nleft")


def failing_on_the_first(module, image):
    if np.array_equal(image, blurred_half(0)[0]):
        raise SystemError
    return peers.Answer(np.full(image.shape[:2], 0.5))


def table_rows(path):
    """Return the cells of the Markdown table by method."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    split = [[cell.strip() for cell in line.replace(r"\|", "/")[1:-1].split("|")] for line in lines]
    head = split[0]
    assert all(len(cells) == len(head) for cells in split)
    return {cells[0]: dict(zip(head, cells, strict=True)) for cells in split[2:]}


def run(folder, *options):
    peers.main([str(folder), "--out", str(folder / "out"), "--detectors", "metric", *options])
    return folder / "out"


def test_files_of_the_command(folder, monkeypatch, capsys):
    packages(monkeypatch)
    out = run(folder, "--stored", str(folder / "half"))
    rows = table_rows(out / "peers.md")
    ours = "napari-defocus, metric"
    operators = [name.replace("|", "/") for name in BASELINES]
    assert set(rows) == {ours, "old", "half", *operators, *TRIVIAL_MAPS}
    assert next(iter(rows)) == ours
    assert list(rows)[-3:] == list(TRIVIAL_MAPS)
    for name in (ours, "old", *operators):
        for column in ("Fmax", "AUC"):
            assert float(rows[name][column].split(" ± ")[0]) > 0.9, name
        assert float(rows[name]["MAE"]) < 0.4, name
    assert float(rows[ours]["IoU(mask)"]) > 0.8
    assert {rows[name]["IoU(mask)"] for name in rows if name != ours} == {"-"}
    assert {rows[name]["s / image"] for name in ("old", "half", *TRIVIAL_MAPS)} == {"-"}
    assert all(float(rows[name]["s / image"]) > 0 for name in (ours, *operators))
    assert rows["half"]["remark"] == "no map for 1 of 2"
    fmax = [float(rows[name]["Fmax"].split()[0]) for name in rows if name in operators]
    assert fmax == sorted(fmax, reverse=True)
    assert (out / "peers.md").read_text(encoding="utf-8") in capsys.readouterr().out
    with Image.open(out / "precision_recall.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > picture.height > 600


def test_scores_by_image(folder, monkeypatch):
    packages(monkeypatch)
    out = run(folder, "--stored", str(folder / "half"))
    with (out / "scores.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["row"] in ("image", "mean")]
    found = {(row["method"], row["image"] or "mean"): row["AUC"] for row in rows}
    assert {name for name, _ in found} == {
        "napari-defocus, metric", "old", "half", *BASELINES, *TRIVIAL_MAPS
    }  # fmt: skip
    maps = [np.asarray(Image.open(folder / "peer_maps/old" / f"{name}.png")) for name in NAMES]
    expected = [auc(m, ~blurred_half(seed)[1]) for seed, m in enumerate(maps)]
    old = [float(found["old", image]) for image in (*NAMES, "mean")]
    assert old == pytest.approx([*expected, np.mean(expected)], abs=5.1e-7)
    assert found["half", "one"] == found["half", "mean"] == "0.500000"
    assert ("half", "two") not in found


def test_stored_maps_score_as_by_evaluate(folder, monkeypatch):
    packages(monkeypatch)
    rows = peers.benchmark(folder, folder / "out", [], peers.stored_folders(folder, []), False)
    (row,) = [row for row in rows if row.kind == "stored"]
    report = evaluate_folders(folder / "peer_maps/old", folder / "masks", sharpness=True)
    assert row.scores.mean == pytest.approx(report.methods["old"].mean, nan_ok=True)


def test_what_fails_is_in_the_remark(folder, monkeypatch):
    packages(monkeypatch, failing, failing_on_the_first)
    rows = table_rows(run(folder, "--stored", str(folder / "nowhere")) / "peers.md")
    row = rows["peer-0 1.0"]
    remark = "of a test; failed on 2 of 2, first one: RuntimeError: no /room/ left"
    assert row["remark"] == remark
    assert row["Fmax"] == row["AUC"] == row["s / image"] == "-"
    row = rows["peer-1 1.0"]
    assert row["remark"].startswith("of a test; failed on 1 of 2, first one: SystemError")
    assert row["AUC"] == "0.500"
    assert "cannot read this folder of maps" in rows["nowhere"]["remark"]


def test_unknown_detectors_have_no_scores(folder):
    photos = peers.read_photos(folder)
    row = peers.score_method(peers.our_detector("no such file"), photos)
    assert row.scores is None
    assert "failed on 2 of 2" in row.remark


def test_packages_that_are_missing_or_slow(monkeypatch):
    package = peers.Package("no-such-peer", "no_such_peer", failing, True, "")
    missing = peers.load_package(package)
    assert missing.run is None
    assert missing.remark == "not installed: `pip install no-such-peer`"
    slow = peers.load_package(package, skip_slow=True)
    assert slow.run is None
    assert "--skip-slow" in slow.remark
    monkeypatch.setattr(peers.metadata, "version", lambda name: "1.0")
    broken = peers.load_package(package)
    assert broken.run is None
    assert broken.remark.startswith("cannot be imported: ModuleNotFoundError")


def test_peers_are_called_as_documented():
    """With stand-ins of their signatures: the peers themselves need not be installed."""
    image, _ = blurred_half(0)

    def detect_blur(img, downsampling_factor=4, num_scales=4, scale_start=3, show_progress=True):
        assert img.dtype == np.uint8
        assert (scale_start, show_progress) == (2, False)
        return img / 255

    def fuse_rdf_sum(img, radii, power, normalize):
        assert radii == [(1, 3)]
        return img.astype(float), []

    def kde_on_fused(fused, top_percent, bandwidth_px):
        return fused / 255, 0.0

    grey = np.asarray(Image.fromarray(image).convert("L")) / 255
    module = SimpleNamespace(detectBlur=detect_blur)
    answer = peers.blur_detector(module, image)
    np.testing.assert_allclose(answer.sharpness, grey)
    module = SimpleNamespace(fuse_rdf_sum=fuse_rdf_sum, kde_on_fused=kde_on_fused)
    answer = peers.focus_response(module, image)
    np.testing.assert_allclose(answer.sharpness, grey)


def test_unit_and_eight_bit():
    values = np.array([[2.0, 4.0], [3.0, 2.0]], np.float32)
    np.testing.assert_array_equal(peers.unit(values), [[0, 1], [0.5, 0]])
    np.testing.assert_array_equal(peers.unit(np.full((2, 2), 7)), np.zeros((2, 2)))
    image, _ = blurred_half(0)
    grey = np.asarray(Image.fromarray(image).convert("L"))
    np.testing.assert_array_equal(peers.eight_bit_grey(image), grey)
    deep = peers.eight_bit_grey(image[..., 0].astype(np.uint16) * 257)
    assert deep.dtype == np.uint8
    assert (deep.min(), deep.max()) == (0, 255)
