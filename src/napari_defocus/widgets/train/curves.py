"""Curves of a training: loss and accuracy of each net, drawn as they come."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.colors import to_rgba
from matplotlib.ticker import MaxNLocator
from napari.components import ViewerModel
from napari.utils.theme import get_theme
from qtpy.QtCore import QPointF, QRectF, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_defocus.widgets._shared import ui

# Curves are redrawn after so many milliseconds at the earliest.
REDRAW = 250
LEAST_SIZE = 220, 200
# Pixels around the curves for ticks and titles.
LEFT, RIGHT, ABOVE, BELOW = 48, 8, 22, 40
FONT = 8
EPOCHS = "epoch; a colour for each net"
# Longer histories are drawn at every second (third, ...) epoch.
MOST_POINTS = 4000
# Of each panel: title, and what is drawn in it; dotted is what nets were trained on.
PANELS = (
    ("loss: held out, dotted training", ("train_loss", "loss")),
    ("held-out accuracy", ("accuracy",)),
)


class Curves(QWidget):
    """Loss and accuracy of each net, in the colours of the viewer's theme.

    Painted by Qt itself, in a few milliseconds: Matplotlib would hold up the window for a hundred.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        # Loss and accuracy of each epoch, by net.
        self.history: dict[int, list[Mapping[str, float]]] = {}
        self._viewer = viewer
        self._epochs = 1
        self._timer = ui.debounced(self, REDRAW, self.update)
        self.setMinimumSize(*LEAST_SIZE)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        ui.tipped(
            self,
            "Loss, which training lowers, and the accuracy on patches that it does not see; an "
            "epoch is one pass over the patches.",
        )

    def clear(self, epochs: int) -> None:
        """Begin anew, with room for so many epochs."""
        self.history, self._epochs = {}, epochs
        self.update()

    def add(self, net: int, epoch: Mapping[str, float]) -> None:
        """Add the loss and accuracy of an epoch of a net."""
        self.history.setdefault(net, []).append(epoch)
        if not self._timer.isActive():
            self._timer.start()

    def limits(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return the limits of losses and of accuracies, in coarse steps."""
        epochs = [epoch for net in self.history.values() for epoch in net]
        loss = max(max(epoch["loss"], epoch["train_loss"]) for epoch in epochs)
        accuracy = min(epoch["accuracy"] for epoch in epochs)
        least = min(math.floor(accuracy * 10 - 0.1) / 10, 0.9)
        return (0, math.ceil(loss * 10 + 0.1) / 10), (least, 1)

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802 - Qt's name
        """Draw both panels."""
        if not self.history:
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        font = painter.font()
        font.setPointSize(FONT)
        painter.setFont(font)
        width, height = self.width() - LEFT - RIGHT, (self.height() - BELOW) / 2 - ABOVE
        for place, ((title, names), limits) in enumerate(zip(PANELS, self.limits(), strict=True)):
            box = QRectF(LEFT, ABOVE + place * (height + ABOVE), width, height)
            panel = _Panel(painter, box, (0.5, self._epochs + 0.5), limits)
            panel.draw_frame(title, self._colours(), EPOCHS if place else "")
            self._draw_lines(panel, names)
        painter.end()

    def _colours(self) -> tuple[QColor, QColor]:
        theme = get_theme(self._viewer.theme)
        return QColor(theme.text.as_hex("long")), QColor(theme.secondary.as_hex("long"))

    def _draw_lines(self, panel: "_Panel", names: Sequence[str]) -> None:
        step = 1 + sum(map(len, self.history.values())) // MOST_POINTS
        for net, epochs in self.history.items():
            colour = QColor.fromRgbF(*to_rgba(f"C{net % 10}"))
            for name in names:
                points = [(at + 1, epochs[at][name]) for at in range(0, len(epochs), step)]
                panel.draw_line(points, colour, dotted=name == "train_loss")


class _Panel:
    """A box with axes, into which lines are drawn."""

    def __init__(
        self, painter: Any, box: QRectF, x: tuple[float, float], y: tuple[float, float]
    ) -> None:
        self._painter, self._box, self._x, self._y = painter, box, x, y

    def _place(self, x: float, y: float) -> QPointF:
        box, (left, right), (low, high) = self._box, self._x, self._y
        across, up = (x - left) / (right - left), (y - low) / (high - low)
        return QPointF(box.left() + across * box.width(), box.bottom() - up * box.height())

    def draw_frame(self, title: str, colours: tuple[QColor, QColor], label: str) -> None:
        """Draw the frame, its title and its ticks; those of x only where these have a label."""
        painter, box, (text, line) = self._painter, self._box, colours
        painter.setPen(QPen(line))
        painter.drawRect(box)
        painter.setPen(QPen(text))
        left, middle = Qt.AlignmentFlag.AlignLeft, Qt.AlignmentFlag.AlignVCenter
        above = QRectF(box.left(), box.top() - ABOVE, box.width(), ABOVE)
        painter.drawText(above, left | middle, title)
        for y in _ticks(self._y, 4):
            at = self._place(0, y).y()
            room = QRectF(0, at - ABOVE / 2, LEFT - 6, ABOVE)
            painter.drawText(room, Qt.AlignmentFlag.AlignRight | middle, f"{y:.3g}")
        if not label:
            return
        centre = Qt.AlignmentFlag.AlignHCenter
        for x in _ticks(self._x, 6, integer=True):
            at = self._place(x, 0).x()
            room = QRectF(at - LEFT, box.bottom() + 2, 2 * LEFT, BELOW / 2)
            painter.drawText(room, centre, f"{x:.0f}")
        below = QRectF(box.left(), box.bottom() + BELOW / 2, box.width(), BELOW / 2)
        painter.drawText(below, centre, label)

    def draw_line(
        self, points: Sequence[tuple[float, float]], colour: QColor, *, dotted: bool
    ) -> None:
        """Draw a line through points, with a dot on each unless it is dotted."""
        painter, placed = self._painter, QPolygonF([self._place(*point) for point in points])
        style = Qt.PenStyle.DotLine if dotted else Qt.PenStyle.SolidLine
        painter.setPen(QPen(colour, 1.2, style))
        painter.drawPolyline(placed)
        if not dotted:
            painter.setPen(QPen(colour, 4, Qt.PenStyle.SolidLine, Qt.PenCapStyle.RoundCap))
            painter.drawPoints(placed)


def _ticks(limits: tuple[float, float], most: int, *, integer: bool = False) -> list[float]:
    locator = MaxNLocator(nbins=most, integer=integer)
    low, high = limits
    margin = (high - low) * 1e-6
    return [at for at in locator.tick_values(low, high) if low - margin <= at <= high + margin]
