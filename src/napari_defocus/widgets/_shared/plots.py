"""Matplotlib plots inside napari, in the colours of its theme."""

from collections.abc import Callable
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_qtagg import FigureCanvasQTAgg
from matplotlib.figure import Figure
from napari.components import ViewerModel
from napari.utils.theme import get_theme
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_defocus.widgets._shared import ui

# The first size; the window gives another.
SIZE_INCHES = (3.2, 3.2)
MIN_WIDTH = 220
MIN_HEIGHT = 200


class Plot(QWidget):
    """A figure that follows the viewer's theme."""

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = viewer
        self._paint: Callable[[Figure], None] = lambda _: None
        self.figure = Figure(SIZE_INCHES, layout="constrained")
        self._canvas = FigureCanvasQTAgg(self.figure)
        # Not the canvas alone: napari puts a stretch below widgets that do not want to grow.
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self._canvas.setMinimumSize(MIN_WIDTH, MIN_HEIGHT)
        ui.column(self, self._canvas)
        viewer.events.theme.connect(self._redraw)
        self._redraw()

    def draw(self, paint: Callable[[Figure], None]) -> None:
        """Clear the figure and let `paint` fill it, in the theme's colours; again as it changes."""
        self._paint = paint
        self._redraw()

    def _redraw(self, _: Any = None) -> None:
        colours: Any = _theme_colours(self._viewer.theme)
        with rc_context(colours):
            self.figure.clear()
            self.figure.set_facecolor(colours["figure.facecolor"])
            self._paint(self.figure)
        self._canvas.draw_idle()


def _theme_colours(name: str) -> dict[str, Any]:
    """Return matplotlib settings in the colours of a napari theme."""
    theme = get_theme(name)
    background, text, line = (
        getattr(theme, part).as_hex("long") for part in ("background", "text", "secondary")
    )
    labels = ("text.", "axes.label", "axes.title", "xtick.label", "ytick.label", "legend.label")
    faces = ("figure.face", "axes.face", "legend.face")
    lines = ("axes.edge", "xtick.", "ytick.", "grid.", "legend.edge")
    coloured = ((labels, text), (faces, background), (lines, line))
    colours = {f"{part}color": colour for parts, colour in coloured for part in parts}
    return {**colours, "font.size": 8, "axes.titlesize": 9}
