"""Training data from a focus stack, without painting: planes compared, patches cut from each."""

from collections.abc import Callable

import numpy as np

from napari_defocus.core.errors import DefocusError
from napari_defocus.core.progress import OnEvent, ShouldStop, ignore_event, never_stop
from napari_defocus.metric.patches import PatchConfig, PatchSet, build_patch_set, merge_patch_sets
from napari_defocus.stacks.planes import StackPlanes
from napari_defocus.stacks.registration import register_planes
from napari_defocus.stacks.training_labels import propose_annotations

# Of a stack, about so many patches of each class at most are kept: more teach little more.
MOST_PATCHES = 4000


def patches_from_planes(
    planes: StackPlanes,
    name: Callable[[int], str],
    config: PatchConfig | None = None,
    *,
    register: bool = False,
    on_event: OnEvent = ignore_event,
    should_stop: ShouldStop = never_stop,
) -> PatchSet:
    """Cut patches from the planes of a focus stack, labelled by comparing them.

    Parameters
    ----------
    planes : StackPlanes
        Two or more of one field.
    name : callable
        Names plane z, from 0, as a source of patches.
    config : PatchConfig, optional
        How patches are cut.
    register : bool
        Whether planes are brought to one another first, see `register_planes`.
    on_event, should_stop : callable
        See `propose_annotations`.

    Returns
    -------
    PatchSet

    Raises
    ------
    DefocusError
        Where nothing can be told blurred or sharp, or the planes cannot be used.
    Stopped
        Where it was asked to stop.
    """
    if register:
        transforms = register_planes(planes, on_event=on_event, should_stop=should_stop)
        planes = planes.registered(transforms)
    most = -(-MOST_PATCHES // len(planes))
    parts = [
        _thinned(build_patch_set([(name(z), planes[z], labels)], config), most, z)
        for z, labels in enumerate(
            propose_annotations(planes, on_event=on_event, should_stop=should_stop)
        )
        if labels.any()
    ]
    if not parts:
        raise DefocusError(
            "no plane of the stack is clearly sharper than another: there is nothing to learn from"
        )
    return merge_patch_sets(parts)


def _thinned(part: PatchSet, most: int, seed: int) -> PatchSet:
    """Keep so many patches of each class at most, drawn at random."""
    rng = np.random.default_rng(seed)
    kept = [
        rng.permutation(np.flatnonzero(part.labels == label))[:most]
        for label in np.unique(part.labels)
    ]
    return part.take(np.sort(np.concatenate(kept))) if kept else part
