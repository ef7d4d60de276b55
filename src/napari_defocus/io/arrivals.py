"""Images that arrive in a folder while a microscope writes them."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from napari_defocus.core.errors import DefocusError
from napari_defocus.io.folder import is_image

# Network drives tell of no changes: a folder is looked through at least so often.
PAUSE_S = 1.0


class Arrivals:
    """The images of a folder, each given once when it is finished, and again where it changes.

    Parameters
    ----------
    folder : Path
        Looked through without its subfolders.
    settle : float
        Seconds that size and time of change of a file stand still until it counts as finished.
    """

    def __init__(self, folder: Path, settle: float = 2.0) -> None:
        self.folder, self.settle = folder, settle
        self.there = True
        self._seen: dict[str, tuple[tuple[int, int], float]] = {}
        self._given: dict[str, tuple[int, int]] = {}

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
        self._given.pop(path.name, None)
        self._seen.pop(path.name, None)

    def _since(self, name: str, state: tuple[int, int], now: float) -> float:
        before = self._seen.get(name)
        return before[1] if before is not None and before[0] == state else now

    def _look(self) -> Iterator[tuple[str, tuple[int, int]]]:
        for path in self.folder.iterdir():
            if not is_image(path.name):
                continue
            try:
                seen = path.stat()
            except FileNotFoundError:
                continue  # renamed meanwhile
            if seen.st_size and path.is_file():
                yield path.name, (seen.st_mtime_ns, seen.st_size)


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
