"""What a layer's leading axes are, by their labels: depth, time, channels."""

import re
from collections.abc import Sequence

DEPTH = ("z", "depth", "plane", "planes", "focus", "slice")
TIME = ("t", "time", "frame", "frames")
CHANNEL = ("c", "channel", "channels", "ch", "wavelength")
# Letters of axes whose labels mean nothing, the last axis first; those behind have no meaning.
UNNAMED = "ZTCQIABDEFGHJKLMNOPRUVW"


def words(label: str) -> set[str]:
    """Return the words of an axis label; none where napari made it up ("-3", "axis -3")."""
    found = set(re.findall(r"[a-z]+", label.lower()))
    return set() if re.search(r"-\d", label) else found


def letters(labels: Sequence[str]) -> str:
    """Return a letter for each leading axis: by its label, else the last is Z, then T, then C."""
    known: list[str | None] = []
    for label in labels:
        meant = (c for c, names in zip("ZTC", (DEPTH, TIME, CHANNEL), strict=True)
                 if words(label) & set(names) and c not in known)  # fmt: skip
        known.append(next(meant, None))
    free = iter([letter for letter in UNNAMED if letter not in known])
    return "".join([letter or next(free) for letter in reversed(known)][::-1])
