"""Image layers as planes along one of their axes, and the box that shows, or asks, which one."""

from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
from napari.layers import Image
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox
from superqt.utils import signals_blocked

from napari_defocus.core.errors import DefocusError
from napari_defocus.io.axes import stack_axis
from napari_defocus.stacks.planes import StackPlanes, open_stack
from napari_defocus.widgets._shared import layers, ui
from napari_defocus.widgets._shared.axis_names import words

Index = tuple[int, ...]

ASKED = "choose the axis that the planes are along"


@dataclass(frozen=True, eq=False)
class Series:
    """Planes of an image layer along one axis, for each place of its other leading axes.

    It holds the data, not the layer, which may be deleted while it is read.
    """

    name: str
    data: Any
    axis: int
    leading: tuple[int, ...]
    labels: tuple[str, ...]
    # A letter for each leading axis.
    letters: str = ""

    @property
    def count(self) -> int:
        """How many planes there are along the axis."""
        return self.leading[self.axis]

    @property
    def others(self) -> tuple[int, ...]:
        """Sizes of the other leading axes."""
        return self.without(self.leading)

    @property
    def channel_axis(self) -> int | None:
        """Which of the other leading axes holds channels; None where none is known to."""
        at = "".join(self.without(self.letters)).find("C")
        return None if at < 0 else at

    @property
    def frame(self) -> tuple[int, ...]:
        """Shape of a plane, with its colours."""
        return tuple(int(size) for size in self.data.shape[len(self.leading) :])

    def without(self, values: Any) -> Any:
        """Leave out what belongs to the axis of the planes."""
        return (*values[: self.axis], *values[self.axis + 1 :])

    def index(self, place: Index, plane: Any) -> tuple[Any, ...]:
        """Return the index, along all leading axes, of a plane, or of a slice of planes."""
        return (*place[: self.axis], plane, *place[self.axis :])

    def array(self, place: Index) -> Any:
        """Return the planes at a place, as an array that is read plane by plane."""
        data = self.data
        if not isinstance(data, np.ndarray | da.Array):  # Zarr and h5py read what is sliced
            chunks = (*(1,) * len(self.leading), *self.frame)
            data = da.from_array(data, chunks, name=False)
        return data[self.index(place, slice(None))]

    def planes(self, place: Index) -> StackPlanes:
        """Return the planes at a place as a focus stack."""
        return open_stack(self.array(place), self.axes("Z"))

    def axes(self, letter: str) -> str:
        """Return a letter for each axis of `array`, that of the planes first."""
        return f"{letter}YX" + "S" * (len(self.frame) - 2)

    def where(self, place: Index) -> dict[str, int]:
        """Name the other leading axes, with a place along each."""
        return dict(zip(self.without(self.labels), place, strict=True))


def series_of(layer: Image, axis: int) -> Series:
    """Look at an image layer, no single plane, as planes along one of its leading axes."""
    leading = layers.leading_shape(layer)
    if not leading:
        raise DefocusError(
            f"{layer.name!r} is one plane; choose a stack. If its planes are layers of their own, "
            "select these and choose Merge to Stack in the menu of the layer list"
        )
    if not 0 <= axis < len(leading):
        raise DefocusError(f"which axis of {layer.name!r} is the stack cannot be told: {ASKED}")
    data, letters = layers.full_resolution(layer), layers.leading_letters(layer)
    names = tuple(_axis_name(layer, place) for place in range(len(leading)))
    return Series(layer.name, data, axis, leading, names, letters)


def stack_axis_of(layer: Image) -> int | None:
    """Return the leading axis that planes are along, by labels, else by the file; else None."""
    return stack_axis(layers.leading_letters(layer))


def is_time(layer: Image, axis: int) -> bool:
    """Tell whether an axis is time."""
    return layers.leading_letters(layer)[axis] == "T"


def axis_title(layer: Image, axis: int) -> str:
    """Name an axis for people: "z, 12 planes"."""
    return f"{_axis_name(layer, axis)}, {layers.leading_shape(layer)[axis]} planes"


def _axis_name(layer: Image, axis: int) -> str:
    """Return the label of an axis, else what the file calls it, else its number."""
    label, known = layer.axis_labels[axis], layers.letters_in_file(layer)
    if words(label):
        return str(label)
    return known[axis].lower() if known and known[axis] in "ZTC" else f"axis{axis}"


class AxisChooser(QComboBox):
    """The leading axis of an image that its planes are along: what was found, or a question."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        ui.tipped(self, "The axis that the planes, or frames, are along.")
        self.setPlaceholderText(ASKED)
        self.currentIndexChanged.connect(self.changed)

    def follow(self, layer: Image | None) -> None:
        """List the axes of an image, and choose that of its planes where it is known."""
        count = 0 if layer is None else len(layers.leading_shape(layer))
        with signals_blocked(self):
            self.clear()
            if layer is not None and count:
                self.addItems([axis_title(layer, axis) for axis in range(count)])
                axis = stack_axis_of(layer)
                self.setCurrentIndex(-1 if axis is None else axis)

    @property
    def worth_showing(self) -> bool:
        """Whether there is something to choose."""
        return self.count() > 1 or (self.count() == 1 and self.currentIndex() < 0)
