"""What long work tells its caller, and how it is asked to stop."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Event:
    """One step of long work.

    Parameters
    ----------
    stage : str
        What is being done, in words that a user reads ("training net 2 of 4").
    done, total : int
        Steps finished and steps in all.
    values : mapping of str to float
        Figures of this step, such as ``loss`` and ``accuracy``.
    """

    stage: str
    done: int
    total: int
    values: Mapping[str, float] = field(default_factory=dict)


class Stopped(Exception):  # noqa: N818 - what happened, not an error
    """Work without a partial result was asked to stop, and did."""


OnEvent = Callable[[Event], None]
ShouldStop = Callable[[], bool]


def ignore_event(event: Event) -> None:
    """Drop an event: the default listener."""


def never_stop() -> bool:
    """Tell long work to go on: the default."""
    return False
