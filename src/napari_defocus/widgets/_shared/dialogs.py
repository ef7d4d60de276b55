"""Asking for files; nothing follows where the user thinks better of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from qtpy.QtWidgets import QFileDialog, QPushButton, QWidget

from napari_defocus.widgets._shared import ui

Then = Callable[[Path], Any]


def ask_to_open(parent: QWidget, title: str, files: str, then: Then) -> None:
    """Call `then` with a file that is there; `files` are such as "Metrics (*.safetensors)"."""
    path, _ = QFileDialog.getOpenFileName(parent, title, "", files)
    if path:
        then(Path(path))


def ask_to_save(parent: QWidget, title: str, name: str, kind: str, then: Then) -> None:
    """Call `then` with a file to be, with the suffix of the suggested `name`; `kind`: "CSV"."""
    suffix = Path(name).suffix
    suggested = "".join("_" if letter in '/\\:*?"<>|' else letter for letter in name)
    path, _ = QFileDialog.getSaveFileName(parent, title, suggested, f"{kind} (*{suffix})")
    if path:
        then(Path(path if path.lower().endswith(suffix) else f"{path}{suffix}"))


def save_button(
    parent: QWidget, text: str, tip: str, then: Then, name: str, title: str = "Save", kind: str = ""
) -> QPushButton:
    """Make a button that asks for a file to be, see `ask_to_save`; the kind is by the suffix."""
    kind = kind or Path(name).suffix[1:].upper()
    return ui.button(text, tip, lambda: ask_to_save(parent, title, name, kind, then))


def save_metric_button(parent: QWidget, text: str, tip: str, then: Then) -> QPushButton:
    """Make a button that asks for a metric file to be."""
    name, title = "metric.safetensors", "Save the metric"
    return save_button(parent, text, tip, then, name, title, "Metrics")


def ask_metric_to_open(parent: QWidget, then: Then) -> None:
    """Call `then` with a metric file that is there."""
    ask_to_open(parent, "Open a metric", "Metrics (*.safetensors)", then)
