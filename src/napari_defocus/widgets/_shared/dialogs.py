"""Asking for files; None where the user thinks better of it."""

from pathlib import Path

from qtpy.QtWidgets import QFileDialog, QWidget

METRICS = "Metrics (*.safetensors)"


def ask_to_open(parent: QWidget, title: str, files: str) -> Path | None:
    """Ask for a file that is there; `files` says which, such as "Metrics (*.safetensors)"."""
    path, _ = QFileDialog.getOpenFileName(parent, title, "", files)
    return Path(path) if path else None


def ask_to_save(parent: QWidget, title: str, name: str, kind: str) -> Path | None:
    """Ask for a file to be, with the suffix of the suggested `name`; `kind` is "CSV" or so."""
    suffix = Path(name).suffix
    suggested = "".join("_" if letter in '/\\:*?"<>|' else letter for letter in name)
    path, _ = QFileDialog.getSaveFileName(parent, title, suggested, f"{kind} (*{suffix})")
    if not path:
        return None
    return Path(path if path.lower().endswith(suffix) else f"{path}{suffix}")


def ask_metric_to_open(parent: QWidget) -> Path | None:
    """Ask for a metric file that is there."""
    return ask_to_open(parent, "Open a metric", METRICS)


def ask_metric_to_save(parent: QWidget) -> Path | None:
    """Ask for a metric file to be."""
    return ask_to_save(parent, "Save the metric", "metric.safetensors", "Metrics")
