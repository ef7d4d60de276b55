"""The file format of patch sets, nets and metrics: safetensors with a readable JSON card.

Data only, never code (https://huggingface.co/docs/safetensors). The card lies in the header, so
``head -c 4000 FILE`` shows it too.
"""

import json
import reprlib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from napari_defocus.core.errors import DefocusError, brief
from napari_defocus.io.atomic import whole_file

Tensors = Mapping[str, npt.NDArray[Any]]
Card = dict[str, Any]

Settings = TypeVar("Settings")

FORMAT = "napari-defocus"
VERSION = 1
# More is no file of this package, but would be read into memory whole.
MOST_BYTES = 8 * 2**30
MOST_CARD = 2**24
MOST_NUMBER = 1e300
# Kinds of files that are named in the plural.
PLURAL = ("nets",)


def save_container(
    path: Path, kind: str, tensors: Tensors, card: Mapping[str, Any], *, overwrite: bool = True
) -> None:
    """Write tensors and their card, of what JSON can hold, to one file, whole or not at all."""
    from safetensors.numpy import save

    head = {"format": FORMAT, "version": VERSION, "kind": kind, **card}
    contiguous = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    with whole_file(path, overwrite) as temporary:
        # Not save_file: it makes files that nobody but their owner can read.
        temporary.write_bytes(save(contiguous, metadata={"card": json.dumps(head)}))


def load_container(path: Path, kind: str | None = None) -> tuple[dict[str, npt.NDArray[Any]], Card]:
    """Read the tensors and the card that `save_container` wrote; `kind` is what it must be, if any.

    DefocusError where the file is missing, damaged, not ours, of a newer version, or another kind.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise DefocusError(f"{path}: no such file")
    try:
        # The tensors lie within the file, whatever its header claims; safetensors sees to that.
        if path.stat().st_size > MOST_BYTES:
            raise DefocusError(
                f"{path}: larger than {MOST_BYTES // 2**30} GiB; no file of this kind is"
            )
        with safe_open(path, framework="numpy") as file:
            card = _read_card(path, (file.metadata() or {}).get("card", "null"), kind)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except DefocusError:
        raise
    except MemoryError as error:
        raise DefocusError(f"{path}: does not fit into memory; close other programs") from error
    except (
        SafetensorError,
        ValueError,
        OSError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        raise DefocusError(f"{path}: damaged or no napari-defocus file ({brief(error)})") from error
    return tensors, card


def read_kind(path: Path, kinds: tuple[str, ...]) -> str:
    """Return which of these kinds a file that `save_container` wrote is of.

    DefocusError as in `load_container`.
    """
    kind = load_container(path)[1].get("kind")
    if kind not in kinds:
        wanted = ", ".join(map(_a, kinds))
        raise DefocusError(f"{path}: holds {_a(brief(kind))}; one of these is needed: {wanted}")
    return str(kind)


def _read_card(path: Path, text: str, kind: str | None) -> Card:
    """Read the card before anything else: it says whether the rest is worth reading."""
    if len(text) > MOST_CARD:
        raise DefocusError(f"{path}: its card is larger than {MOST_CARD // 2**20} MiB")
    card = json.loads(text)
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise DefocusError(f"{path}: a safetensors file, but not made by napari-defocus")
    version = card.get("version")
    if type(version) is not int or version < 1:
        raise DefocusError(
            f"{path}: the format version is {reprlib.repr(version)}, which never was"
        )
    if version > VERSION:
        raise DefocusError(
            f"{path}: written in format {reprlib.repr(version)}, this release reads up to "
            f"{VERSION}; upgrade napari-defocus"
        )
    if kind is not None and card.get("kind") != kind:
        held = card.get("kind")
        held = held if isinstance(held, str) else reprlib.repr(held)
        needed = f"{_a(kind)} {'are' if kind in PLURAL else 'is'} needed"
        raise DefocusError(f"{path}: holds {_a(brief(held))}, {needed}")
    return card


def _a(kind: str) -> str:
    """Put the article before the name of a kind of file."""
    return kind if kind in PLURAL else f"{'an' if kind[:1] in 'aeiou' else 'a'} {kind}"


def read_settings(kind: type[Settings], values: Any) -> Settings:
    """Make a dataclass of a card's entries, others by default; TypeError where one is wrong."""
    if not isinstance(values, dict):
        raise TypeError(f"{reprlib.repr(values)} is no group of settings")
    types: dict[str, Any] = {field.name: field.type for field in fields(kind)}  # type: ignore[arg-type]
    told = {}
    for name, value in values.items():
        if name not in types:
            raise TypeError(f"no setting is called {reprlib.repr(name)} here")
        wanted = (int, float) if types[name] is float else types[name]
        fits = isinstance(value, wanted) and isinstance(value, bool) == (wanted is bool)
        if not fits or (wanted is not str and not abs(value) < MOST_NUMBER):
            raise TypeError(f"{name} is {reprlib.repr(value)}")
        told[name] = float(value) if types[name] is float else value
    try:
        return kind(**told)
    except DefocusError as error:  # the caller names the file
        raise TypeError(str(error)) from error


def as_floats(tensor: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return a tensor of finite numbers as float32; TypeError or ValueError where it is none."""
    if tensor.dtype.kind not in "fiu":
        raise TypeError(f"{tensor.dtype} values")
    with np.errstate(over="ignore"):
        floats = tensor.astype(np.float32, copy=False)
    if not np.isfinite(floats).all():
        raise ValueError("values that are no finite numbers")
    return floats
