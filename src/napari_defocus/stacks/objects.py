"""The plane of a stack in which each object is in focus."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_defocus.core.errors import DefocusError
from napari_defocus.core.progress import OnEvent, ShouldStop, ignore_event, never_stop, track
from napari_defocus.io.tables import column_rows
from napari_defocus.measure.regions import NO_OBJECT
from napari_defocus.stacks.api import StackConfig
from napari_defocus.stacks.focus_measure import measure_detail, measure_scale
from napari_defocus.stacks.plane_scores import PlaneScores, score_samples
from napari_defocus.stacks.planes import StackLike, open_stack

# Side, in pixels, of the parts of an object that the bootstrap draws from.
PART = 8


@dataclass(frozen=True, eq=False)
class LabelScores:
    """The plane in focus of each object of a field.

    Parameters
    ----------
    index : ndarray of integers, (N,)
        The labels, rising.
    scores : sequence of PlaneScores
        Of each object.
    """

    index: npt.NDArray[Any]
    scores: Sequence[PlaneScores]

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """Return a table: ``index``, ``best_plane``, its ``position`` and ``confidence``.

        Objects without a best plane, as those of less than 12 pixels a side, have nan, nan and 0.
        """
        best = [np.nan if each.best is None else each.best for each in self.scores]
        return {
            "index": self.index,
            "best_plane": np.array(best, np.float64),
            "position": np.array([each.position for each in self.scores]),
            "confidence": np.array([each.sure for each in self.scores]),
        }

    def rows(self, where: Mapping[str, int] | None = None) -> list[dict[str, Any]]:
        """Return a row for each object, after where the stack is; no best plane is None."""
        rows = column_rows(self.columns(), where)
        return [row | {"best_plane": own.best} for row, own in zip(rows, self.scores, strict=True)]


def score_labels(
    stack: StackLike,
    labels: npt.NDArray[Any],
    config: StackConfig | None = None,
    *,
    axes: str | None = None,
    transforms: npt.NDArray[np.float64] | None = None,
    on_event: OnEvent = ignore_event,
    should_stop: ShouldStop = never_stop,
) -> LabelScores:
    """Compute the plane in which each object is in focus.

    Parameters
    ----------
    stack : array or sequence of planes
        See `analyse_stack`.
    labels : ndarray of integers, (Y, X)
        0 is no object.
    config : StackConfig, optional
        Only `extremum` is used.
    transforms : ndarray of float64, (Z, 3, 3), optional
        Of a registered stack, see `FocusStack`.
    axes, on_event, should_stop
        See `analyse_stack`.

    Raises
    ------
    DefocusError
        Where the labels are not the planes' size or hold no object; and as `analyse_stack`.
    Stopped
        Where `should_stop` answered yes.
    """
    config = config or StackConfig()
    planes = open_stack(stack, axes).registered(transforms)
    labels = np.asarray(labels)
    index = _check(labels, planes[0].shape[:2])
    scale = measure_scale(planes, on_event, should_stop)
    planes = replace(planes, flaws=scale.flaws)
    inside, owner, part = _parts(labels, index)
    pixels = np.bincount(part).astype(np.float64)
    detail = np.empty((len(planes), len(pixels)))
    noise = np.zeros(len(pixels))
    for z in track("measuring detail", len(planes), on_event, should_stop):
        own, own_noise = measure_detail(planes[z], scale, 1)
        detail[z] = np.bincount(part, own[inside]) / pixels
        noise += np.bincount(part, own_noise[inside]) / pixels / len(planes)
    scale.flaws.fill(detail)
    ends = np.searchsorted(owner, np.arange(len(index) + 1))
    scores = [
        score_samples(
            detail[:, start:stop],
            config.extremum,
            weights=pixels[start:stop],
            noise=float(np.average(noise[start:stop], weights=pixels[start:stop])),
            left_out=scale.flaws.odd,
        )
        for start, stop in pairwise(ends)
    ]
    return LabelScores(index, scores)


def _check(labels: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return the labels of the objects, rising."""
    if labels.shape != shape or labels.dtype.kind not in "bui":
        raise DefocusError(
            f"the labels are {labels.dtype} of {labels.shape}, the planes {shape}; "
            "give whole numbers, one for each pixel of a plane"
        )
    index = np.asarray(np.unique(labels[labels != 0]))
    if not index.size:
        raise DefocusError(NO_OBJECT)
    return index


def _parts(
    labels: npt.NDArray[Any], index: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Cut the box around each object evenly, in parts of about `PART` pixels a side.

    Returns the pixels of objects (Y, X); the object, by its place in `index`, of each part, rising;
    and the part of each of the pixels.
    """
    inside = labels != 0
    which = np.searchsorted(index, labels[inside])
    part = which
    across = max(labels.shape) // PART + 2
    for at in np.nonzero(inside):
        first, last = np.full(len(index), labels.size), np.zeros(len(index), np.intp)
        np.minimum.at(first, which, at)
        np.maximum.at(last, which, at)
        extent = last - first + 1
        parts = np.maximum((extent + PART // 2) // PART, 1)
        part = part * across + (at - first[which]) * parts[which] // extent[which]
    found, part = np.unique(part, return_inverse=True)
    return inside, found // across**2, part
