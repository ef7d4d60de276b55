"""Combo boxes that list layers, and follow the layer list."""

from typing import Any

from magicgui.widgets import ComboBox
from napari.components import ViewerModel

from napari_defocus.widgets.layers import owned


def layer_chooser(
    viewer: ViewerModel, *kinds: type[Any], nullable: bool = False, results: bool = False
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
    """

    def choices(_: Any) -> list[Any]:
        return [
            layer
            for layer in viewer.layers
            if type(layer) in kinds and (results or not owned(layer))
        ]

    chooser = ComboBox(choices=choices, nullable=nullable)

    def refresh(_: Any = None) -> None:
        chooser.reset_choices()

    events = viewer.layers.events
    for event in (events.inserted, events.removed, events.reordered):
        event.connect(refresh)
    # A name that changes is shown at once, too.
    events.inserted.connect(lambda event: event.value.events.name.connect(refresh))
    for layer in viewer.layers:
        layer.events.name.connect(refresh)
    return chooser


def follow_selection(viewer: ViewerModel, chooser: ComboBox) -> None:
    """Choose the layer that is selected in the layer list, where it may be chosen."""

    def follow(_: Any = None) -> None:
        active = viewer.layers.selection.active
        if active is not None and active in chooser.choices:
            chooser.value = active

    viewer.layers.selection.events.active.connect(follow)
    follow()
