"""The dense detector: its weights, how its radii are corrected, and its file."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_defocus.core.errors import DefocusError
from napari_defocus.io.cards import load_container, save_container

Float = npt.NDArray[np.float32]

KIND = "dense detector"
PACKAGED = {"dense": Path(__file__).parents[1] / "weights" / "default.dense.safetensors"}
# What the logarithm of the radius is taken of: radius + this.
RADIUS_OFFSET = 0.5


@dataclass(frozen=True, eq=False)
class DenseDetector:
    """A trained dense network.

    Parameters
    ----------
    weights : mapping of str to ndarray of float16 or float32
        The network's parameters by name.
    record : mapping
        How it was made.
    """

    weights: Mapping[str, npt.NDArray[Any]]
    record: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """Names the weights and the correction of the radius."""
        found = sha256(json.dumps(self.record.get("radius")).encode())
        for name in sorted(self.weights):
            found.update(np.ascontiguousarray(self.weights[name], np.float16).tobytes())
        return found.hexdigest()[:16]


def save_dense(detector: DenseDetector, path: Path, *, overwrite: bool = True) -> None:
    """Write a detector to one ``.safetensors`` file, its weights in half precision.

    Raises
    ------
    DefocusError
        Where the file cannot be written.
    """
    halves = {name: values.astype(np.float16) for name, values in detector.weights.items()}
    save_container(path, KIND, halves, {"record": dict(detector.record)}, overwrite=overwrite)


def cached_dense(source: str | Path = "dense") -> DenseDetector:
    """Load a detector, or return the last one loaded if its file is the same; see `load_dense`."""
    path = PACKAGED.get(str(source), Path(source))
    try:
        changed = path.stat().st_mtime_ns
    except OSError:
        return load_dense(path)  # which raises
    return _load_once(path, changed)


@lru_cache(maxsize=1)
def _load_once(path: Path, changed: int) -> DenseDetector:
    return load_dense(path)


def load_dense(source: str | Path = "dense") -> DenseDetector:
    """Read a detector from a file, or by the name of one that comes with the package.

    Raises
    ------
    DefocusError
        Where there is no such detector, or the file is no whole one.
    """
    path = PACKAGED.get(str(source), Path(source))
    tensors, card = load_container(path, KIND)
    record = card.get("record")
    if not isinstance(record, dict) or not _is_table(record.get("radius")):
        raise DefocusError(f"{path}: not a whole dense detector; get or make it anew")
    if not all(np.isfinite(values).all() for values in tensors.values()):
        raise DefocusError(f"{path}: holds values that are no finite numbers; get it anew")
    return DenseDetector(tensors, record)


def _is_table(table: Any) -> bool:
    """Return whether this is a table of radii as in `corrected`, or None."""
    if table is None:
        return True
    try:
        predicted, true = (np.array([0.0, *table[name]], float) for name in ("told", "true"))
    except (TypeError, ValueError, KeyError):
        return False
    return bool(
        predicted.shape == true.shape
        and len(true) > 1
        and np.isfinite([predicted, true]).all()
        and min(np.diff(predicted).min(), np.diff(true).min()) > 0
    )


def corrected(detector: DenseDetector, table: Mapping[str, Any] | None) -> DenseDetector:
    """Return a detector with a table that corrects its radii, or with none.

    Parameters
    ----------
    detector : DenseDetector
        The detector.
    table : mapping or None
        ``told`` (by the network) and ``true``: radii in pixels, both rising.
    """
    record = {name: value for name, value in detector.record.items() if name != "radius"}
    return DenseDetector(detector.weights, record | ({"radius": dict(table)} if table else {}))


def true_radius(radius: Float, table: Mapping[str, Any]) -> Float:
    """Correct predicted radii by a table; beyond its end its last ratio holds."""
    predicted, true = (np.array([0.0, *table[name]], np.float32) for name in ("told", "true"))
    beyond = radius * (true[-1] / predicted[-1])
    corrected = np.where(radius > predicted[-1], beyond, np.interp(radius, predicted, true))
    return np.asarray(corrected, np.float32)
