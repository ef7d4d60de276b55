"""Training data from a focus stack."""

import numpy as np
import pytest

from napari_defocus.core.errors import DefocusError
from napari_defocus.core.progress import Stopped
from napari_defocus.data.samples import read_sample
from napari_defocus.metric.fitting import instant_metric
from napari_defocus.metric.patches import PatchConfig, build_patch_set
from napari_defocus.stacks import stack_patches
from napari_defocus.stacks.planes import open_stack
from napari_defocus.stacks.stack_patches import patches_from_planes
from napari_defocus.stacks.training_labels import propose_annotation

STACK = read_sample("z_stack").image[::2]


def name(z):
    return f"plane {z}"


def test_patches_of_each_plane_as_its_proposal_labels_them():
    found = patches_from_planes(open_stack(STACK), name)
    for z in range(len(STACK)):
        alone = build_patch_set([(name(z), STACK[z], propose_annotation(STACK, z))])
        own = [i for i, source in enumerate(found.sources) if source.name == name(z)]
        np.testing.assert_array_equal(found.take(np.isin(found.source, own)).patches, alone.patches)
    assert instant_metric(found).record["held_out"]["auc"] > 0.9


def test_each_plane_gives_its_share_of_the_patches(monkeypatch):
    monkeypatch.setattr(stack_patches, "MOST_PATCHES", 5 * len(STACK))
    found = patches_from_planes(open_stack(STACK), name, PatchConfig(superpixel=8))
    pairs = np.stack([found.source, found.labels])
    _, counts = np.unique(pairs, axis=1, return_counts=True)
    assert counts.max() == 5


def test_drifting_planes_are_registered():
    drifting = np.stack([np.roll(plane, 2 * z, axis=1) for z, plane in enumerate(STACK)])
    still = patches_from_planes(open_stack(STACK), name)
    found = patches_from_planes(open_stack(drifting), name, register=True)
    assert len(found) == pytest.approx(len(still), rel=0.25)


def test_nothing_to_learn_from():
    with pytest.raises(DefocusError, match="nothing to learn from"):
        patches_from_planes(open_stack(np.zeros((3, 64, 64), np.uint8)), name)


def test_stops():
    with pytest.raises(Stopped):
        patches_from_planes(open_stack(STACK), name, register=True, should_stop=lambda: True)
