import subprocess
import sys
import warnings
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from threading import Barrier, Thread
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from skimage import data
from torch import nn

from benchmarks.speed import gpu
from napari_defocus.cli.main import build_parser, detection_config, main
from napari_defocus.core import devices
from napari_defocus.core.devices import Device, DeviceWarning, at_work, in_tiles, inference_device
from napari_defocus.core.errors import DefocusError
from napari_defocus.core.tiling import plan_tiles, whole
from napari_defocus.dense import inference as dense
from napari_defocus.dense.inference import predict_dense
from napari_defocus.dense.network import DenseNet
from napari_defocus.detection import _torch_refinement as device_refinement
from napari_defocus.detection import inference as judging
from napari_defocus.detection import postprocess as deciding
from napari_defocus.detection._torch_refinement import refine_on
from napari_defocus.detection.api import DetectionConfig, detect
from napari_defocus.detection.identity import result_identity
from napari_defocus.detection.inference import predict_plane, predict_region
from napari_defocus.detection.refinement import RefinementConfig, refine
from napari_defocus.filters import _torch as device_filters
from napari_defocus.filters.guided import guided_filter
from napari_defocus.filters.noise import measure_plane
from napari_defocus.filters.plane import prepare_plane
from napari_defocus.filters.resampling import block_mean, enlarge
from napari_defocus.io.raster import write_png
from napari_defocus.metric._torch_response import log_odds_of, predict_log_odds_on
from napari_defocus.metric.local_metric import load_metric
from napari_defocus.metric.response import halo, predict_log_odds

CPU = torch.device("cpu")
METRIC = load_metric()
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
def device():
    with at_work(CPU) as device:
        yield device


@pytest.fixture
def on_torch(monkeypatch):
    """Let detection take torch's CPU for its device, and count who asks."""
    asked = []

    def choose(name, *, dense):
        asked.append((name, dense))
        return CPU

    for module in (judging, deciding):
        monkeypatch.setattr(module, "inference_device", choose)
    return asked


PICTURES = {
    "camera": data.camera()[::2, ::2],
    "coins": data.coins()[:203, :301],
    "noisy": np.clip(data.moon()[:256, :256] + RNG.normal(0, 15, (256, 256)), 0, 255),
    "colours": data.coffee()[::2, ::2],
}


# Which device


def test_auto_is_cuda_for_the_network_alone(monkeypatch):
    for there, expected in ((True, torch.device("cuda")), (False, None)):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert inference_device("auto", dense=True) == expected
        assert inference_device("auto", dense=False) is None
        assert inference_device("cpu", dense=True) is None


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_a_device_is_taken_by_name_or_said_not_to_be_there(monkeypatch, name):
    module = getattr(torch, name)
    monkeypatch.setattr(module, "is_available", lambda: True)
    assert inference_device(name, dense=False) == torch.device(name)
    monkeypatch.setattr(module, "is_available", lambda: False)
    for config in (DetectionConfig(device=name), DetectionConfig("metric", device=name)):
        with pytest.raises(DefocusError, match=f"'{name}' is not there"):
            detect(COLOURS, config=config)


def test_an_unknown_device_is_refused_with_the_choice():
    with pytest.raises(DefocusError, match=r"device is 'tpu'.*auto, cpu, cuda, mps"):
        detect(COLOURS, config=DetectionConfig(device="tpu"))


def test_without_torch_a_named_device_is_refused_and_auto_is_the_cpu(monkeypatch):
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
    asked = detection_config(build_parser().parse_args([*words, "--device", "cuda"]))
    assert asked == DetectionConfig(device="cuda")


def test_results_do_not_name_their_device():
    """A run that was stopped goes on where there is no such device."""
    one, other = (
        result_identity("a", METRIC, DetectionConfig("metric", device=name))
        for name in ("cuda", "cpu")
    )
    assert one == other


# Filters


@given(st.integers(1, 23), st.integers(1, 23), st.integers(0, 60), st.integers(0, 2**32 - 1))
def test_borders_are_those_of_scipy(rows, columns, radius, seed):
    values = np.random.default_rng(seed).random((rows, columns))
    tensor = torch.from_numpy(values)
    wide = device_filters.mirrored(tensor, radius, radius, 1).numpy()
    np.testing.assert_array_equal(wide, np.pad(values, ((0, 0), (radius,) * 2), "symmetric"))
    for ours, mode in (("reflect", "reflect"), ("nearest", "nearest")):
        found = device_filters.box_mean(tensor, radius, ours).numpy()
        np.testing.assert_allclose(
            found, ndimage.uniform_filter(values, 2 * radius + 1, mode=mode), atol=1e-12
        )


@given(st.integers(2, 40), st.integers(2, 40), st.floats(0.3, 9), st.integers(0, 2**32 - 1))
def test_filters_are_those_of_scipy(rows, columns, sigma, seed):
    values = np.random.default_rng(seed).random((rows, columns)).astype(np.float32)
    tensor = torch.from_numpy(values)
    for order in ((0, 0), (1, 0), (0, 1)):
        found = device_filters.gaussian(tensor, sigma, order).numpy()
        expected = ndimage.gaussian_filter(values, sigma, order=order)
        np.testing.assert_allclose(found, expected, atol=2e-6 / min(sigma, 1))
    kernels = np.random.default_rng(seed).normal(size=(2, 3, 5)).astype(np.float32)
    expected = [ndimage.correlate(values, kernel, mode="reflect") for kernel in kernels]
    np.testing.assert_allclose(device_filters.correlate(tensor, kernels), expected, atol=5e-6)
    for factor in (1, 2, 4):
        blocks = device_filters.block_mean(tensor, factor)
        np.testing.assert_allclose(blocks, block_mean(values, factor), atol=1e-6)
        enlarged = device_filters.enlarge(blocks, factor)
        np.testing.assert_allclose(enlarged, enlarge(blocks.numpy(), factor), atol=1e-6)


def test_the_guided_filter_is_the_same():
    values, guide = RNG.random((2, 50, 61)).astype(np.float32)
    gain, offset = device_filters.guided(*map(torch.from_numpy, (values, guide)), 6, 1e-3)
    found = (gain * torch.from_numpy(guide) + offset).numpy()
    np.testing.assert_allclose(found, guided_filter(values, guide, 6, 1e-3), atol=1e-6)


# The metric


@pytest.mark.parametrize("name", PICTURES)
def test_the_metric_says_the_same_of_pictures(device, name):
    plane = prepare_plane(PICTURES[name])
    log_odds, valid = predict_log_odds(plane, METRIC)
    found, trusted = predict_log_odds_on(device, plane, METRIC, whole(plane.grey.shape))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, log_odds, atol=1e-4)
    np.testing.assert_array_equal(trusted, valid)


@given(
    st.integers(7, 70),
    st.integers(7, 70),
    st.floats(0, 3),
    st.sampled_from([0.0, 0.02, 0.3]),
    st.integers(0, 2**32 - 1),
)
def test_the_metric_says_the_same_of_any_image(rows, columns, sigma, noise, seed):
    rng = np.random.default_rng(seed)
    image = ndimage.gaussian_filter(rng.random((rows, columns)), sigma)
    plane = prepare_plane(image + noise * image.std() * rng.normal(size=image.shape))
    log_odds, valid = predict_log_odds(plane, METRIC)
    with at_work(CPU) as device:
        found, trusted = predict_log_odds_on(device, plane, METRIC, whole(plane.grey.shape))
    np.testing.assert_allclose(found, log_odds, atol=1e-4)
    # Where trust ends is a matter of the last digit.
    assert (trusted != valid).mean() < 0.01


def test_an_image_smaller_than_the_filters_is_refused(device):
    plane = prepare_plane(RNG.random((5, 40)))
    with pytest.raises(DefocusError, match="smaller than the metric's filters"):
        predict_log_odds_on(device, plane, METRIC, whole(plane.grey.shape))


def test_nothing_stays_behind_on_the_cpu():
    """Tensors that meet on two devices are an error, even where none computes."""
    grey = torch.empty((90, 110), device="meta")
    assert log_odds_of(grey, (1e-4, 1e-3), METRIC, whole(grey.shape)).shape == (2, 90, 110)
    network = DenseNet(torch.zeros(2, 7, 7)).to("meta")
    shown = torch.empty((90, 110, 3), device="meta")
    assert dense._predict_on(shown, network, (0.5, 0.2)).shape == (3, 90, 110)


# The refinement


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.floats(0, 2),
    st.sampled_from([RefinementConfig(), RefinementConfig(threshold=None, neighbourhood=3)]),
    st.integers(0, 2**32 - 1),
)
def test_the_refinement_is_the_same(rows, columns, sigma, config, seed):
    rng = np.random.default_rng(seed)
    start = ndimage.gaussian_filter(rng.random((rows, columns)), sigma)
    start = np.clip(3 * (start - 0.5) + 0.5, 0, 1).astype(np.float32)
    with at_work(CPU) as device:
        found = refine_on(device, start, config)
    np.testing.assert_allclose(found, refine(start, config), atol=1e-5)


def test_the_refinement_refuses_what_the_other_refuses(device):
    with pytest.raises(DefocusError, match="keep is 2"):
        refine_on(device, np.zeros((3, 3), np.float32), RefinementConfig(keep=2))


def test_the_refinement_goes_to_the_cpu_where_the_device_fails(device, monkeypatch):
    start = RNG.random((40, 40)).astype(np.float32)

    def fail(values):
        raise OUT_OF_MEMORY

    monkeypatch.setattr(device, "upload", fail)
    with notices("out of memory; the CPU goes on in its place"):
        found = refine_on(device, start, RefinementConfig())
    np.testing.assert_array_equal(found, refine(start))


def test_the_refinement_stops_when_nothing_dies(monkeypatch):
    looked = []

    def counted(*arguments):
        looked.append(1)
        return device_filters.box_mean(*arguments)

    monkeypatch.setattr(device_refinement, "box_mean", counted)
    start = torch.tensor([[1.0] * 9 + [0.2, 0.1, 0.0]] * 3)
    lived = device_refinement.iterations_lived(start, RefinementConfig())
    assert lived.dtype == torch.int16
    assert lived[0].tolist() == [100] * 9 + [0, 0, 0]
    assert len(looked) == 2


# Detection


def test_detection_with_the_metric_is_the_same(on_torch):
    image, config = data.camera(), DetectionConfig("metric")
    expected = detect(image, config=replace(config, device="cpu"))
    on_torch.clear()
    found = detect(image, config=replace(config, device="cuda"))
    assert set(on_torch) == {("cuda", False)}
    np.testing.assert_allclose(found.blur, expected.blur, atol=1e-4)
    assert (found.mask != expected.mask).mean() < 1e-3


def test_detection_with_the_network_is_the_same(on_torch, detector, monkeypatch):
    monkeypatch.setattr(judging, "cached_dense", lambda source: detector)
    config = DetectionConfig("dense")
    found = predict_plane(COLOURS, METRIC, config)
    assert set(on_torch) == {("auto", True)}
    for module in (judging, deciding):
        monkeypatch.setattr(module, "inference_device", lambda name, dense: None)
    expected = predict_plane(COLOURS, METRIC, config)
    np.testing.assert_allclose(found.score, expected.score, atol=1e-4)
    np.testing.assert_allclose(found.radius, expected.radius, atol=1e-4)
    np.testing.assert_allclose(found.radius_error, expected.radius_error, atol=1e-4)


@pytest.mark.parametrize("kind", ["metric", "dense"])
def test_parts_are_judged_side_by_side_and_join(on_torch, detector, monkeypatch, kind):
    monkeypatch.setattr(judging, "cached_dense", lambda source: detector)
    monkeypatch.setattr(dense, "TILE", 64)
    monkeypatch.setattr("napari_defocus.core.threads.cores", lambda: 3)
    monkeypatch.setattr(judging, "plan_parts", lambda shape, step: plan_tiles(shape, 64))
    alone, in_threads = [], judging.in_threads

    def noted(*arguments, **options):
        alone.append(options["alone"])
        return in_threads(*arguments, **options)

    monkeypatch.setattr(judging, "in_threads", noted)
    image, config = data.coffee()[:150, :200], DetectionConfig(kind, device="cuda")
    found = predict_plane(image, METRIC, config)
    for module in (judging, deciding):
        monkeypatch.setattr(module, "inference_device", lambda name, dense: None)
    expected = predict_plane(image, METRIC, config)
    assert alone == [False, kind == "dense"]
    np.testing.assert_allclose(found.score, expected.score, atol=1e-4)


def test_a_stack_holds_its_device_to_the_end(on_torch, monkeypatch):
    given_back = []
    monkeypatch.setattr(Device, "give_back", lambda self: given_back.append(self))
    stack = np.stack([data.camera()[::8, ::8], data.camera()[1::8, ::8]])
    detect(stack, config=DetectionConfig("metric"), axes="ZYX")
    assert len(given_back) == 1


# Memory and faults


def narrow(most, error=OUT_OF_MEMORY):
    """Make a network that has not the memory for images of more than `most` pixels."""

    class Narrow(DenseNet):
        def forward(self, image):
            if image.shape[2] * image.shape[3] > most:
                raise error
            return super().forward(image)

    return Narrow


@pytest.fixture
def small_tiles(monkeypatch):
    monkeypatch.setattr(dense, "TILE", 256)
    monkeypatch.setattr(dense, "HALO", 64)
    monkeypatch.setattr(dense, "SMALLER", 128)
    monkeypatch.setattr(dense, "SMALLER_HALO", 96)


def narrowed(device, detector, most, error=OUT_OF_MEMORY):
    """Put such a network on the device."""
    network = narrow(most, error)(torch.zeros(2, 7, 7)).eval()
    network.load_state_dict(dense.build_network(detector).state_dict())
    return device.keep(detector, lambda: network)


@contextmanager
def notices(*messages):
    """Look that these are given, and no others."""
    with pytest.warns(DeviceWarning) as told:
        yield
    assert {str(notice.message) for notice in told} == {f"device cpu: {m}" for m in messages}


IMAGE = ndimage.gaussian_filter(RNG.random((280, 256, 3)), (1, 1, 0)).astype(np.float32)


def test_out_of_memory_the_tile_is_halved(device, detector, small_tiles):
    guide = IMAGE[..., 0]
    expected = predict_dense(IMAGE, detector, guide=guide, device=device).log_odds
    device._kept.clear()
    narrowed(device, detector, 256 * 224)
    with notices("out of memory; going on in smaller tiles"):
        found = predict_dense(IMAGE, detector, guide=guide, device=device).log_odds
    assert np.isfinite(found).all()
    assert np.abs(found - expected).max() < 0.25 * expected.std()
    assert not np.array_equal(found, expected)


def test_out_of_memory_again_the_cpu_takes_the_tile_as_it_is(device, detector, small_tiles):
    expected = predict_dense(IMAGE, detector)
    narrowed(device, detector, 0)
    with notices(
        "out of memory; going on in smaller tiles", "out of memory; the CPU goes on in its place"
    ):
        found = predict_dense(IMAGE, detector, device=device)
    np.testing.assert_array_equal(found.log_odds, expected.log_odds)


def test_another_fault_goes_to_the_cpu_at_once(device, detector, small_tiles):
    expected = predict_dense(IMAGE, detector)
    narrowed(device, detector, 0, RuntimeError("no kernel image is available"))
    with notices("no kernel image is available; the CPU goes on in its place"):
        found = predict_dense(IMAGE, detector, device=device)
    np.testing.assert_array_equal(found.log_odds, expected.log_odds)


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OUT_OF_MEMORY, True),
        (torch.OutOfMemoryError("?"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB)"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (NotImplementedError("not implemented for MPS"), False),
    ],
)
def test_what_is_out_of_memory_is_known_by_what_is_said(device, error, full):
    done = []

    def fail():
        done.append("device")
        raise error

    with pytest.warns(DeviceWarning):
        assert device.work([fail, fail], lambda: "cpu") == "cpu"
    assert len(done) == (2 if full else 1)


def test_the_command_line_tells_in_a_line(on_torch, monkeypatch, tmp_path, capsys):
    write_png(tmp_path / "camera.png", data.camera()[::4, ::4])

    def fail(self, values):
        raise OUT_OF_MEMORY

    monkeypatch.setattr(Device, "upload", fail)
    words = ["detect", str(tmp_path / "camera.png"), "--out", str(tmp_path / "o")]
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main([*words, "--detector", "metric", "--device", "cuda"]) == 0
    fallback = "device cpu: out of memory; the CPU goes on in its place"
    assert capsys.readouterr().err.splitlines() == [
        "device cpu: out of memory; going on in smaller tiles",
        fallback,  # of the judging
        fallback,  # of the refinement
    ]


def test_other_errors_are_not_hidden(device):
    def fail():
        raise DefocusError("what it is")

    with pytest.raises(DefocusError, match="what it is"):
        device.work([fail], lambda: pytest.fail("not the CPU's"))


def test_the_metric_in_smaller_tiles_is_the_same(device, monkeypatch):
    plane = prepare_plane(np.tile(data.camera()[:, :80], (3, 1))[:1404])
    region = (slice(32, 1404), slice(0, 64))
    expected, trusted = predict_log_odds_on(device, plane, METRIC, region)
    monkeypatch.setattr("napari_defocus.metric._torch_response.SMALLER", 256)
    upload = device.upload

    def short(values):
        if len(values) > 256 + 2 * (halo(METRIC) + 16):
            raise OUT_OF_MEMORY
        return upload(values)

    monkeypatch.setattr(device, "upload", short)
    with notices("out of memory; going on in smaller tiles"):
        found, valid = predict_log_odds_on(device, plane, METRIC, region)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(valid, trusted)


def test_a_metric_s_fault_goes_to_the_cpu(device, monkeypatch):
    plane = prepare_plane(data.camera()[::4, ::4])

    def fail(values):
        raise RuntimeError("no driver")

    monkeypatch.setattr(device, "upload", fail)
    with notices("no driver; the CPU goes on in its place"):
        found, _ = predict_log_odds_on(device, plane, METRIC, whole(plane.grey.shape))
    np.testing.assert_array_equal(found, predict_log_odds(plane, METRIC)[0])


def test_tiles_of_a_region_join():
    values = RNG.random((3, 40, 50)).astype(np.float32)
    region = (slice(5, 38), slice(7, 50))
    found = in_tiles(lambda part: values[:, *part], region, 16)
    np.testing.assert_array_equal(found, values[:, *region])


def test_memory_is_given_back_with_the_last_job(monkeypatch):
    emptied = []
    monkeypatch.setattr(Device, "_empty", lambda self: emptied.append(self))
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = True
    with at_work(CPU) as outer:
        assert torch.backends.cudnn.allow_tf32 is False
        network = outer.keep("net", partial(nn.Linear, 2, 2))
        with at_work(CPU) as inner:
            assert inner is outer
            assert inner.keep("net", partial(pytest.fail, "made twice")) is network
        assert not emptied
    assert emptied == [outer]
    assert not outer._kept
    assert torch.backends.cudnn.allow_tf32 is True
    torch.backends.cudnn.allow_tf32 = before
    with pytest.raises(KeyError), at_work(CPU) as again:
        raise KeyError
    assert again is outer
    assert emptied == [outer, outer]
    with at_work(None) as none:
        assert none is None


def test_as_many_threads_as_streams_are_on_the_device_at_once(monkeypatch):
    """The code for CUDA, with stand-ins for what only CUDA has."""
    made, waited = [], []

    def stream(place):
        made.append(SimpleNamespace(synchronize=lambda: waited.append(1)))
        return made[-1]

    monkeypatch.setattr(torch.cuda, "Stream", stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda place: made[0])
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, pin_memory=False, **k: empty(*a, **k))
    device = Device(torch.device("cpu"))
    device.cuda = True
    device._streams.put(None)
    values = RNG.random((4, 5)).astype(np.float32)
    both = Barrier(devices.STREAMS, timeout=10)
    found = []

    def work():
        def here():
            both.wait()  # as many threads get here at once, or this fails
            return device.download(2 * device.upload(values))

        found.append(device.work([here], lambda: pytest.fail("not the CPU's")))

    threads = [Thread(target=work) for _ in range(2 * devices.STREAMS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == devices.STREAMS
    assert len(waited) == len(found) == 2 * devices.STREAMS
    for result in found:
        np.testing.assert_array_equal(result, 2 * values)


def test_regions_of_tiled_runs_are_judged_on_the_device(on_torch):
    image = data.camera()[::2, ::2]
    found = predict_region(
        lambda rows, columns: image[rows, columns],
        (slice(64, 128), slice(0, 256)),
        image.shape,
        measure_plane(image),
        METRIC,
        DetectionConfig("metric", device="cuda"),
    )
    assert on_torch == [("cuda", False)]
    expected = predict_plane(image, METRIC, DetectionConfig("metric")).score[64:128]
    np.testing.assert_allclose(found.score, expected, atol=1e-4)


# The benchmark


def test_the_benchmark_runs_small_on_the_cpu(capsys):
    gpu.main(["--device", "cpu", "--megapixels", "0.05", "--repeats", "1"])
    told = capsys.readouterr().out
    for words in ("copies on the device", "pinned memory", "filter, pool, refine", "dense network"):
        assert words in told


def test_the_benchmark_says_that_there_is_no_gpu(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    gpu.main([])
    assert "no CUDA device is there: nothing was measured" in capsys.readouterr().out
