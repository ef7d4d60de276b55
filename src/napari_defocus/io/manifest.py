"""What was done in a folder of results: which input, metric and settings each output is of."""

import hashlib
import json
import os
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from napari_defocus.core.errors import DefocusError, brief
from napari_defocus.io.atomic import write_json

NAME = "napari-defocus.json"
VERSION = 1
MOST_BYTES = 2**28


@dataclass(frozen=True)
class RunRecord:
    """The record of one folder; it is read anew before each change.

    Parameters
    ----------
    folder : Path
        Where results are written; the record is its file `NAME`.
    """

    folder: Path

    @property
    def file(self) -> Path:
        """The record's file."""
        return self.folder / NAME

    def finished(self, stem: str, identity: Mapping[str, Any]) -> list[Path]:
        """List the outputs of an image where they are there, whole, and of the same identity.

        Parameters
        ----------
        stem : str
            The image's, as in the outputs' names.
        identity : mapping
            Input, metric and settings.

        Returns
        -------
        list of Path
            Empty where anything changed, is missing or damaged.

        Raises
        ------
        DefocusError
            Where the record cannot be read.
        """
        entry = self._read().get(stem)
        if entry is None or entry.get("identity") != json.loads(json.dumps(dict(identity))):
            return []
        same = all(checksum(self.folder / name) == seen for name, seen in entry["outputs"].items())
        return [self.folder / name for name in entry["outputs"]] if same else []

    def mine(self, path: Path) -> bool:
        """Tell whether an output is as a recorded run wrote it.

        Raises
        ------
        DefocusError
            Where one was changed since: a mask corrected by hand must not be lost.
        """
        seen = [e["outputs"][path.name] for e in self._read().values() if path.name in e["outputs"]]
        if not seen or not path.exists():
            return bool(seen)
        if checksum(path) not in seen:
            raise DefocusError(
                f"{path} was changed since it was written, damaged or corrected by hand; "
                "move it away, or give --overwrite to make it anew"
            )
        return True

    def add(self, stem: str, identity: Mapping[str, Any], outputs: Iterable[Path]) -> None:
        """Record the outputs of an image; processes that write to one folder wait for each other.

        Raises
        ------
        DefocusError
            Where the record cannot be read or written.
        """
        entry = {
            "identity": dict(identity),
            "outputs": {path.name: checksum(path) for path in outputs},
        }
        with _alone_in(self.folder):
            write_json(self.file, {"version": VERSION, "results": {**self._read(), stem: entry}})

    def _read(self) -> dict[str, Any]:
        try:
            if self.file.stat().st_size > MOST_BYTES:
                raise self._unreadable(f"it is larger than {MOST_BYTES // 2**20} MiB")
            record = json.loads(self.file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except DefocusError:
            raise
        except (OSError, ValueError, RecursionError, MemoryError) as error:
            raise self._unreadable(brief(error)) from error
        if not isinstance(record, dict) or not isinstance(record.get("results"), dict):
            raise self._unreadable("it is no record of results")
        version = record.get("version")
        if type(version) is not int or version != VERSION:
            raise self._unreadable(f"version {reprlib.repr(version)} is not known here")
        results: dict[str, Any] = record["results"]
        for stem, entry in results.items():
            if not _is_entry(entry):
                raise self._unreadable(f"what it says of {reprlib.repr(stem)} is damaged")
        return results

    def _unreadable(self, why: str) -> DefocusError:
        return DefocusError(
            f"{self.file} cannot be read ({why}); move it away, and results are made anew"
        )


def _is_entry(entry: Any) -> bool:
    """Tell whether an entry is whole, and its outputs lie in the folder of the record."""
    if not isinstance(entry, dict) or not isinstance(entry.get("identity"), dict):
        return False
    outputs = entry.get("outputs")
    return isinstance(outputs, dict) and all(
        _is_plain(name) and isinstance(digest, str) for name, digest in outputs.items()
    )


def _is_plain(name: str) -> bool:
    """Tell whether it names a file in a folder, and nothing elsewhere, on any system."""
    parts = (PurePosixPath(name).parts, PureWindowsPath(name).parts)
    return all(found == (name,) for found in parts) and name != ".." and "\0" not in name


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Hold a folder's lock, where the system and the file system have such."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise DefocusError(f"cannot write {folder / NAME}: {error.strerror or error}") from error
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)  # which unlocks


def checksum(path: Path) -> str | None:
    """Give the SHA-256 of a file, or of all in a folder; None where it cannot be read."""
    try:
        if path.is_file():
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        if not path.is_dir():
            return None
        whole = hashlib.sha256()
        # Hidden ones are not ours: file browsers leave them.
        parts = (p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
        for part in sorted(parts):
            whole.update(os.fsencode(f"{part.relative_to(path).as_posix()} {checksum(part)}\n"))
        return whole.hexdigest()
    except OSError:
        return None
