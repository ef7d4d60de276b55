"""What the Stacks widget does in the background: library calls, stack by stack, and their maps."""

import math
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import zarr
from skimage.transform import AffineTransform, warp

from napari_defocus.core.errors import DefocusError
from napari_defocus.core.progress import Event, OnEvent, ShouldStop
from napari_defocus.metric.fitting import FitConfig
from napari_defocus.metric.patches import require_both_classes
from napari_defocus.stacks.api import StackConfig, analyse_stack, apply_focus
from napari_defocus.stacks.objects import LabelScores, score_labels
from napari_defocus.stacks.plane_scores import PlaneScores
from napari_defocus.stacks.registration import register_planes
from napari_defocus.stacks.timelapse import FrameScores, score_frames
from napari_defocus.stacks.training_labels import patches_from_planes, propose_annotations
from napari_defocus.widgets._shared.fit_jobs import Fitted, fit_patches
from napari_defocus.widgets._shared.series import Index, Series
from napari_defocus.widgets.stacks.layers import FUSED, MAPS

# Maps of many stacks that take more than this together are written to a temporary Zarr.
IN_MEMORY = 512 * 2**20
# Side of its chunks, in pixels.
CHUNK = 2048
# Annotations of more pixels than this are made plane by plane, in Annotate.
MOST_ANNOTATED = 2**31

Plane = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class OneStack:
    """What was found in one stack, but for its maps."""

    scores: PlaneScores
    warnings: tuple[str, ...]
    labels: LabelScores | None = None


@dataclass(frozen=True, eq=False)
class Analysis:
    """An analysis of one or many stacks: the request, and what is found so far."""

    series: Series
    config: StackConfig
    # The stack; None: every one.
    place: Index | None
    # The channel whose focus all others take; None: each its own.
    channel: int | None = None
    # Other images of the field, by layer, that take the focus too.
    others: Mapping[Any, Series] = field(default_factory=dict)
    # Returns the objects (Y, X) of the stack at a place.
    labels: Callable[[Index], Any] | None = None
    stacks: dict[Index, OneStack] = field(default_factory=dict)
    # By role and place, which is None for maps of every stack; and by layer of `others` and place.
    maps: dict[tuple[str, Index | None], Any] = field(default_factory=dict)
    fused: dict[tuple[Any, Index | None], Any] = field(default_factory=dict)

    @property
    def places(self) -> list[Index]:
        """Stacks that are analysed; other channels may follow them."""
        if self.place is not None:
            return [self.place]
        axis = self.series.channel_axis
        return [
            place
            for place in np.ndindex(self.series.others)
            if self.channel is None or axis is None or place[axis] == self.channel
        ]

    def followers(self, place: Index) -> list[Index]:
        """Return the other channels, at a place, that take its focus."""
        axis = self.series.channel_axis
        if self.channel is None or axis is None:
            return []
        channels = range(self.series.others[axis])
        return [(*place[:axis], c, *place[axis + 1 :]) for c in channels if c != place[axis]]

    @property
    def steps(self) -> int:
        """The number of events of the whole."""
        each = 3 + self.config.register + 2 * (self.labels is not None)
        followers = len(self.followers(self.places[0])) + len(self.others)
        return len(self.places) * self.series.count * (each + followers)


def analyse(work: Analysis, on_event: OnEvent, should_stop: ShouldStop) -> Analysis:
    """Analyse the stacks of `work`, one after the other, and fill it."""
    count = counted(on_event, work.steps)
    for place in work.places:
        try:
            _analyse_one(work, place, count, should_stop)
        except DefocusError as error:
            where = ", ".join(f"{name} {i}" for name, i in work.series.where(place).items())
            raise DefocusError(f"{where}: {error}" if where else str(error)) from error
    return work


def counted(on_event: OnEvent, total: int) -> OnEvent:
    """Count the events of several stages as steps of one whole."""
    done = 0

    def count(event: Event) -> None:
        nonlocal done
        done = min(done + 1, total)
        on_event(replace(event, done=done, total=total))

    return count


def _analyse_one(work: Analysis, place: Index, on_event: OnEvent, should_stop: ShouldStop) -> None:
    listeners: dict[str, Any] = {"on_event": on_event, "should_stop": should_stop}
    planes = work.series.planes(place)
    focus = analyse_stack(planes, work.config, **listeners)
    found = None
    if work.labels is not None:
        labels = np.asarray(work.labels(place))
        found = score_labels(planes, labels, work.config, transforms=focus.transforms, **listeners)
    fused = {place: focus.fused}
    for other in work.followers(place):
        fused[other] = apply_focus(focus, work.series.planes(other), **listeners)
    for key, series in work.others.items():
        image = apply_focus(focus, series.planes(place), **listeners)
        _store(work.fused, key, image, work, series, place)
    for role, name in MAPS.items():
        for at, image in fused.items():
            if at == place or role == FUSED or work.place is None:
                data = image if role == FUSED else getattr(focus, name)
                _store(work.maps, role, data, work, work.series, at)
    for at in fused:
        work.stacks[at] = OneStack(focus.scores, focus.warnings, found)


def _store(
    maps: dict[Any, Any], key: Any, data: Plane, work: Analysis, series: Series, place: Index
) -> None:
    """Store a map on its own, or within those of every stack."""
    if work.place is not None:
        maps[key, place] = data
        return
    if (key, None) not in maps:
        maps[key, None] = blank((*series.others, *data.shape), data.dtype, len(series.others))
    maps[key, None][place] = data


def blank(shape: Sequence[int], dtype: np.dtype[Any], leading: int) -> Any:
    """Make an array to be filled stack by stack; a large one is a Zarr in a temporary folder."""
    if math.prod(shape) * dtype.itemsize <= IN_MEMORY / len(MAPS):
        return np.zeros(shape, dtype)
    folder = tempfile.TemporaryDirectory(prefix="napari-defocus-")
    chunks = (*(1,) * leading, *(min(size, CHUNK) for size in shape[leading:]))
    array = zarr.create_array(folder.name, shape=tuple(shape), chunks=chunks, dtype=dtype)
    # The folder goes when nobody refers to the array any more.
    weakref.finalize(array, folder.cleanup)
    return array


def to_show(data: Any) -> Any:
    """Return what a layer takes: an array, or a lazy one."""
    return da.from_zarr(data) if isinstance(data, zarr.Array) else data


def frames(series: Series, place: Index, **listeners: Any) -> FrameScores:
    """Score the frames of a time series."""
    return score_frames(series.array(place), axes=series.axes("T"), **listeners)


def annotate_planes(series: Series, place: Index, register: bool, **listeners: Any) -> Plane:
    """Propose an annotation of every plane of a stack; other stacks of the image stay blank."""
    shape = (*series.leading, *series.frame[:2])
    if math.prod(shape) > MOST_ANNOTATED:
        raise DefocusError(
            f"an annotation of {' x '.join(map(str, shape))} pixels would not fit into memory; "
            "annotate single planes with From stack in Annotate"
        )
    listeners["on_event"] = counted(listeners["on_event"], (2 + register) * series.count)
    planes = series.planes(place)
    if register:
        planes = planes.registered(register_planes(planes, **listeners))
    # Blank pages cost no memory until they are written.
    annotation = np.zeros(shape, np.uint8)
    for z, labels in enumerate(propose_annotations(planes, **listeners)):
        moved = labels if planes.transforms is None else _back(labels, planes.transforms[z])
        annotation[series.index(place, z)] = moved
    return annotation


def _back(labels: Plane, transform: Plane) -> Plane:
    """Bring labels of a registered plane to the plane as it is; what it alone shows is blank."""
    inverse = AffineTransform(matrix=np.linalg.inv(transform))
    moved = warp(labels, inverse, order=0, mode="constant", preserve_range=True)
    return np.asarray(moved.astype(np.uint8))


def fit_stack(
    series: Series, place: Index, config: FitConfig, register: bool, **listeners: Any
) -> Fitted | None:
    """Fit a metric to a stack without painting; None where it was stopped."""
    patches = patches_from_planes(
        series.planes(place),
        lambda z: f"{series.name}, plane {z}",
        register=register,
        on_event=counted(listeners["on_event"], (2 + register) * series.count),
        should_stop=listeners["should_stop"],
    )
    require_both_classes(patches)
    return fit_patches([patches], config, **listeners)
