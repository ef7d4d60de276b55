"""The patch ConvNet: VGG-like, normalised input, CReLU, one fully connected layer, two classes.

Zeng et al., IEEE TIP 28(5), 2019; the number of layers and channels is not published. This module
imports torch.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

# First-layer kernels start this small: what the random start leaves in them does not fade by
# itself, and would be most of their variance.
START = 0.2


class CReLU(nn.Module):
    """Both signs of a response, rectified (Shang et al., ICML 2016): doubles the channels."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, Y, X) to (N, 2 C, Y, X)."""
        return torch.cat([functional.relu(x), functional.relu(-x)], dim=1)


class WhitenedConv2d(nn.Module):
    """A convolution whose kernels live in whitened space: ``W k`` is what meets the pixels.

    Parameters
    ----------
    kernels : int
        Their number.
    whitening : Tensor, (size^2, size^2)
        The fixed matrix W.
    """

    whitening: Tensor

    def __init__(self, kernels: int, whitening: Tensor) -> None:
        super().__init__()
        self.register_buffer("whitening", whitening)
        scale = START * whitening.shape[0] ** -0.5
        self.weight = nn.Parameter(scale * torch.randn(kernels, whitening.shape[0]))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 1, Y, X) to (N, kernels, Y - size + 1, X - size + 1)."""
        size = round(self.whitening.shape[0] ** 0.5)
        folded = (self.weight @ self.whitening).reshape(-1, 1, size, size)
        return functional.conv2d(x, folded)


class PatchNet(nn.Module):
    """Tell sharp patches from blurred ones.

    Parameters
    ----------
    kernels : int
        Kernels of the first layer, the ones that become the metric.
    whitening : Tensor, (size^2, size^2)
        Of the training windows.
    patch : int
        Side of a patch.
    """

    def __init__(self, kernels: int, whitening: Tensor, patch: int) -> None:
        super().__init__()
        self.normalise = nn.BatchNorm2d(1, affine=False)
        self.first = WhitenedConv2d(kernels, whitening)
        self.features = nn.Sequential(
            CReLU(),
            nn.Conv2d(2 * kernels, 8, 3),
            CReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 16, 3),
            CReLU(),
            nn.Conv2d(32, 16, 3),
            CReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
        )
        with torch.no_grad():
            width = self.features(self.first(torch.zeros(1, 1, patch, patch))).shape[1]
        self.classify = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map patches (N, 1, s, s) to logits (N, 2): blurred, sharp."""
        logits: Tensor = self.classify(self.features(self.first(self.normalise(x))))
        return logits
