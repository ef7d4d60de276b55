"""Progress of long work, and how it is stopped."""

from collections.abc import Callable, Iterator, Mapping
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
    """Work without a partial result was stopped by its caller."""


OnEvent = Callable[[Event], None]
ShouldStop = Callable[[], bool]


def ignore_event(event: Event) -> None:
    """Drop an event: the default listener."""


def never_stop() -> bool:
    """Return False: long work goes on, the default."""
    return False


def track(
    stage: str, total: int, on_event: OnEvent = ignore_event, should_stop: ShouldStop = never_stop
) -> Iterator[int]:
    """Count the steps of long work from 0, with an event after each; raise Stopped where asked."""
    for step in range(total):
        if should_stop():
            raise Stopped
        yield step
        on_event(Event(stage, step + 1, total))
