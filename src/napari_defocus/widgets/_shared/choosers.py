"""Combo boxes that list layers, and follow the layer list; one that lists metrics."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from magicgui.widgets import ComboBox
from napari.components import ViewerModel
from qtpy.QtWidgets import QComboBox

from napari_defocus.widgets._shared.layers import owned
from napari_defocus.widgets._shared.ui import tipped


def layer_chooser(
    viewer: ViewerModel,
    *kinds: type[Any],
    tip: str,
    nullable: bool = False,
    results: bool = False,
    keep: Callable[[Any], bool] | None = None,
) -> ComboBox:
    """Make a combo box of the layers of some kinds.

    Parameters
    ----------
    viewer : Viewer
        Whose layers.
    kinds : types of layers
        Which of them.
    tip : str
        Its tooltip.
    nullable : bool
        Whether none may be chosen.
    results : bool
        Whether layers that this plugin made are listed too.
    keep : callable, optional
        Whether a layer of these is listed.
    """

    def choices(_: Any) -> list[Any]:
        return [
            layer
            for layer in viewer.layers
            if type(layer) in kinds
            and (results or not owned(layer))
            and (keep is None or keep(layer))
        ]

    chooser = ComboBox(choices=choices, nullable=nullable)
    chooser.in_step = _InStep(viewer, chooser)
    tipped(chooser.native, tip)
    return chooser


class _InStep:
    """Keeps a combo box in step with the layer list.

    The viewer outlives the box; its events hold their listeners' methods weakly.
    """

    def __init__(self, viewer: ViewerModel, chooser: ComboBox) -> None:
        self._chooser = chooser
        self._selection = viewer.layers.selection
        events = viewer.layers.events
        for event in (events.inserted, events.removed, events.reordered):
            event.connect(self.refresh)
        events.inserted.connect(self.watch_name)
        for layer in viewer.layers:
            layer.events.name.connect(self.refresh)

    def refresh(self, _: Any = None) -> None:
        """List the layers anew."""
        # Qt may have deleted the box before Python has.
        with suppress(RuntimeError):
            self._chooser.reset_choices()

    def watch_name(self, event: Any) -> None:
        """Show a name that changes at once, too."""
        event.value.events.name.connect(self.refresh)

    def follow(self, _: Any = None) -> None:
        """Choose the layer that is selected."""
        with suppress(RuntimeError):
            active = self._selection.active
            if active is not None and active in self._chooser.choices:
                self._chooser.value = active


def follow_selection(viewer: ViewerModel, chooser: ComboBox) -> None:
    """Choose the layer that is selected in the layer list, where it may be chosen."""
    viewer.layers.selection.events.active.connect(chooser.in_step.follow)
    chooser.in_step.follow()


class MetricChooser(QComboBox):
    """Names of metrics; files are shown by their last part."""

    @property
    def name(self) -> str:
        """The chosen name, of a file its whole path."""
        return str(self.currentData())

    def show_names(self, names: tuple[str, ...], chosen: str = "") -> None:
        """List names and choose one; the present choice stays where none is given."""
        chosen = chosen or self.name
        self.blockSignals(True)
        self.clear()
        for name in names:
            self.addItem(last_part(name), name)
        self.blockSignals(False)
        self.setCurrentIndex(max(self.findData(chosen), 0))
        self.currentIndexChanged.emit(self.currentIndex())


def last_part(name: str) -> str:
    """Return the last part of a path of any system."""
    return name.replace("\\", "/").rsplit("/", 1)[-1]
