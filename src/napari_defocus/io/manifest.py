"""What was done in a folder of results: which input, metric and settings each output is of.

The record is a file of lines, one JSON object each: first its version, then an entry for each image
that was finished. Lines are only ever appended, so that a run over many images takes as long for
the last as for the first; of several entries of one image the last counts. The last line may be
torn, where a process was killed as it wrote.
"""

import hashlib
import json
import os
import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from napari_defocus.core.errors import DefocusError, brief, explained
from napari_defocus.io.atomic import whole_file

NAME = "napari-defocus.json"
VERSION = 2
# An entry takes about 1 kB; a file of another kind is not read into memory whole.
MOST_BYTES = 2**30


class RunRecord:
    """The record `NAME` of a folder; after the first use only what was appended since is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / NAME
        self._forget()

    def finished(self, stem: str, identity: Mapping[str, Any]) -> list[Path]:
        """List an image's outputs where all are there, whole, and of the same identity."""
        self._read()
        made_of, outputs = self._entries.get(stem, ("", {}))
        if made_of != _digest(identity):
            return []
        same = all(checksum(self.folder / name) == seen for name, seen in outputs.items())
        return [self.folder / name for name in outputs] if same else []

    def recorded(self, stem: str, identity: Mapping[str, Any]) -> bool:
        """Check as `finished` does, but by the outputs' names alone, which is quick."""
        self._read()
        made_of, outputs = self._entries.get(stem, ("", {}))
        return made_of == _digest(identity) and all((self.folder / n).exists() for n in outputs)

    def entries(self) -> dict[str, dict[str, Any]]:
        """Return the last entry of each image by its stem: ``identity``, ``found``, ``source``."""
        self._read()
        return self._told

    def mine(self, path: Path) -> bool:
        """Check whether an output is as a recorded run wrote it.

        DefocusError where it was changed since: a mask corrected by hand must not be lost.
        """
        self._read()
        seen = self._written.get(path.name, set())
        if seen and path.exists() and checksum(path) not in seen:
            raise DefocusError(
                f"{path} was changed since it was written, damaged or corrected by hand; "
                "move it away, or give --overwrite to make it anew"
            )
        return bool(seen)

    def add(
        self,
        stem: str,
        identity: Mapping[str, Any],
        outputs: Iterable[Path],
        found: Mapping[str, Any] | None = None,
        source: str = "",
        well: str = "",
    ) -> None:
        """Record the outputs of an image, what was `found` on the way, and where the image is.

        `well` is that of a plate, where the image tells it.

        Processes that write to one folder take turns.
        """
        entry = {
            "stem": stem,
            "identity": dict(identity),
            "outputs": {path.name: checksum(path) for path in outputs},
            **({"found": dict(found)} if found else {}),
            **({"source": source} if source else {}),
            **({"well": well} if well else {}),
        }
        with _alone_in(self.folder):
            self._read()
            if self._old_entries is not None or not self.file.exists():
                self._begin(self._old_entries or [])
                self._read()
            with explained(self.file), self.file.open("rb+") as file:
                file.seek(self._end)
                file.truncate()  # a torn line
                file.write(_line(entry))
                file.flush()
                os.fsync(file.fileno())

    def _begin(self, entries: list[dict[str, Any]]) -> None:
        """Write a record of this version with these entries."""
        with whole_file(self.file) as temporary:
            temporary.write_bytes(b"".join(map(_line, [{"version": VERSION}, *entries])))

    def _forget(self) -> None:
        self._entries: dict[str, tuple[str, dict[str, str]]] = {}  # identity's digest, outputs
        self._told: dict[str, dict[str, Any]] = {}  # what else entries hold
        self._written: dict[str, set[str]] = {}  # by output: the checksums it was recorded with
        self._end = 0  # of what was read
        self._inode = 0
        self._old_entries: list[dict[str, Any]] | None = None  # of a record of version 1

    def _read(self) -> None:
        """Read what was appended since, all where the file is another one."""
        try:
            with self.file.open("rb") as file:
                seen = os.fstat(file.fileno())
                if seen.st_ino != self._inode or seen.st_size < self._end:
                    self._forget()
                if seen.st_size > MOST_BYTES:
                    raise self._unreadable(f"it is larger than {MOST_BYTES // 2**20} MiB")
                file.seek(self._end)
                content = file.read()
        except FileNotFoundError:
            self._forget()
            return
        except OSError as error:
            raise self._unreadable(brief(error)) from error
        if self._old_entries is not None:
            return
        try:
            self._take(content)
        except DefocusError:
            raise
        except (ValueError, RecursionError, MemoryError) as error:
            raise self._unreadable(brief(error)) from error
        self._inode = seen.st_ino

    def _take(self, content: bytes) -> None:
        """Take in whole lines; none of them where one is damaged."""
        lines = content.split(b"\n")[:-1]
        entries: list[Any] = []
        old = None
        if self._end == 0:
            if lines and lines[0] == _line({"version": VERSION}).rstrip():
                lines = lines[1:]
            else:
                entries = old = self._of_version_1(json.loads(content))
                lines = []
        entries += map(json.loads, lines)
        for entry in entries:
            if not _is_entry(entry):
                stem = entry.get("stem") if isinstance(entry, dict) else entry
                raise self._unreadable(f"the entry of {reprlib.repr(stem)} is damaged")
        for entry in entries:
            self._entries[entry["stem"]] = _digest(entry["identity"]), entry["outputs"]
            self._told[entry["stem"]] = {k: v for k, v in entry.items() if k != "outputs"}
            for name, seen in entry["outputs"].items():
                self._written.setdefault(name, set()).add(seen)
        self._old_entries = old
        self._end += content.rfind(b"\n") + 1 if old is None else len(content)

    def _of_version_1(self, record: Any) -> list[Any]:
        """List the entries of a record that was one JSON document, written anew for each image."""
        if not isinstance(record, dict) or not isinstance(record.get("results"), dict):
            raise self._unreadable("it is no record of results")
        version = record.get("version")
        if type(version) is not int or version != 1:
            raise self._unreadable(f"version {reprlib.repr(version)} is not known here")
        return [
            {"stem": stem, **entry} if isinstance(entry, dict) else entry
            for stem, entry in record["results"].items()
        ]

    def _unreadable(self, why: str) -> DefocusError:
        return DefocusError(
            f"{self.file} cannot be read ({why}); move it away, and results are made anew"
        )


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _digest(identity: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _is_entry(entry: Any) -> bool:
    """Check that an entry is whole, and its outputs lie in the folder of the record."""
    if not isinstance(entry, dict) or not isinstance(entry.get("identity"), dict):
        return False
    outputs = entry.get("outputs")
    return (
        isinstance(entry.get("stem"), str)
        and isinstance(outputs, dict)
        and all(_is_plain(name) and isinstance(seen, str) for name, seen in outputs.items())
    )


def _is_plain(name: str) -> bool:
    """Check that it names a file in a folder, and nothing elsewhere, on any system."""
    if re.fullmatch(r"[\w.-]*\w", name):  # nearly all, and quickly
        return True
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
    with explained(folder / NAME):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)  # which unlocks


def checksum(path: Path) -> str | None:
    """Return the SHA-256 of a file, or of all in a folder; None where it cannot be read."""
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
