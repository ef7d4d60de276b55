"""Asking for files."""

from pathlib import Path

from qtpy.QtWidgets import QFileDialog, QWidget

METRICS = "Metrics (*.safetensors)"


def ask_metric_to_open(parent: QWidget) -> Path | None:
    """Ask for a metric file that is there; None where the user thinks better of it."""
    path, _ = QFileDialog.getOpenFileName(parent, "Open a metric", "", METRICS)
    return Path(path) if path else None


def ask_metric_to_save(parent: QWidget) -> Path | None:
    """Ask for a metric file to be, with its suffix; None where the user thinks better of it."""
    path, _ = QFileDialog.getSaveFileName(parent, "Save the metric", "metric.safetensors", METRICS)
    if not path:
        return None
    return Path(path) if Path(path).suffix else Path(f"{path}.safetensors")
