"""Outlines of mask regions, checked by filling them again with a ray through each pixel."""

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.path import Path as Outline
from scipy import ndimage

from napari_defocus.core.errors import DefocusError
from napari_defocus.io.geojson import write_geojson
from napari_defocus.measure.polygons import NAMES, mask_features, trace_regions

MASKS = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda shape: arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 2]))
)
ALL = (0, 1, 2)


def area(ring):
    """Twice the area by the shoelace formula is what corners' cross products sum to."""
    x, y = np.asarray(ring, float).T
    return np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) / 2


def filled(rings, shape):
    """Pixels whose centre sees the rings an odd number of times to its right."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    crossings = np.zeros(shape, int)
    for ring in rings:
        for (x0, y0), (x1, y1) in pairwise(ring):
            if x0 == x1:  # rings of pixels run along rows and columns only
                crossings += (x < x0) & (y > min(y0, y1)) & (y < max(y0, y1))
            else:
                assert y0 == y1
    return crossings % 2 == 1


def painted(features, shape):
    """Fill the polygons of a file by their class names; each pixel once."""
    codes = {name: code for code, name in NAMES.items()}
    mask = np.full(shape, 255, np.uint8)
    for feature in features:
        inside = filled(feature["geometry"]["coordinates"], shape)
        assert (mask[inside] == 255).all(), "polygons overlap"
        mask[inside] = codes[feature["properties"]["classification"]["name"]]
    return mask


@given(MASKS)
def test_filling_the_polygons_gives_the_mask_back(mask):
    assert np.array_equal(painted(mask_features(mask, labels=ALL), mask.shape), mask)


@given(MASKS)
def test_matplotlib_fills_them_alike(mask):
    for region in trace_regions(mask, ALL):
        centres = np.argwhere(np.ones(mask.shape, bool))[:, ::-1] + 0.5
        inside = np.zeros(len(centres), int)
        for ring in region.rings:
            inside += Outline(ring).contains_points(centres)
        expected = filled(region.rings, mask.shape)
        assert np.array_equal(inside.reshape(mask.shape) == 1, expected)


@given(MASKS)
def test_rings_are_simple_closed_and_oriented_and_areas_add_up(mask):
    for region in trace_regions(mask, ALL):
        outline, *holes = region.rings
        assert area(outline) > 0
        assert all(area(hole) < 0 for hole in holes)
        assert sum(map(area, region.rings)) == region.area
        for ring in region.rings:
            assert np.array_equal(ring[0], ring[-1])
            corners = [tuple(corner) for corner in ring[:-1].tolist()]
            assert len(set(corners)) == len(corners), "a ring meets itself"
            steps = np.diff(ring, axis=0)
            assert (np.count_nonzero(steps, axis=1) == 1).all(), "an edge is slanted or empty"
            turns = np.count_nonzero(steps, axis=0)
            assert turns[0] == turns[1], "two edges in a row go the same way"


@given(MASKS)
def test_a_region_for_each_connected_part(mask):
    regions = trace_regions(mask, ALL)
    assert [region.label for region in regions] == sorted(region.label for region in regions)
    for label in ALL:
        parts, count = ndimage.label(mask == label)
        areas = np.bincount(parts.ravel())[1:]
        found = [region.area for region in regions if region.label == label]
        assert len(found) == count
        assert found == areas.tolist()


def test_a_hole_that_touches_the_outline_keeps_its_own_ring():
    mask = np.array([[1, 1, 1], [1, 2, 1], [1, 1, 2]], np.uint8)
    (region,) = trace_regions(mask, [1])
    outline, hole = region.rings
    assert sorted(map(tuple, hole[:-1].tolist())) == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert [2, 2] in outline.tolist()


@given(MASKS, st.integers(0, 2**32 - 1))
def test_mean_blur_and_area_are_those_of_the_pixels(mask, seed):
    blur = np.random.default_rng(seed).random(mask.shape, np.float32)
    for feature in mask_features(mask, labels=ALL, blur=blur, pixel_size_um=0.5):
        inside = filled(feature["geometry"]["coordinates"], mask.shape)
        found = feature["properties"]["measurements"]
        assert found["area px"] == inside.sum()
        assert found["area um^2"] == pytest.approx(inside.sum() / 4)
        assert found["mean blur"] == pytest.approx(blur[inside].mean(), abs=1e-5)


def test_a_feature_is_what_qupath_reads():
    mask = np.zeros((4, 6), np.uint8)
    mask[1:3, 2:5] = 2
    (feature,) = mask_features(mask, plane={"Z": 3, "T": 1})
    assert feature["type"] == "Feature"
    assert feature["geometry"]["type"] == "Polygon"
    assert feature["geometry"]["plane"] == {"c": -1, "z": 3, "t": 1}
    assert feature["properties"]["objectType"] == "annotation"
    assert feature["properties"]["classification"] == {"name": "sharp", "color": [230, 158, 0]}
    (ring,) = feature["geometry"]["coordinates"]
    assert sorted(ring[:-1]) == [[2, 1], [2, 3], [5, 1], [5, 3]]


def test_undecided_pixels_and_small_regions_are_left_out():
    mask = np.zeros((8, 8), np.uint8)
    mask[:2, :2], mask[5, 5] = 1, 2
    names = [f["properties"]["classification"]["name"] for f in mask_features(mask)]
    assert names == ["blurred", "sharp"]
    assert len(mask_features(mask, smallest=2)) == 1
    assert mask_features(np.zeros((3, 3), np.uint8)) == []


def test_micrometres():
    mask = np.ones((2, 3), np.uint8)
    (feature,) = mask_features(mask, pixel_size_um=0.65, micrometres=True)
    (ring,) = feature["geometry"]["coordinates"]
    assert area(ring) == pytest.approx(6 * 0.65**2)
    assert max(ring) == [1.95, 1.3]
    with pytest.raises(DefocusError, match="size of a pixel is unknown"):
        mask_features(mask, micrometres=True)


def test_a_file_is_read_back(tmp_path):
    rng = np.random.default_rng(0)
    mask = (ndimage.gaussian_filter(rng.normal(size=(200, 300)), 4) > 0).astype(np.uint8) + 1
    mask[80:90, 50:250] = 0
    path = tmp_path / "mask.geojson"
    write_geojson(path, mask_features(mask, labels=ALL))
    read = json.loads(path.read_text("utf-8"))
    assert read["type"] == "FeatureCollection"
    assert np.array_equal(painted(read["features"], mask.shape), mask)
    with pytest.raises(DefocusError, match="exists already"):
        write_geojson(path, [], overwrite=False)


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        (np.full((3, 3), 255, np.uint8), "255 too"),
        (np.zeros((2, 3, 3), np.uint8), "one plane"),
        (np.zeros((3, 3)), "whole numbers"),
    ],
)
def test_what_is_no_mask_is_told(mask, says):
    with pytest.raises(DefocusError, match=says):
        trace_regions(mask)


def test_what_does_not_fit_is_told():
    mask = np.ones((3, 3), np.uint8)
    with pytest.raises(DefocusError, match="give a pair"):
        mask_features(mask, blur=np.zeros((2, 2), np.float32))
    with pytest.raises(DefocusError, match="not of Q"):
        mask_features(mask, plane={"Q": 0})
