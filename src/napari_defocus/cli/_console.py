"""What commands share: outputs that are in the way, Ctrl+C, and progress told on stderr."""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from napari_defocus.core.errors import DefocusError
from napari_defocus.core.progress import Event

# Of many events, one in so many seconds is told.
PAUSE_S = 2.0


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Say at once, before long work, that an output is in the way, or that it has no place."""
    try:
        if path.exists() and not overwrite:
            raise DefocusError(f"{path} exists already; give --overwrite to replace it")
        if path.is_dir():
            raise DefocusError(f"cannot write {path}: it is a folder; name a file")
        above = next(parent for parent in path.parents if parent.exists())
    except OSError as error:  # such as a name that is too long
        raise DefocusError(f"cannot write {path}: {error.strerror or error}") from error
    if not above.is_dir():
        raise DefocusError(f"cannot write {path}: {above} is no folder; name another place")


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl+C into a polite request to stop."""
    stop: list[int] = []

    def ask(number: int, frame: Any) -> None:
        stop.append(number)
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: bool(stop)
    finally:
        signal.signal(signal.SIGINT, before)


def print_event(event: Event) -> None:
    """Tell an event on stderr."""
    values = "".join(f"  {name} {value:.3f}" for name, value in event.values.items())
    print(f"{event.stage}: {event.done} of {event.total}{values}", file=sys.stderr)


class Progress:
    """Tells events on stderr: the last of a stage, and others now and then."""

    def __init__(self) -> None:
        self._told = 0.0

    def __call__(self, event: Event) -> None:
        """Take an event."""
        now = time.monotonic()
        if event.done == event.total or now - self._told > PAUSE_S:
            self._told = now
            print_event(event)
