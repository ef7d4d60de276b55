"""Matplotlib plots inside napari, in the colours of its theme."""

from collections.abc import Callable
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_qtagg import FigureCanvasQTAgg
from matplotlib.figure import Figure
from napari.components import ViewerModel
from napari.utils.theme import get_theme
from qtpy.QtWidgets import QSizePolicy, QVBoxLayout, QWidget

# The first size; the window gives another.
SIZE_INCHES = (3.2, 3.2)
MIN_WIDTH = 220
MIN_HEIGHT = 200


class Plot(QWidget):
    """A figure that follows the viewer's theme.

    Parameters
    ----------
    viewer : Viewer
        Whose theme is followed.

    Attributes
    ----------
    figure : Figure
        What is drawn.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = viewer
        self._paint: Callable[[Figure], None] = _nothing
        self.figure = Figure(SIZE_INCHES, layout="constrained")
        self._canvas = FigureCanvasQTAgg(self.figure)
        # Not the canvas alone: napari puts a stretch below widgets that do not want to grow.
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self._canvas.setMinimumSize(MIN_WIDTH, MIN_HEIGHT)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._canvas)
        viewer.events.theme.connect(self._redraw)
        self._redraw()

    def draw(self, paint: Callable[[Figure], None]) -> None:
        """Clear the figure and let `paint` fill it; again whenever the theme changes.

        Parameters
        ----------
        paint : callable
            Called with the figure; text, lines of axes and backgrounds get the theme's colours
            unless it gives them others.
        """
        self._paint = paint
        self._redraw()

    def _redraw(self, _: Any = None) -> None:
        colours: Any = _theme_colours(self._viewer.theme)
        with rc_context(colours):
            self.figure.clear()
            self.figure.set_facecolor(colours["figure.facecolor"])
            self._paint(self.figure)
        self._canvas.draw_idle()


def _nothing(figure: Figure) -> None:
    """Paint nothing."""


def _theme_colours(name: str) -> dict[str, Any]:
    """Return matplotlib settings in the colours of a napari theme."""
    theme = get_theme(name)
    background, text, line = (
        getattr(theme, part).as_hex("long") for part in ("background", "text", "secondary")
    )
    settings: dict[str, Any] = dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.titlecolor", "xtick.labelcolor", "ytick.labelcolor",
         "legend.labelcolor"),
        text,
    )  # fmt: skip
    settings |= dict.fromkeys(
        ("figure.facecolor", "axes.facecolor", "legend.facecolor"), background
    )
    settings |= dict.fromkeys(
        ("axes.edgecolor", "xtick.color", "ytick.color", "grid.color", "legend.edgecolor"), line
    )
    return settings | {"font.size": 8, "axes.titlesize": 9}
