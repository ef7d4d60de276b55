"""Training in a child process: the nets of `train`, and whatever can happen to the process."""

import os
import random
import sys
import tempfile
import threading
import time

import numpy as np
import pytest

from napari_defocus.core import child
from napari_defocus.core.errors import DefocusError
from napari_defocus.metric._train_process import train_in_child
from napari_defocus.metric.nets import TrainingConfig
from napari_defocus.metric.training import train

SHORT = TrainingConfig(nets=1, epochs=2)
LONG = TrainingConfig(nets=60, epochs=500)
# Half a second is what is promised; the machine may be busy.
LONGEST_STOP = 3


@pytest.fixture(autouse=True)
def nothing_stays(started, tmp_path, monkeypatch):
    """No file and no process is left, whatever happened."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield started
    assert started
    assert all(process.returncode is not None for process in started)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("napari-defocus-")]


@pytest.fixture
def few(patch_set):
    return patch_set.sample(160)


def assert_same(found, expected):
    assert found.config == expected.config
    for net, other in zip(found.nets, expected.nets, strict=True):
        assert net.history == other.history
        assert net.done == other.done
        for part in ("best", "last", "optimiser"):
            weights, others = getattr(net, part), getattr(other, part)
            assert set(weights) == set(others)
            for name, values in weights.items():
                np.testing.assert_array_equal(values, others[name])
    for side in ("training", "validation", "base"):
        np.testing.assert_array_equal(getattr(found, side).patches, getattr(expected, side).patches)


def test_the_nets_are_those_of_train(few, one_thread, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    events, expected = [], []
    found = train_in_child(few, SHORT, on_event=events.append)
    assert_same(found, train(few, SHORT, on_event=expected.append))
    assert events == expected


def test_what_was_trained_when_it_is_stopped_can_be_resumed(few, one_thread, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(child, "GRACE", 20)  # the machine may be busy
    config, events = TrainingConfig(nets=1, epochs=12, patience=12), []
    stopped = train_in_child(few, config, on_event=events.append, should_stop=lambda: bool(events))
    assert not stopped.complete
    whole = train_in_child(few, config, resume=stopped)
    assert_same(whole, train(few, config))


@pytest.mark.parametrize("after", [0, 0.5, 3])
def test_it_stops_at_any_moment(patch_set, after):
    began = time.monotonic()
    train_in_child(patch_set, LONG, should_stop=lambda: time.monotonic() - began > after)
    assert time.monotonic() - began < after + LONGEST_STOP


def test_what_is_refused_says_the_same(patch_set):
    blurred = patch_set.take(patch_set.labels == 1)
    with pytest.raises(DefocusError, match="paint more sharp regions"):
        train_in_child(blurred, SHORT)
    with pytest.raises(DefocusError, match="no such file"):
        train_in_child(patch_set, TrainingConfig(base="/no/such/base"))


def kill_after(made, seconds):
    def kill():
        time.sleep(seconds)
        made[-1].kill()

    thread = threading.Thread(target=kill)
    thread.start()
    return thread


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize(
    "moments",
    [pytest.param(3, id="three"), pytest.param(20, id="twenty", marks=pytest.mark.slow)],
)
def test_it_is_killed_at_random_moments(patch_set, nothing_stays, moments):
    chance = random.Random(moments)
    for _ in range(moments):
        thread = kill_after(nothing_stays, chance.uniform(0.1, 4))
        with pytest.raises(DefocusError, match=r"was killed.*close other programs"):
            train_in_child(patch_set, LONG)
        thread.join()


def in_the_child(monkeypatch, lines):
    """Let the child run lines first."""
    command = child._command

    def changed(module, folder):
        code = f"{lines}\nimport runpy, sys\nrunpy.run_module({module!r}, run_name='__main__')"
        return [*command(module, folder)[:2], "-c", code, str(folder)]

    monkeypatch.setattr(child, "_command", changed)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of the address space")
@pytest.mark.parametrize("when", ["as torch is imported", "as nets are trained"])
def test_memory_runs_out(patch_set, monkeypatch, when):
    lines = """
import resource
import numpy, scipy.linalg
if {late}:
    import torch.optim
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**26, used + 2**26))
"""
    in_the_child(monkeypatch, lines.format(late=when == "as nets are trained"))
    many = patch_set.take(np.resize(np.arange(len(patch_set)), 20_000))
    with pytest.raises(DefocusError, match="close other programs"):
        train_in_child(many, SHORT)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("raise ModuleNotFoundError(\"No module named 'torch'\")", "No module named 'torch'"),
        ("raise ImportError('libtorch_cpu.so: undefined symbol')", "undefined symbol"),
        ("raise OSError('[WinError 126] c10.dll')", "c10.dll"),
        ("", "torch"),
    ],
)
def test_torch_is_missing_or_broken(few, tmp_path, monkeypatch, text, words):
    (tmp_path / "torch.py").write_text(text)
    in_the_child(monkeypatch, f"import sys\nsys.path.insert(0, {str(tmp_path)!r})")
    with pytest.raises(DefocusError, match=words):
        train_in_child(few, SHORT)


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_torch_crashes(few, tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)")
    in_the_child(monkeypatch, f"import sys\nsys.path.insert(0, {str(tmp_path)!r})")
    with pytest.raises(DefocusError, match=r"SIGSEGV.*'instant'"):
        train_in_child(few, SHORT)
