import numpy as np
import pytest

from napari_defocus.filters.guided import guided_coefficients


def guided_filter(values, guide, radius, epsilon):
    gain, offset = guided_coefficients(values, guide, radius, epsilon)
    return gain * guide + offset


def box(values, radius):
    """Mean of each pixel's window, mirrored at the border, pixel by pixel."""
    padded = np.pad(np.asarray(values, np.float64), radius, mode="symmetric")
    return np.array(
        [
            [
                padded[y : y + 2 * radius + 1, x : x + 2 * radius + 1].mean()
                for x in range(values.shape[1])
            ]
            for y in range(values.shape[0])
        ]
    )


def literal_guided_filter(values, guide, radius, epsilon):
    """In each window the line of values over guide; at each pixel the mean of its windows' lines.

    As in the paper's equations (5), (6) and (8).
    """
    side = 2 * radius + 1
    p, i = (np.pad(np.asarray(x, np.float64), radius, mode="symmetric") for x in (values, guide))
    a, b = np.empty(values.shape), np.empty(values.shape)
    for y, x in np.ndindex(values.shape):
        inside = slice(y, y + side), slice(x, x + side)
        covariance = ((i[inside] - i[inside].mean()) * (p[inside] - p[inside].mean())).mean()
        a[y, x] = covariance / (i[inside].var() + epsilon)
        b[y, x] = p[inside].mean() - a[y, x] * i[inside].mean()
    return box(a, radius) * guide + box(b, radius)


@pytest.mark.parametrize("radius", [1, 2, 4])
@pytest.mark.parametrize("epsilon", [1e-3, 0.1])
@pytest.mark.parametrize("shape", [(9, 12), (15, 10)])
def test_guided_filter_is_the_published_one(radius, epsilon, shape):
    rng = np.random.default_rng(0)
    guide, noise = rng.uniform(size=(2, *shape))
    values = (0.7 * guide + 0.3 * noise).astype(np.float32)
    guide = guide.astype(np.float32)
    np.testing.assert_allclose(
        guided_filter(values, guide, radius, epsilon),
        literal_guided_filter(values, guide, radius, epsilon),
        atol=1e-4,
    )


@pytest.mark.parametrize("guide", [0.0, 0.5, 1.0])
def test_a_constant_guide_gives_the_box_mean_twice(guide):
    values = np.random.default_rng(0).uniform(size=(14, 17)).astype(np.float32)
    smooth = guided_filter(values, np.full(values.shape, guide, np.float32), 3, 1e-3)
    np.testing.assert_allclose(smooth, box(box(values, 3), 3), atol=1e-4)


def test_the_guided_filter_keeps_an_edge_of_the_guide():
    guide = np.zeros((30, 40), np.float32)
    guide[:, 20:] = 1
    rng = np.random.default_rng(0)
    values = (guide + rng.normal(0, 0.1, guide.shape)).astype(np.float32)
    smooth = guided_filter(values, guide, 5, 1e-3)
    assert smooth[:, 19].max() < 0.15
    assert smooth[:, 20].min() > 0.85
    assert np.abs(smooth - guide).std() < 0.03
