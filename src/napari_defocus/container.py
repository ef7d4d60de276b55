"""The file format of patch sets, nets and metrics: safetensors with a readable JSON card.

Data only, never code (https://huggingface.co/docs/safetensors). The card lies in the header, so
``head -c 4000 FILE`` shows it too.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_defocus.errors import DefocusError
from napari_defocus.files import whole_file

Tensors = Mapping[str, npt.NDArray[Any]]
Card = dict[str, Any]

FORMAT = "napari-defocus"
VERSION = 1


def save_container(
    path: Path, kind: str, tensors: Tensors, card: Mapping[str, Any], *, overwrite: bool = True
) -> None:
    """Write tensors and their card to one file, whole or not at all.

    Parameters
    ----------
    path : Path
        The file.
    kind : str
        ``"patch set"``, ``"nets"`` or ``"metric"``.
    tensors : mapping of str to ndarray
        The numbers.
    card : mapping
        What JSON can hold.
    overwrite : bool
        Whether an existing file may be replaced.

    Raises
    ------
    DefocusError
        Where the file cannot be written.
    """
    from safetensors.numpy import save

    head = {"format": FORMAT, "version": VERSION, "kind": kind, **card}
    contiguous = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    with whole_file(path, overwrite) as temporary:
        # Not save_file: it makes files that nobody but their owner can read.
        temporary.write_bytes(save(contiguous, metadata={"card": json.dumps(head)}))


def load_container(path: Path, kind: str | None = None) -> tuple[dict[str, npt.NDArray[Any]], Card]:
    """Read what `save_container` wrote.

    Parameters
    ----------
    path : Path
        The file.
    kind : str, optional
        What it must be; None for any.

    Returns
    -------
    tensors : dict of str to ndarray
    card : dict

    Raises
    ------
    DefocusError
        Where the file is missing, damaged, not ours, of a newer version, or of another kind.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise DefocusError(f"{path}: no such file")
    try:
        with safe_open(path, framework="numpy") as file:
            card = json.loads((file.metadata() or {}).get("card", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (
        SafetensorError,
        ValueError,
        OSError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        raise DefocusError(f"{path}: damaged or no napari-defocus file ({error})") from error
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise DefocusError(f"{path}: a safetensors file, but not made by napari-defocus")
    version = card.get("version")
    if not isinstance(version, int) or version < 1:
        raise DefocusError(f"{path}: the format version is {version!r}, which never was")
    if version > VERSION:
        raise DefocusError(
            f"{path}: written in format {version}, this release reads up to {VERSION}; "
            "upgrade napari-defocus"
        )
    if kind is not None and card.get("kind") != kind:
        raise DefocusError(f"{path}: holds a {card.get('kind')}, a {kind} is needed")
    return tensors, card
