import numpy as np
import pytest

from napari_defocus.core.errors import DefocusError
from napari_defocus.core.progress import Stopped
from napari_defocus.data.samples import read_sample
from napari_defocus.labels.classes import annotation_from_detection
from napari_defocus.labels.superpixels import superpixel_outlines
from napari_defocus.metric.fitting import instant_metric
from napari_defocus.metric.patches import PatchConfig, build_patch_set
from napari_defocus.simulate.sample_rendering import RADIUS_PER_UM, Z_STEP_UM
from napari_defocus.stacks import training_labels
from napari_defocus.stacks.planes import open_stack
from napari_defocus.stacks.training_labels import patches_from_planes, propose_annotation


@pytest.fixture(scope="module")
def sample():
    return read_sample("z_stack")


def radius_at(sample, index):
    """Radius of the blur disc in a plane of the z-stack sample, in pixels."""
    return RADIUS_PER_UM * np.abs(sample.height - Z_STEP_UM * index)


@pytest.mark.parametrize("index", [0, 3, 5, 7, 9, 11])
def test_proposals_agree_with_the_true_blur(sample, index):
    labels = propose_annotation(sample.image, index)
    radius = radius_at(sample, index)
    assert labels.dtype == np.uint8
    assert labels.shape == radius.shape
    assert (radius[labels == 2] < 1.5).mean() > 0.95
    assert (radius[labels == 1] > 2).mean() > 0.88
    assert (radius[labels == 1] > 1.5).mean() > 0.98
    # Neither class is missed where it is plain.
    if (radius < 0.5).mean() > 0.01:
        assert (labels == 2)[radius < 0.5].mean() > 0.75
    assert (labels == 1)[radius > 4].mean() > 0.9


def test_nothing_is_proposed_where_focus_changes_nothing(sample):
    same = np.repeat(sample.image[7:8], 3, axis=0)
    assert not propose_annotation(same, 1).any()
    flat = np.full((3, 64, 64), 100, np.uint8)
    assert not propose_annotation(flat, 0).any()


def test_brighter_planes_are_not_taken_for_sharper_ones(sample):
    gains = np.linspace(1, 3, len(sample.image))[:, np.newaxis, np.newaxis]
    expected = propose_annotation(sample.image, 6)
    assert (propose_annotation(sample.image * gains, 6) == expected).mean() > 0.99


def test_colours_and_lazy_planes_are_read_one_by_one(sample):
    class Lazy:
        ndim, shape = 4, (*sample.image.shape, 3)
        reads = 0

        def __len__(self):
            return len(sample.image)

        def __getitem__(self, index):
            assert isinstance(index, int)
            self.reads += 1
            return np.repeat(sample.image[index][..., np.newaxis], 3, axis=-1)

    lazy = Lazy()
    labels = propose_annotation(lazy, 6)
    assert lazy.reads == len(sample.image)
    assert (labels == propose_annotation(sample.image, 6)).mean() > 0.999


def test_progress_is_told_and_stopping_heard(sample):
    events = []
    propose_annotation(sample.image[:4], 1, on_event=events.append)
    assert [(event.done, event.total) for event in events] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    with pytest.raises(Stopped):
        propose_annotation(sample.image, 1, should_stop=lambda: True)


@pytest.mark.parametrize(
    ("shape", "index", "words"),
    [
        ((64, 64), 0, "no focus stack"),
        ((1, 64, 64), 0, "no focus stack"),
        ((3, 64, 64), 3, "0 to 2"),
        ((3, 64, 64), -1, "0 to 2"),
    ],
)
def test_errors_say_what_to_give(shape, index, words):
    with pytest.raises(DefocusError, match=words):
        propose_annotation(np.zeros(shape), index)


def test_a_detected_mask_becomes_an_annotation_without_its_outlines():
    mask = np.zeros((9, 30), np.uint8)
    mask[:, :10], mask[:, 10:20] = 1, 2
    expected = np.zeros_like(mask)
    expected[:, :8], expected[:, 12:18] = 1, 2
    np.testing.assert_array_equal(annotation_from_detection(mask, 2), expected)
    np.testing.assert_array_equal(annotation_from_detection(mask, 0), mask)
    with pytest.raises(DefocusError, match="one plane"):
        annotation_from_detection(np.zeros((2, 3, 4), np.uint8))


def test_superpixels_are_outlined_by_one_pixel():
    segments = np.array([[1, 1, 2], [1, 1, 2], [3, 3, 3]])
    expected = [[0, 1, 0], [1, 1, 1], [0, 0, 0]]
    np.testing.assert_array_equal(superpixel_outlines(segments), expected)


# Patches


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
    monkeypatch.setattr(training_labels, "MOST_PATCHES", 5 * len(STACK))
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


def test_patches_stop():
    with pytest.raises(Stopped):
        patches_from_planes(open_stack(STACK), name, register=True, should_stop=lambda: True)
