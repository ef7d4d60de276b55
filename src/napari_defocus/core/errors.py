"""The one error that users are meant to read."""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class DefocusError(ValueError):
    """Something the user can mend; the message names what is wrong, where, and what to do."""


class NoDetailError(DefocusError):
    """A plane shows nothing at all: it is constant, or has no finite pixel."""


class Notice(UserWarning):
    """What was guessed, chosen or left out; commands print it in a line, once."""


def notice(text: str) -> None:
    """Tell the user what was guessed, chosen or left out."""
    warnings.warn(text, Notice, stacklevel=3)


# The least number above 0, for ranges without it.
ABOVE_0 = math.ulp(0.0)


def check_range(name: str, value: float, low: float, high: float = math.inf) -> None:
    """Raise where the setting `name` is no finite number from `low` to `high`, both included."""
    if low <= value <= high and math.isfinite(value):
        return
    least = "above 0" if low == ABOVE_0 else f"from {_shown(low)}"
    if high != math.inf:
        allowed = f"a number {least} to {_shown(high)}"
    elif math.isfinite(value):
        allowed = f"a number {least}" if low == ABOVE_0 else f"{_shown(low)} or more"
    else:
        allowed = "a finite number" + (f" {least}" if low > -math.inf else "")
    raise DefocusError(f"{name} is {value}; give {allowed}")


def _shown(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:g}"


@contextmanager
def about(name: object) -> Iterator[None]:
    """Put a name before the message of an error that does not begin with it."""
    try:
        yield
    except DefocusError as error:
        if str(error).startswith(str(name)):
            raise
        raise DefocusError(f"{name}: {error}") from error


@contextmanager
def explained(path: object, what: str = "write", so: str = "") -> Iterator[None]:
    """Turn an error of the system into ``cannot write PATH: its reason``, and what to do."""
    try:
        yield
    except OSError as error:
        raise DefocusError(f"cannot {what} {path}: {error.strerror or error}{so}") from error


def check_new(path: Path, overwrite: bool) -> None:
    """Raise DefocusError where `path` exists and may not be replaced."""
    if path.exists() and not overwrite:
        raise DefocusError(f"{path} exists already; give --overwrite to replace it")


def brief(message: object) -> str:
    """Return a message, or a word out of a file, in one line and not too long."""
    text = " ".join(str(message).split())
    return text if len(text) <= 200 else f"{text[:200]}..."
