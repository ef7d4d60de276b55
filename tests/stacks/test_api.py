import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from benchmarks.stacks import rendered as benchmark
from napari_defocus.core.errors import DefocusError
from napari_defocus.core.progress import Stopped
from napari_defocus.data.samples import read_sample
from napari_defocus.stacks.api import StackConfig, analyse_stack, apply_focus, block_side
from napari_defocus.stacks.objects import score_labels
from tests.stacks.phase import render_phase

SIDE = 128


@pytest.fixture(scope="module")
def tilted():
    depth = benchmark.slant((SIDE, SIDE), 6)
    return benchmark.render_surface(benchmark.picture("brick", SIDE), depth, 6, 1.5)


@pytest.fixture(scope="module")
def found(tilted):
    return analyse_stack(tilted.planes)


@pytest.mark.parametrize("name", benchmark.RENDERED)
def test_depth_and_sharp_image_of_rendered_stacks_are_found(name):
    row = benchmark.measure(benchmark.RENDERED[name](192))
    assert row["error"] < 0.25
    assert row["fused"] > row["plane"] + 6
    assert row["fused"] > row["pyramid"] + 1


def test_the_sample_is_mapped_to_its_true_height():
    from napari_defocus.simulate.sample_rendering import Z_STEP_UM

    sample = read_sample("z_stack")
    found = analyse_stack(sample.image)
    error = np.abs(found.depth_map - sample.height / Z_STEP_UM)
    assert np.median(error) < 0.1
    assert np.quantile(error, 0.99) < 0.5


def test_maps_are_of_the_planes_size_and_of_the_told_types(tilted, found):
    planes = tilted.planes
    assert found.depth_map.shape == found.confidence.shape == planes.shape[1:]
    assert found.depth_map.dtype == found.confidence.dtype == np.float32
    assert found.depth_map.min() >= 0
    assert found.depth_map.max() <= len(planes) - 1
    assert found.confidence.min() >= 0
    assert found.confidence.max() <= 1
    assert found.fused.dtype == planes.dtype
    assert found.fused.shape == planes.shape[1:]
    assert found.source_plane.dtype == np.uint8
    np.testing.assert_array_equal(found.source_plane, np.floor(found.depth_map + 0.5))
    assert found.transforms is None
    assert found.phase_share < 0.1
    assert found.warnings == ()


def test_where_the_confidence_is_high_the_depth_is_right(tilted, found):
    error = np.abs(found.depth_map - tilted.depth)
    assert (found.confidence > 0.5).mean() > 0.2
    assert error[found.confidence > 0.5].max() < 0.75


def test_flat_ground_takes_the_depth_around_it_with_little_confidence(tilted):
    planes = tilted.planes.copy()
    planes[:, 40:80, 40:80] = 128
    found = analyse_stack(planes)
    inside = np.s_[52:68, 52:68]
    assert found.confidence[inside].max() < 0.1
    assert np.abs(found.depth_map - tilted.depth)[inside].max() < 1.0


def test_no_halo_is_left_around_a_bright_edge(tilted):
    """Far from the bar the fused image is the dark ground, as it is in no blurred plane."""
    scene = np.full((SIDE, SIDE), 0.05, np.float32)
    scene[:, 60:68] = 1.0
    scene[::4, 60:68] = 0.5
    depth = np.full(scene.shape, 1.0, np.float32)
    stack = benchmark.render_surface(scene, depth, 6, 3.0)
    found = analyse_stack(stack.planes)
    beside = np.r_[30:57, 71:98]
    glow = np.abs(found.fused.astype(float) - stack.sharp)[:, beside]
    blurred = np.abs(stack.planes[5].astype(float) - stack.sharp)[:, beside]
    assert blurred.max() > 60
    assert np.quantile(glow, 0.99) < 6


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32, np.float64])
def test_number_types_hold_the_same_picture(tilted, found, dtype):
    scaled = tilted.planes.astype(dtype) * dtype(100)
    other = analyse_stack(scaled)
    assert other.fused.dtype == dtype
    np.testing.assert_allclose(other.depth_map, found.depth_map, atol=0.01)
    np.testing.assert_allclose(other.fused / 100, found.fused, atol=1)


def test_bool_planes_are_fused():
    planes = np.zeros((3, 40, 40), bool)
    planes[1, ::3] = True
    found = analyse_stack(planes)
    assert found.fused.dtype == bool
    assert (found.fused == planes[1]).mean() > 0.95


def test_negative_and_shifted_values_do_not_matter(tilted, found):
    other = analyse_stack(tilted.planes.astype(np.float32) * 2 - 1000)
    np.testing.assert_allclose(other.depth_map, found.depth_map, atol=0.01)
    np.testing.assert_allclose((other.fused + 1000) / 2, found.fused, atol=1)


def test_holes_are_filled(tilted):
    planes = tilted.planes.astype(np.float32)
    planes[:, 20:30, 20:30] = np.nan
    planes[2] = np.where(planes[2] > 240, np.inf, planes[2])
    found = analyse_stack(planes)
    assert np.isfinite(found.fused).all()
    assert np.isfinite(found.depth_map).all()
    error = np.abs(found.depth_map - tilted.depth)
    assert np.median(error) < 0.15


def test_mirrored_and_reversed_stacks_give_mirrored_and_reversed_maps(tilted, found):
    flipped = analyse_stack(tilted.planes[:, ::-1])
    assert np.median(np.abs(flipped.depth_map[::-1] - found.depth_map)) < 0.02
    backwards = analyse_stack(tilted.planes[::-1])
    np.testing.assert_allclose(5 - backwards.depth_map, found.depth_map, atol=0.02)


@settings(max_examples=8)
@given(st.permutations("ZYXS"))
def test_axes_may_come_in_any_order(order):
    rng = np.random.default_rng(0)
    planes = rng.integers(0, 255, (3, 20, 24, 3)).astype(np.uint8)
    planes[1:] = planes[1:] // 4 + 96
    expected = analyse_stack(planes)
    moved = planes.transpose(["ZYXS".index(letter) for letter in order])
    found = analyse_stack(moved, axes="".join(order))
    np.testing.assert_array_equal(found.depth_map, expected.depth_map)
    np.testing.assert_array_equal(found.fused, expected.fused)


def test_lists_lazy_arrays_and_arrays_give_the_same(tilted, found):
    dask = pytest.importorskip("dask.array")

    for stack in (list(tilted.planes), dask.from_array(tilted.planes, chunks=(1, 64, 64))):
        other = analyse_stack(stack)
        np.testing.assert_array_equal(other.depth_map, found.depth_map)
        np.testing.assert_array_equal(other.fused, found.fused)


def test_small_and_odd_planes_and_two_planes_do():
    rng = np.random.default_rng(1)
    for shape in ((2, 1, 1), (2, 3, 50), (5, 33, 47), (2, 64, 65)):
        planes = rng.integers(0, 255, shape).astype(np.uint8)
        found = analyse_stack(planes)
        assert found.depth_map.shape == shape[1:]
        assert found.fused.min() >= planes.min()


def test_equal_planes_give_themselves_and_no_confidence():
    plane = np.random.default_rng(2).integers(0, 255, (60, 60)).astype(np.uint8)
    found = analyse_stack(np.stack([plane] * 4))
    np.testing.assert_allclose(found.fused, plane, atol=1)
    assert found.confidence.max() < 0.1
    constant = analyse_stack(np.full((3, 40, 40), 7, np.uint16))
    assert (constant.fused == 7).all()
    assert constant.confidence.max() == 0


@pytest.mark.parametrize("kind", ["dark", "alike", "noise", "brighter noise", "small objects"])
def test_where_nothing_is_seen_there_is_no_best_plane(kind):
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(6, 96, 128))
    planes = {
        "dark": np.full((6, 96, 128), 100, np.uint16),
        "alike": np.stack([rng.integers(0, 255, (96, 128)).astype(np.uint8)] * 5),
        # A lamp that drifts changes the noise of photons.
        "brighter noise": 100 + noise * np.linspace(4, 6, 6)[:, np.newaxis, np.newaxis],
    }.get(kind, 100 + 5 * noise)
    found = analyse_stack(planes)
    assert found.scores.best is None
    assert found.scores.confidence.max() == 0
    assert found.confidence.max() < 0.1
    assert "no plane shows detail" in found.warnings[0]
    labels = np.zeros(planes.shape[1:], np.int32)
    labels[10:40, 10:40] = 1
    if kind == "small objects":
        labels = ndimage.label(np.kron(np.indices((8, 8)).sum(0) % 2 == 0, np.ones((6, 6))))[0]
        labels = np.pad(labels, ((0, 48), (0, 80)))
    columns = score_labels(planes, labels).columns()
    assert np.isnan(columns["best_plane"]).all()
    assert columns["confidence"].max() == 0


def test_phase_objects_are_told_and_found_as_a_minimum():
    planes, depth = render_phase()
    plain = analyse_stack(planes)
    assert plain.phase_share > 0.9
    assert len(plain.warnings) == 1
    assert "extremum min" in plain.warnings[0]
    assert np.median(np.abs(plain.depth_map - depth)) > 2
    found = analyse_stack(planes, StackConfig(extremum="min"))
    assert found.warnings == ()
    assert found.scores.best == 4
    assert np.median(np.abs(found.depth_map - depth)) < 0.25


def test_a_best_plane_at_the_end_is_told(tilted):
    found = analyse_stack(tilted.planes[:4, :, 64:])
    assert found.scores.best == 3
    assert "end of the stack" in found.warnings[0]


def test_a_channel_takes_the_focus_of_another(tilted, found):
    faint = (tilted.planes // 8 + 40).astype(np.uint16)
    fused = apply_focus(found, faint)
    assert fused.dtype == np.uint16
    np.testing.assert_allclose(fused, found.fused / 8 + 39.5, atol=1.1)
    np.testing.assert_array_equal(apply_focus(found, tilted.planes), found.fused)
    with pytest.raises(DefocusError, match="of 6 planes, this stack has 5"):
        apply_focus(found, faint[1:])
    with pytest.raises(DefocusError, match="the depth map"):
        apply_focus(found, faint[:, 1:])


def test_each_object_has_its_plane(tilted):
    labels = np.zeros((SIDE, SIDE), np.int32)
    labels[20:50, 4:24] = 7
    labels[20:50, 100:120] = 9
    labels[90:120, 50:74] = 300
    scores = score_labels(tilted.planes, labels)
    np.testing.assert_array_equal(scores.index, [7, 9, 300])
    expected = [tilted.depth[labels == label].mean() for label in scores.index]
    columns = scores.columns()
    np.testing.assert_allclose(columns["position"], expected, atol=0.5)
    np.testing.assert_allclose(columns["best_plane"], expected, atol=0.75)
    assert (columns["confidence"] > 0.5).all()
    for words, bad in (
        ("no object", labels * 0),
        ("the planes", labels[1:]),
        ("float", labels / 2),
    ):
        with pytest.raises(DefocusError, match=words):
            score_labels(tilted.planes, bad)


def test_detail_of_large_stacks_is_kept_at_fewer_pixels():
    assert block_side(5, (3648, 5440)) == 2
    assert block_side(100, (3648, 5440)) > 2
    assert block_side(5, (20, 5440)) == 1


def test_events_are_told_and_stopping_heard(tilted):
    events = []
    analyse_stack(tilted.planes, on_event=events.append)
    stages = list(dict.fromkeys(event.stage for event in events))
    assert stages == ["reading planes", "measuring detail", "fusing planes"]
    assert all(event.done <= event.total == 6 for event in events)
    asked = []
    for allowed in (0, 4, 8, 14):
        asked.clear()
        with pytest.raises(Stopped):
            analyse_stack(
                tilted.planes,
                should_stop=lambda allowed=allowed: asked.append(0) or len(asked) > allowed,
            )


@pytest.mark.parametrize(
    ("stack", "axes", "words"),
    [
        (np.zeros((64, 64)), None, "one plane"),
        (np.zeros((1, 64, 64)), None, "two planes or more"),
        (np.zeros((3, 64, 64)), "QYX", "no Z"),
        (np.zeros((3, 64, 64)), "ZY", "axes"),
        (np.zeros((3, 2, 64, 64)), "ZCYX", "2 stacks"),
        (np.zeros((3, 64, 64), complex), None, "complex"),
        ([np.zeros((8, 8)), np.zeros((8, 9))], None, "plane 1 is 9 x 8 float64, plane 0 is 8 x 8"),
        ([np.zeros((8, 8)), np.zeros((8, 8), int)], None, "plane 1 is 8 x 8 int64"),
        ([np.zeros(8), np.zeros(8)], None, "plane 0 of shape"),
    ],
)
def test_errors_say_what_is_wrong_and_where(stack, axes, words):
    with pytest.raises(DefocusError, match=words):
        analyse_stack(stack, axes=axes)


def test_unknown_settings_are_refused(tilted):
    with pytest.raises(DefocusError, match="max, min"):
        analyse_stack(tilted.planes, StackConfig(extremum="most"))
    with pytest.raises(DefocusError, match="three planes"):
        analyse_stack(tilted.planes[:2], StackConfig(extremum="min"))
