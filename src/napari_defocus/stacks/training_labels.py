"""Training data without a brush: the planes of a focus stack compared, pixel by pixel.

Not in the paper; the ratios were chosen on the z-stack sample, whose true blur is known.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_defocus.core.errors import DefocusError
from napari_defocus.core.progress import OnEvent, ShouldStop, ignore_event, never_stop, track
from napari_defocus.filters.plane import prepare_plane
from napari_defocus.labels.classes import BLURRED, SHARP, Labels
from napari_defocus.metric.local_metric import LocalMetric, load_metric
from napari_defocus.metric.patches import PatchConfig, PatchSet, build_patch_set, merge_patch_sets
from napari_defocus.metric.response import LEAST, filter_response, pool
from napari_defocus.stacks.planes import StackLike, StackPlanes
from napari_defocus.stacks.registration import register_planes

Float = npt.NDArray[np.float32]

# A plane is sharp where the largest response of all planes is at most so many times its own,
AS_SHARP = 1.25
# and blurred where it is at least so many times its own. The largest must also exceed the least by
# this factor: where focus changes nothing, there is no texture.
CLEARLY_SHARPER = 4.0
# Patches of each class that are taken from a stack, at most: more add little.
MOST_PATCHES = 4000


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
        (Z, Y, X) or (Z, Y, X, C): one field of view at several focus positions.
    index : int
        The plane to annotate.
    metric : LocalMetric, optional
        The metric whose filters compare the planes; the default one where none is given.
    on_event, should_stop : callable
        Called after each plane, and before each.

    Returns
    -------
    ndarray of uint8, (Y, X)
        0 unlabelled, 1 blurred, 2 sharp.

    Raises
    ------
    DefocusError
        Where there are fewer than two planes, or one cannot be used.
    Stopped
        Where `should_stop` answered yes.
    """
    count = len(stack)
    if stack.ndim not in (3, 4) or count < 2:
        raise DefocusError(
            f"an array of shape {tuple(stack.shape)} is no focus stack; "
            "give two planes or more of one field of view"
        )
    if not 0 <= index < count:
        raise DefocusError(f"plane {index} is asked for; the stack has 0 to {count - 1}")
    metric = metric or load_metric("default")
    return _labels(*_compare(stack, index, metric, on_event, should_stop))


def propose_annotations(
    planes: StackLike,
    metric: LocalMetric | None = None,
    *,
    on_event: OnEvent = ignore_event,
    should_stop: ShouldStop = never_stop,
) -> Iterator[Labels]:
    """Propose an annotation of each plane of a focus stack, in turn; see `propose_annotation`.

    Each of the planes, (Y, X) or (Y, X, C), is read twice.
    """
    count = len(planes)
    if count < 2:
        raise DefocusError("planes are compared with each other: give two or more")
    metric = metric or load_metric("default")
    _, most, least = _compare(planes, 0, metric, on_event, should_stop)
    for z in track("labelling planes", count, on_event, should_stop):
        yield _labels(_response(planes[z], metric), most, least)


def _compare(
    planes: StackLike, index: int, metric: LocalMetric, on_event: OnEvent, should_stop: ShouldStop
) -> tuple[Float, Float, Float]:
    """Compute the response of one plane, and the largest and the least of all, each (Y, X)."""
    own = most = least = _response(planes[index], metric)
    for z in track("comparing planes", len(planes), on_event, should_stop):
        if z != index:
            response = _response(planes[z], metric)
            most, least = np.maximum(most, response), np.minimum(least, response)
    return own, most, least


def _labels(own: Float, most: Float, least: Float) -> Labels:
    labels = np.zeros(own.shape, np.uint8)
    labels[(most <= AS_SHARP * own) & (most >= CLEARLY_SHARPER * least)] = SHARP
    labels[most >= CLEARLY_SHARPER * own] = BLURRED
    return labels


def _response(image: npt.NDArray[Any], metric: LocalMetric) -> Float:
    plane = prepare_plane(np.asarray(image))
    # Never zero: a plane without any response is no sharper than another.
    return pool(filter_response(plane, metric), plane.grey, metric.pooling) + np.float32(LEAST)


def patches_from_planes(
    planes: StackPlanes,
    name: Callable[[int], str],
    config: PatchConfig | None = None,
    *,
    register: bool = False,
    on_event: OnEvent = ignore_event,
    should_stop: ShouldStop = never_stop,
) -> PatchSet:
    """Cut patches from the planes of a focus stack, with labels from comparing them.

    Parameters
    ----------
    planes : StackPlanes
        Two or more of one field.
    name : callable
        Returns the name of plane z, from 0, as a source of patches.
    config : PatchConfig, optional
        How patches are cut.
    register : bool
        Whether planes are registered first, see `register_planes`.
    on_event, should_stop : callable
        Called after each plane of each step, and before each.

    Raises
    ------
    DefocusError
        Where no pixel is clearly blurred or sharp, or the planes cannot be used.
    Stopped
        Where `should_stop` answered yes.
    """
    if register:
        transforms = register_planes(planes, on_event=on_event, should_stop=should_stop)
        planes = planes.registered(transforms)
    most = -(-MOST_PATCHES // len(planes))
    annotations = propose_annotations(planes, on_event=on_event, should_stop=should_stop)
    parts = [
        _thinned(build_patch_set([(name(z), planes[z], labels)], config), most, z)
        for z, labels in enumerate(annotations)
        if labels.any()
    ]
    if not parts:
        raise DefocusError(
            "no plane of the stack is clearly sharper than another: there is nothing to learn from"
        )
    return merge_patch_sets(parts)


def _thinned(part: PatchSet, most: int, seed: int) -> PatchSet:
    """Return at most so many patches of each class, drawn at random."""
    rng = np.random.default_rng(seed)
    drawn = [
        rng.permutation(np.flatnonzero(part.labels == label))[:most]
        for label in np.unique(part.labels)
    ]
    return part.take(np.sort(np.concatenate(drawn))) if drawn else part
