"""The scores of objects as features of their layer."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from napari.layers import Labels
from qtpy.QtCore import QObject

from napari_defocus.widgets._shared.latest import Latest
from napari_defocus.widgets._shared.tables import fill_table, read_only_table
from napari_defocus.widgets.detect.exports import Found, labels_reader, score_planes

HEIGHT = 120
TIP = (
    "A row for each object: its label, area in pixels, mean blur (0 sharp, 1 blurred), the shares "
    "of its pixels that are blurred and undecided, and its focus: the higher, the sharper, "
    "whatever its contrast, brightness and size (nan: nothing is seen)."
)


def add_features(objects: Labels, columns: Mapping[str, Any]) -> None:
    """Give a labels layer the columns as features; others that it has stay."""
    others = objects.features.drop(columns=columns.keys() - {"index"}, errors="ignore")
    if "index" not in others:
        # Napari's rule for such features: the row's number is the label.
        others.insert(0, "index", range(len(others)))
    objects.features = pd.DataFrame(columns).merge(others, on="index", how="outer")


class ObjectScores(Latest):
    """Scores the objects of a layer in the background: for large labels that takes seconds."""

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self.table = read_only_table(HEIGHT, TIP)
        self.table.verticalHeader().hide()
        self.table.hide()
        self._objects: Labels | None = None
        self.ready.connect(self._show)

    def clear(self) -> None:
        """Show no objects."""
        self._objects = None
        self.table.hide()

    def score(self, objects: Labels, found: Found) -> None:
        """Score objects in what was detected; DefocusError where they do not fit it."""
        self.request(objects, score_planes, labels_reader(objects, found), found)
        self._objects = objects

    def _show(self, objects: Labels, columns: Mapping[str, Any]) -> None:
        if self._objects is objects:
            add_features(objects, columns)
            fill_table(self.table, columns)
            self.table.show()
