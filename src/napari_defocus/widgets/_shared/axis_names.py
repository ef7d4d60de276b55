"""What a layer's leading axes are, by their labels: depth, time, channels."""

import re
from collections.abc import Sequence

from napari_defocus.io.axes import meaning

# Letters of axes that have no known meaning.
UNKNOWN = "QIABDEFGHJKLMNOPRUVW"


def words(label: str) -> set[str]:
    """Return the words of an axis label; none where napari made it up ("-3", "axis -3")."""
    found = set(re.findall(r"[a-z]+", label.lower()))
    return set() if re.search(r"-\d", label) else found


def letters(labels: Sequence[str], in_file: str = "") -> str:
    """Return a letter for each leading axis: by its label, else by the file.

    Z where one axis alone is left, and no other is Z; others have no known meaning.
    """
    found = [meaning(words(label)) for label in labels]
    found = [letter if letter not in found[:i] else "" for i, letter in enumerate(found)]
    if len(in_file) == len(found):
        known = zip(found, in_file, strict=True)
        found = [
            own or (held if held in "ZTC" and held not in found else "") for own, held in known
        ]
    if found.count("") == 1 and "Z" not in found:
        found[found.index("")] = "Z"
    free = iter(UNKNOWN)
    return "".join(letter or next(free) for letter in found)
