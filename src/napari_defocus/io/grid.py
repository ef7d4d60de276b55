"""Grids: where the pixels of an image lie, which readers find out and writers write down."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from napari_defocus.core.errors import DefocusError
from napari_defocus.io.axes import check_axes, planes_last

MICROMETER = "micrometer"
SECOND = "second"
UNITS = {"X": MICROMETER, "Y": MICROMETER, "Z": MICROMETER, "T": SECOND}
"""The unit that a scale is given in, of axes that have one."""


@dataclass(frozen=True)
class Grid:
    """Axes, sizes and calibration of an image.

    Parameters
    ----------
    axes : str
        A letter for each dimension in the standard order: leading axes, then Y and X, then S where
        there are colours; see `napari_defocus.io.axes`.
    shape : tuple of int
        Sizes of the dimensions.
    scale, translate : mapping, optional
        By axis letter: the distance between two pixels, and the place of the centre of the first.
    units : mapping, optional
        By axis letter, ``micrometer`` or ``second``: the unit of both. An axis whose unit is
        unknown is left out.

    Raises
    ------
    DefocusError
        Where axes do not fit the shape, or have another order.
    """

    axes: str
    shape: tuple[int, ...]
    scale: Mapping[str, float] = field(default_factory=dict)
    translate: Mapping[str, float] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "axes", check_axes(self.axes, self.shape))
        object.__setattr__(self, "shape", tuple(int(size) for size in self.shape))
        if planes_last(self.axes)[0] != self.axes:
            raise DefocusError(f"axes {self.axes!r} must end in YX, or in YXS for colours")

    @classmethod
    def square(cls, axes: str, shape: tuple[int, ...], pixel_size_um: float | None) -> "Grid":
        """Return a grid of square pixels; None is an unknown size."""
        scale = dict.fromkeys("YX", pixel_size_um) if pixel_size_um else {}
        return cls(axes, shape, scale, units=dict.fromkeys(scale, MICROMETER))

    @property
    def leading(self) -> tuple[int, ...]:
        """Sizes of the leading axes: a plane for each index of `numpy.ndindex(grid.leading)`."""
        return self.shape[: self.axes.index("Y")]

    @property
    def plane_shape(self) -> tuple[int, int]:
        """Rows and columns."""
        y = self.axes.index("Y")
        return self.shape[y], self.shape[y + 1]

    @property
    def pixel_size_um(self) -> float | None:
        """Edge of a pixel in micrometres; None where it is unknown or not square (to 1 %)."""
        steps = self.known_scale()
        x, y = steps.get("X", 0.0), steps.get("Y", 0.0)
        return x if x and abs(x - y) <= 0.01 * x else None

    def known_scale(self) -> dict[str, float]:
        """Return the scale of the axes whose unit is the usual one of their letter."""
        return {
            letter: float(step)
            for letter, step in self.scale.items()
            if letter in self.axes
            and self.units.get(letter) == UNITS.get(letter, "")
            and 0 < step < math.inf
        }

    def without(self, *letters: str) -> "Grid":
        """Return the grid less some axes, such as S of the colours."""
        kept = [i for i, letter in enumerate(self.axes) if letter not in letters]
        axes, shape = "".join(self.axes[i] for i in kept), tuple(self.shape[i] for i in kept)

        def of_kept(values: Mapping[str, object]) -> dict[str, object]:
            return {letter: value for letter, value in values.items() if letter in axes}

        known = (of_kept(values) for values in (self.scale, self.translate, self.units))
        return Grid(axes, shape, *known)  # type: ignore[arg-type]
