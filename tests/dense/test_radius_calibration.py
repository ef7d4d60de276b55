import numpy as np
import pytest
from PIL import Image
from skimage import data

from napari_defocus.core.errors import DefocusError
from napari_defocus.core.progress import Stopped
from napari_defocus.dense import radius_calibration
from napari_defocus.dense.detector import (
    DenseDetector,
    cached_dense,
    corrected,
    load_dense,
    save_dense,
)
from napari_defocus.dense.inference import predict_dense
from napari_defocus.dense.radius_calibration import RADII, calibrate_radius
from napari_defocus.simulate.scenes import read_book

COLOURS = np.random.default_rng(0).random((64, 96, 3)).astype(np.float32)


@pytest.fixture
def book(tmp_path):
    for kind, picture in (("backgrounds", data.astronaut()), ("objects", data.coffee())):
        (tmp_path / "book" / kind).mkdir(parents=True)
        Image.fromarray(picture).save(tmp_path / "book" / kind / "a.png")
    cover = np.full((*data.coffee().shape[:2], 1), 255, np.uint8)
    cut_out = np.concatenate([data.coffee(), cover], axis=2)
    Image.fromarray(cut_out).save(tmp_path / "book" / "objects" / "a.png")
    return read_book(tmp_path / "book")


def test_a_told_radius_becomes_the_true_one():
    plain = predict_dense(COLOURS, corrected(cached_dense(), None))
    table = {"told": [0.1, 50.0], "true": [0.2, 100.0]}  # twice as wide
    twice = predict_dense(COLOURS, corrected(cached_dense(), table))
    np.testing.assert_allclose(twice.radius, 2 * plain.radius, rtol=1e-5)
    np.testing.assert_array_equal(twice.log_odds, plain.log_odds)
    sure = plain.radius > plain.radius_error  # else the lower end is cut at 0
    np.testing.assert_allclose(
        twice.radius_error[sure], 2 * plain.radius_error[sure], rtol=1e-4, atol=1e-5
    )


def test_beyond_the_table_the_last_share_holds():
    plain = predict_dense(COLOURS, corrected(cached_dense(), None)).radius
    end = float(np.median(plain))
    table = {"told": [end / 2, end], "true": [end / 2, 3 * end]}
    found = predict_dense(COLOURS, corrected(cached_dense(), table)).radius
    np.testing.assert_allclose(found[plain > end], 3 * plain[plain > end], rtol=1e-5)


def test_what_is_told_of_discs_is_set_right(book, monkeypatch):
    # As a network that tells half of each radius, and of the widest no more than of those before.
    monkeypatch.setattr(
        radius_calibration, "_predicted", lambda d, light, r, rng: np.full(9, min(r / 2, 3.0), "f4")
    )
    events = []
    found = calibrate_radius(cached_dense(), book, on_event=events.append)
    true = [radius for radius in RADII if radius <= 6]
    assert found.record["radius"] == {"told": [round(r / 2, 3) for r in true], "true": true}
    assert [event.done for event in events] == list(range(1, len(RADII) + 1))


def test_wider_discs_are_told_wider_by_the_packaged_network(book):
    rng = np.random.default_rng(0)
    light = radius_calibration.random_background(book, 128, rng)
    told = [
        float(np.median(radius_calibration._predicted(cached_dense(), light, radius, rng)))
        for radius in (1.0, 3.0, 6.0)
    ]
    assert told == sorted(told)
    assert told[1] == pytest.approx(3, rel=0.35)


def test_calibration_is_stopped(book):
    with pytest.raises(Stopped):
        calibrate_radius(cached_dense(), book, should_stop=lambda: True)


def test_the_packaged_network_is_calibrated(tmp_path):
    table = cached_dense().record["radius"]
    assert table["true"] == sorted(table["true"])
    save_dense(cached_dense(), tmp_path / "d.safetensors")
    assert load_dense(tmp_path / "d.safetensors").record["radius"] == table


@pytest.mark.parametrize(
    "table",
    [
        {"told": [1, 2], "true": [1]},
        {"told": [2, 1], "true": [1, 2]},
        {"told": [], "true": []},
        {"told": [1, float("inf")], "true": [1, 2]},
        {"told": "ab", "true": [1, 2]},
        [1, 2],
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path, table):
    record = {"radius": table}
    save_dense(DenseDetector(cached_dense().weights, record), tmp_path / "d.safetensors")
    with pytest.raises(DefocusError, match="not a whole dense detector"):
        load_dense(tmp_path / "d.safetensors")
