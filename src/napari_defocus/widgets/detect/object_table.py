"""The scores of objects as a table, and as features of their layer."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from napari.layers import Labels
from qtpy.QtWidgets import QTableWidget, QTableWidgetItem

HEIGHT = 120


class ObjectTable(QTableWidget):
    """A row for each object, hidden while there is none."""

    def __init__(self) -> None:
        super().__init__()
        self.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        self.setMinimumHeight(HEIGHT)
        self.setToolTip(
            "<p>A row for each object: its label, area in pixels, mean blur (0 sharp, 1 blurred), "
            "the shares of its pixels that are blurred and undecided, and its focus: the higher, "
            "the sharper, whatever its contrast, brightness and size (nan: nothing is seen).</p>"
        )
        self.verticalHeader().hide()
        self.hide()

    def fill(self, columns: Mapping[str, Any]) -> None:
        """Show columns of the same length."""
        self.setColumnCount(len(columns))
        self.setHorizontalHeaderLabels([name.replace("_", " ") for name in columns])
        self.setRowCount(len(columns["index"]))
        for column, values in enumerate(columns.values()):
            for index, value in enumerate(values):
                text = f"{value:.3f}" if isinstance(value, float | np.floating) else str(value)
                self.setItem(index, column, QTableWidgetItem(text))
        self.resizeColumnsToContents()
        self.show()


def add_features(objects: Labels, columns: Mapping[str, Any]) -> None:
    """Give a labels layer the columns as features; others that it has stay."""
    others = objects.features.drop(columns=columns.keys() - {"index"}, errors="ignore")
    if "index" not in others:
        # Napari's rule for such features: the row's number is the label.
        others.insert(0, "index", range(len(others)))
    objects.features = pd.DataFrame(columns).merge(others, on="index", how="outer")
