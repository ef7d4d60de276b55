"""What commands share: exit codes, errors, existing outputs, Ctrl+C, and progress on stderr."""

import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from napari_defocus.core.errors import DefocusError, Notice, check_new, explained
from napari_defocus.core.progress import Event, Stopped

Given = TypeVar("Given")
Input = TypeVar("Input")

PROGRAM = "napari-defocus"
# Beside 0, and the 1 with which Python ends where an error was not foreseen.
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130

# Of many events, one in so many seconds is printed.
PAUSE_S = 2.0


# How the library names settings in its messages, and the options that they are here.
OPTIONS = {
    "with axes": "with --axes",
    "missing: fill": "--missing fill",
    "the extremum min": "--extremum min",
}


def as_options(message: object) -> str:
    """Return a message in one line, with the options of a command for the library's settings."""
    line = " ".join(str(message).split())
    for setting, option in OPTIONS.items():
        line = line.replace(setting, option)
    return line


def report_error(error: Exception, source: object = "") -> int:
    """Print an error as one line that names its source, and return the exit status for it."""
    line = as_options(error)
    named = str(source) in str(error)
    print(f"{PROGRAM}: {line if named else f'{source}: {line}'}", file=sys.stderr)
    return EXIT_BAD_INPUT


@contextmanager
def notices_in_a_line() -> Iterator[None]:
    """Print notices on stderr in a line each, once, without the code that they come from."""
    with warnings.catch_warnings():
        others = warnings.showwarning

        def show(message: Any, category: type[Warning], *place: Any, **more: Any) -> None:
            if issubclass(category, Notice):
                print(message, file=sys.stderr)
            else:
                others(message, category, *place, **more)

        warnings.showwarning = show
        warnings.simplefilter("default", Notice)
        yield


def list_inputs(
    given: Iterable[Given], find: Callable[[Given], Iterable[Input]]
) -> tuple[list[Input], int]:
    """List what inputs stand for, each once, and count the inputs that stand for nothing."""
    found: dict[Input, None] = {}
    failed = 0
    for one in given:
        try:
            found.update(dict.fromkeys(find(one)))
        except DefocusError as error:
            failed += 1
            report_error(error)
    return list(found), failed


def run_each(
    inputs: Iterable[Input],
    work: Callable[[Input], tuple[str, Iterable[Path]]],
    *,
    failed: int = 0,
    noun: str = "",
) -> int:
    """Work on every input, print the outputs, go on where one cannot be used; return the status.

    `work` returns the stem of the outputs, and an iterable that does the work and yields them.
    `failed` inputs could not be used before; with a `noun`, a last line counts those that could.
    """
    done: dict[str, Input] = {}
    for given in inputs:
        try:
            stem, outputs = work(given)
            if stem in done:
                raise DefocusError(f"its results would overwrite those of {done[stem]}; rename one")
            for path in outputs:
                print(path)
            done[stem] = given
        except DefocusError as error:
            failed += 1
            report_error(error, given)
    total = len(done) + failed
    if noun and total > 1:
        print(f"{len(done)} of {total} {noun} done", file=sys.stderr)
    return EXIT_BAD_INPUT if failed else 0


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Check, before long work, that an output is not in the way and has a place."""
    with explained(path):  # such as a name that is too long
        check_new(path, overwrite)
        if path.is_dir():
            raise DefocusError(f"cannot write {path}: it is a folder; name a file")
        above = next(parent for parent in path.parents if parent.exists())
    if not above.is_dir():
        raise DefocusError(f"cannot write {path}: {above} is no folder; name another place")


@contextmanager
def interruptible(*, expected: bool = False) -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl+C into a request to stop, for `should_stop`; the second interrupts.

    Raises
    ------
    Stopped
        At the end, where it was asked for and the work did not raise it: what was made is not what
        was wanted. Not where an interrupt is the `expected` end.
    """
    stop: list[int] = []

    def request(number: int, frame: Any) -> None:
        stop.append(number)
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, request)
    try:
        yield lambda: bool(stop)
    finally:
        signal.signal(signal.SIGINT, before)
    if stop and not expected:
        raise Stopped


def print_event(event: Event) -> None:
    """Print an event on stderr."""
    values = "".join(f"  {name} {value:.3f}" for name, value in event.values.items())
    print(f"{event.stage}: {event.done} of {event.total}{values}", file=sys.stderr)


class Progress:
    """Prints events on stderr: the last of a stage, and others now and then."""

    def __init__(self) -> None:
        self._printed = 0.0

    def __call__(self, event: Event) -> None:
        """Print an event where it is time for one."""
        now = time.monotonic()
        if event.done == event.total or now - self._printed > PAUSE_S:
            self._printed = now
            print_event(event)
