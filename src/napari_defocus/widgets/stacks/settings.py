"""Which stack is analysed, and how."""

from contextlib import suppress
from typing import Any

from napari.components import ViewerModel
from napari.layers import Image, Labels
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QListWidget, QListWidgetItem, QWidget

from napari_defocus.stacks.api import EXTREMA, StackConfig
from napari_defocus.widgets._shared import layers, ui
from napari_defocus.widgets._shared.choosers import follow_selection, layer_chooser
from napari_defocus.widgets._shared.series import AxisChooser, Series, is_time, series_of

FOCUS, TIME = "focus stack", "time series"
ONE, EVERY = "the one on screen", "all of them, one after the other"
LIST_HEIGHT = 56


class StackSettings(QWidget):
    """Image, axis and what its planes are; how they are compared; what follows their focus."""

    changed = Signal()

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        default = StackConfig()
        self.image = layer_chooser(
            viewer,
            Image,
            tip="The stack to look at: the image that is selected in the layer list, unless you "
            "choose another.",
        )
        follow_selection(viewer, self.image)
        self.contents = ui.wrapped_label()
        self.axis = AxisChooser()
        self.kind = ui.choice(
            (FOCUS, TIME), FOCUS,
            "A focus stack is one field at several focus positions; of a time series, frames out "
            "of focus are flagged.",
        )  # fmt: skip
        self.which = ui.choice(
            (ONE, EVERY), ONE,
            "The image has further axes: one stack for each place along them.",
        )  # fmt: skip
        self.extremum = ui.choice(
            EXTREMA, default.extremum,
            "max: what is in focus has most detail. min: it has least, as phase objects in bright "
            "field, between two planes that have more.",
        )  # fmt: skip
        self.registering = ui.tick_box(
            "register planes",
            "Brings planes to one another by shift, turn and scale first: hand-held stacks drift, "
            "and lenses breathe.",
            default.register,
        )
        self.objects = layer_chooser(
            viewer, Labels, nullable=True, tip="Finds the best plane of each label, too."
        )
        self.one_focus = ui.tick_box(
            "the focus of this channel for all channels",
            "The channel on screen is analysed; the others are fused by it.",
        )
        self.others = ui.tipped(
            QListWidget(),
            "Images of the same field, such as other channels, that are fused by the focus found "
            "in this one.",
        )
        self.others.setMaximumHeight(LIST_HEIGHT)
        self._form = ui.form(
            ("Image", self.image.native),
            ("", self.contents),
            ("Planes along", self.axis),
            ("They are a", self.kind),
            ("Stacks", self.which),
            ("Extremum", ui.row(self.extremum, self.registering)),
            ("Objects", self.objects.native),
            ("", self.one_focus),
            ("Also fuse", self.others),
            parent=self,
        )
        self.image.changed.connect(self._image_changed)
        self.axis.changed.connect(self._axis_changed)
        for box in (self.kind, self.which):
            box.currentIndexChanged.connect(self._offer)
        events = viewer.layers.events
        for event in (events.inserted, events.removed):
            event.connect(self._layers_changed)
        self._image_changed()

    # What is chosen

    @property
    def config(self) -> StackConfig:
        """The settings; those that were not touched are the library's defaults."""
        return StackConfig(self.extremum.currentText(), self.registering.isChecked())

    @property
    def is_stack(self) -> bool:
        """Whether the image has planes."""
        return self.image.value is not None and bool(layers.leading_shape(self.image.value))

    @property
    def is_series(self) -> bool:
        """Whether the planes are frames."""
        return self.kind.currentText() == TIME

    @property
    def _many(self) -> bool:
        """Whether the image has several stacks."""
        return self.is_stack and len(layers.leading_shape(self.image.value)) > 1

    @property
    def every(self) -> bool:
        """Whether all stacks of the image are wanted."""
        return self._many and self.which.currentText() == EVERY

    @property
    def axis_index(self) -> int:
        """The leading axis that planes are along; -1 where it has to be chosen first."""
        return self.axis.currentIndex()

    def series(self) -> Series:
        """Return the chosen image as planes along the chosen axis."""
        return series_of(layers.check_image(self.image.value), self.axis_index)

    def followers(self) -> dict[Image, Series]:
        """Return the other images that are fused by the focus of this one."""
        followers = [layer for layer in self._alike() if str(layer.unique_id) in self._ticked()]
        return {layer: series_of(layer, self.axis_index) for layer in followers}

    # What is offered

    def _image_changed(self, _: Any = None) -> None:
        image = self.image.value
        self.contents.setText(layers.describe(image) if image is not None else "no image layer")
        self.axis.follow(image)
        self._axis_changed()

    def _axis_changed(self) -> None:
        if self.is_stack and self.axis_index >= 0:
            time = is_time(self.image.value, self.axis_index)
            self.kind.setCurrentText(TIME if time else FOCUS)
        self._offer()

    def _layers_changed(self, _: Any = None) -> None:
        # Qt may have deleted this widget, as it is closed, before Python has.
        with suppress(RuntimeError):
            # A chooser emits nothing when its last layer goes.
            self.image.reset_choices()
            if self.image.value is None:
                self._image_changed()
            self._offer()

    def _offer(self, _: int = 0) -> None:
        """Show the controls that count for the image."""
        self._list_others()
        focus = self.is_stack and not self.is_series and self.axis_index >= 0
        channels = focus and self.series().channel_axis is not None
        for control, shown in (
            (self.axis, self.axis.worth_showing),
            (self.kind, self.is_stack),
            (self.which, focus and self._many),
            (self.one_focus, channels),
            (self.others, focus and self.others.count() > 0),
        ):
            # Qt 5 has no `setRowVisible`.
            for part in (control, self._form.labelForField(control) or control):
                part.setVisible(shown)
        for control in (self.extremum, self.registering, self.objects.native):
            control.setEnabled(not self.is_series)
        self.changed.emit()

    def _list_others(self) -> None:
        ticked = self._ticked()
        self.others.clear()
        for layer in self._alike():
            item = QListWidgetItem(layer.name, self.others)
            name = str(layer.unique_id)
            item.setData(Qt.ItemDataRole.UserRole, name)
            item.setCheckState(Qt.CheckState.Checked if name in ticked else Qt.CheckState.Unchecked)

    def _ticked(self) -> set[str]:
        items = [self.others.item(i) for i in range(self.others.count())]
        on = Qt.CheckState.Checked
        return {item.data(Qt.ItemDataRole.UserRole) for item in items if item.checkState() == on}

    def _alike(self) -> list[Image]:
        """Return the images that show as many planes of the same size as the chosen one."""
        if not self.is_stack:
            return []
        others = [layer for layer in self.image.choices if layer != self.image.value]
        return [layer for layer in others if _size(layer) == _size(self.image.value)]


def _size(layer: Image) -> tuple[int, ...]:
    """Return the shape of an image without its colours."""
    leading = layers.leading_shape(layer)
    return tuple(layers.full_resolution(layer).shape[: len(leading) + 2])
