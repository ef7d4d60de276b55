"""The one error that users are meant to read."""

import math


class DefocusError(ValueError):
    """Something the user can mend; the message names what is wrong, where, and what to do."""


class NoDetailError(DefocusError):
    """A plane shows nothing at all: it is constant, or has no finite pixel."""


def check_range(name: str, value: float, low: float, high: float = math.inf) -> None:
    """Raise where the setting `name` is no number from `low` to `high`, both included."""
    if not low <= value <= high:  # NaN compares as False
        allowed = f"{low:g} or more" if high == math.inf else f"a number from {low:g} to {high:g}"
        raise DefocusError(f"{name} is {value}; give {allowed}")


def brief(message: object) -> str:
    """Return a message, or a word out of a file, in one line and not too long."""
    text = " ".join(str(message).split())
    return text if len(text) <= 200 else f"{text[:200]}..."
