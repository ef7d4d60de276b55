"""Small controls that several widgets have."""

from collections.abc import Mapping

from qtpy.QtCore import QEvent, QObject, QSize, Qt
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import (
    QAbstractSlider,
    QAbstractSpinBox,
    QComboBox,
    QFormLayout,
    QFrame,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QScrollArea,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

from napari_defocus.labels.classes import COLOURS

LEAST_HEIGHT = 300
FOLDED, UNFOLDED = "▸ More settings", "▾ More settings"


class Scrolled(QScrollArea):
    """Scrolls a tall widget up and down where the window is low; as wide as the widget asks for."""

    def __init__(self, inner: QWidget) -> None:
        super().__init__()
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setWidget(inner)
        for kind in (QComboBox, QAbstractSlider, QAbstractSpinBox):
            for control in inner.findChildren(kind):
                control.installEventFilter(self)

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Ask for the width of what is inside, and for little height."""
        width = self.widget().minimumSizeHint().width()
        return QSize(width + self.verticalScrollBar().sizeHint().width(), LEAST_HEIGHT)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        """Follow the widget inside; the wheel scrolls, and turns what was clicked alone."""
        if event.type() == QEvent.Type.LayoutRequest:
            self.updateGeometry()
        if event.type() == QEvent.Type.Wheel and not watched.hasFocus():
            event.ignore()
            return True
        return super().eventFilter(watched, event)


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


def set_tips(*tips: tuple[QWidget, str]) -> None:
    """Give controls their tooltips, as paragraphs that break into lines."""
    for control, tip in tips:
        control.setToolTip(f"<p>{tip}</p>")


def share_tips(widget: QWidget) -> None:
    """Give the labels of the forms in a widget the tooltips of what they stand beside."""
    for form in widget.findChildren(QFormLayout):
        for place in range(form.rowCount()):
            label = form.itemAt(place, QFormLayout.ItemRole.LabelRole)
            field = form.itemAt(place, QFormLayout.ItemRole.FieldRole)
            if label is not None and field is not None:
                control = field.widget()
                if control is None:
                    control = field.layout().itemAt(0).widget()
                label.widget().setToolTip(control.toolTip())


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
    # Signs in the text, not icons: those stay black in the dark theme.
    folded = QCollapsible(FOLDED, expandedIcon=QIcon(), collapsedIcon=QIcon())
    folded.toggled.connect(lambda is_open: folded.setText(UNFOLDED if is_open else FOLDED))
    folded.toggleButton().setToolTip("<p>Settings that seldom need a change.</p>")
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
