"""Curves of a training: loss and accuracy of each net, drawn as they come."""

import math
from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from napari.components import ViewerModel

from napari_defocus.widgets._shared.plots import Plot
from napari_defocus.widgets._shared.ui import debounced, tipped

# Curves are redrawn after so many milliseconds at the earliest.
REDRAW = 250


class Curves:
    """Loss and accuracy of each net.

    The window waits while a figure is drawn, so lines grow over what is there until they leave it.

    Parameters
    ----------
    viewer : Viewer
        Whose theme is followed.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        # Loss and accuracy of each epoch, by net.
        self.history: dict[int, list[Mapping[str, float]]] = {}
        self.plot = tipped(
            Plot(viewer),
            "Loss, which training lowers, and the accuracy on patches that it does not see; an "
            "epoch is one pass over the patches.",
        )
        self._epochs = 1
        self._limits: tuple[float, float] | None = None
        self._timer = debounced(self.plot, REDRAW, self._grow)

    def clear(self, epochs: int) -> None:
        """Begin anew, with room for so many epochs."""
        self.history, self._epochs = {}, epochs
        self.plot.draw(self._paint)

    def add(self, net: int, epoch: Mapping[str, float]) -> None:
        """Add the loss and accuracy of an epoch of a net."""
        self.history.setdefault(net, []).append(epoch)
        if not self._timer.isActive():
            self._timer.start()

    def _grow(self) -> None:
        drawn = self.plot.figure.axes
        if not drawn or self._limits != self._find_limits():
            self.plot.draw(self._paint)
        else:
            self.plot.add_lines(self._add_lines(*drawn))

    def _find_limits(self) -> tuple[float, float]:
        """Return the upper limit of losses and the lower one of accuracies, in coarse steps."""
        epochs = [epoch for net in self.history.values() for epoch in net]
        loss = max(max(epoch["loss"], epoch["train_loss"]) for epoch in epochs)
        accuracy = min(epoch["accuracy"] for epoch in epochs)
        return math.ceil(loss * 10 + 0.1) / 10, min(math.floor(accuracy * 10 - 0.1) / 10, 0.9)

    def _paint(self, figure: Figure) -> None:
        if not self.history:
            return
        # A layout that is fitted to its labels is slow.
        figure.set_layout_engine("none")
        margins = {"left": 0.19, "right": 0.97, "top": 0.93, "bottom": 0.14, "hspace": 0.35}
        above, below = figure.subplots(2, 1, sharex=True, gridspec_kw=margins)
        above.set_title("loss: held out, dotted training", loc="left")
        below.set_title("held-out accuracy", loc="left")
        below.set_xlabel("epoch; a colour for each net")
        below.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        below.set_xlim(0.5, self._epochs + 0.5)
        for axes in (above, below):
            axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
        self._limits = self._find_limits()
        above.set_ylim(0, self._limits[0])
        below.set_ylim(self._limits[1], 1)
        self._add_lines(above, below)

    def _add_lines(self, above: Axes, below: Axes) -> list[Line2D]:
        """Replace the lines in the axes by those of the history as it is now."""
        for line in (*above.lines, *below.lines):
            line.remove()
        lines = []
        for net, epochs in self.history.items():
            style: dict[str, Any] = {"color": f"C{net % 10}", "linewidth": 1.2}
            mark: dict[str, Any] = {"marker": ".", "markersize": 5}
            at = range(1, len(epochs) + 1)
            for axes, name, more in (
                (above, "train_loss", {"linestyle": ":"}),
                (above, "loss", mark),
                (below, "accuracy", mark),
            ):
                values = [epoch[name] for epoch in epochs]
                lines += axes.plot(at, values, scalex=False, scaley=False, **style, **more)
        return lines
