"""Filters by ONNX Runtime are those of SciPy, wherever a window begins."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from napari_defocus.filters import linear
from napari_defocus.filters.linear import box_mean, squared_gradient, summed_squares

seeds = st.integers(0, 2**32 - 1)
shapes = st.tuples(st.integers(1, 40), st.integers(1, 40))
images = st.builds(
    lambda seed, shape: np.random.default_rng(seed).random(shape, np.float32), seeds, shapes
)


@given(images, st.integers(1, 3), st.sampled_from([1, 3, 7, 9]))
def test_summed_squares(image, count, size):
    kernels = np.random.default_rng(0).normal(size=(count, size, size)).astype(np.float32)
    expected = sum(np.square(ndimage.correlate(image, k, mode="reflect")) for k in kernels)
    np.testing.assert_allclose(summed_squares(image, kernels), expected, rtol=1e-4, atol=1e-4)


@given(images, st.sampled_from([0.3, 1.5, 4.0]))
def test_squared_gradient(image, sigma):
    down, across = (ndimage.gaussian_filter(image, sigma, o) for o in ((1, 0), (0, 1)))
    expected = down**2 + across**2
    np.testing.assert_allclose(squared_gradient(image, sigma), expected, rtol=1e-4, atol=1e-6)


@given(images, st.sampled_from([1, 3, 5, 13]), st.sampled_from([np.float32, np.float64]))
def test_box_mean(image, size, kind):
    values = image.astype(kind)
    for border, mode in (("symmetric", "reflect"), ("edge", "nearest")):
        found = box_mean(values, size, border)
        assert found.dtype == kind
        expected = ndimage.uniform_filter(values.astype(float), size, mode=mode)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_without_the_runtime_scipy_filters(monkeypatch):
    def missing(*_, **__):
        raise ImportError

    image = np.random.default_rng(0).random((30, 50), np.float32)
    kernels = np.random.default_rng(1).normal(size=(2, 5, 5)).astype(np.float32)
    expected = summed_squares(image, kernels), squared_gradient(image, 1.0)
    for session in (linear._correlation_session, linear._gradient_session):
        session.cache_clear()
    monkeypatch.setattr(linear, "open_session", missing)
    found = summed_squares(image, kernels), squared_gradient(image, 1.0)
    for session in (linear._correlation_session, linear._gradient_session):
        session.cache_clear()
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("work", ["filters", "gradient", "box"])
def test_the_same_bytes_wherever_a_window_begins(work):
    rng = np.random.default_rng(2)
    image = rng.random((200, 210), np.float32)
    kernels = rng.normal(size=(2, 7, 7)).astype(np.float32)

    def respond(values):
        if work == "filters":
            return summed_squares(values, kernels)
        if work == "box":
            return box_mean(values, 13)
        return squared_gradient(values, 1.5)

    whole, inner = respond(image), np.s_[6:-6, 6:-6]
    for _ in range(20):
        (y, x), (rows, columns) = rng.integers(0, 90, 2), rng.integers(20, 110, 2)
        window = np.s_[y : y + rows, x : x + columns]
        np.testing.assert_array_equal(respond(image[window])[inner], whole[window][inner])
