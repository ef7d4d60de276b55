"""Small controls, and how they are laid out: what several widgets have."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from qtpy.QtCore import QEvent, QObject, QSize, Qt, QTimer
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import (
    QAbstractSlider,
    QAbstractSpinBox,
    QCheckBox,
    QComboBox,
    QFormLayout,
    QFrame,
    QHBoxLayout,
    QLabel,
    QLayout,
    QPushButton,
    QScrollArea,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

from napari_defocus.core.errors import DefocusError
from napari_defocus.labels.classes import COLOURS

LEAST_HEIGHT = 300
FOLDED, UNFOLDED = "▸", "▾"
WARNING = "⚠ "

# A label, which may be empty, and what stands beside it.
Row = tuple[str, QWidget | QLayout]
Control = TypeVar("Control", bound=QWidget)


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


def tipped(control: Control, tip: str) -> Control:
    """Return a control with its tooltip, a paragraph that breaks into lines."""
    control.setToolTip(f"<p>{tip}</p>")
    return control


def warning(error: Exception) -> str:
    """Return the text of an error, or its kind where it has none, behind a warning sign."""
    return f"{WARNING}{str(error) or type(error).__name__}"


@contextmanager
def refusing(show: Callable[[Exception], None]) -> Iterator[None]:
    """Show a DefocusError that is raised within."""
    try:
        yield
    except DefocusError as error:
        show(error)


def wrapped_label(tip: str = "") -> QLabel:
    """Make a label whose text goes on in the next line."""
    label = QLabel()
    label.setWordWrap(True)
    return tipped(label, tip) if tip else label


def button(text: str, tip: str, pressed: Callable[[], Any] | None = None) -> QPushButton:
    """Make a button, and what it does where that is known already."""
    made = tipped(QPushButton(text), tip)
    if pressed is not None:
        made.clicked.connect(pressed)
    return made


def tick_box(text: str, tip: str, on: bool = False) -> QCheckBox:
    """Make a box to tick."""
    box = tipped(QCheckBox(text), tip)
    box.setChecked(on)
    return box


def choice(names: tuple[str, ...], chosen: str, tip: str) -> QComboBox:
    """Make a box to choose a name from."""
    box = tipped(QComboBox(), tip)
    box.addItems(names)
    box.setCurrentText(chosen)
    return box


def number(
    low: int, high: int, value: int, tip: str, *, suffix: str = "", step: int = 1
) -> QSpinBox:
    """Make a box for a whole number."""
    box = tipped(QSpinBox(), tip)
    box.setRange(low, high)
    box.setSingleStep(step)
    box.setValue(value)
    box.setSuffix(suffix)
    return box


def paint_button(text: str, label: int, tip: str, pressed: Callable[[], Any]) -> QPushButton:
    """Make a button that shows the colour of a class."""
    swatch = QPixmap(16, 16)
    swatch.fill(QColor.fromRgbF(*COLOURS[label]))
    made = button(text, tip, pressed)
    made.setIcon(QIcon(swatch))
    return made


def row(*controls: QWidget) -> QHBoxLayout:
    """Put controls side by side."""
    layout = QHBoxLayout()
    for control in controls:
        layout.addWidget(control)
    return layout


def column(parent: QWidget, *parts: QWidget | QLayout, margin: bool = False) -> QVBoxLayout:
    """Put controls and layouts below one another in `parent`."""
    layout = QVBoxLayout(parent)
    if not margin:
        layout.setContentsMargins(0, 0, 0, 0)
    for part in parts:
        add = layout.addLayout if isinstance(part, QLayout) else layout.addWidget
        add(part)
    return layout


def form(*rows: Row, parent: QWidget | None = None) -> QFormLayout:
    """Put controls beside their labels, which share their tooltips."""
    layout = QFormLayout(parent)
    if parent is not None:
        layout.setContentsMargins(0, 0, 0, 0)
    for text, field in rows:
        layout.addRow(text, field)
        label = layout.labelForField(field)
        if label is not None:
            control = field.itemAt(0).widget() if isinstance(field, QLayout) else field
            label.setToolTip(control.toolTip())
    return layout


def settings_form(parent: QWidget, first: list[Row], more: list[Row]) -> None:
    """Lay controls out in `parent` beside their labels, those in `more` folded away."""
    inner = QWidget()
    form(*more, parent=inner)
    column(
        parent, form(*first), folded("More settings", "Settings that seldom need a change.", inner)
    )


def folded(title: str, tip: str, inner: QWidget) -> QCollapsible:
    """Fold a widget away behind a button."""
    # Signs in the text, not icons: those stay black in the dark theme.
    fold = QCollapsible(f"{FOLDED} {title}", expandedIcon=QIcon(), collapsedIcon=QIcon())
    fold.toggled.connect(lambda is_open: fold.setText(f"{UNFOLDED if is_open else FOLDED} {title}"))
    tipped(fold.toggleButton(), tip)
    fold.addWidget(inner)
    return fold


def debounced(parent: QObject, milliseconds: int, call: Callable[[], Any]) -> QTimer:
    """Make a timer that calls once, so long after its last start."""
    timer = QTimer(parent)
    timer.setSingleShot(True)
    timer.setInterval(milliseconds)
    timer.timeout.connect(call)
    return timer
