import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from skimage import data

from napari_defocus.core.errors import DefocusError
from napari_defocus.core.onnx import open_session
from napari_defocus.core.threads import free_cores
from napari_defocus.dense import inference as dense
from napari_defocus.dense import on_device
from napari_defocus.dense.detector import DenseDetector, load_dense
from napari_defocus.dense.graph import dense_graph
from napari_defocus.dense.inference import network_session, predict_dense

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.usefixtures("one_thread")
PICTURES = {
    "astronaut": data.astronaut()[:300, :260],
    "grey": np.repeat(data.camera()[:200, :333, np.newaxis], 3, axis=2),
    "noise": np.random.default_rng(0).integers(0, 256, (97, 160, 3)).astype(np.uint8),
    "flat": np.full((64, 70, 3), 90, np.uint8),
    "narrow": data.coffee()[:5, :200],
}


@pytest.fixture(scope="module")
def detector():
    return load_dense()


def window_of(picture):
    colours = np.asarray(picture / 255, np.float32)
    return dense._standardised_window(colours, float(colours.mean()), float(colours.std()))


@pytest.mark.parametrize("name", PICTURES)
def test_the_graph_is_the_network_that_is_trained(detector, name):
    window = window_of(PICTURES[name])
    expected, features = on_device.predict_on_device(
        detector, window, torch.device("cpu"), features=True
    )
    found, found_features = dense._predict_on_cpu(detector, window, 1, True)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(found_features, features, atol=1e-3)


def test_filters_of_another_number_and_side(detector):
    generator = np.random.default_rng(1)
    filters = generator.normal(size=(3, 1, 5, 5)).astype(np.float32) / 9
    other = DenseDetector({**detector.weights, "response.filters": filters})
    window = window_of(PICTURES["noise"])
    (expected,) = on_device.predict_on_device(other, window, torch.device("cpu"))
    np.testing.assert_allclose(
        dense._predict_on_cpu(other, window, 1, False)[0], expected, atol=1e-4
    )


@pytest.mark.parametrize("shape", [(1, 1), (5, 40), (31, 33), (64, 32)])
def test_windows_are_standardised_and_mirrored(shape):
    colours = np.random.default_rng(0).random((*shape, 3)).astype(np.float32)
    pad = ((0, -shape[0] % 32), (0, -shape[1] % 32), (0, 0))
    expected = np.pad(dense.standardise(colours, 0.4, 0.2), pad, mode="symmetric")
    found = dense._standardised_window(colours, 0.4, 0.2)
    np.testing.assert_array_equal(found, expected.transpose(2, 0, 1))


# Features


def test_features_on_request_change_nothing_else(detector):
    colours = np.asarray(PICTURES["astronaut"] / 255, np.float32)
    plain = predict_dense(colours, detector)
    found = predict_dense(colours, detector, features=True)
    assert plain.features is None
    assert found.features.shape == (32, 150, 130)
    np.testing.assert_array_equal(found.log_odds, plain.log_odds)


def test_the_last_layer_makes_the_prediction_of_the_features(detector, monkeypatch):
    monkeypatch.setattr(dense, "TILE", 128)
    colours = np.asarray(PICTURES["astronaut"][:, :259] / 255, np.float32)
    found = predict_dense(colours, detector, features=True)
    weight, bias = (np.asarray(detector.weights[f"judge.{n}"], float) for n in ("weight", "bias"))
    log_odds = np.tensordot(weight[0, :, 0, 0], found.features, 1) + bias[0]
    assert log_odds.shape == (150, 130)
    blocks = found.log_odds[:, :258].reshape(150, 2, 129, 2).mean(axis=(1, 3))
    inner = np.s_[3:-3, 3:-3]
    assert np.abs(log_odds[:, :129] - blocks)[inner].mean() < 0.1 * blocks.std()


# Threads and processes


def test_threads_do_not_change_a_bit(detector, monkeypatch):
    monkeypatch.setattr(dense, "TILE", 128)
    colours = np.asarray(PICTURES["astronaut"] / 255, np.float32)
    expected = predict_dense(colours, detector)
    monkeypatch.setattr(dense, "cores", lambda: 3)
    with free_cores():
        np.testing.assert_array_equal(predict_dense(colours, detector).log_odds, expected.log_odds)
    monkeypatch.setattr(dense, "TILE", 1024)
    expected = predict_dense(colours, detector)
    with free_cores():
        np.testing.assert_array_equal(predict_dense(colours, detector).log_odds, expected.log_odds)


@pytest.mark.parametrize("shape", [(320, 320), (480, 640), (512, 512)])
def test_layers_on_several_threads_give_the_same_bytes(detector, shape):
    image = np.random.default_rng(1).standard_normal((1, 3, *shape)).astype(np.float32)
    model = dense_graph(detector.weights)
    expected, *others = (open_session(model, n).run(None, {"image": image})[0] for n in (1, 3, 4))
    for found in others:
        np.testing.assert_array_equal(found, expected)


def test_one_session_serves_several_threads(detector):
    colours = np.asarray(PICTURES["grey"] / 255, np.float32)
    expected = predict_dense(colours, detector).log_odds
    network_session.cache_clear()
    gate = threading.Barrier(3)

    def predict(_):
        gate.wait()
        return predict_dense(colours, detector).log_odds

    with ThreadPoolExecutor(3) as pool:
        for found in pool.map(predict, range(3)):
            np.testing.assert_array_equal(found, expected)
    assert network_session.cache_info().misses == 1


def log_odds_here(colours):
    return predict_dense(colours, load_dense()).log_odds


def test_other_processes_build_their_own(detector):
    colours = np.asarray(PICTURES["flat"] / 255, np.float32)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        found = pool.submit(log_odds_here, colours).result()
    np.testing.assert_array_equal(found, predict_dense(colours, detector).log_odds)


# Faults


@pytest.mark.parametrize("fault", ["missing", "foreign", "shape", "even", "filters"])
def test_weights_that_do_not_fit(detector, fault):
    weights = dict(detector.weights)
    if fault == "missing":
        del weights["judge.bias"]
    elif fault == "foreign":
        weights["more"] = np.zeros(1, np.float32)
    elif fault == "shape":
        weights["narrow.weight"] = weights["narrow.weight"][:, :8]
    elif fault == "even":
        weights["response.filters"] = np.zeros((2, 1, 4, 4), np.float32)
    else:
        weights["response.filters"] = np.zeros((0, 1, 7, 7), np.float32)
    with pytest.raises(DefocusError, match="do not fit its network; get or make it anew"):
        dense_graph(weights)


def test_a_lack_of_memory_is_one(detector, monkeypatch):
    class Full:
        def run(self, *_):
            raise Exception("Failed to allocate memory for requested buffer of size 9")

    monkeypatch.setattr(dense, "network_session", lambda *_: Full())
    with pytest.raises(MemoryError, match="Failed to allocate"):
        predict_dense(np.zeros((32, 32, 3), np.float32), detector)


def test_the_graph_is_built_without_torch():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from napari_defocus.dense.detector import load_dense\n"
        "from napari_defocus.dense.inference import network_session\n"
        "network_session(load_dense())"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
