"""Where a plane shows structure: noise alone shows none, a disc shows its edge."""

import numpy as np
import pytest
from scipy import ndimage

from napari_defocus.filters.noise import measure_plane
from napari_defocus.filters.plane import prepare_part
from napari_defocus.filters.structure import (
    AROUND,
    BLOCK,
    EDGE_SIGMA,
    LEAST_SHARE,
    NOISE_FACTOR,
    edge_energy,
    local_deviation,
    shows_structure,
    strongest_contrast,
)

RNG = np.random.default_rng(0)


def seen_in(image):
    """Return which pixels of an image show structure, as detection computes it."""
    statistics = measure_plane(image, colours=True)
    plane = prepare_part(image, statistics)
    deviation = local_deviation(plane.grey, plane.noise)
    return shows_structure(deviation, statistics.contrast, image.shape)


@pytest.mark.parametrize("noise", [2, 8])
@pytest.mark.parametrize("sigma", [0, 3])
def test_a_disc_in_noise_shows_its_edge_sharp_or_blurred(noise, sigma):
    distance = np.hypot(*(np.mgrid[:400, :400] - 200))
    image = 30 + ndimage.gaussian_filter(150.0 * (distance < 80), sigma)
    seen = seen_in(image + RNG.normal(0, noise, image.shape))
    assert seen[np.abs(distance - 80) < 6].all()
    assert seen[distance > 125].mean() <= 0.01
    assert seen[distance < 35].mean() <= 0.01


@pytest.mark.parametrize("kind", ["read", "shot", "8 bits"])
def test_noise_alone_shows_nothing(kind):
    image = RNG.normal(100, 3, (256, 300)) if kind != "shot" else RNG.poisson(20, (256, 300))
    seen = seen_in(image.round().astype(np.uint8) if kind == "8 bits" else image)
    assert (~seen).mean() >= 0.99


def test_noise_beside_one_bead_is_a_blank_field():
    image = RNG.normal(100, 5, (512, 512))
    image[200:206, 300:306] += 400
    seen = seen_in(image)
    assert seen[203, 303]
    away = np.ones(image.shape, bool)
    away[160:246, 260:346] = False
    assert (~seen[away]).mean() >= 0.99


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_a_flat_plane_shows_nothing(level):
    flat = np.full((64, 50), level, np.float32)
    noise = (1e-6, 0.0)
    deviation = local_deviation(flat, noise)
    assert deviation.shape == (32, 25)
    assert not deviation.any()
    assert not edge_energy(flat, noise).any()
    assert not shows_structure(deviation, strongest_contrast([deviation]), flat.shape).any()


def test_against_the_formula():
    grey = ndimage.gaussian_filter(RNG.random((60, 81)), 1).astype(np.float32)
    a, b = 1e-4, 2e-4
    blocks = np.pad(grey, ((0, 0), (0, 1)), mode="edge").astype(float)
    blocks = blocks.reshape(30, BLOCK, 41, BLOCK).mean((1, 3))
    smooth = lambda values: ndimage.uniform_filter(values, AROUND)  # noqa: E731
    of_noise = NOISE_FACTOR / 4 * (a + b * smooth(blocks))
    variance = smooth(blocks**2) - smooth(blocks) ** 2 - of_noise
    deviation = np.sqrt(np.clip(variance, 0, None))
    np.testing.assert_allclose(local_deviation(grey, (a, b)), deviation, atol=1e-4)
    gradient = ndimage.gaussian_gradient_magnitude(blocks, EDGE_SIGMA) ** 2
    gradient -= NOISE_FACTOR / 4 * (a + b * blocks) / (4 * np.pi * EDGE_SIGMA**4)
    np.testing.assert_allclose(edge_energy(grey, (a, b)), np.clip(gradient, 0, None), atol=1e-4)


def test_structure_has_a_share_of_the_strongest_contrast():
    deviation = np.array([[0.0, 0.9], [1.1, 2.0]], np.float32) * LEAST_SHARE
    seen = shows_structure(deviation, 1.0, (3, 4))
    np.testing.assert_array_equal(seen[::2, ::2], [[False, False], [True, True]])
    assert seen.shape == (3, 4)


def test_the_strongest_contrast_is_that_of_all_parts():
    parts = [RNG.random((10, 20)).astype(np.float32), RNG.random((7, 3)).astype(np.float32)]
    together = np.concatenate([part.ravel() for part in parts])
    assert strongest_contrast(parts) == pytest.approx(np.percentile(together, 99))
    assert strongest_contrast([parts[0][:0]]) == 0
