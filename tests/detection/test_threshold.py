import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.filters import threshold_otsu
from skimage.measure import label

from napari_defocus.core.errors import DefocusError
from napari_defocus.detection.threshold import (
    MaskConfig,
    count_sharpness,
    cut_mask,
    halo,
    mask_threshold,
)

maps = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=20),
    elements=st.floats(0, 1, width=16),
)


def drawn(*rows):
    """Sharpness from rows of characters: # is 0.9, anything else 0.1."""
    return np.array([[0.9 if c == "#" else 0.1 for c in row] for row in rows], np.float32)


def shown(mask):
    return ["".join("?.#"[value] for value in row) for row in mask]


def valid(sharpness):
    return np.zeros(sharpness.shape, bool)


def threshold_of(sharpness, config):
    return mask_threshold(count_sharpness(sharpness), config)


def make_mask(sharpness, undecided, config=MaskConfig()):  # noqa: B008 - frozen
    threshold = threshold_of(sharpness[~undecided], config)
    return cut_mask(sharpness, undecided, threshold, config.smallest)


def test_mean_rule():
    sharpness = np.array([[0.1, 0.2, 0.3, 0.6]], np.float32)  # mean 0.3
    config = MaskConfig(threshold="mean", range=(0, 1))
    assert threshold_of(sharpness, config) == pytest.approx(0.45)
    assert threshold_of(np.full((2, 2), 0.9, np.float32), config) == 1.0


@pytest.mark.parametrize(
    ("value", "rule", "expected"),
    [(0.1, "mean", 0.3), (0.9, "mean", 0.7), (0.05, "otsu", 0.3), (0.95, "otsu", 0.7)],
)
def test_adapted_thresholds_are_kept_within_the_range(value, rule, expected):
    constant = np.full((4, 4), value, np.float32)
    threshold = threshold_of(constant, MaskConfig(threshold=rule, range=(0.3, 0.7)))
    assert threshold == pytest.approx(expected)


@pytest.mark.parametrize("threshold", [0, 0.05, 0.5, 0.99, 1])
def test_a_fixed_threshold_is_not_clamped(threshold):
    value = threshold_of(drawn("#."), MaskConfig(threshold=threshold))
    assert value == threshold
    assert isinstance(value, float)


def test_a_pixel_at_the_threshold_is_sharp():
    sharpness = np.array([[0.25, 0.5, 0.75]], np.float32)
    mask = make_mask(sharpness, valid(sharpness), MaskConfig(threshold=0.5, smallest=0))
    assert mask.dtype == np.uint8
    assert shown(mask) == [".##"]


@pytest.mark.parametrize(("value", "expected"), [(0.2, 1), (0.8, 2)])
@pytest.mark.parametrize("rule", ["otsu", "mean"])
def test_a_constant_map_is_not_cut_in_two(value, expected, rule):
    sharpness = np.full((20, 20), value, np.float32)
    assert (make_mask(sharpness, valid(sharpness), MaskConfig(threshold=rule)) == expected).all()


def test_undecided_pixels_are_zero_whatever_their_value():
    sharpness = drawn("##..", "##..")
    undecided = drawn("#..#", "....") > 0.5
    mask = make_mask(sharpness, undecided, MaskConfig(smallest=0))
    assert shown(mask) == ["?#.?", "##.."]


def test_small_spots_go_and_small_holes_are_filled():
    sharpness = drawn(
        "..........",
        ".##...####",
        ".#....#.##",
        "......####",
        "#.....####",
    )
    cleaned = [
        "..........",
        "......####",
        "......####",
        "......####",
        "......####",
    ]
    mask = make_mask(sharpness, valid(sharpness), MaskConfig(threshold=0.5, smallest=4))
    assert shown(mask) == cleaned
    mask = make_mask(sharpness, valid(sharpness), MaskConfig(threshold=0.5, smallest=3))
    assert shown(mask) == [
        "..........",
        ".##...####",
        ".#....####",
        "......####",
        "......####",
    ]


@pytest.mark.parametrize("smallest", [0, 1])
def test_no_clean_up(smallest):
    rows = ["#.#.", ".#..", "...#"]
    sharpness = drawn(*rows)
    mask = make_mask(sharpness, valid(sharpness), MaskConfig(threshold=0.5, smallest=smallest))
    assert shown(mask) == rows


def test_pixels_that_touch_at_a_corner_are_two_spots():
    sharpness = drawn("#....", ".#...", ".....")
    mask = make_mask(sharpness, valid(sharpness), MaskConfig(threshold=0.5, smallest=2))
    assert shown(mask) == ["....."] * 3


@pytest.mark.parametrize("rows", [["#..", "..."], ["##.", "###"]])
def test_a_small_spot_goes_though_it_is_the_only_one(rows):
    sharpness = drawn(*rows)
    mask = make_mask(sharpness, valid(sharpness), MaskConfig(threshold=0.5, smallest=2))
    assert len(np.unique(mask)) == 1
    assert mask[-1, 0] == (sharpness[-1, 0] > 0.5) + 1


def test_a_region_smaller_than_the_smallest_spot_survives_where_it_is_everything():
    for rows in (["##", "##"], ["..", ".."]):
        sharpness = drawn(*rows)
        assert shown(make_mask(sharpness, valid(sharpness), MaskConfig(threshold=0.5))) == rows


@given(maps, st.integers(2, 30))
def test_no_small_spot_is_left(sharpness, smallest):
    mask = make_mask(sharpness, valid(sharpness), MaskConfig(threshold=0.5, smallest=smallest))
    assert set(np.unique(mask)) <= {1, 2}
    areas = np.bincount(label(mask == 1, connectivity=1).ravel())[1:]
    assert len(areas) == 0 or areas.min() >= min(smallest, mask.size)


@pytest.mark.parametrize("rows", [["##.", "...", "..."], ["...", "..#", "..#"], ["...", ".##"]])
def test_a_spot_of_just_as_many_pixels_stays_wherever_it_lies(rows):
    sharpness = drawn(*rows)
    config = MaskConfig(threshold=0.5, smallest=2)
    assert shown(make_mask(sharpness, valid(sharpness), config)) == rows


@given(maps, st.integers(2, 9), st.integers(1, 30))
def test_masks_are_the_same_however_many_pixels_are_counted_at_once(sharpness, smallest, at_once):
    config = MaskConfig(threshold=0.5, smallest=smallest)
    whole = make_mask(sharpness, valid(sharpness), config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("napari_defocus.detection.threshold.AT_ONCE", at_once)
        parts = make_mask(sharpness, valid(sharpness), config)
    np.testing.assert_array_equal(parts, whole)


@given(maps)
def test_inputs_are_not_changed(sharpness):
    undecided = sharpness > 0.8
    before = sharpness.copy(), undecided.copy()
    make_mask(sharpness, undecided)
    np.testing.assert_array_equal(sharpness, before[0])
    np.testing.assert_array_equal(undecided, before[1])


@pytest.mark.parametrize("threshold", ["triangle", "", np.nan, -0.1, 1.1])
def test_threshold_that_is_neither_a_rule_nor_in_range_is_refused(threshold):
    with pytest.raises(DefocusError, match=r"the mask's threshold is .*0 to 1"):
        make_mask(drawn("#."), np.zeros((1, 2), bool), MaskConfig(threshold=threshold))


@pytest.mark.parametrize("seed", range(5))
def test_otsu_rule_is_that_of_scikit_image(seed):
    rng = np.random.default_rng(seed)
    values = np.concatenate([rng.normal(0.2, 0.08, 900), rng.normal(0.75, 0.1, 300)])
    values = np.clip(values, 0, 1).astype(np.float32)
    expected = threshold_otsu(values, nbins=1024)
    found = threshold_of(values, MaskConfig(threshold="otsu", range=(0, 1)))
    assert found == pytest.approx(expected, abs=2 / 1024)
    assert found != threshold_of(values, MaskConfig(threshold="mean", range=(0, 1)))


@pytest.mark.parametrize("rule", ["otsu", "mean"])
def test_where_nothing_is_valid_the_middle_of_the_range_cuts(rule):
    nothing = np.empty(0, np.float32)
    found = threshold_of(nothing, MaskConfig(threshold=rule, range=(0.2, 0.7)))
    assert found == pytest.approx(0.45)


def test_defaults_are_those_that_are_documented():
    assert MaskConfig() == MaskConfig(threshold="otsu", range=(0.3, 0.7), smallest=100)


def test_values_are_counted_from_0_to_1_in_steps_of_1_1024():
    counted = count_sharpness(np.array([0, 1 / 1024, 0.5, 1], np.float32))
    assert np.flatnonzero(counted.counts).tolist() == [0, 1, 512, 1023]


@pytest.mark.parametrize("seed", range(20))
def test_pixels_beyond_reach_do_not_count(seed):
    config = MaskConfig(threshold=0.5, smallest=6)
    sharpness = np.random.default_rng(seed).random((60, 60)).astype(np.float32).round()
    other = sharpness.copy()
    other[30, 30] = 1 - other[30, 30]
    differ = make_mask(sharpness, valid(sharpness), config) != make_mask(
        other, valid(other), config
    )
    distance = np.abs(np.argwhere(differ) - 30).max(initial=0)
    assert distance <= halo(config)


def test_reach_is_twice_the_smallest_spot():
    assert halo(MaskConfig()) == 200
    assert [halo(MaskConfig(smallest=n)) for n in (0, 1, 7)] == [0, 2, 14]
