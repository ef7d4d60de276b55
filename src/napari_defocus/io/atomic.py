"""Files and folders written whole or not at all: under an unfinished name until they are whole.

Small files are written at once (`whole_file`). Large outputs are written by several processes over
hours, and a later run goes on with them: their unfinished name is known (`partial_path`).
"""

import json
import math
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from napari_defocus.core.errors import DefocusError


def partial_path(path: Path) -> Path:
    """Return the hidden name beside `path` under which it is written until it is whole.

    The same in each run, so that a later one goes on with it.
    """
    return path.with_name(f".partial-{path.name}")


def check_new(path: Path, overwrite: bool) -> None:
    """Raise DefocusError where `path` exists and may not be replaced."""
    if path.exists() and not overwrite:
        raise DefocusError(f"{path} exists already; give --overwrite to replace it")


def finish(path: Path, overwrite: bool) -> None:
    """Flush what lies under `partial_path(path)`, file or folder, and name it `path`."""
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


@contextmanager
def whole_file(path: Path, overwrite: bool = True) -> Iterator[Path]:
    """Yield a free name beside `path`, for the block to write; `path` is there when it succeeds.

    Its folder is made where missing; DefocusError where `path` cannot or may not be written.
    """
    if not path.name or "\0" in path.name:
        raise DefocusError(f"cannot write {str(path)!r}: it names no file")
    temporary = path.with_name(f".partial-{secrets.token_hex(4)}-{path.name}")
    try:
        check_new(path, overwrite)
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise DefocusError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # where it could not even be made
            temporary.unlink()


def write_json(path: Path, value: Any, *, overwrite: bool = True) -> None:
    """Write a value as indented JSON: numpy and paths too; what is not finite becomes null."""
    text = json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False)
    if not _is_unicode(text):  # names of files may be any bytes
        text = json.dumps(_plain(value), indent=2, allow_nan=False)
    with whole_file(path, overwrite) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _plain(value: Any) -> Any:
    """Return `value` in types that JSON knows."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
