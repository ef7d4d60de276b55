"""The control of the sharpness limit, and setting it by a click on what is in focus."""

from typing import Any

import numpy as np
from napari.components import ViewerModel
from qtpy.QtCore import QObject, Qt, Signal
from qtpy.QtWidgets import QPushButton, QWidget
from superqt import QLabeledDoubleSlider
from superqt.utils import signals_blocked

from napari_defocus.core.errors import DefocusError
from napari_defocus.detection.inference import Prediction
from napari_defocus.detection.postprocess import Detection, Limits
from napari_defocus.profile.limit import AUTO
from napari_defocus.widgets._shared import ui

# What the slider reaches, in pixels.
RANGE = (0.5, 10.0)
PIXELS, MICROMETRES = "px", "µm"
# A picked limit leaves so much room above the blur of what was clicked, within so many pixels.
ROOM = 1.25
NEARBY = 8
NO_NETWORK = "The local metric has no limit: it goes by a threshold of its own."


class LimitControl(QWidget):
    """A slider in pixels or micrometres, a box for the automatic limit, and what was used."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._pixel_size: float | None = None
        self._has_network = True
        self.slider: Any = ui.tipped(
            QLabeledDoubleSlider(Qt.Orientation.Horizontal),
            "What is blurred by no more than this counts as sharp: the radius of the blur. Photos "
            "want about 1.5 pixels, most microscopes 2 to 3.5.",
        )
        self.automatic = ui.tick_box(
            "automatic",
            "Takes the limit from the sharpest structure of each plane, or from the profile.",
            True,
        )
        self.unit = ui.choice(
            (PIXELS, MICROMETRES),
            PIXELS,
            "In pixels, or in micrometres by the scale of the image layer.",
        )
        self.pick = ui.button(
            "Pick", "Then click on something that is in focus in the image: it sets the limit."
        )
        self.pick.setCheckable(True)
        self.text = ui.wrapped_label()
        below = ui.row(self.automatic, self.unit, self.pick)
        below.insertStretch(1)
        ui.column(self, self.slider, below, self.text)
        self.setToolTip(self.slider.toolTip())
        self._set(RANGE[0], RANGE[1], 2.0)
        self.follow_image(None)
        self.slider.valueChanged.connect(self._moved)
        self.automatic.toggled.connect(self.changed)
        self.unit.currentTextChanged.connect(self._unit_changed)

    @property
    def limit(self) -> float | str:
        """The limit as the settings take it."""
        if self.automatic.isChecked() or not self._has_network:
            return AUTO
        if self.unit.currentText() == MICROMETRES:
            return f"{self.slider.value():.4g}um"
        return round(self.slider.value(), 2)

    def set_pixels(self, pixels: float) -> None:
        """Set a limit in pixels in place of the automatic one."""
        self._show(pixels)
        with signals_blocked(self.automatic):
            self.automatic.setChecked(False)
        self.changed.emit()

    def follow_image(self, pixel_size: float | None) -> None:
        """Offer micrometres where the size of a pixel is known."""
        if pixel_size is None:
            self.unit.setCurrentText(PIXELS)
        # A limit in micrometres stays what it is on an image of another scale.
        length, self._pixel_size = self.slider.value(), pixel_size
        if self.unit.currentText() == MICROMETRES:
            size = self._unit_size(MICROMETRES)
            self._set(RANGE[0] * size, RANGE[1] * size, length)
        self.unit.setVisible(pixel_size is not None)

    def follow_detector(self, network: bool) -> None:
        """Offer the limit where the network detects."""
        self._has_network = network
        for control in (self.slider, self.automatic, self.unit, self.pick):
            control.setEnabled(network)
        self.text.setText("" if network else NO_NETWORK)

    def show_used(self, found: Detection) -> None:
        """Show the limit of a detection; the slider follows the automatic one."""
        limits = Limits.of(found)
        if limits is None or not self._has_network:
            return
        used = float(np.median(limits.limit))
        if self.automatic.isChecked():
            self._show(used)
        in_um = f" ({used * self._pixel_size:.3g} µm)" if self._pixel_size else ""
        text, colon, why = str(limits).partition(":")
        self.text.setText(f"{text}{in_um}{colon}{why}")

    def _moved(self, _: float) -> None:
        with signals_blocked(self.automatic):
            self.automatic.setChecked(False)
        self.changed.emit()

    def _unit_changed(self, unit: str) -> None:
        old = self._unit_size(PIXELS if unit == MICROMETRES else MICROMETRES)
        self._show(self.slider.value() / old)
        self.changed.emit()

    def _show(self, pixels: float) -> None:
        size = self._unit_size(self.unit.currentText())
        self._set(RANGE[0] * size, RANGE[1] * size, pixels * size)

    def _unit_size(self, unit: str) -> float:
        return self._pixel_size or 1.0 if unit == MICROMETRES else 1.0

    def _set(self, low: float, high: float, value: float) -> None:
        with signals_blocked(self.slider):
            self.slider.setDecimals(2 if high > 1 else 4)
            self.slider.setRange(low, high)
            self.slider.setSingleStep((high - low) / 100)
            self.slider.setValue(value)


class Picker(QObject):
    """While a button is down, the next click on the canvas is a pick.

    Signals
    -------
    picked : tuple of float
        The place in the world.
    """

    picked = Signal(object)

    def __init__(self, viewer: ViewerModel, button: QPushButton) -> None:
        super().__init__(button)
        self._viewer, self._button = viewer, button
        button.toggled.connect(self._switch)
        # The viewer outlives the widget, and its list holds the method.
        button.destroyed.connect(self._forget)

    def _switch(self, on: bool) -> None:
        self._forget()
        if on:
            self._viewer.mouse_drag_callbacks.append(self._clicked)

    def _forget(self, _: Any = None) -> None:
        if self._clicked in self._viewer.mouse_drag_callbacks:
            self._viewer.mouse_drag_callbacks.remove(self._clicked)

    def _clicked(self, _: Any, event: Any) -> None:
        self._button.setChecked(False)
        self.picked.emit(tuple(event.position))


def limit_at(prediction: Prediction, place: tuple[float, float]) -> float:
    """Return the limit, in pixels, by which what lies at a place (y, x) is sharp.

    Raises
    ------
    DefocusError
        Where nothing shows structure there.
    """
    rows, columns = prediction.valid.shape
    y, x = place
    inside = -0.5 <= y <= rows - 0.5 and -0.5 <= x <= columns - 0.5
    if not inside or prediction.radius is None:
        raise DefocusError("the click is beside the image; press Pick again, and click in it")
    top, left = max(round(y) - NEARBY, 0), max(round(x) - NEARBY, 0)
    window = slice(top, round(y) + NEARBY + 1), slice(left, round(x) + NEARBY + 1)
    near = prediction.valid[window]
    down, right = np.ogrid[: near.shape[0], : near.shape[1]]
    chosen = near & (np.hypot(down + top - y, right + left - x) <= NEARBY)
    if not chosen.any():
        raise DefocusError(
            f"there is no structure within {NEARBY} pixels of the click; "
            "press Pick again, and click on an edge or on texture"
        )
    limit = ROOM * float(np.median(prediction.radius[window][chosen]))
    return float(np.clip(limit, *RANGE))
