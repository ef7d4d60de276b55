"""How random cases end: as they should, or with a fault that is listed by the case's number."""

import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from napari_defocus.core.errors import DefocusError

LOADED, DETECTED, REFUSED = "loaded", "detected", "refused"
LONGEST_MESSAGE = 2000


@dataclass
class Outcomes:
    """How often cases ended as they should, and the faults of the others by number."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: dict[int, str] = field(default_factory=dict)

    def add(self, number: int, outcome: str) -> None:
        if outcome in (LOADED, DETECTED, REFUSED):
            self.counts[outcome] += 1
        else:
            self.faults[number] = outcome


def attempt(work: Callable[[], str], name: str = "") -> str:
    """Return what a piece of work returns, `REFUSED`, or what went wrong.

    It is refused where the package's own error is raised, with a message of one line that holds
    `name`.
    """
    try:
        return work()
    except DefocusError as error:
        message = str(error)
        good = message and name in message and "\n" not in message
        if good and len(message) < LONGEST_MESSAGE:
            return REFUSED
        return f"no good message: {message[:300]!r}"
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(last.filename).name}:{last.lineno}"
        return f"{type(error).__name__}: {str(error)[:200]} ({place})"


def print_faults(name: str, faults: Iterable[str]) -> None:
    for fault in list(faults)[:20]:
        print(f"  {name}: {fault[:500]}", flush=True)
