"""What one round over the tiles leaves for the next: a file for each tile and plane."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from napari_defocus.core.errors import DefocusError
from napari_defocus.core.tiling import Region, Tile, overlap, within
from napari_defocus.io.atomic import whole_file, write_json

IDENTITY = "run.json"


@dataclass(frozen=True)
class TileKey:
    """A tile of one plane, by its place along each leading axis."""

    plane: tuple[int, ...]
    tile: Tile


Key = TileKey | tuple[int, ...]


@dataclass(frozen=True)
class TileStore:
    """A folder, seen by all who work, of arrays by round and tile; what is there is whole."""

    folder: Path

    def is_of(self, identity: Mapping[str, Any]) -> bool:
        """Return whether a run of the same input, metric and settings left something here."""
        try:
            left = json.loads((self.folder / IDENTITY).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return bool(left == json.loads(json.dumps(identity)))

    def begin(self, identity: Mapping[str, Any]) -> None:
        """Clear away what another run left, and write all that the arrays of this one depend on."""
        self.remove()
        write_json(self.folder / IDENTITY, identity)

    def remove(self) -> None:
        """Clear everything away."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def has(self, name: str, key: Key) -> bool:
        """Return whether a round left something of a tile or plane."""
        return self._file(name, key).exists()

    def put(self, name: str, key: Key, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Write arrays."""
        file = self._file(name, key)
        try:
            with whole_file(file) as temporary:
                save_file({n: np.ascontiguousarray(a) for n, a in arrays.items()}, temporary)
        except SafetensorError as error:  # which it makes of errors of the disk, too
            raise DefocusError(f"cannot write {file}: {error}") from error

    def get(self, name: str, key: Key, *wanted: str) -> list[npt.NDArray[Any]]:
        """Read arrays, in the order of `wanted`; DefocusError where one is missing or damaged."""
        return [self.part(name, key, what) for what in wanted]

    def part(
        self, name: str, key: Key, what: str, region: Region | None = None
    ) -> npt.NDArray[Any]:
        """Read rows and columns of an array; see `get`."""
        file = self._file(name, key)
        try:
            with safe_open(file, "np") as arrays:
                found: npt.NDArray[Any] = arrays.get_slice(what)[region or ...]
                return found
        except (OSError, SafetensorError) as error:
            raise DefocusError(
                f"{file} is missing or damaged ({error}); delete {self.folder} and start again"
            ) from error

    def window(
        self, name: str, plane: tuple[int, ...], tiles: Sequence[Tile], what: str, window: Region
    ) -> npt.NDArray[Any]:
        """Put rows and columns of a plane together from tiles, all that they touch among them."""
        joined: npt.NDArray[Any] | None = None
        for tile in tiles:
            if shared := overlap(tile.region, window):
                found = self.part(name, TileKey(plane, tile), what, within(shared, tile.region))
                if joined is None:
                    joined = np.empty([s.stop - s.start for s in window], found.dtype)
                joined[within(shared, window)] = found
        assert joined is not None, "a window touches a tile"
        return joined

    def _file(self, name: str, key: Key) -> Path:
        plane, tile = (key.plane, key.tile) if isinstance(key, TileKey) else (key, None)
        parts = [*map(str, plane)] + ([f"{tile.row}_{tile.column}"] if tile else [])
        return self.folder / name / ("-".join(parts or ["plane"]) + ".safetensors")
