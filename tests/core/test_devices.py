import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage import data

from benchmarks.speed import gpu
from napari_defocus.cli._detection_options import detection_config
from napari_defocus.cli.main import build_parser, main
from napari_defocus.core import devices
from napari_defocus.core.devices import DeviceWarning, inference_device
from napari_defocus.core.errors import DefocusError
from napari_defocus.dense import inference as dense
from napari_defocus.dense import on_device
from napari_defocus.dense.inference import predict_dense
from napari_defocus.dense.network import DenseNet
from napari_defocus.detection import inference as detection
from napari_defocus.detection.api import DetectionConfig, detect
from napari_defocus.detection.detectors import Detector
from napari_defocus.detection.identity import result_identity
from napari_defocus.detection.inference import predict_plane
from napari_defocus.io.raster import write_png
from napari_defocus.metric.local_metric import load_metric

# A device that is not None, and where the network can run.
CPU = torch.device("cpu")
METRIC = Detector(load_metric())
DENSE = Detector(load_metric(), "dense")
RNG = np.random.default_rng(0)
COLOURS = ndimage.gaussian_filter(RNG.random((70, 90, 3)), (1, 1, 0)).astype(np.float32)
OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def loud():
    """A fault of a device is a failure where no test looks for it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeviceWarning)
        yield


@pytest.fixture(scope="module")
def detector(random_detector):
    return random_detector


@pytest.fixture
def on_torch(monkeypatch):
    """Let detection take torch's CPU for its device, and record the calls."""
    calls = []

    def choose(name, *, dense):
        calls.append((name, dense))
        return CPU if dense else None

    monkeypatch.setattr(detection, "inference_device", choose)
    return calls


def failing(monkeypatch, error):
    """Let the network fail on a device."""

    class Failing(DenseNet):
        def features(self, image):
            raise error

    network = Failing(torch.zeros(2, 7, 7)).eval()
    monkeypatch.setattr(on_device, "build_network", lambda detector, device: network)


# Which device


def test_auto_is_cuda_for_the_network_alone(monkeypatch):
    monkeypatch.setattr(devices, "_has_driver", lambda: True)
    for there, expected in ((True, torch.device("cuda")), (False, None)):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert inference_device("auto", dense=True) == expected
        assert inference_device("auto", dense=False) is None
        assert inference_device("cpu", dense=True) is None


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_a_device_is_taken_by_name_or_reported_missing(monkeypatch, name):
    module = getattr(torch, name)
    monkeypatch.setattr(module, "is_available", lambda: True)
    assert inference_device(name, dense=True) == torch.device(name)
    assert inference_device(name, dense=False) is None
    monkeypatch.setattr(module, "is_available", lambda: False)
    for config in (DetectionConfig(device=name), DetectionConfig("metric", device=name)):
        with pytest.raises(DefocusError, match=f"'{name}' is not there"):
            detect(COLOURS, config=config)


def test_an_unknown_device_is_refused_with_the_choice():
    with pytest.raises(DefocusError, match=r"device is 'tpu'.*auto, cpu, cuda, mps"):
        detect(COLOURS, config=DetectionConfig(device="tpu"))


@pytest.mark.parametrize("platform", ["linux", "win32", "darwin"])
def test_without_a_driver_torch_is_not_imported(monkeypatch, platform):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(devices.Path, "exists", lambda path: False)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert inference_device("auto", dense=True) is None


def test_without_torch_a_named_device_is_refused_and_auto_is_the_cpu(monkeypatch):
    monkeypatch.setattr(devices, "_has_driver", lambda: True)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert inference_device("auto", dense=True) is None
    with pytest.raises(DefocusError, match="'cuda' needs torch; pip install torch"):
        inference_device("cuda", dense=False)


def test_devices_are_known_without_torch():
    code = (
        "import sys, napari_defocus.core.devices, napari_defocus.detection.inference; "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_the_command_line_has_the_setting():
    words = ["detect", "a.png", "--out", "o"]
    assert detection_config(build_parser().parse_args(words)) == DetectionConfig()
    given = detection_config(build_parser().parse_args([*words, "--device", "cuda"]))
    assert given == DetectionConfig(device="cuda")


def test_results_do_not_name_their_device():
    """A run that was stopped goes on where there is no such device."""
    one, other = (
        result_identity("a", METRIC, DetectionConfig("metric", device=name))
        for name in ("cuda", "cpu")
    )
    assert one == other


# The network on a device


def test_nothing_stays_behind_on_the_cpu():
    """Tensors that meet on two devices are an error, even where none computes."""
    network = DenseNet(torch.zeros(2, 7, 7)).to("meta")
    shown = torch.empty((1, 3, 96, 128), device="meta")
    predicted, features = on_device.run(network, shown)
    assert predicted.shape == (1, 3, 96, 128)
    assert features.shape == (1, 32, 48, 64)


def test_detection_on_a_device_is_the_same(on_torch, detector, monkeypatch):
    monkeypatch.setattr(detection, "cached_dense", lambda source: detector)
    config = DetectionConfig("dense")
    found = predict_plane(COLOURS, DENSE, config)
    assert set(on_torch) == {("auto", True)}
    monkeypatch.setattr(detection, "inference_device", lambda name, dense: None)
    expected = predict_plane(COLOURS, DENSE, config)
    for name in ("score", "radius", "radius_error"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-4)


def test_tiles_are_predicted_side_by_side_and_join(on_torch, detector, monkeypatch):
    monkeypatch.setattr(detection, "cached_dense", lambda source: detector)
    monkeypatch.setattr(dense, "TILE", 64)
    monkeypatch.setattr(dense, "cores", lambda: 3)
    at_once, in_threads = [], dense.in_threads

    def noted(*arguments, **options):
        at_once.append(options["at_once"])
        return in_threads(*arguments, **options)

    monkeypatch.setattr(dense, "in_threads", noted)
    image, config = data.coffee()[:150, :200], DetectionConfig("dense", device="cuda")
    found = predict_plane(image, DENSE, config)
    monkeypatch.setattr(detection, "inference_device", lambda name, dense: None)
    expected = predict_plane(image, DENSE, config)
    assert at_once == [3, 3]
    np.testing.assert_allclose(found.score, expected.score, atol=1e-4)


# Faults


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (OUT_OF_MEMORY, "out of memory"),
        (torch.OutOfMemoryError("?"), "out of memory"),
        (RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB)"), "out of memory"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "out of memory"),
        (RuntimeError("no kernel image\nis available"), "no kernel image is available"),
        (NotImplementedError("not implemented for MPS"), "not implemented for MPS"),
    ],
)
def test_where_a_device_fails_the_cpu_takes_the_tile(detector, monkeypatch, error, fault):
    expected = predict_dense(COLOURS, detector, seen=np.ones(COLOURS.shape[:2], bool))
    failing(monkeypatch, error)
    with pytest.warns(DeviceWarning) as notices:
        found = predict_dense(COLOURS, detector, seen=np.ones(COLOURS.shape[:2], bool), device=CPU)
    messages = {str(notice.message) for notice in notices}
    assert messages == {f"device cpu: {fault}; the CPU goes on in its place"}
    np.testing.assert_array_equal(found.log_odds, expected.log_odds)


def test_the_command_line_reports_a_fault_in_a_line(
    on_torch, detector, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(detection, "cached_dense", lambda source: detector)
    failing(monkeypatch, OUT_OF_MEMORY)
    write_png(tmp_path / "camera.png", data.camera()[::4, ::4])
    words = ["detect", str(tmp_path / "camera.png"), "--out", str(tmp_path / "o")]
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main([*words, "--detector", "dense", "--device", "cuda"]) == 0
    fault = "device cpu: out of memory; the CPU goes on in its place"
    told, limit = capsys.readouterr().err.splitlines()
    assert told == fault
    assert ": sharp up to " in limit


def test_other_errors_are_not_hidden(detector, monkeypatch):
    failing(monkeypatch, DefocusError("what it is"))
    with pytest.raises(DefocusError, match="what it is"):
        predict_dense(COLOURS, detector, device=CPU)


def test_torch_is_left_as_it_was(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    inside = []

    def fail():
        with on_device._single_precision():
            inside.append(torch.backends.cudnn.allow_tf32)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert inside == [False]
    assert torch.backends.cudnn.allow_tf32 is True


def test_memory_is_freed_after_a_region(detector, monkeypatch):
    emptied = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(1))
    on_device.free_memory(torch.device("cuda"))
    on_device.free_memory(CPU)
    assert emptied == [1]
    monkeypatch.setattr(dense, "free_memory", emptied.append)
    monkeypatch.setattr(dense, "TILE", 32)
    predict_dense(COLOURS, detector, device=CPU)
    assert emptied == [1, CPU]


# The benchmark


def test_the_benchmark_runs_small_on_the_cpu(capsys):
    gpu.main(["--device", "cpu", "--megapixels", "0.05", "--repeats", "1"])
    table = capsys.readouterr().out
    for words in ("dense network, with transfers", "whole detect, cpu"):
        assert words in table


def test_the_benchmark_reports_that_there_is_no_gpu(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    gpu.main([])
    assert "no CUDA device is there: nothing was measured" in capsys.readouterr().out
