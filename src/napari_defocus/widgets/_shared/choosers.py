"""Combo boxes that list layers, and follow the layer list."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from magicgui.widgets import ComboBox
from napari.components import ViewerModel

from napari_defocus.widgets._shared.layers import owned


def layer_chooser(
    viewer: ViewerModel,
    *kinds: type[Any],
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
    nullable : bool
        Whether none may be chosen.
    results : bool
        Whether layers that this plugin made are listed too.
    keep : callable, optional
        Says of a layer of these whether it is listed.
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
