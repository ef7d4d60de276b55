"""Compiled loops say what NumPy and SciPy say, and nothing needs them."""

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage import data

from napari_defocus.detection.api import DetectionConfig, detect
from napari_defocus.detection.refinement import RefinementConfig, refine
from napari_defocus.filters import _numba as compiled
from napari_defocus.filters.histogram import Histogram
from napari_defocus.filters.linear import second_difference
from napari_defocus.filters.resampling import enlarge

METRIC = DetectionConfig(detector="metric")


def by(way, work, *arguments):
    """Do the work with compiled loops or without."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "WORTH_PIXELS", 0 if way == "compiled" else math.inf)
        return work(*arguments)


def assert_same_both_ways(work, *arguments):
    pytest.importorskip("numba", reason="the compiled loops need numba")
    np.testing.assert_array_equal(by("compiled", work, *arguments), by("numpy", work, *arguments))


seeds = st.integers(0, 2**32 - 1)
shapes = st.tuples(st.integers(1, 40), st.integers(1, 40))
images = st.builds(
    lambda seed, shape: np.random.default_rng(seed).random(shape, np.float32), seeds, shapes
)


@given(images)
def test_second_difference(image):
    assert_same_both_ways(second_difference, image)


@given(images, st.floats(0, 0.9), st.integers(1, 99))
def test_counts(image, low, bins):
    assert_same_both_ways(lambda: Histogram.of(image, low, 1.0, bins).counts)


@given(images, st.integers(1, 5))
def test_enlarge(image, factor):
    assert_same_both_ways(enlarge, image, factor)


@given(images, st.sampled_from([1, 3, 5, 9]), st.floats(0.2, 0.8))
def test_refinement(image, side, threshold):
    assert_same_both_ways(refine, image, RefinementConfig(neighbourhood=side, threshold=threshold))


@pytest.mark.parametrize("name", ["coins", "astronaut", "brick"])
def test_detection(name):
    image = getattr(data, name)()[:300]
    assert_same_both_ways(lambda: detect(image, config=METRIC).blur)


def test_a_small_image_does_not_load_numba():
    asked = "import sys, numpy as np; from napari_defocus.detection.api import *; "
    asked += "detect(np.random.rand(99, 99), config=DetectionConfig(detector='metric')); "
    asked += "sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", asked], check=False).returncode == 0


@pytest.mark.parametrize("fault", [ImportError, RuntimeError])
def test_numba_that_is_missing_or_broken_is_done_without(monkeypatch, fault):
    class Broken:
        def find_spec(self, name, *_):
            if name == "numba":
                raise fault("numba needs another NumPy")

    for name in [name for name in sys.modules if name.split(".")[0] == "numba"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "napari_defocus.filters._numba_loops", raising=False)
    monkeypatch.delattr("napari_defocus.filters._numba_loops", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    monkeypatch.setattr(compiled, "WORTH_PIXELS", 0)
    compiled._load.cache_clear()
    try:
        assert compiled.loops() is None
        assert detect(data.coins()[:99], config=METRIC).blur.shape == (99, 384)
    finally:
        compiled._load.cache_clear()
