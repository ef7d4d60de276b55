"""Reading images and labels, writing results whole or not at all."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from napari_defocus.errors import DefocusError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
TIFF_SUFFIXES = (".tif", ".tiff")


@contextmanager
def whole_file(path: Path, overwrite: bool = True) -> Iterator[Path]:
    """Give a temporary path beside `path` that becomes `path` only when the block succeeds.

    Parameters
    ----------
    path : Path
        The file to be; its folder is made where missing.
    overwrite : bool
        Whether an existing `path` may be replaced.

    Yields
    ------
    Path
        A free name in the same folder and with the same suffix, for the block to write.

    Raises
    ------
    DefocusError
        Where `path` exists and may not be replaced, or cannot be written.
    """
    if path.exists() and not overwrite:
        raise DefocusError(f"{path} exists already; give --overwrite to replace it")
    temporary = path.with_name(f".partial-{secrets.token_hex(4)}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise DefocusError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
