"""Large outputs that several processes write over hours: their unfinished names, and the end."""

import os
import secrets
import shutil
from pathlib import Path

from napari_defocus.core.errors import DefocusError


def partial_path(path: Path) -> Path:
    """Give the name under which `path` is written until it is whole.

    It is the same in each process and each run, so that a run can be resumed, lies in the same
    folder, and is hidden, so that it is not taken for an input.
    """
    return path.with_name(f".partial-{path.name}")


def check_new(path: Path, overwrite: bool) -> None:
    """Raise DefocusError where `path` exists and may not be replaced."""
    if path.exists() and not overwrite:
        raise DefocusError(f"{path} exists already; give --overwrite to replace it")


def give_name(path: Path, overwrite: bool) -> None:
    """Flush what was written under `partial_path(path)`, file or folder, and name it `path`.

    Raises
    ------
    DefocusError
        Where `path` exists and may not be replaced, or cannot be written.
    """
    partial = partial_path(path)
    check_new(path, overwrite)
    try:
        _flush(partial)
        if path.is_dir():  # a folder cannot be renamed over another
            old = path.with_name(f".old-{secrets.token_hex(4)}-{path.name}")
            path.replace(old)
            partial.replace(path)
            shutil.rmtree(old)
        else:
            partial.replace(path)
    except OSError as error:
        raise DefocusError(f"cannot write {path}: {error.strerror or error}") from error


def discard(path: Path) -> None:
    """Remove what lies under `partial_path(path)`, if anything does."""
    partial = partial_path(path)
    try:
        if partial.is_dir():
            shutil.rmtree(partial)
        else:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise DefocusError(f"cannot remove {partial}: {error.strerror or error}") from error


def _flush(partial: Path) -> None:
    """Bring it to the disk before it gets its name."""
    if partial.is_file():
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
    elif hasattr(os, "sync"):  # not on Windows; one call for what may be a million files
        os.sync()
