"""Reading images and labels, writing results whole or not at all."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

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
        An empty temporary file in the same folder and with the same suffix.

    Raises
    ------
    DefocusError
        Where `path` exists and may not be replaced, or cannot be written.
    """
    if path.exists() and not overwrite:
        raise DefocusError(f"{path} exists already; give --overwrite to replace it")
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(suffix=path.suffix, prefix=".partial-", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise DefocusError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
