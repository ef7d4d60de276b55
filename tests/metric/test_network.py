import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import signal
from torch.nn import functional

from napari_defocus.metric.network import CReLU, PatchNet, WhitenedConv2d
from napari_defocus.metric.whitening import whitening_matrix

FLOATS = st.floats(-100, 100, width=32)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)
    torch.manual_seed(0)


def whitening(size, seed=0):
    """Whitening matrix of smooth random windows."""
    rng = np.random.default_rng(seed)
    windows = np.cumsum(rng.normal(size=(500, size * size)), axis=1)
    return whitening_matrix(np.cov(windows.T)).astype(np.float32)


def patch_net(kernels=4, size=7, patch=32):
    return PatchNet(kernels, torch.from_numpy(whitening(size)), patch)


@given(arrays(np.float32, array_shapes(min_dims=4, max_dims=4, max_side=5), elements=FLOATS))
def test_crelu_is_both_signs_rectified(x):
    positive_and_negative = np.concatenate([np.maximum(x, 0), np.maximum(-x, 0)], axis=1)
    np.testing.assert_array_equal(CReLU()(torch.from_numpy(x)), positive_and_negative)


def test_crelu_loses_nothing():
    x = torch.randn(2, 3, 4, 5)
    positive, negative = CReLU()(x).chunk(2, dim=1)
    torch.testing.assert_close(positive - negative, x)


@settings(max_examples=20, deadline=None)
@given(
    size=st.sampled_from([3, 5, 7]),
    kernels=st.integers(1, 5),
    rows=st.integers(7, 16),
    columns=st.integers(7, 16),
    seed=st.integers(0, 99),
)
def test_whitened_conv_equals_correlation_with_folded_kernels(size, kernels, rows, columns, seed):
    w = whitening(size, seed)
    layer = WhitenedConv2d(kernels, torch.from_numpy(w))
    x = np.random.default_rng(seed).normal(size=(2, 1, rows, columns)).astype(np.float32)
    found = layer(torch.from_numpy(x)).detach().numpy()
    assert found.shape == (2, kernels, rows - size + 1, columns - size + 1)
    folded = [(w @ k).reshape(size, size) for k in layer.weight.detach().numpy()]
    expected = [[signal.correlate2d(p[0], f, mode="valid") for f in folded] for p in x]
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(folded).max() * size)


def test_whitened_conv_sees_no_brightness():
    layer = WhitenedConv2d(4, torch.from_numpy(whitening(7)))
    x = torch.rand(1, 1, 16, 16)
    torch.testing.assert_close(layer(x), layer(x + 0.5), atol=1e-4, rtol=1e-4)


def test_whitened_conv_learns_kernels_but_not_the_whitening():
    layer = WhitenedConv2d(4, torch.from_numpy(whitening(7)))
    assert {name: tuple(p.shape) for name, p in layer.named_parameters()} == {"weight": (4, 49)}
    assert set(layer.state_dict()) == {"weight", "whitening"}


def test_whitened_conv_starts_small():
    layer = WhitenedConv2d(500, torch.from_numpy(whitening(7)))
    length = layer.weight.square().sum(dim=1).mean().sqrt().item()
    assert length == pytest.approx(0.2, rel=0.05)


@pytest.mark.parametrize(
    ("kernels", "size", "patch"), [(4, 7, 32), (1, 3, 16), (16, 7, 20), (2, 5, 33)]
)
def test_patch_net_gives_two_logits_a_patch(kernels, size, patch):
    net = patch_net(kernels, size, patch)
    assert net(torch.rand(5, 1, patch, patch)).shape == (5, 2)


@settings(max_examples=30, deadline=None)
@given(gain=st.floats(0.5, 500), shift=st.floats(-100, 100))
def test_patch_net_input_is_normalised_in_training(gain, shift):
    net = patch_net().train()
    x = torch.rand(8, 1, 32, 32, dtype=torch.float64)
    changed = gain * x + shift
    with torch.no_grad():
        logits, same = net.double()(x), net.double()(changed)
    # Equal but for the epsilon that is added to the variance.
    torch.testing.assert_close(same, logits, atol=1e-3, rtol=1e-3)


def test_patch_net_tells_patches_apart():
    logits = patch_net()(torch.rand(8, 1, 32, 32))
    assert (logits[0] - logits[1:]).abs().max() > 1e-3


def test_patch_net_normalises_by_what_it_has_seen():
    net = patch_net()
    x = 3 + 2 * torch.rand(16, 1, 32, 32)
    for _ in range(200):
        net(x)
    trained = net(x)
    net.eval()
    torch.testing.assert_close(net(x), trained, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(net(x[:1]), trained[:1], atol=1e-3, rtol=1e-3)


def test_patch_net_uses_both_signs_of_all_kernels():
    # The negative of a kernel, its two CReLU channels exchanged, is the same net.
    net = patch_net(kernels=4).eval()
    x = torch.rand(3, 1, 32, 32)
    logits = net(x)
    with torch.no_grad():
        net.first.weight.neg_()
        second = net.features[1].weight
        second.copy_(second[:, [4, 5, 6, 7, 0, 1, 2, 3]])
    torch.testing.assert_close(net(x), logits)


def test_patch_net_gradient_reaches_every_parameter():
    net = patch_net()
    x, truth = torch.rand(16, 1, 32, 32), torch.arange(16) % 2
    functional.cross_entropy(net(x), truth).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad.abs().max() > 0, name
