"""A first annotation without a brush: compare the planes of a focus stack, pixel by pixel.

Not in the paper; the ratios were chosen on the z-stack sample, whose true blur is known.
"""

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from napari_defocus.core.errors import DefocusError
from napari_defocus.core.progress import (
    Event,
    OnEvent,
    ShouldStop,
    Stopped,
    ignore_event,
    never_stop,
)
from napari_defocus.filters.plane import prepare_plane
from napari_defocus.labels.classes import BLURRED, SHARP, Labels
from napari_defocus.metric.local_metric import LocalMetric, load_metric
from napari_defocus.metric.response import LEAST, filter_response, pool

Float = npt.NDArray[np.float32]


class Planes(Protocol):
    """Planes (Y, X) or (Y, X, C) that are read one by one."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> npt.NDArray[Any]: ...


# A plane is sharp where the best plane answers at most so many times as strongly as it does,
AS_SHARP = 1.25
# and blurred where the best answers at least so many times as strongly. The best must also exceed
# the worst by this: where focus changes nothing, there is no texture to judge by.
CLEARLY_SHARPER = 4.0


def propose_annotation(
    stack: npt.NDArray[Any],
    index: int,
    metric: LocalMetric | None = None,
    *,
    on_event: OnEvent = ignore_event,
    should_stop: ShouldStop = never_stop,
) -> Labels:
    """Propose an annotation of one plane of a focus stack.

    A pixel is sharp where no plane of the stack is much sharper than this one, blurred where
    another plane is clearly sharper, and left unlabelled in between and where no plane shows
    texture.

    Parameters
    ----------
    stack : ndarray, or array that is read plane by plane (Dask, Zarr)
        (Z, Y, X) or (Z, Y, X, C): one field of view at several focus positions, see
        `prepare_plane`.
    index : int
        The plane to annotate.
    metric : LocalMetric, optional
        By whose filters planes are compared; the default metric where none is given.
    on_event : callable
        Told after each plane.
    should_stop : callable
        Asked before each plane.

    Returns
    -------
    ndarray of uint8, (Y, X)
        0 unlabelled, 1 blurred, 2 sharp.

    Raises
    ------
    DefocusError
        Where there are fewer than two planes, or they cannot be judged.
    Stopped
        Where it was asked to stop.
    """
    planes = len(stack)
    if stack.ndim not in (3, 4) or planes < 2:
        raise DefocusError(
            f"an array of shape {tuple(stack.shape)} is no focus stack; "
            "give two planes or more of one field of view"
        )
    if not 0 <= index < planes:
        raise DefocusError(f"plane {index} is asked for; the stack has 0 to {planes - 1}")
    metric = metric or load_metric("default")
    own = _response(stack[index], metric)
    best, worst = own, own
    for other in range(planes):
        if should_stop():
            raise Stopped
        if other != index:
            response = _response(stack[other], metric)
            best, worst = np.maximum(best, response), np.minimum(worst, response)
        on_event(Event("comparing planes", other + 1, planes))
    return _labels(own, best, worst)


def propose_annotations(
    planes: Planes,
    metric: LocalMetric | None = None,
    *,
    on_event: OnEvent = ignore_event,
    should_stop: ShouldStop = never_stop,
) -> Iterator[Labels]:
    """Propose an annotation of each plane of a focus stack, in turn; see `propose_annotation`.

    Parameters
    ----------
    planes : sequence or array of planes, (Y, X) or (Y, X, C)
        Two or more of one field; each is read twice.
    metric : LocalMetric, optional
        By whose filters planes are compared; the default metric where none is given.
    on_event : callable
        Told after each plane of each reading.
    should_stop : callable
        Asked before each plane of each reading.

    Yields
    ------
    ndarray of uint8, (Y, X)
        0 unlabelled, 1 blurred, 2 sharp.

    Raises
    ------
    DefocusError, Stopped
        As `propose_annotation`.
    """
    count = len(planes)
    if count < 2:
        raise DefocusError("planes are compared with each other: give two or more")
    metric = metric or load_metric("default")
    best: Float | None = None
    worst: Float | None = None
    for z in range(count):
        if should_stop():
            raise Stopped
        own = _response(planes[z], metric)
        best = own if best is None else np.maximum(best, own)
        worst = own if worst is None else np.minimum(worst, own)
        on_event(Event("comparing planes", z + 1, count))
    assert best is not None
    assert worst is not None
    for z in range(count):
        if should_stop():
            raise Stopped
        yield _labels(_response(planes[z], metric), best, worst)
        on_event(Event("labelling planes", z + 1, count))


def _labels(own: Float, best: Float, worst: Float) -> Labels:
    labels = np.zeros(own.shape, np.uint8)
    labels[(best <= AS_SHARP * own) & (best >= CLEARLY_SHARPER * worst)] = SHARP
    labels[best >= CLEARLY_SHARPER * own] = BLURRED
    return labels


def _response(image: npt.NDArray[Any], metric: LocalMetric) -> Float:
    plane = prepare_plane(np.asarray(image))
    # Never zero: what no filter answers to is no sharper than anything else.
    return pool(filter_response(plane, metric), plane.grey, metric.pooling) + np.float32(LEAST)
