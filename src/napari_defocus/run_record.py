"""What was done in a folder of results: which input, metric and settings each output is of."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_defocus.errors import DefocusError
from napari_defocus.files import write_json

NAME = "napari-defocus.json"
VERSION = 1


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
        paths = [self.folder / name for name in entry.get("outputs", {})]
        same = all(checksum(path) == entry["outputs"][path.name] for path in paths)
        return paths if same else []

    def mine(self, path: Path) -> bool:
        """Tell whether an output was written by a recorded run."""
        return any(path.name in entry.get("outputs", {}) for entry in self._read().values())

    def add(self, stem: str, identity: Mapping[str, Any], outputs: Iterable[Path]) -> None:
        """Record the outputs of an image.

        Raises
        ------
        DefocusError
            Where the record cannot be read or written.
        """
        entry = {
            "identity": dict(identity),
            "outputs": {path.name: checksum(path) for path in outputs},
        }
        write_json(self.file, {"version": VERSION, "results": {**self._read(), stem: entry}})

    def _read(self) -> dict[str, Any]:
        try:
            record = json.loads(self.file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise self._unreadable(str(error)) from error
        if not isinstance(record, dict) or not isinstance(record.get("results"), dict):
            raise self._unreadable("it is no record of results")
        if record.get("version") != VERSION:
            raise self._unreadable(f"version {record.get('version')!r} is not known here")
        return {k: v for k, v in record["results"].items() if isinstance(v, dict)}

    def _unreadable(self, why: str) -> DefocusError:
        return DefocusError(
            f"{self.file} cannot be read ({why}); move it away, and results are made anew"
        )


def checksum(path: Path) -> str | None:
    """Give the SHA-256 of a file, or of all in a folder; None where it is missing."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    if not path.is_dir():
        return None
    whole = hashlib.sha256()
    for part in sorted(p for p in path.rglob("*") if p.is_file()):
        whole.update(f"{part.relative_to(path).as_posix()} {checksum(part)}\n".encode())
    return whole.hexdigest()
