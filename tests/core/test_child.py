"""Work in a child process: what it returns, how it is stopped, and each way in which it can die."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import psutil
import pytest

from napari_defocus.core.child import run_child
from napari_defocus.core.errors import DefocusError
from napari_defocus.core.progress import Event, ignore_event, never_stop

# Half a second is what is promised; the machine may be busy.
LONGEST_STOP = 3
HEAD = """
import os, signal, sys, time
from napari_defocus.core.child import serve
from napari_defocus.core.errors import DefocusError
from napari_defocus.core.progress import Event
"""


@pytest.fixture
def run(tmp_path, monkeypatch, started):
    """Run lines as the work of a child."""
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "folder"
    folder.mkdir()

    def run(lines, on_event=ignore_event, should_stop=never_stop):
        body = textwrap.indent(textwrap.dedent(lines), "    ")
        module = f"{HEAD}\ndef work(folder, on_event, should_stop):\n{body}\nserve(work)\n"
        (tmp_path / "the_work.py").write_text(module)
        return run_child("the_work", folder, on_event, should_stop)

    yield run
    assert all(process.returncode is not None for process in started)


def test_events_and_a_result(run, tmp_path):
    events = []
    lines = """
    print("a library prints this")
    on_event(Event("counting", 1, 2, {"loss": 0.1}))
    on_event(Event("zählen", 2, 2))
    (folder / "result").write_text("42")
    return True
    """
    assert run(lines, events.append)
    assert events == [Event("counting", 1, 2, {"loss": 0.1}), Event("zählen", 2, 2)]
    assert (tmp_path / "folder" / "result").read_text() == "42"


def test_no_result(run):
    assert not run("return False")


@pytest.mark.parametrize(
    ("raised", "words"),
    [
        ("DefocusError('paint more blurred regions')", "^paint more blurred regions$"),
        ("MemoryError()", "MemoryError; close other programs"),
        ("RuntimeError('CUDA out of memory. Tried 2 GiB')", "2 GiB; close other programs"),
        ("RuntimeError('DefaultCPUAllocator: could not allocate')", "close other programs"),
        ("RuntimeError('CUDA error: unspecified launch failure')", "try the device 'cpu'"),
        ("ModuleNotFoundError('No module named torch')", "pip install .* torch"),
        ("KeyError('first.weight')", "KeyError: 'first.weight'; try the device 'cpu'"),
    ],
)
def test_errors_come_over(run, raised, words):
    with pytest.raises(DefocusError, match=words):
        run(f"raise {raised}")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "was killed.*close other programs"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV.*try again"),
        ("os.abort()", "SIGABRT"),
        ("print('no such symbol', file=sys.stderr)\nos._exit(3)", "exit code 3 .no such symbol."),
        ("os.write(2, b'std::bad_alloc')\nos.abort()", "ran out of memory"),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_child_that_dies(run, lines, words):
    with pytest.raises(DefocusError, match=words):
        run(lines)


def test_it_stops_with_a_result(run):
    lines = """
    while not should_stop():
        on_event(Event("waiting", 0, 1))
        time.sleep(.01)
    return True
    """
    seen = []
    assert run(lines, seen.append, lambda: bool(seen))


@pytest.mark.parametrize(
    "lines",
    [
        "while True: pass",
        "time.sleep(1000)",
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: pass",
        # A library that holds the interpreter's lock.
        "import re\nre.match('(a+)+b', 'a' * 60)",
    ],
)
@pytest.mark.parametrize("after", [0, 0.4])
def test_it_is_ended_where_it_does_not_stop(run, lines, after):
    began = time.monotonic()
    assert not run(lines, should_stop=lambda: time.monotonic() - began > after)
    assert time.monotonic() - began < after + LONGEST_STOP


def test_a_listener_that_fails_ends_it(run):
    def fail(_):
        raise KeyError("listener")

    with pytest.raises(KeyError, match="listener"):
        run("on_event(Event('a', 0, 1))\ntime.sleep(1000)", fail)


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("end", ["kill", "killpg"])
def test_it_does_not_outlive_its_parent(tmp_path, end):
    (tmp_path / "sleeper.py").write_text(f"{HEAD}\nserve(lambda *_: time.sleep(1000))\n")
    folder = tmp_path / "folder"
    folder.mkdir()
    script = """
    import sys, threading
    from pathlib import Path
    from napari_defocus.core import child
    start = child._start
    def watched(*arguments):
        process = start(*arguments)
        print(process.pid, flush=True)
        return process
    child._start = watched
    child.run_child("sleeper", Path(sys.argv[1]), print, lambda: False)
    """
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    command = [sys.executable, "-c", textwrap.dedent(script), str(folder)]
    environment = {**os.environ, "PYTHONPATH": path}
    parent = subprocess.Popen(
        command, stdout=subprocess.PIPE, env=environment, start_new_session=True
    )
    with parent:
        pid = int(parent.stdout.readline())
        # Long enough for the child to listen.
        time.sleep(2)
        assert psutil.pid_exists(pid)
        getattr(os, end)(parent.pid, signal.SIGKILL)
        parent.wait()
    last = time.monotonic() + 10
    while (psutil.pid_exists(pid) or folder.exists()) and time.monotonic() < last:
        time.sleep(0.05)
    assert not psutil.pid_exists(pid)
    assert not folder.exists()


def test_it_cannot_be_started(run, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(DefocusError, match="cannot start a Python process"):
        run("return True")
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(DefocusError, match="brings no Python"):
        run("return True")


def test_modules_in_the_working_directory_are_not_its_own(run, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "json.py").write_text("raise RuntimeError('not this one')")
    monkeypatch.chdir(elsewhere)
    assert run("return True")


def test_no_thread_stays(run):
    before = threading.active_count()
    run("return True")
    assert threading.active_count() == before
