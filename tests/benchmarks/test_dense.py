import sys

import numpy as np
import pytest
from PIL import Image
from skimage import data

from benchmarks.accuracy import ablation, ladder
from napari_defocus.simulate.optics import defocus, to_light

pytest.importorskip("torch")

TEXTURE = data.gravel()[:160, :160]


def half_blurred(blurred, radius=5):
    """Gravel (Y, X, 3), out of focus where `blurred` (Y, X)."""
    light = to_light(TEXTURE)
    seen = np.where(blurred, defocus(light, radius), light)
    grey = np.round(255 * np.clip(seen, 0, 1) ** (1 / 2.2)).astype(np.uint8)
    return np.repeat(grey[..., np.newaxis], 3, axis=2)


LEFT = np.broadcast_to(np.arange(160) < 80, (160, 160))


@pytest.fixture
def photos(tmp_path):
    """A folder of three photos and their masks."""
    folder = tmp_path / "photos"
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for index, blurred in enumerate((LEFT, ~LEFT, LEFT.T)):
        Image.fromarray(half_blurred(blurred)).save(folder / "images" / f"{index}.png")
        mask = (255 * blurred).astype(np.uint8)
        Image.fromarray(mask).save(folder / "masks" / f"{index}.png")
    return folder


def test_ablation_writes_its_table_and_pictures(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["ablation", str(photos), "--out", str(tmp_path / "out")])
    ablation.main()
    rows = (tmp_path / "out" / "ablation.md").read_text("utf-8").splitlines()[2:]
    names = [row.split(" | ")[0].removeprefix("| ") for row in rows]
    assert names[0] == "metric"
    assert {"dense", "dense, radius alone", "dense, not spread"} <= set(names)
    auc = {name: float(row.split(" | ")[5]) for name, row in zip(names, rows, strict=True)}
    assert min(auc.values()) > 0.9
    for name in ("worst.png", "errors.png"):
        assert (tmp_path / "out" / name).stat().st_size > 1000


@pytest.mark.slow
def test_ladder_writes_its_table_and_picture(photos, tmp_path, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["ladder", f"gravel={photos}", "--out", str(out), "--maps"])
    ladder.main()
    rows = (out / "ladder.md").read_text("utf-8").splitlines()[2:]
    auc = {row.split(" | ")[0]: float(row.split(" | ")[5]) for row in rows}
    assert len(auc) == len({**ladder.ladder(), **ladder.other_readings()})
    assert auc["| the default: `dense`, limit found"] > auc["| the paper: `zeng2019`"] > 0.6
    assert (out / "ladder.png").stat().st_size > 1000
    assert np.load(out / "maps" / "0" / "00" / "gravel" / "0.npy").shape == (160, 160)
