"""Tables to look at, not to edit."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from qtpy.QtWidgets import QTableWidget, QTableWidgetItem


def read_only_table(height: int, tip: str = "") -> QTableWidget:
    """Make an empty table, at least so many pixels high."""
    table = QTableWidget()
    table.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
    table.setMinimumHeight(height)
    if tip:
        table.setToolTip(f"<p>{tip}</p>")
    return table


def fill_table(
    table: QTableWidget,
    columns: Mapping[str, Any],
    *,
    digits: int = 3,
    nan: str = "nan",
) -> None:
    """Show columns of the same length, floats with so many digits."""
    table.setColumnCount(len(columns))
    table.setHorizontalHeaderLabels([name.replace("_", " ") for name in columns])
    table.setRowCount(max(map(len, columns.values()), default=0))
    for column, values in enumerate(columns.values()):
        for line, value in enumerate(values):
            text = "" if value is None else str(value)
            if isinstance(value, float | np.floating):
                text = nan if np.isnan(value) else f"{value:.{digits}f}"
            table.setItem(line, column, QTableWidgetItem(text))
    table.resizeColumnsToContents()
