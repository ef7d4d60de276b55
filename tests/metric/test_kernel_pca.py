import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from napari_defocus.core.errors import DefocusError
from napari_defocus.metric.kernel_pca import fixed_directions, is_turned, kernel_pca
from napari_defocus.metric.local_metric import load_metric
from napari_defocus.metric.whitening import whitening_matrix


def random_kernels(seed=0, count=20, size=5):
    """Kernels of zero mean with more variance in some directions than in others."""
    rng = np.random.default_rng(seed)
    n = size**2
    kernels = rng.normal(size=(count, n)) * np.exp(rng.uniform(-2, 2, n))
    kernels = kernels @ np.linalg.qr(rng.normal(size=(n, n)))[0]
    kernels -= kernels.mean(axis=1, keepdims=True)
    return kernels.reshape(count, size, size).astype(np.float32)


def random_whitening(seed=0, size=5):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(500, size**2)) @ rng.normal(size=(size**2, size**2))
    x -= x.mean(axis=1, keepdims=True)
    return whitening_matrix(x.T @ x / len(x)).astype(np.float32)


def centring(size):
    return (np.eye(size**2) - 1 / size**2).astype(np.float32)


def all_turns(kernels):
    """Kernels with their turned and mirrored copies, index by index."""
    every = []
    for kernel in kernels:
        turned = kernel
        for _ in range(4):
            turned = np.array([list(row) for row in zip(*turned[::-1], strict=True)])
            every += [turned, turned.T]
    return np.array(every, np.float64)


def test_turns_are_eight_and_differ():
    assert len({turn.tobytes() for turn in all_turns([np.arange(9).reshape(3, 3)])}) == 8


@pytest.mark.parametrize("seed", range(3))
def test_variances_and_components_are_those_of_scikit_learn(seed):
    kernels = random_kernels(seed)
    rows = all_turns(kernels).reshape(-1, 25)
    # A kernel and its negative are the same: with both, the mean is 0.
    reference = PCA().fit(np.concatenate([rows, -rows]))
    pca = kernel_pca(kernels, centring(5))
    np.testing.assert_allclose(
        pca.explained_variance_ratio, reference.explained_variance_ratio_, atol=1e-6
    )
    ratio = reference.explained_variance_ratio_
    alone = [i for i in range(24) if np.delete(np.abs(ratio - ratio[i]), i).min() > 1e-3 * ratio[i]]
    assert len(alone) >= 5  # turned copies make pairs of equal variance
    for i in alone:
        component = pca.components[i].ravel()
        assert abs(component @ reference.components_[i]) == pytest.approx(1, abs=1e-3)
        assert component.max() == pytest.approx(np.abs(component).max(), rel=1e-4)


def test_components_are_eigenvectors_carried_to_pixels():
    kernels, whitening = random_kernels(1), random_whitening(1)
    rows = all_turns(kernels).reshape(-1, 25)
    covariance = rows.T @ rows / len(rows)
    pca = kernel_pca(kernels, whitening)
    back = np.linalg.pinv(whitening.astype(np.float64), rcond=1e-5)
    vectors = pca.components.reshape(-1, 25) @ back
    for vector, ratio in zip(vectors[:20], pca.explained_variance_ratio, strict=False):
        expected = ratio * np.trace(covariance) * vector
        scale = np.abs(expected).max()
        np.testing.assert_allclose(covariance @ vector, expected, atol=2e-2 * scale)
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-2)


@given(st.integers(0, 2**32 - 1), st.integers(9, 30), st.sampled_from([3, 5]), st.data())
def test_laws_of_kernel_pca(seed, count, size, draw):
    kernels, whitening = random_kernels(seed, count, size), random_whitening(seed, size)
    pca = kernel_pca(kernels, whitening)
    ratio = pca.explained_variance_ratio
    assert ratio.shape == (size**2,)
    assert pca.components.shape == (size**2, size, size)
    assert ratio.sum() == pytest.approx(1, abs=1e-5)
    assert (np.diff(ratio) <= 1e-7).all()
    assert ratio.min() >= 0
    k = draw.draw(st.integers(1, size**2 - 1))
    filters = pca.filters(k)
    assert filters.shape == (k, size, size)
    assert filters.dtype == np.float32
    np.testing.assert_allclose(filters.mean(axis=(1, 2)), 0, atol=1e-6)
    assert np.square(filters).sum() == pytest.approx(1, abs=1e-4)
    # Filters keep their proportions among each other.
    both = filters[0] * np.linalg.norm(pca.components[0])
    np.testing.assert_allclose(both / np.linalg.norm(filters[0]), pca.components[0], atol=1e-4)


@given(st.integers(0, 2**32 - 1), st.integers(0, 3), st.booleans())
def test_turned_kernels_have_the_same_variances(seed, turns, negative):
    kernels = random_kernels(seed, 12, 3)
    turned = np.rot90(kernels, turns, (1, 2)) * (-1 if negative else 1)
    one, two = (kernel_pca(k, centring(3)).explained_variance_ratio for k in (kernels, turned))
    np.testing.assert_allclose(one, two, atol=1e-6)


def test_the_metric_prefers_no_direction():
    # Kernels that see rows alone: their first two components see rows and columns alike.
    wave = np.sin(np.arange(5) * np.pi / 2) - 0.2
    kernels = np.float32(np.random.default_rng(0).normal(size=(9, 1, 1)) * wave[:, None])
    kernels = np.broadcast_to(kernels, (9, 5, 5))
    filters = kernel_pca(kernels, centring(5)).filters(2).astype(np.float64)
    energies = [
        sum((np.rot90(f, turn) * np.float64(kernels[0])).sum() ** 2 for f in filters)
        for turn in (0, 1)
    ]
    assert energies[0] > 0.01
    assert energies[0] == pytest.approx(energies[1], rel=1e-4)


def test_filters_see_no_brightness_even_of_a_matrix_that_lets_it_through():
    kernels = random_kernels() + np.float32(0.5)
    filters = kernel_pca(kernels, np.eye(25, dtype=np.float32)).filters(25)
    np.testing.assert_allclose(filters.mean(axis=(1, 2)), 0, atol=1e-7)
    assert np.square(filters).sum() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_each_component_has_its_share_however_few_kernels_there_are(count):
    # Eight turns of each kernel, of zero mean.
    pca = kernel_pca(random_kernels(0, count), centring(5))
    assert len(pca.components) == len(pca.explained_variance_ratio) == min(8 * count, 25)
    assert pca.explained_variance_ratio.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("count", [0, -1, 26])
def test_as_many_components_as_there_are(count):
    pca = kernel_pca(random_kernels(), centring(5))
    with pytest.raises(DefocusError, match="give 1 to 25"):
        pca.filters(count)


@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.sampled_from([1, 1, 2, 2, 3, 5]), min_size=1, max_size=7),
)
def test_directions_do_not_depend_on_the_basis_of_equal_values(seed, groups):
    rng = np.random.default_rng(seed)
    count = sum(groups)
    values = np.repeat(np.cumprod(rng.uniform(0.5, 0.99, len(groups))), groups)
    vectors = np.linalg.qr(rng.normal(size=(49, count)))[0]
    turned, start = np.empty_like(vectors), 0
    for size in groups:
        group = slice(start, start + size)
        rotation = np.linalg.qr(rng.normal(size=(size, size)))[0]
        turned[:, group] = vectors[:, group] @ rotation
        start += size
    rounded = np.sort(values * (1 + 1e-15 * rng.normal(size=count)))[::-1]
    found = fixed_directions(vectors, values)
    np.testing.assert_allclose(fixed_directions(turned, rounded), found, atol=1e-6)
    np.testing.assert_allclose(found.T @ found, np.eye(count), atol=1e-12)
    projector = (vectors * values) @ vectors.T
    np.testing.assert_allclose((found * values) @ found.T, projector, atol=1e-12)


def test_a_turned_pair_is_symmetric_and_antisymmetric_about_the_diagonal():
    rng = np.random.default_rng(0)
    half = rng.normal(size=(7, 7))
    wave = half - np.rot90(half, 2)  # odd, as the first pair of natural kernels
    wave = wave + wave.T
    pair = np.stack([wave.ravel(), np.rot90(wave).ravel()], axis=1)
    assert abs(pair[:, 0] @ pair[:, 1]) < 1e-9
    pair /= np.linalg.norm(pair, axis=0)
    for angle in (0.0, 0.3, 2.0):
        turn = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        one, two = fixed_directions(pair @ turn, np.ones(2)).T.reshape(2, 7, 7)
        np.testing.assert_allclose(one, one.T, atol=1e-12)
        np.testing.assert_allclose(two, -two.T, atol=1e-12)


def test_of_equally_large_values_the_leftmost_is_positive():
    vector = np.zeros((5, 5))
    vector[1, 3], vector[3, 1], vector[0, 4] = 1 + 1e-9, -1, -0.5
    found = fixed_directions(vector.reshape(25, 1), np.ones(1)).reshape(5, 5)
    assert found[3, 1] == 1
    assert found[1, 3] == -1 - 1e-9


def test_the_packaged_filters_are_the_first_components():
    metric = load_metric()
    filters = kernel_pca(metric.kernels, metric.whitening).filters(2)
    np.testing.assert_allclose(filters, metric.filters, atol=1e-6)


def test_default_pair_is_one_filter_turned():
    first, second = load_metric().filters
    assert is_turned(first, second)
    ratio = load_metric().explained_variance_ratio
    assert ratio[0] == pytest.approx(ratio[1], rel=1e-5)
    assert not is_turned(*load_metric("zeng2019").filters)
    assert not is_turned(first, first)
