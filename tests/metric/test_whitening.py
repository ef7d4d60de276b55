import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from napari_defocus.metric import whitening
from napari_defocus.metric.whitening import REGULARISATION, whitening_matrix, window_covariance


def correlated_patches(count=40, side=16, sigma=0.6, seed=0):
    noise = np.random.default_rng(seed).normal(size=(count, side, side))
    smooth = ndimage.gaussian_filter(noise, (0, sigma, sigma / 2))
    # A brightness of their own, which must not matter.
    return np.float32(smooth + np.linspace(-3, 3, count)[:, None, None])


def windows(patches, size):
    every = [
        patch[y : y + size, x : x + size].ravel()
        for patch in np.asarray(patches, np.float64)
        for y in range(patch.shape[0] - size + 1)
        for x in range(patch.shape[1] - size + 1)
    ]
    return np.array([window - window.mean() for window in every])


def off_the_mean(size):
    """Orthonormal directions perpendicular to the constant window, (size^2, size^2 - 1)."""
    n = size**2
    start = np.column_stack([np.ones(n), np.eye(n)[:, 1:]])
    return np.linalg.qr(start)[0][:, 1:]


def random_covariance(size, seed, spread=1.5):
    rng = np.random.default_rng(seed)
    basis = off_the_mean(size) @ np.linalg.qr(rng.normal(size=(size**2 - 1,) * 2))[0]
    return basis * np.exp(rng.uniform(-spread, spread, size**2 - 1)) @ basis.T


@pytest.mark.parametrize("size", [1, 3, 5])
def test_covariance_of_every_window(size):
    patches = correlated_patches(6, 9)
    x = windows(patches, size)
    np.testing.assert_allclose(window_covariance(patches, size), x.T @ x / len(x), atol=1e-6)


def test_covariance_of_a_draw_of_windows(monkeypatch):
    patches = correlated_patches()
    every = window_covariance(patches, 3)
    monkeypatch.setattr(whitening, "MOST_WINDOWS", 4000)
    drawn = window_covariance(patches, 3, seed=1)
    np.testing.assert_allclose(drawn, every, atol=0.1 * np.diag(every).max())
    assert (drawn != every).any()
    np.testing.assert_array_equal(drawn, window_covariance(patches, 3, seed=1))


@pytest.mark.parametrize("size", [3, 5, 7])
def test_whitened_windows_are_white(size):
    patches = correlated_patches()
    x = windows(patches, size)
    spectrum = np.linalg.eigvalsh(np.cov(x.T))[1:]
    assert spectrum.max() > 3 * spectrum.min()  # it is not white to begin with
    white = x @ whitening_matrix(window_covariance(patches, size)).T
    within = off_the_mean(size)
    covariance = np.cov((white @ within).T)
    np.testing.assert_allclose(covariance, np.eye(size**2 - 1), atol=0.03)
    np.testing.assert_allclose(white.mean(axis=1), 0, atol=1e-9)


@given(st.sampled_from([3, 5]), st.integers(0, 2**32 - 1), st.floats(1e-6, 1e6))
def test_symmetric_white_and_blind_to_brightness(size, seed, scale):
    covariance = scale * random_covariance(size, seed)
    matrix = whitening_matrix(covariance)
    largest = np.abs(matrix).max()
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12 * largest)
    np.testing.assert_allclose(matrix @ np.ones(size**2), 0, atol=1e-9 * largest)
    within = off_the_mean(size)
    np.testing.assert_allclose(
        within.T @ matrix @ covariance @ matrix @ within, np.eye(size**2 - 1), atol=0.05
    )
    # Of all whitening matrices ZCA's leaves windows most alike: its square root is positive.
    assert np.linalg.eigvalsh(within.T @ matrix @ within).min() > 0


def test_directions_without_variance_are_not_blown_up():
    size = 5
    within = off_the_mean(size)
    values = np.where(np.arange(size**2 - 1) < 10, 1.0, 0.0)
    covariance = within * values @ within.T
    gain = np.linalg.eigvalsh(whitening_matrix(covariance)).max()
    assert gain == pytest.approx(1 / np.sqrt(REGULARISATION * 10 / size**2), rel=1e-6)


def test_folding_the_matrix_into_a_kernel():
    rng = np.random.default_rng(0)
    matrix = whitening_matrix(random_covariance(5, 0))
    kernel, x = rng.normal(size=25), rng.normal(size=25)
    assert kernel @ (matrix @ x) == pytest.approx((matrix @ kernel) @ x)
