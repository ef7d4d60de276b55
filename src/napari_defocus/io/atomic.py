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

from napari_defocus.core.errors import DefocusError, check_new, explained


def partial_path(path: Path) -> Path:
    """Return the hidden name beside `path` under which it is written until it is whole.

    The same in each run, so that a later one goes on with it.
    """
    return path.with_name(f".partial-{path.name}")


def finish(path: Path, overwrite: bool) -> None:
    """Flush what lies under `partial_path(path)`, file or folder, and name it `path`."""
    partial = partial_path(path)
    check_new(path, overwrite)
    with explained(path):
        if partial.is_file():
            _flush(partial)
        elif hasattr(os, "sync"):  # not on Windows; one call for what may be a million files
            os.sync()
        if path.is_dir():  # a folder cannot be renamed over another
            old = path.with_name(f".old-{secrets.token_hex(4)}-{path.name}")
            path.replace(old)
            partial.replace(path)
            shutil.rmtree(old)
        else:
            partial.replace(path)


def discard(path: Path) -> None:
    """Remove what lies under `partial_path(path)`, if anything does."""
    partial = partial_path(path)
    with explained(partial, "remove"):
        if partial.is_dir():
            shutil.rmtree(partial)
        else:
            partial.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Bring a file to the disk before it gets its name."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


@contextmanager
def whole_file(path: Path, overwrite: bool = True) -> Iterator[Path]:
    """Yield a free name beside `path`, for the block to write; `path` is there when it succeeds.

    Its folder is made where missing; DefocusError where `path` cannot or may not be written.
    """
    if not path.name or "\0" in path.name:
        raise DefocusError(f"cannot write {str(path)!r}: it names no file")
    temporary = path.with_name(f".partial-{secrets.token_hex(4)}-{path.name}")
    try:
        with explained(path):
            check_new(path, overwrite)
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            _flush(temporary)
            temporary.replace(path)
    finally:
        with suppress(OSError):  # where it could not even be made
            temporary.unlink()


def write_json(path: Path, value: Any, *, overwrite: bool = True) -> None:
    """Write a value as indented JSON: numpy and paths too; what is not finite becomes null."""
    plain = _plain(value)
    try:
        content = json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:  # names of files may be any bytes
        content = json.dumps(plain, indent=2, allow_nan=False).encode()
    with whole_file(path, overwrite) as temporary:
        temporary.write_bytes(content + b"\n")


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
