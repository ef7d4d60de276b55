"""Flaws of single planes: what is made wrong here is known."""

import numpy as np
import pytest
from scipy import ndimage

from napari_defocus.stacks.api import StackConfig, analyse_stack
from napari_defocus.stacks.objects import score_labels
from tests.stacks.phase import render_phase

BEST, PLANES, SHAPE = 5, 9, (128, 160)


def clean(best=BEST, background=0.35, seed=0, noise=1):
    """Discs, blurred by their distance from the best plane, and a little noise."""
    rng = np.random.default_rng(seed)
    scene = np.full(SHAPE, background)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    for _ in range(SHAPE[0] * SHAPE[1] // 180):
        radius = np.hypot(y - rng.uniform(0, SHAPE[0]), x - rng.uniform(0, SHAPE[1]))
        scene[radius < rng.uniform(1.5, 6)] = rng.uniform(0.05, 1)
    scene = ndimage.gaussian_filter(scene, 0.6)
    planes = [ndimage.gaussian_filter(scene, 1.3 * abs(z - best)) for z in range(PLANES)]
    return 200 * np.stack(planes) + rng.normal(0, noise, (PLANES, *SHAPE)) + 10


def spoilt(planes, kind, z):
    planes, rng = planes.copy(), np.random.default_rng(1)
    if kind == "dark":
        planes[z] /= 10
    elif kind == "dimmer":
        planes[z] *= 0.6
    elif kind == "bright":
        planes[z] *= 1.7
    elif kind == "black":
        planes[z] = 0
    elif kind == "grey":
        planes[z] = 90
    elif kind == "noisy":
        planes[z] += rng.normal(0, 25, SHAPE)
    elif kind == "out of the light":  # the detail goes, the light stays
        planes[z] = planes[z].mean() + rng.normal(0, 1, SHAPE)
    elif kind in ("hot", "dead"):
        places = rng.choice(planes[z].size, 300, replace=False)
        planes[z].flat[places] = 255 if kind == "hot" else 0
    return np.clip(np.round(planes), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def truth():
    return analyse_stack(spoilt(clean(), "nothing", 0))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("dark", "much darker"),
        ("dimmer", "much darker"),
        ("bright", "much brighter"),
        ("black", "plane"),
        ("grey", "blank"),
        ("noisy", "much noisier"),
        ("out of the light", "far less detail"),
        ("hot", "hot pixels"),
        ("dead", "hot pixels"),
    ],
)
@pytest.mark.parametrize("z", [2, 7])
def test_a_flaw_of_one_plane_is_named_and_changes_nothing_else(truth, kind, words, z):
    planes = spoilt(clean(), kind, z)
    found = analyse_stack(planes)
    assert f"plane {z}" in found.warnings[0]
    assert words in found.warnings[0]
    assert not any("extremum" in warning for warning in found.warnings)
    assert found.scores.best == BEST
    assert found.scores.sure > 0.9
    assert found.confidence.mean() > 0.8 * truth.confidence.mean()
    assert np.median(np.abs(found.depth_map - truth.depth_map)) < 0.1
    assert np.abs(found.fused.astype(float) - truth.fused).mean() < 1
    labels = np.zeros(SHAPE, np.uint8)
    labels[10:60, 10:60] = 1
    if kind != "out of the light":
        assert score_labels(planes, labels).columns()["best_plane"].tolist() == [BEST]


@pytest.mark.parametrize("kind", ["dark", "black", "noisy", "bright", "hot"])
def test_a_flawed_plane_is_no_minimum_either(kind):
    """What an earlier advice, to ask for the minimum, led to: that very plane."""
    found = analyse_stack(spoilt(clean(), kind, 2), StackConfig(extremum="min"))
    assert found.scores.best != 2
    assert not (found.source_plane == 2).any() or kind == "hot"


@pytest.mark.parametrize("z", [0, PLANES - 1])
@pytest.mark.parametrize("kind", ["dark", "bright", "noisy", "black"])
def test_flaws_at_the_ends_do_not_matter(kind, z):
    found = analyse_stack(spoilt(clean(), kind, z))
    assert found.scores.best == BEST
    assert f"plane {z}" in found.warnings[0]


def test_the_best_plane_may_have_hot_pixels(truth):
    found = analyse_stack(spoilt(clean(), "hot", BEST))
    assert found.scores.best == BEST
    assert np.abs(found.fused.astype(float) - truth.fused).mean() < 1


def test_objects_that_shine_in_one_plane_alone_are_no_flaw():
    """A section of a confocal stack, beads of two pixels, and a phase object."""
    rng = np.random.default_rng(0)
    beads = np.zeros(SHAPE)
    beads[tuple(rng.integers(4, 120, (2, 200)))] = 1
    for own in (0.8, 2.0):
        seen = [ndimage.gaussian_filter(beads, own + 2 * abs(z - 3)) for z in range(7)]
        section = [ndimage.gaussian_filter(beads, own) * 0.2 ** abs(z - 3) for z in range(7)]
        for planes in (seen, section):
            planes = 20 + 200 * np.stack(planes) / np.max(planes) + rng.normal(0, 1, (7, *SHAPE))
            found = analyse_stack(np.clip(np.round(planes), 0, 255).astype(np.uint8))
            assert found.scores.best == 3
            assert found.warnings == ()
    assert "extremum min" in analyse_stack(render_phase()[0]).warnings[0]


@pytest.mark.parametrize("best", [1, 4, 7])
@pytest.mark.parametrize("background", [0.02, 0.35])
def test_whole_stacks_have_no_flaw(best, background):
    found = analyse_stack(spoilt(clean(best, background, best), "nothing", 0))
    assert found.scores.best == best
    assert found.warnings == ()


def specks(kind, height=300, seed=3):
    """Single pixels in an empty field of noise: beads, which defocus spreads, or hot pixels."""
    rng = np.random.default_rng(seed)
    spots = np.zeros((96, 128))
    spots.flat[rng.choice(spots.size, 40, replace=False)] = height
    spots[0, 9] = spots[20, 30:32] = height  # at the edge, and side by side
    planes = [
        ndimage.gaussian_filter(spots, 1.6 * abs(z - 3)) if kind == "bead" else spots * (z == 3)
        for z in range(7)
    ]
    return np.round(np.stack(planes) + rng.normal(20, 2, (7, 96, 128))).astype(np.uint16)


def test_beads_smaller_than_a_pixel_are_no_hot_pixels():
    found = analyse_stack(specks("bead"))
    assert found.scores.best == 3
    assert not any("hot" in warning for warning in found.warnings)


def test_hot_pixels_of_an_empty_field_are_no_focus():
    found = analyse_stack(specks("hot"))
    assert found.scores.best is None
    assert any("plane 3 has 43 hot pixels" in warning for warning in found.warnings)


def test_rounding_is_no_noise_of_a_plane():
    """What one plane is rounded to may be quite even, and that of the next not."""
    planes = 255 / 200 * (clean(best=3, noise=0, seed=3)[:6] - 10)
    assert analyse_stack(planes.round().astype(np.uint8)).warnings == ()


@pytest.mark.parametrize("kind", ["not finite", "transparent"])
def test_a_plane_that_was_not_taken_is_blank(kind):
    planes = clean()[:, :64, :80]
    if kind == "not finite":
        planes[2] = np.nan
    else:
        alpha = np.full(planes.shape, 255)
        alpha[2] = 0
        planes = np.stack([planes, planes, planes, alpha], -1).astype(np.uint8)
    found = analyse_stack(planes)
    assert found.scores.best == BEST
    assert found.warnings == ("plane 2 is blank; it is not counted",)
    assert np.isfinite(found.fused).all()
