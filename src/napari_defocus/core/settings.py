"""Settings: frozen dataclasses that are checked when they are made, before any work."""

import numbers
from collections.abc import Iterator, Mapping
from dataclasses import fields
from os import PathLike, fspath
from types import NoneType
from typing import Any, ClassVar, get_args, get_origin

import numpy as np

from napari_defocus.core.errors import DefocusError, check_range

# What a value of a type is called in messages.
KINDS = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a text",
    NoneType: "None",
}
Allowed = Mapping[str, tuple[Any, Any] | tuple[str, ...]]


class Settings:
    """What the frozen dataclasses of settings are made of.

    A field has the type that it is declared with, and its numbers are finite. `_allowed` has the
    range of numbers, both ends included, or the words to choose from, by the names of fields;
    `_called` what messages call them.

    Raises
    ------
    DefocusError
        When it is made: naming the setting, and what it may be.
    """

    _allowed: ClassVar[Allowed] = {}
    _called: ClassVar[Mapping[str, str]] = {}

    def __post_init__(self) -> None:
        """Check each setting, then how they go together."""
        for each in fields(self):  # type: ignore[arg-type]
            value, name = getattr(self, each.name), self._called.get(each.name, each.name)
            plain = value.item() if isinstance(value, np.generic) else value
            plain = fspath(plain) if isinstance(plain, PathLike) else plain
            if plain is not value:  # settings are written as JSON
                object.__setattr__(self, each.name, value := plain)
            if not _is_of(value, each.type):
                raise DefocusError(f"{name} is {value!r}; give {_described(each.type)}")
            allowed = self._allowed.get(each.name, (-np.inf, np.inf))
            if isinstance(allowed[0], str):
                check_choice(name, value, allowed)
                continue
            for number in _numbers_in(value):
                check_range(name, number, *allowed)
        self._check()

    def _check(self) -> None:
        """Raise DefocusError where settings do not go together."""


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise where the setting `name` is none of the choices."""
    if value not in choices:
        raise DefocusError(f"{name} is {value!r}; choose one of {', '.join(choices)}")


def _is_of(value: object, kind: Any) -> bool:
    """Check whether a value is of a declared type; a whole number is a number, too."""
    if get_origin(kind) is tuple:
        parts = get_args(kind)
        if not isinstance(value, tuple):
            return False
        if parts[-1] is not Ellipsis and len(value) != len(parts):
            return False
        return all(_is_of(part, parts[0]) for part in value)
    kinds = get_args(kind)
    if kinds:
        return any(_is_of(value, each) for each in kinds)
    if kind in (int, float):
        wanted = numbers.Integral if kind is int else numbers.Real
        return isinstance(value, wanted) and not isinstance(value, bool)
    return isinstance(value, kind)


def _described(kind: Any) -> str:
    """Say what a value of a type is."""
    if get_origin(kind) is tuple:
        parts = get_args(kind)
        count = "" if parts[-1] is Ellipsis else f"{len(parts)}, "
        return f"a tuple ({count}each {_described(parts[0])})"
    return " or ".join(KINDS.get(each, f"a {getattr(each, '__name__', each)}")
                       for each in get_args(kind) or (kind,))  # fmt: skip


def _numbers_in(value: Any) -> Iterator[Any]:
    """Yield the numbers that a value is, or has."""
    for each in value if isinstance(value, tuple) else (value,):
        if _is_of(each, float):
            yield each
