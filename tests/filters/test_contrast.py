import numpy as np
import pytest
from scipy import ndimage

from napari_defocus.filters.contrast import gradient_noise, local_contrast, without_noise
from napari_defocus.filters.plane import Plane


def plane_of(grey, noise=(1e-12, 0.0)):
    return Plane(np.asarray(grey, np.float32), np.zeros(grey.shape, bool), noise)


def test_local_contrast_of_a_ramp_is_its_slope():
    y, x = np.mgrid[:60, :80]
    contrast = local_contrast(plane_of(0.03 * x + 0.04 * y), 1.5, 0.0)
    np.testing.assert_allclose(contrast[10:-10, 10:-10], 0.05, rtol=1e-3)


@pytest.mark.parametrize("sigma", [1.0, 1.5, 3.0])
def test_gradient_noise_is_the_variance_of_the_gradient_of_white_noise(sigma):
    noise = np.random.default_rng(0).normal(0, 0.1, (600, 600))
    gradient = ndimage.gaussian_gradient_magnitude(noise, sigma)
    variance = 0.1**2 * gradient_noise(sigma)
    assert np.square(gradient).mean() == pytest.approx(variance, rel=0.03)


@pytest.mark.parametrize("factor", [0.0, 1.0, 2.0, 3.0])
def test_what_is_left_of_noise_falls_as_the_exponential_of_the_factor(factor):
    # The squared gradient of white noise follows the exponential distribution.
    noise = np.random.default_rng(0).normal(0, 0.1, (600, 600))
    contrast = local_contrast(plane_of(noise, (0.1**2, 0.0)), 1.5, factor)
    whole = 0.1**2 * gradient_noise(1.5)
    assert (contrast > 0).mean() == pytest.approx(np.exp(-factor), rel=0.05)
    assert np.square(contrast).mean() == pytest.approx(whole * np.exp(-factor), rel=0.1)


def test_without_noise_by_hand():
    energy = np.array([[0.0, 0.02, 0.06, 0.29]], np.float32)
    variance = np.array([[0.0, 0.02, 0.01, 0.02]], np.float32)
    left = without_noise(energy, variance, 2.0)
    np.testing.assert_allclose(left, [[0, 0, 0.2, 0.5]], rtol=1e-6)
    assert left.dtype == np.float32


def test_contrast_of_a_noisy_ramp_is_its_slope():
    y, x = np.mgrid[:300, :400]
    noise = np.random.default_rng(0).normal(0, 0.1, x.shape)
    ramp = plane_of(0.03 * x + 0.04 * y + noise, (0.1**2, 0.0))
    inner = np.s_[10:-10, 10:-10]
    with_noise = np.square(local_contrast(ramp, 1.5, 0.0)[inner]).mean()
    left = np.square(local_contrast(ramp, 1.5, 1.0)[inner]).mean()
    assert with_noise > 1.05 * 0.05**2
    assert left == pytest.approx(0.05**2, rel=0.02)
