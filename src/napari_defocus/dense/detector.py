"""The dense detector: its weights, how its radii are corrected, and its file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_defocus.core.errors import DefocusError
from napari_defocus.io.cards import load_container, save_container

Float = npt.NDArray[np.float32]

KIND = "dense detector"
PACKAGED = {"default": Path(__file__).parents[1] / "weights" / "default.dense.safetensors"}
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


def save_dense(detector: DenseDetector, path: Path, *, overwrite: bool = True) -> None:
    """Write a detector to one ``.safetensors`` file, its weights in half precision.

    Raises
    ------
    DefocusError
        Where the file cannot be written.
    """
    halves = {name: values.astype(np.float16) for name, values in detector.weights.items()}
    save_container(path, KIND, halves, {"record": dict(detector.record)}, overwrite=overwrite)


def cached_dense(source: str | Path = "default") -> DenseDetector:
    """Load a detector, or give the last one loaded where its file is the same; see `load_dense`."""
    path = PACKAGED.get(str(source), Path(source))
    try:
        changed = path.stat().st_mtime_ns
    except OSError:
        return load_dense(path)  # which says what is wrong
    return _load_once(path, changed)


@lru_cache(maxsize=1)
def _load_once(path: Path, changed: int) -> DenseDetector:
    return load_dense(path)


def load_dense(source: str | Path = "default") -> DenseDetector:
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
    """Return whether this corrects radii; none at all is one that corrects nothing."""
    if table is None:
        return True
    try:
        told, true = (np.array([0.0, *table[name]], float) for name in ("told", "true"))
    except (TypeError, ValueError, KeyError):
        return False
    return bool(
        told.shape == true.shape
        and len(told) > 1
        and np.isfinite([told, true]).all()
        and min(np.diff(told).min(), np.diff(true).min()) > 0
    )


def corrected(detector: DenseDetector, table: Mapping[str, Any] | None) -> DenseDetector:
    """Return a detector whose radii are corrected by a table, or not at all.

    Parameters
    ----------
    detector : DenseDetector
        The detector.
    table : mapping or None
        ``told`` and ``true``: radii in pixels, both rising.
    """
    record = {name: value for name, value in detector.record.items() if name != "radius"}
    return DenseDetector(detector.weights, record | ({"radius": dict(table)} if table else {}))


def true_radius(told: Float, table: Mapping[str, Any]) -> Float:
    """Read the table; beyond its end, a told radius is too small by the last share."""
    known, true = (np.array([0.0, *table[name]], np.float32) for name in ("told", "true"))
    within_table = np.interp(told, known, true)
    return np.asarray(
        np.where(told > known[-1], told * (true[-1] / known[-1]), within_table), np.float32
    )
