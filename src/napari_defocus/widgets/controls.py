"""Small controls that several widgets have."""

from collections.abc import Mapping

from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import (
    QComboBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

from napari_defocus.pictures import COLOURS


def wrapped_label() -> QLabel:
    """Make a label whose text goes on in the next line."""
    label = QLabel()
    label.setWordWrap(True)
    return label


def row(*controls: QWidget) -> QHBoxLayout:
    """Put controls side by side."""
    layout = QHBoxLayout()
    for control in controls:
        layout.addWidget(control)
    return layout


def settings_form(
    first: Mapping[str, QWidget], more: Mapping[str, QWidget], parent: QWidget
) -> None:
    """Lay controls out in `parent` beside their labels, those in `more` folded away."""
    inner = QWidget()
    rows, folded_rows = QFormLayout(), QFormLayout(inner)
    folded_rows.setContentsMargins(0, 0, 0, 0)
    for form, controls in ((rows, first), (folded_rows, more)):
        for label, control in controls.items():
            form.addRow(label, control)
    folded = QCollapsible("More settings")
    folded.addWidget(inner)
    layout = QVBoxLayout(parent)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.addLayout(rows)
    layout.addWidget(folded)


def choice(names: tuple[str, ...], chosen: str) -> QComboBox:
    """Make a box to choose a name from."""
    box = QComboBox()
    box.addItems(names)
    box.setCurrentText(chosen)
    return box


def number(low: int, high: int, value: int, suffix: str = "", step: int = 1) -> QSpinBox:
    """Make a box for a whole number."""
    box = QSpinBox()
    box.setRange(low, high)
    box.setSingleStep(step)
    box.setValue(value)
    box.setSuffix(suffix)
    return box


def paint_button(text: str, label: int) -> QPushButton:
    """Make a button that shows the colour of a class."""
    swatch = QPixmap(16, 16)
    swatch.fill(QColor.fromRgbF(*COLOURS[label]))
    return QPushButton(QIcon(swatch), text)
