"""The detector ``stack``: the planes of a focus stack teach the profile that judges them."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy.typing as npt

from napari_defocus.core.errors import DefocusError
from napari_defocus.core.progress import ShouldStop, never_stop
from napari_defocus.detection.detectors import Detector
from napari_defocus.io.axes import plane_name, stack_axis
from napari_defocus.profile.evidence import from_planes, predictor
from napari_defocus.profile.teach import teach

Index = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class StackDetectors:
    """The detector of each plane of an image; of ``stack``, each stack's planes teach one.

    Parameters
    ----------
    chosen : Detector
        For all planes alike, unless it is ``stack``.
    axes : str
        A letter for each axis of the image, those of a plane last.
    leading : tuple of int
        Sizes of the axes before those.
    read : callable
        Returns the plane, (Y, X) or (Y, X, C), at an index along these.
    name : str
        Of the image, for messages.
    pixel_size : float or None
        In micrometres.
    """

    chosen: Detector
    axes: str
    leading: Index
    read: Callable[[Index], npt.NDArray[Any]]
    name: str
    pixel_size: float | None = None
    _taught: dict[Index, Detector] = field(default_factory=dict, init=False)

    def at(self, index: Index, should_stop: ShouldStop = never_stop) -> Detector:
        """Return the detector of a plane; where its stack teaches, `should_stop` may stop that.

        Raises
        ------
        DefocusError
            Where it is ``stack``, and there is no stack, or its planes do not differ.
        """
        if not self.chosen.by_stack:
            return self.chosen
        axis = self.axis
        place = index[:axis] + index[axis + 1 :]
        if place not in self._taught:
            self._taught[place] = self._teach(axis, place, should_stop)
        return self._taught[place]

    @property
    def axis(self) -> int:
        """Which of the leading axes the planes of a stack are along; DefocusError if none is."""
        axis = stack_axis(self.axes[: len(self.leading)])
        if axis is None and any(size > 1 for size in self.leading):
            raise DefocusError(
                f"{self.name} has axes {self.axes}, and none is Z or T, along which planes are "
                "compared; name it so, or choose another detector than stack"
            )
        if axis is None or self.leading[axis] < 2:
            raise DefocusError(
                f"{self.name} is one plane; the detector stack compares the planes of a focus "
                "stack: give one, or choose another detector"
            )
        return axis

    @property
    def note(self) -> str:
        """Say in a line what taught the detectors so far; nothing where nothing did."""
        profiles = [taught.profile for taught in self._taught.values() if taught.profile]
        if not profiles:
            return ""
        limits = [f"{limit:.1f}" for limit in sorted(profile.limit for profile in profiles)]
        planes = sum(profile.record["planes"] for profile in profiles)
        count = len(profiles) * self.leading[self.axis]
        each = "the stack itself" if len(profiles) == 1 else f"{len(profiles)} stacks, each alone"
        return (
            f"judged against {each}: {planes} of {count} planes taught what is sharp, up to "
            f"{' to '.join(dict.fromkeys((limits[0], limits[-1])))} px"
        )

    def _teach(self, axis: int, place: Index, should_stop: ShouldStop) -> Detector:
        where = plane_name(self.axes[:axis] + self.axes[axis + 1 :], place)
        name = f"{self.name}, {where}" if where else self.name
        planes = _Along(self.read, axis, place, self.leading[axis])
        evidence = from_planes(planes, predictor(should_stop=should_stop), name)
        prefix = f"{name}, plane "
        record = {
            "taught_from": sorted(evidence.names),
            "planes": len({each.removeprefix(prefix).split(",")[0] for each in evidence.names}),
            "pixel_size_um": self.pixel_size,
        }
        profile = teach(evidence, record, held_out=False).profile
        return replace(self.chosen, profile=profile, by_stack=False)


@dataclass(frozen=True, eq=False)
class _Along:
    """The planes at a place of the other leading axes."""

    read: Callable[[Index], npt.NDArray[Any]]
    axis: int
    place: Index
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, z: int) -> npt.NDArray[Any]:
        return self.read((*self.place[: self.axis], z, *self.place[self.axis :]))
