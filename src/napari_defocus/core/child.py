"""Work in a child process, for programs that must not wait for it, nor end with it.

The child is a new Python that runs a module of this package. Inputs and results are files in a
folder, events and errors are lines of JSON on the child's standard output: nothing is pickled, and
nothing needs ``__main__`` to be importable. The child ends when its standard input is closed, so it
does not outlive the program that started it, however that ended.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event as Flag
from threading import Thread
from typing import IO, Any, NoReturn

from napari_defocus.core.errors import DefocusError
from napari_defocus.core.progress import Event, OnEvent, ShouldStop
from napari_defocus.core.threads import cores

# Seconds between two looks at whether to stop; those in which the child may stop by itself, with a
# result; those between its termination and its end by force.
POLL = 0.02
GRACE = 0.25
FORCE = 0.08
# Where the child's standard error goes, in its folder.
ERRORS = "errors.txt"
STOP = b"stop\n"
OTHERWISE = "the device 'cpu', or the method 'instant'"
MEMORY = "close other programs, or take fewer patches or nets"
# How libraries report that memory is short.
MEMORY_WORDS = (
    "out of memory",
    "outofmemory",
    "bad_alloc",
    "alloc_failed",
    "allocate",
    "failed to map segment",
)

Work = Callable[[Path, OnEvent, ShouldStop], bool]


def run_child(module: str, folder: Path, on_event: OnEvent, should_stop: ShouldStop) -> bool:
    """Run ``python -m module folder``, which calls `serve`; return whether it wrote a result.

    `folder` holds the inputs, and takes the result. The child ends half a second after
    `should_stop` returns True, or as soon as this raises, and leaves one core to its parent.
    """
    with (folder / ERRORS).open("wb") as errors:
        process = _start(module, folder, errors)
    lines: SimpleQueue[bytes] = SimpleQueue()
    reader = Thread(target=_read, args=(process.stdout, lines), daemon=True)
    reader.start()
    try:
        return _follow(process, lines, folder, on_event, should_stop)
    finally:
        _end(process)
        reader.join()


def _start(module: str, folder: Path, errors: IO[bytes]) -> "subprocess.Popen[bytes]":
    # The modules of this process are those of the child, wherever they were found.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    environment.setdefault("OMP_NUM_THREADS", str(max(1, cores() - 1)))
    options: dict[str, Any] = {}
    if sys.platform == "win32":
        options["creationflags"] = subprocess.CREATE_NO_WINDOW
    try:
        return subprocess.Popen(
            _command(module, folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            # What ends the parent's whole group must leave one to clear away.
            start_new_session=True,
            **options,
        )
    except OSError as error:
        raise DefocusError(
            f"cannot start a Python process with {sys.executable!r} ({error}); {MEMORY}"
        ) from error


def _command(module: str, folder: Path) -> list[str]:
    if not sys.executable or getattr(sys, "frozen", False):
        raise DefocusError(
            "this program brings no Python that could work beside it; use the command line, or "
            "choose the method 'instant'"
        )
    # -P: modules in the working directory are none of its own.
    return [sys.executable, "-P", "-m", module, str(folder)]


def _read(stream: IO[bytes] | None, lines: "SimpleQueue[bytes]") -> None:
    """Queue each line, and an empty one at the end."""
    assert stream is not None
    with stream:
        for line in stream:
            lines.put(line)
    lines.put(b"")


def _follow(
    process: "subprocess.Popen[bytes]",
    lines: "SimpleQueue[bytes]",
    folder: Path,
    on_event: OnEvent,
    should_stop: ShouldStop,
) -> bool:
    deadline: float | None = None
    while deadline is None or time.monotonic() < deadline:
        if deadline is None and should_stop():
            deadline = time.monotonic() + GRACE
            with suppress(OSError):  # it has ended
                assert process.stdin is not None
                process.stdin.write(STOP)
                process.stdin.flush()
        try:
            line = lines.get(timeout=POLL)
        except Empty:
            continue
        message = _parse(line)
        if "event" in message:
            on_event(Event(**message["event"]))
        elif "error" in message:
            raise DefocusError(message["error"])
        elif "done" in message:
            return bool(message["done"])
        elif deadline is None:
            raise DefocusError(_why_it_died(process, folder))
        else:
            return False
    return False


def _parse(line: bytes) -> dict[str, Any]:
    """Read a message; a line that was cut off, or none, is an empty one."""
    try:
        message = json.loads(line)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the child if it has not ended by itself."""
    for end in (process.terminate, process.kill):
        try:
            process.wait(FORCE)
        except subprocess.TimeoutExpired:
            end()
    process.wait()
    # Not before: the child takes this for the end of its parent.
    with suppress(OSError):
        assert process.stdin is not None
        process.stdin.close()


def _why_it_died(process: "subprocess.Popen[bytes]", folder: Path) -> str:
    code, last = process.wait(), ""
    with suppress(OSError):
        last = (folder / ERRORS).read_text("utf-8", errors="replace").strip()[-200:]
    reason = f" ({last.splitlines()[-1]})" if last else ""
    if _is_memory(last):
        return f"the work in the background ran out of memory{reason}; {MEMORY}"
    if code == -getattr(signal, "SIGKILL", 9):
        return (
            "the work in the background was killed, which systems do where memory runs out; "
            f"{MEMORY}"
        )
    how = f"with exit code {code}"
    if code < 0:
        with suppress(ValueError):
            how = f"by {signal.Signals(-code).name}"
    return f"the work in the background ended {how}{reason}; try again, or {OTHERWISE}"


def _is_memory(text: str) -> bool:
    return any(words in text.lower() for words in MEMORY_WORDS)


# In the child


def serve(work: Work) -> NoReturn:
    """Do the work of a child process in the folder of its command line, and end the process."""
    folder = Path(sys.argv[1])
    # Messages have a stream of their own: what libraries print goes to standard error.
    messages = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is meant for the parent
    stop = Flag()
    Thread(target=_listen, args=(stop, folder), daemon=True).start()

    def send(**message: Any) -> None:
        messages.write(json.dumps(message, default=float).encode() + b"\n")

    try:
        done = work(folder, lambda event: send(event=asdict(event)), stop.is_set)
        send(done=done)
    except Exception as error:
        send(error=_describe(error))
    # Not sys.exit: what was imported takes its time to be torn down.
    os._exit(0)


def _listen(stop: Flag, folder: Path) -> None:
    """Wait for the wish to stop, and for the end of the parent."""
    while True:
        received = os.read(0, len(STOP))
        if not received:
            # Without the parent nobody takes the result, or clears it away.
            shutil.rmtree(folder, ignore_errors=True)
            os._exit(1)
        stop.set()


def _describe(error: Exception) -> str:
    """Turn an error into a message for the user of the parent."""
    text = " ".join(str(error).split())[:300] or type(error).__name__
    if isinstance(error, DefocusError):
        return str(error)
    if isinstance(error, MemoryError) or _is_memory(text):
        return f"{text}; {MEMORY}"
    if isinstance(error, ImportError):
        return (
            f"torch, which trains the nets, cannot be imported ({text}); install it anew "
            "(pip install --force-reinstall torch), or choose the method 'instant'"
        )
    if "cuda" in text.lower():
        return f"the graphics card failed ({text}); try {OTHERWISE}"
    return f"{type(error).__name__}: {text}; try {OTHERWISE}"
