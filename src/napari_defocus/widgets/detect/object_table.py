"""The scores of objects as features of their layer."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from napari.layers import Labels

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
