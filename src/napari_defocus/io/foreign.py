"""Libraries of others that read files: they may be missing, raise anything, warn, or hang."""

import logging
import threading
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from napari_defocus.core.errors import DefocusError
from napari_defocus.io.base import ImageSource, Plane, Selection, file_identity, reason
from napari_defocus.io.grid import MICROMETER

Array = npt.NDArray[Any]
Made = TypeVar("Made")

EXTRA = "pip install 'napari-defocus[formats]'"
# A library that takes longer to open a file, or to read the first piece of it, counts as hanging.
MOST_S = 120.0
_LOCK = threading.RLock()


class ForeignSource(ImageSource):
    """An image that such a library reads, one piece after another; a first pixel in limited time.

    Not each piece: what threads come and go with took the memory of another tile.

    Parameters
    ----------
    path : Path
        The file.
    series : int
        Which of its images.
    axes : str, optional
        What the user says that the dimensions are.
    own : str
        What the library says; what it reads at once are the last two, with the colours.
    scale : dict
        Steps by letter, in micrometres.
    """

    def __init__(
        self,
        path: Path,
        series: int,
        axes: str | None,
        own: str,
        shape: tuple[int, ...],
        dtype: npt.DTypeLike,
        *,
        block: tuple[int, int],
        scale: dict[str, float],
    ) -> None:
        self._path, self._series, self._answers = path, series, False
        self._outer = len(own.removesuffix("S")) - 2
        units = dict.fromkeys(scale, MICROMETER)
        super().__init__(
            str(path), axes or own, shape, dtype, block=block, scale=scale, units=units
        )

    def _read(self, selection: Selection) -> Array:
        parts = [slice(part, part + 1) if isinstance(part, int) else part for part in selection]
        outer, (rows, columns) = parts[: self._outer], parts[self._outer : self._outer + 2]
        places = list(product(*(range(part.start, part.stop) for part in outer)))

        def pieces(places: list[Plane], rows: slice, columns: slice) -> list[Array]:
            with self._lock:  # their handles are not made for several threads
                handle = self._handle()
                return [self._piece(handle, place, rows, columns) for place in places]

        if not self._answers:
            pixel = (slice(part.start, part.start + 1) for part in (rows, columns))
            in_time(lambda: pieces(places[:1], *pixel))
            self._answers = True
        found = pieces(places, rows, columns)
        data = found[0] if len(found) == 1 else np.stack(found)
        data = data.reshape([part.stop - part.start for part in parts])
        return data[tuple(0 if isinstance(part, int) else slice(None) for part in selection)]

    @abstractmethod
    def _piece(self, handle: Any, place: Plane, rows: slice, columns: slice) -> Array:
        """Read a piece of what lies at a place along the other dimensions."""

    def _identity(self) -> Iterable[str]:
        return [*file_identity(self._path), str(self._series)]


def missing(path: Path, what: str) -> DefocusError:
    """Return the error of a file whose library is not installed."""
    return DefocusError(f"{path} needs {what}: {EXTRA}, or export it as OME-TIFF")


def ask(path: Path, make: Callable[[], Made]) -> Made:
    """Return what a library makes of a file, in limited time, and say what to do where it fails.

    Notices of ours are not told meanwhile.
    """
    with reading(path):
        return in_time(make)


def in_time(make: Callable[[], Made]) -> Made:
    """Return what a library makes, but do not wait for ever: on foreign bytes it may hang."""
    done: list[Made] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            done.append(make())
        except BaseException as error:  # raised again below
            failed.append(error)

    thread = threading.Thread(target=work, daemon=True)  # else the program would wait for it
    thread.start()
    thread.join(MOST_S)
    if failed:
        raise failed[0]
    if not done:
        raise TimeoutError(f"the library gave no answer in {MOST_S:.0f} seconds")
    return done[0]


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Say what to do where a library cannot read a file: it may raise anything."""
    try:
        with _quiet():
            yield
    except DefocusError:
        raise
    except Exception as error:
        raise DefocusError(
            f"{path} is damaged, encrypted, cut short or not supported ({reason(error)}); "
            "copy it again, or export it as OME-TIFF"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the libraries' doubts about metadata from the terminal; one thread at a time."""
    with _LOCK, warnings.catch_warnings():
        before = logging.root.manager.disable
        logging.disable(logging.ERROR)
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(before)
