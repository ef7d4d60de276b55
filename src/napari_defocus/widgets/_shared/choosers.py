"""Combo boxes that list layers, and follow the layer list; one that lists metrics or detectors."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from magicgui.widgets import ComboBox
from napari.components import ViewerModel
from qtpy.QtWidgets import QComboBox
from superqt.utils import signals_blocked

from napari_defocus.widgets._shared.layers import owned
from napari_defocus.widgets._shared.ui import tipped


class LayerChooser(ComboBox):
    """A combo box in step with the layer list; the viewer's events hold its methods weakly."""

    def listen(self, viewer: ViewerModel) -> None:
        """Follow the layers of a viewer, and their names."""
        self._layers = viewer.layers
        events = viewer.layers.events
        for event in (events.inserted, events.removed, events.reordered):
            event.connect(self.reset_choices)
        events.inserted.connect(self._watch_name)
        for layer in viewer.layers:
            layer.events.name.connect(self.reset_choices)

    def reset_choices(self, *_: Any) -> None:
        """List the layers anew."""
        # The viewer outlives the box, and Qt may have deleted it before Python has.
        with suppress(RuntimeError):
            super().reset_choices()

    def _watch_name(self, event: Any) -> None:
        event.value.events.name.connect(self.reset_choices)

    def follow(self, _: Any = None) -> None:
        """Choose the layer that is selected."""
        with suppress(RuntimeError):
            active = self._layers.selection.active
            if active is not None and active in self.choices:
                self.value = active


def layer_chooser(
    viewer: ViewerModel,
    *kinds: type[Any],
    tip: str,
    nullable: bool = False,
    results: bool = False,
    keep: Callable[[Any], bool] | None = None,
) -> LayerChooser:
    """Make a combo box of layers of some kinds that `keep` keeps, this plugin's `results` too."""

    def choices(_: Any) -> list[Any]:
        return [
            layer
            for layer in viewer.layers
            if type(layer) in kinds
            and (results or not owned(layer))
            and (keep is None or keep(layer))
        ]

    chooser = LayerChooser(choices=choices, nullable=nullable)
    chooser.listen(viewer)
    tipped(chooser.native, tip)
    return chooser


def follow_selection(viewer: ViewerModel, chooser: LayerChooser) -> None:
    """Choose the layer that is selected in the layer list, where it may be chosen."""
    viewer.layers.selection.events.active.connect(chooser.follow)
    chooser.follow()


class NameChooser(QComboBox):
    """Names of metrics or detectors, by their `titles`; files are shown by their last part."""

    def __init__(self, titles: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._titles = titles or {}

    @property
    def name(self) -> str:
        """The chosen name, of a file its whole path."""
        return str(self.currentData())

    def choose(self, name: str) -> None:
        """Choose a name that is listed."""
        self.setCurrentIndex(self.findData(name))

    def show_names(self, names: tuple[str, ...], chosen: str = "") -> None:
        """List names and choose one; the present choice stays where none is given."""
        chosen = chosen or self.name
        with signals_blocked(self):
            self.clear()
            for name in names:
                self.addItem(self._titles.get(name) or last_part(name), name)
        self.setCurrentIndex(max(self.findData(chosen), 0))
        self.currentIndexChanged.emit(self.currentIndex())


def last_part(name: str) -> str:
    """Return the last part of a path of any system."""
    return name.replace("\\", "/").rsplit("/", 1)[-1]
