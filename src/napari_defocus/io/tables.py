"""Tables as CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from napari_defocus.io.atomic import whole_file


def column_rows(
    columns: Mapping[str, npt.NDArray[Any]], where: Mapping[str, int] | None = None
) -> list[dict[str, Any]]:
    """Turn columns of the same length into rows."""
    names = list(columns)
    values = zip(*(columns[name].tolist() for name in names), strict=True)
    return [{**(where or {}), **dict(zip(names, row, strict=True))} for row in values]


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], *, overwrite: bool = True) -> None:
    """Write rows, one or more, as CSV; numbers with six digits, what a row lacks stays empty.

    Raises
    ------
    DefocusError
        Where `path` cannot be written.
    """
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        texts = {name: f"{v:.6g}" if isinstance(v, float) else v for name, v in row.items()}
        writer.writerow(texts)
    with whole_file(path, overwrite) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8", errors="replace")
