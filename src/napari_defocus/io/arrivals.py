"""Images that arrive in a folder while a microscope writes them."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from napari_defocus.core.errors import DefocusError
from napari_defocus.io.folder import OUTPUT_ENDINGS, is_image
from napari_defocus.io.open import is_zarr

# Time of the last change, bytes, and files: of a Zarr over all that is in it.
State = tuple[int, int, int]

# Network drives tell of no changes: a folder is looked through at least so often.
PAUSE_S = 1.0


class Arrivals:
    """The images of a folder, each given once when it is finished, and again where it changes.

    Parameters
    ----------
    folder : Path
        Looked through for files and Zarrs.
    settle : float
        Seconds that size and time of change of a file, or of all in a Zarr, stand still until it
        counts as finished.
    subfolders : bool
        Whether these are looked through, too, but for hidden ones.
    without : Path, optional
        A folder that is passed over: that of the results.
    """

    def __init__(
        self,
        folder: Path,
        settle: float = 2.0,
        *,
        subfolders: bool = False,
        without: Path | None = None,
    ) -> None:
        self.folder, self.settle, self.subfolders = folder, settle, subfolders
        self.there = True
        self._without = without and without.absolute()
        self._seen: dict[str, tuple[State, float]] = {}
        self._given: dict[str, State] = {}

    @property
    def waiting(self) -> bool:
        """Whether there are images that are not finished."""
        return any(self._given.get(name) != state for name, (state, _) in self._seen.items())

    def finished(self, now: float) -> list[Path]:
        """List the images that are finished at a time, in seconds, by name.

        `there` tells whether the folder is; one that vanished may come back.
        """
        try:
            states = dict(self._look())
        except OSError:
            self.there = self.folder.is_dir()
            return []
        self.there = True
        self._seen = {
            name: (state, self._since(name, state, now)) for name, state in states.items()
        }
        done = [
            name
            for name, (state, since) in self._seen.items()
            if self._given.get(name) != state and now - since >= self.settle
        ]
        self._given |= {name: states[name] for name in done}
        return [self.folder / name for name in sorted(done)]

    def again(self, path: Path) -> None:
        """Give an image again later: it could not be read, maybe as it is still held."""
        name = str(path.relative_to(self.folder))
        self._given.pop(name, None)
        self._seen.pop(name, None)

    def _since(self, name: str, state: State, now: float) -> float:
        before = self._seen.get(name)
        return before[1] if before is not None and before[0] == state else now

    def _look(self) -> Iterator[tuple[str, State]]:
        with os.scandir(self.folder) as entries:
            yield from self._found(list(entries))

    def _found(self, entries: list[os.DirEntry[str]]) -> Iterator[tuple[str, State]]:
        for entry in entries:
            with suppress(OSError):  # renamed meanwhile, or not to be read
                name = str(Path(entry.path).relative_to(self.folder))
                if is_image(entry.name) and entry.is_file():
                    seen = entry.stat()
                    if seen.st_size:
                        yield name, (seen.st_mtime_ns, seen.st_size, 1)
                elif entry.is_dir() and self._counts(entry):
                    if is_zarr(Path(entry.path)):
                        yield name, _state_within(entry.path)
                    elif self.subfolders and not entry.is_symlink():
                        with os.scandir(entry.path) as within:
                            yield from self._found(list(within))

    def _counts(self, folder: os.DirEntry[str]) -> bool:
        return (
            not folder.name.startswith(".")
            and not folder.name.lower().endswith(OUTPUT_ENDINGS)
            and Path(folder.path).absolute() != self._without
        )


def _state_within(folder: str) -> State:
    """Return the state of all files in a folder."""
    newest, size, count = 0, 0, 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                seen = Path(place, name).stat()
                newest, size, count = max(newest, seen.st_mtime_ns), size + seen.st_size, count + 1
    return newest, size, count


def changes(folder: Path, should_stop: Callable[[], bool]) -> Iterator[None]:
    """Yield when something in a folder changed, and every `PAUSE_S` seconds, until to stop.

    Raises
    ------
    DefocusError
        Where watchfiles is not installed.
    """
    try:
        from watchfiles import watch
    except ImportError as error:
        raise DefocusError(
            "watching needs watchfiles; install it with pip install 'napari-defocus[watch]'"
        ) from error
    pause = round(1000 * PAUSE_S)
    while not should_stop():
        try:
            for _ in watch(
                folder, recursive=False, rust_timeout=pause, yield_on_timeout=True, debounce=200
            ):
                yield
                if should_stop() or not folder.is_dir():
                    break
        except (OSError, RuntimeError):
            yield  # it vanished
        time.sleep(PAUSE_S / 4)
