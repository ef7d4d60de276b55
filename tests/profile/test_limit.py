"""The sharpness limit: how it is written, what it moves, and what `auto` takes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from scipy.special import expit
from skimage import data

from napari_defocus.core.errors import DefocusError
from napari_defocus.dense.inference import DensePrediction
from napari_defocus.dense.plane import DensePlane
from napari_defocus.detection.api import DetectionConfig, detect
from napari_defocus.detection.postprocess import Limits
from napari_defocus.profile.limit import (
    AUTO,
    AUTO_RANGE,
    BINS,
    RADIUS_RANGE,
    REFERENCE,
    TIMES_SHARPEST,
    EdgeRadii,
    check_limit,
    limit_in_pixels,
    limit_of,
    parse_limit,
    score_of,
    shift,
)

RNG = np.random.default_rng(0)
WIDTHS = st.floats(0.05, 100)


def plane_of(radius, edges=None, log_odds=0.0):
    """A prediction of these radii, all of it seen."""
    radius = np.asarray(radius, np.float32)
    found = DensePrediction(np.full(radius.shape, log_odds, np.float32), radius, radius)
    blocks = radius[::2, ::2]
    edges = np.ones(blocks.shape, np.float32) if edges is None else edges
    return DensePlane(found, np.ones(radius.shape, bool), edges)


# Written down


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("auto", AUTO),
        (" auto ", AUTO),
        ("2.5", 2.5),
        ("2.5px", 2.5),
        ("3 px", 3.0),
        ("0.8um", "0.8um"),
        ("0.80 um", "0.8um"),
        ("0.8µm", "0.8µm"),  # micro sign
        ("0.8μm", "0.8μm"),  # Greek mu
        ("800nm", "800nm"),
    ],
)
def test_a_limit_is_read(text, expected):
    assert parse_limit(text) == expected
    assert parse_limit(str(expected)) == expected
    check_limit(text)


@pytest.mark.parametrize("text", ["", "px", "um", "wide", "0", "-1", "nan", "inf", "0um", "2 mm"])
def test_what_is_no_width_is_refused(text):
    with pytest.raises(DefocusError, match=r"the limit is .*; give pixels such as 2.5"):
        parse_limit(text)
    with pytest.raises(DefocusError, match="the limit is"):
        check_limit(text)


@pytest.mark.parametrize("limit", [0, -2.0, float("nan"), float("inf")])
def test_a_number_that_is_no_width_is_refused(limit):
    with pytest.raises(DefocusError, match="give pixels above 0, or auto"):
        check_limit(limit)


@pytest.mark.parametrize("limit", ["0.8um", "0.8µm", "0.8μm", "800nm"])
def test_micrometres_become_pixels(limit):
    assert limit_in_pixels(limit, 0.25) == pytest.approx(3.2)


@pytest.mark.parametrize("size", [None, 0.25])
def test_pixels_and_auto_need_no_pixel_size(size):
    assert limit_in_pixels(AUTO, size) == AUTO
    assert limit_in_pixels(2.5, size) == 2.5
    assert limit_in_pixels("2.5px", size) == 2.5


def test_micrometres_without_a_pixel_size_are_refused():
    with pytest.raises(DefocusError, match=r"0\.8um, but the size of a pixel is not known"):
        limit_in_pixels("0.8um", None)


# What it moves


@given(WIDTHS, WIDTHS)
def test_a_wider_limit_adds_log_odds(one, other):
    assert shift(REFERENCE) == 0
    if one < other:
        assert shift(one) <= shift(other)
    assert shift(one, other) == pytest.approx(-shift(other, one), abs=1e-5)
    assert shift(one) == pytest.approx(shift(one, other) + shift(other), abs=1e-4)


@given(
    limits=st.tuples(WIDTHS, WIDTHS).map(sorted),
    log_odds=st.floats(-30, 30),
    radius=st.floats(0, 40),
)
def test_a_wider_limit_makes_no_pixel_less_sharp(limits, log_odds, radius):
    score = score_of(plane_of(np.full((2, 2), radius), log_odds=log_odds))
    narrow, wide = (expit(score + np.float32(shift(limit))) for limit in limits)
    assert (wide >= narrow).all()


@given(st.floats(-30, 30), st.tuples(st.floats(0, 40), st.floats(0, 40)).map(sorted))
def test_wider_blur_is_never_sharper(log_odds, radii):
    narrow, wide = (score_of(plane_of(np.full((2, 2), r), log_odds=log_odds)) for r in radii)
    assert (wide <= narrow).all()


def test_blur_as_wide_as_the_reference_is_even():
    assert np.abs(score_of(plane_of(np.full((2, 2), REFERENCE)))).max() < 1e-6


# What `auto` takes


@pytest.mark.parametrize("radius", [0.6, 1.0, 2.5, 8.0, 39.0])
def test_the_sharpest_structure_is_as_wide_as_it_was_made(radius):
    radii = np.full((80, 100), 39.9)
    radii[:, :10] = radius  # a tenth of the edges
    sharpest = EdgeRadii.of(plane_of(radii)).sharpest
    ends = np.log(np.array(RADIUS_RANGE) + 0.1)
    bin_width = (ends[1] - ends[0]) / BINS * (radius + 0.5)
    assert sharpest == pytest.approx(radius, abs=bin_width)


def test_edges_count_by_their_weight_and_few_are_no_structure():
    radii = np.full((80, 100), 5.0)
    radii[:2, :2] = 0.7
    edges = np.ones((40, 50), np.float32)
    assert EdgeRadii.of(plane_of(radii, edges)).sharpest == pytest.approx(5, rel=0.02)
    edges[0, 0] = 300
    assert EdgeRadii.of(plane_of(radii, edges)).sharpest == pytest.approx(0.7, rel=0.02)


def test_a_plane_without_edges_has_no_sharpest_structure():
    nothing = EdgeRadii.of(plane_of(np.ones((8, 8)), np.zeros((4, 4), np.float32)))
    for edges in (nothing, EdgeRadii.none()):
        assert np.isnan(edges.sharpest)
        assert edges.share_near(1.0) == 0
        assert limit_of(AUTO, edges) == AUTO_RANGE[0]


@given(st.integers(1, 19), st.integers(1, 29))
def test_parts_add_up_to_the_whole_exactly(row, column):
    rng = np.random.default_rng(row * 100 + column)
    radii = rng.gamma(2, 2, (40, 60)).astype(np.float32)
    edges = rng.random((20, 30)).astype(np.float32) ** 4
    whole = EdgeRadii.of(plane_of(radii, edges)).counts
    parts = EdgeRadii.none()
    for rows in (slice(0, row), slice(row, 20)):
        for columns in (slice(0, column), slice(column, 30)):
            part = tuple(slice(2 * s.start, 2 * s.stop) for s in (rows, columns))
            parts = parts + EdgeRadii.of(plane_of(radii[part], edges[rows, columns]))
    np.testing.assert_array_equal(parts.counts, whole)
    assert whole.sum() > 0


@given(st.floats(0.01, 45))
def test_auto_stays_within_its_range(radius):
    edges = EdgeRadii.of(plane_of(np.full((4, 4), radius)))
    limit = limit_of(AUTO, edges)
    assert AUTO_RANGE[0] <= limit <= AUTO_RANGE[1]
    if AUTO_RANGE[0] < limit < AUTO_RANGE[1]:
        assert limit == pytest.approx(TIMES_SHARPEST * radius, rel=0.05)


@given(WIDTHS)
def test_a_limit_that_is_given_is_taken(limit):
    assert limit_of(limit, EdgeRadii.none()) == limit


def test_the_share_near_a_limit():
    radii = np.full((80, 100), 9.0)
    radii[:, :25] = 2.1
    edges = EdgeRadii.of(plane_of(radii))
    assert edges.share_near(2.0) == pytest.approx(0.26, abs=0.011)  # blocks of 2
    assert edges.share_near(4.0) == 0
    assert edges.share_near(9.5) == pytest.approx(0.74, abs=0.011)


def test_an_answer_that_hangs_on_the_limit_is_told():
    soft = data.camera()[100:292, 100:292].astype(float)
    soft = ndimage.gaussian_filter(soft, 1.5)
    width = float(np.median(detect(soft).radius))
    assert "hangs on it" in str(Limits.of(detect(soft, config=DetectionConfig(limit=width))))
    assert "hangs on it" not in str(Limits.of(detect(soft, config=DetectionConfig(limit=9.0))))
