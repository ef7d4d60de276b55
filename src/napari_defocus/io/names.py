"""What the names of a folder's images tell: along which axes they lie, and in which order."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from napari_defocus.core.errors import DefocusError, notice
from napari_defocus.io.axes import meaning

# A letter for positions, which are no stack.
POSITIONS = {"p", "pos", "position", "xy", "s", "site", "f", "field"}


@dataclass(frozen=True)
class Layout:
    """Names in the order of axes, of which each has a letter and a size."""

    axes: str
    sizes: tuple[int, ...]
    names: tuple[str, ...]


@dataclass(frozen=True)
class _Column:
    """A part of the names that varies: its letter, where known, and its value in each name."""

    letter: str
    text: str
    values: tuple[float, ...]


def natural_key(name: str) -> list[tuple[int, str]]:
    """Give a key that sorts names as people do: plane 2 before plane 10."""
    parts = re.split(r"(\d+)", name.lower())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def arrange(folder: str, names: Sequence[str], along: str | None = None) -> Layout:
    """Return along which axes the images of a folder lie.

    Parameters
    ----------
    folder : str
        For messages.
    names : sequence of str
        Of the images.
    along : str, optional
        What the user says: the letters of the axes along the files, in the order of their names.

    Raises
    ------
    DefocusError
        Where names do not tell it, or an image is missing.
    """
    names = sorted(names, key=natural_key)
    if along is not None and len(along) == 1:
        return Layout(along, (len(names),), tuple(names))
    columns = _columns(names)
    if along is not None:
        if columns is None or len(columns) != len(along):
            raise DefocusError(
                f"{folder}: {along} are {len(along)} axes along the files, in whose names "
                f"{0 if columns is None else len(columns)} numbers vary; give a letter for each"
            )
        letters = along
    else:
        one = _one_axis(names, columns)
        if one is not None:
            return one
        letters = _letters(columns or [])
        if columns is None or not letters:
            raise _question(folder, names, columns)
    layout = _grid(folder, names, letters, columns or [])
    if along is None:
        sizes = " x ".join(f"{n} {letter}" for letter, n in zip(letters, layout.sizes, strict=True))
        notice(f"{folder}: by their names its {len(names)} images are {sizes}; else say with axes")
    return layout


def _columns(names: Sequence[str]) -> list[_Column] | None:
    """Return what varies in names; None where they are of kinds that do not match."""
    parts = [re.split(r"(\d+(?:\.\d+)?)", name) for name in names]
    texts = [tuple(part.lower() for part in each[::2]) for each in parts]
    numbers = [tuple(map(float, each[1::2])) for each in parts]
    kinds = sorted(set(texts))
    columns = []
    if len(kinds) > 1:
        of_kinds = [{n for n, text in zip(numbers, texts, strict=True) if text == k} for k in kinds]
        if any(of != of_kinds[0] for of in of_kinds):
            return None
        shown = " and ".join("#".join(kind) for kind in kinds[:2])
        columns = [_Column("C", shown, tuple(float(kinds.index(text)) for text in texts))]
    for place, values in enumerate(zip(*numbers, strict=True)):
        if len(set(values)) > 1:
            # The letters of "img_z", of "imgZ" and of "plane ".
            before = re.search(r"([A-Z]?[a-z]+|[A-Z]+)?[^A-Za-z]*$", parts[0][2 * place])
            word = (before[1] or "").lower() if before else ""
            letter = meaning({word}) or ("P" if word in POSITIONS else "")
            columns.append(_Column(letter, f"{parts[0][2 * place]}#", values))
    return columns


def _one_axis(names: Sequence[str], columns: list[_Column] | None) -> Layout | None:
    """Return the layout of planes that lie along one axis; None where there are more, or none."""
    count = (len(names),)
    if columns is None or not columns:
        # Names that differ in words alone.
        alike = {re.sub(r"\d+", "#", name.lower()) for name in names}
        return Layout("Z", count, tuple(names)) if len(alike) == len(names) else None
    unique = [column for column in columns if len(set(column.values)) == len(names)]
    if len(columns) == 1 and unique:
        return Layout("Z", count, tuple(names))
    depth = next((column for column in unique if column.letter == "Z"), None)
    if depth is not None:
        order = sorted(range(len(names)), key=depth.values.__getitem__)
        return Layout("Z", count, tuple(names[i] for i in order))
    apart = any(column.letter in ("C", "P") for column in columns)
    return Layout("Z", count, tuple(names)) if unique and not apart else None


def _letters(columns: list[_Column]) -> str:
    """Return a letter for each column; none where they cannot be told."""
    letters = [column.letter for column in columns]
    if letters.count("") == 1 and set(letters) == {"C", ""}:
        letters[letters.index("")] = "Z"
    return "".join(letters) if "" not in letters and len(set(letters)) == len(letters) else ""


def _grid(folder: str, names: Sequence[str], letters: str, columns: list[_Column]) -> Layout:
    """Put names in the order of axes; DefocusError where a place is empty, or taken twice."""
    values = [sorted(set(column.values)) for column in columns]
    places = dict(zip(zip(*(column.values for column in columns), strict=True), names, strict=True))
    sizes = tuple(map(len, values))
    missing = [place for place in product(*values) if place not in places]
    if missing or math.prod(sizes) != len(names):
        wanted = " x ".join(f"{n} {letter}" for letter, n in zip(letters, sizes, strict=True))
        where = (
            ", ".join(
                f"{letter} {value:g}" for letter, value in zip(letters, missing[0], strict=True)
            )
            if missing
            else "several of one place"
        )
        raise DefocusError(
            f"{folder}: by their names its images are {wanted}, but there are {len(names)} "
            f"({where}{' is missing' * bool(missing)}); complete it, or put each stack into a "
            "folder of its own"
        )
    return Layout(letters, sizes, tuple(places[place] for place in product(*values)))


def _question(folder: str, names: Sequence[str], columns: list[_Column] | None) -> DefocusError:
    """Return the error that asks what images are."""
    if columns:
        what = f"several numbers vary ({', '.join(column.text for column in columns)})"
        example = "CZ"[-len(columns) :] if len(columns) <= 2 else "TCZ"
    else:
        what, example = f"they are of several kinds ({names[0]}, {names[-1]})", "CZ"
    return DefocusError(
        f"{folder}: its {len(names)} images are one stack or several, in their names {what}; say "
        f"with axes: ZYX, all are planes of one; {example}YX, a letter for each number; or put "
        "each stack into a folder of its own"
    )
