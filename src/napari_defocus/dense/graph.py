"""The dense network as an ONNX graph, built from its weights without torch.

The same network as `dense.network.DenseNet`, by which it is trained: a test compares the two.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_defocus.core.errors import DefocusError
from napari_defocus.core.onnx import Graph

Weights = Mapping[str, npt.NDArray[Any]]
Array = npt.NDArray[Any]

# EfficientNet-Lite0: repeats, kernel, stride of the first, expansion, channels out.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM = 32
# Stage and block of the largest tensor, 100 MB a megapixel.
WIDEST = (1, 0)
ALL = slice(None)
# The stages whose ends feed the pyramid, and their channels; strides 2, 4, 8, 16 and 32.
TAPS = {0: 16, 1: 24, 2: 40, 4: 112, 6: 320}
# Scales at which the metric answers: 1, 1/2, 1/4.
METRIC_SCALES = 3
# Responses below this share of the image's contrast count as equally nothing.
LEAST = 1e-2
# Channels of the pyramid, finest level first.
WIDTHS = (32, 64, 64, 64, 64)
# Side of the square that responses are averaged over.
POOLED = 5


def dense_graph(weights: Weights, *, features: bool = False) -> bytes:
    """Build the graph.

    Parameters
    ----------
    weights : mapping of str to ndarray
        The network's parameters by name.
    features : bool
        Whether the graph has the input of its last layer as a second output.

    Returns
    -------
    bytes
        An ONNX model from ``image``, (1, 3, Y, X) standardised, Y and X multiples of 32, to
        ``predicted``, (1, 3, Y, X): log odds, log radius and its log error, and ``features``,
        (1, 32, Y / 2, X / 2).

    Raises
    ------
    DefocusError
        Where the weights do not fit the network.
    """
    builder = _Builder({name: np.asarray(value, np.float32) for name, value in weights.items()})
    return builder.build(features)


class _Builder:
    """Layers of the network by the names of its weights; each takes and returns a tensor's name."""

    def __init__(self, weights: dict[str, Array]) -> None:
        self.weights = weights
        self.used: set[str] = set()
        self.graph = Graph()

    def build(self, features: bool) -> bytes:
        """Build the model."""
        graph = self.graph
        image = graph.input("image", (1, 3, "rows", "columns"))
        x = self.pyramid(self.backbone(image), self.response(image), features)
        self.enlarge(self.conv("judge", x, WIDTHS[0], 3), 2, name="predicted")
        graph.output("predicted", (1, 3, "rows", "columns"))
        if features:
            graph.output("features", (1, WIDTHS[0], "half_rows", "half_columns"))
        if set(self.weights) - self.used:
            raise _misfit()
        return graph.model()

    def backbone(self, x: str) -> list[str]:
        """Return what the stages in `TAPS` give, finest first."""
        x = self.relu6(self.conv("backbone.stem", x, 3, STEM, 3, stride=2))
        channels, taps = STEM, []
        for stage, (repeats, side, stride, expansion, outer) in enumerate(STAGES):
            for block in range(repeats):
                first = stride if block == 0 else 1
                parts = 2 if (stage, block) == WIDEST else 1
                name = f"backbone.stages.{stage}.{block}"
                y = self.inverted(name, x, (channels, expansion, outer), side, first, parts)
                x = self.graph.node("Add", [x, y]) if channels == outer and first == 1 else y
                channels = outer
            if stage in TAPS:
                taps.append(x)
        return taps

    def inverted(
        self, name: str, x: str, widths: tuple[int, int, int], side: int, stride: int, parts: int
    ) -> str:
        """Expand the channels, convolve each, and project them: part by part takes less memory."""
        inner, expansion, outer = widths
        wide, y = inner * expansion, ""
        for part in range(parts):
            own = slice(part * wide // parts, (part + 1) * wide // parts)
            z = x
            if expansion > 1:
                z = self.relu6(self.conv(f"{name}.expand", x, inner, wide, rows=own))
            z = self.relu6(self.depthwise(f"{name}.depthwise", z, wide, side, stride, own))
            z = self.conv(f"{name}.project", z, wide, outer, columns=own)
            y = self.graph.node("Add", [y, z]) if y else z
        return y

    def response(self, image: str) -> str:
        """Return the metric's pooled response and the contrast at three scales, at half the size.

        At full size the four pixels of a 2 x 2 block lie side by side as channels: runtimes work on
        eight channels at once, and most would be empty.
        """
        graph = self.graph
        slopes = self.take("response.gradient", (2, 1, 3, 3))
        luminance = graph.tensor(self.take("response.luminance", (1, 3, 1, 1)))
        grey = graph.node("Mul", [image, luminance])
        grey = graph.node("ReduceSum", [grey, graph.tensor([1])], keepdims=1)
        bank, groups = _bank(self.filters(), slopes)
        levels = [self.log_amplitude_in_blocks(grey, bank, groups)]
        for scale in range(1, METRIC_SCALES):
            grey = self.mean_pool(grey, 2, 2)
            level = self.log_amplitude(grey, bank, groups)
            levels.append(level if scale == 1 else self.enlarge(level, 2 ** (scale - 1)))
        return graph.node("Concat", levels, axis=1)

    def log_amplitude(self, grey: str, bank: Array, groups: Array) -> str:
        """Return the logarithm of the pooled root of the summed squares of groups of filters."""
        graph = self.graph
        root = self.amplitude(grey, bank, groups, 1)
        pooled = graph.node("Add", [self.mean_pool(root, POOLED, 1), graph.tensor(LEAST)])
        return self.log(pooled)

    def log_amplitude_in_blocks(self, grey: str, bank: Array, groups: Array) -> str:
        """Return the mean of `log_amplitude` over blocks of 2 x 2 pixels."""
        graph, count = self.graph, len(groups)
        root = self.amplitude(grey, _in_blocks(bank), np.kron(groups, np.eye(4)), 2)
        box = np.kron(np.eye(count)[:, :, np.newaxis, np.newaxis], _box_in_blocks(POOLED))
        parts = [root, graph.tensor(box), graph.tensor(np.full(4 * count, LEAST))]
        logarithms = self.log(graph.node("Conv", parts, pads=[1, 1, 1, 1]))
        mean = np.kron(np.eye(count), np.full((1, 4), 0.25))
        return graph.node("Conv", [logarithms, graph.tensor(_pointwise(mean))])

    def log(self, x: str) -> str:
        """Return the logarithm of each element, whatever threads share them out.

        ONNX Runtime's ``Log`` rounds those at the ends of a thread's share another way.
        """
        column = self.graph.node("Unsqueeze", [x, self.graph.tensor([4])])
        return self.graph.node("ReduceLogSum", [column], axes=[4], keepdims=0)

    def amplitude(self, grey: str, bank: Array, groups: Array, step: int) -> str:
        """Return the root of the summed squares of groups of filters, at every `step`-th pixel."""
        graph = self.graph
        half = (bank.shape[-1] - step + 1) // 2
        padded = graph.node("Pad", [grey, graph.tensor([0, 0, half, half] * 2)], mode="edge")
        answers = graph.node("Conv", [padded, graph.tensor(bank)], strides=[step, step])
        squares = graph.node("Mul", [answers, answers])
        tiny = graph.tensor(np.full(len(groups), 1e-12))
        return graph.node(
            "Sqrt", [graph.node("Conv", [squares, graph.tensor(_pointwise(groups)), tiny])]
        )

    def pyramid(self, taps: list[str], response: str, features: bool) -> str:
        """Join the levels, coarsest first, to the input of the last layer."""
        graph = self.graph
        bands = 2 * METRIC_SCALES
        metric = {
            0: self.conv("metric.0", response, bands, WIDTHS[0]),
            1: self.conv("metric.1", self.mean_pool(response, 2, 2), bands, WIDTHS[1]),
        }
        x = ""
        for index, channels in reversed(list(enumerate(TAPS.values()))):
            width = WIDTHS[index]
            level = self.conv(f"lateral.{index}", taps[index], channels, width)
            if index in metric:
                level = graph.node("Add", [level, metric[index]])
            if x:
                coarse = self.conv("narrow", x, WIDTHS[1], WIDTHS[0]) if index == 0 else x
                level = graph.node("Add", [level, self.enlarge(coarse, 2)])
            x = self.refine(f"refine.{index}", level, width, features and index == 0)
        return x

    def refine(self, name: str, x: str, width: int, features: bool) -> str:
        """Mix a pixel with its surroundings, then channels with each other, and add it."""
        y = self.graph.node("Relu", [self.depthwise(f"{name}.around", x, width, 5, 1)])
        y = self.graph.node("Relu", [self.conv(f"{name}.mix", y, width, width)])
        return self.graph.node("Add", [x, y], name="features" if features else None)

    def depthwise(
        self, name: str, x: str, channels: int, side: int, stride: int, rows: slice = ALL
    ) -> str:
        """Convolve each channel by itself."""
        groups = len(range(channels)[rows])
        return self.conv(name, x, 1, channels, side, stride=stride, groups=groups, rows=rows)

    def conv(
        self,
        name: str,
        x: str,
        inner: int,
        outer: int,
        side: int = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        rows: slice = ALL,
        columns: slice = ALL,
    ) -> str:
        """Convolve, padded as TensorFlow pads images of even size.

        By `rows` of the kernel's channels alone, or by `columns`, of which the first have the bias.
        """
        kernel = self.take(f"{name}.weight", (outer, inner, side, side))[rows, columns]
        bias = self.take(f"{name}.bias", (outer,))[rows]
        before = (side - stride) // 2
        after = side - stride - before
        return self.graph.node(
            "Conv",
            [x, self.graph.tensor(kernel)] + ([] if columns.start else [self.graph.tensor(bias)]),
            strides=[stride, stride],
            pads=[before, before, after, after],
            group=groups,
        )

    def relu6(self, x: str) -> str:
        """Clip to 0 and 6."""
        return self.graph.node("Clip", [x, self.graph.tensor(0.0), self.graph.tensor(6.0)])

    def mean_pool(self, x: str, side: int, stride: int) -> str:
        """Average over squares, zeros around."""
        margin = side // 2 if stride == 1 else 0
        return self.graph.node(
            "AveragePool",
            [x],
            kernel_shape=[side, side],
            strides=[stride, stride],
            pads=[margin] * 4,
            count_include_pad=1,
        )

    def enlarge(self, x: str, factor: int, name: str | None = None) -> str:
        """Interpolate linearly between the centres of pixels."""
        scales = self.graph.tensor([1.0, 1.0, factor, factor])
        return self.graph.node(
            "Resize",
            [x, "", scales],
            name=name,
            mode="linear",
            coordinate_transformation_mode="half_pixel",
        )

    def filters(self) -> Array:
        """Return the metric's filters, of whichever number and odd side they are."""
        name = "response.filters"
        shape = self.weights[name].shape if name in self.weights else ()
        if len(shape) != 4 or shape[0] < 1 or shape[2] < 3 or shape[2] % 2 == 0:
            raise _misfit()
        return self.take(name, (shape[0], 1, shape[2], shape[2]))

    def take(self, name: str, shape: tuple[int, ...]) -> Array:
        """Return a parameter, which must have this shape."""
        found = self.weights.get(name)
        if found is None or found.shape != shape:
            raise _misfit()
        self.used.add(name)
        return found


def _misfit() -> DefocusError:
    return DefocusError("the dense detector's weights do not fit its network; get or make it anew")


def _bank(filters: Array, slopes: Array) -> tuple[Array, Array]:
    """Return filters and slopes, of one side, and which of two sums their squares belong to."""
    count, margin = len(filters), (filters.shape[-1] - 3) // 2
    around = ((0, 0), (0, 0), (margin, margin), (margin, margin))
    groups = np.zeros((2, count + 2))
    groups[0, :count] = groups[1, count:] = 1
    return np.concatenate([filters, np.pad(slopes, around)]), groups


def _in_blocks(bank: Array) -> Array:
    """Return filters whose answers, at a stride of 2, are those of the four pixels of a block."""
    shifts = [(y, x) for y in (0, 1) for x in (0, 1)]
    moved = [np.pad(bank, ((0, 0), (0, 0), (y, 1 - y), (x, 1 - x))) for y, x in shifts]
    return np.stack(moved, axis=1).reshape(-1, 1, *moved[0].shape[2:])


def _box_in_blocks(side: int) -> Array:
    """Return the mean over a square as a 3 x 3 convolution of blocks, 4 channels to 4."""
    box, half = np.zeros((4, 4, 3, 3)), side // 2
    for to in range(4):
        for y in range(to // 2 - half, to // 2 + half + 1):
            for x in range(to % 2 - half, to % 2 + half + 1):
                box[to, 2 * (y % 2) + x % 2, y // 2 + 1, x // 2 + 1] = 1 / side**2
    return box


def _pointwise(matrix: Array) -> Array:
    return matrix[:, :, np.newaxis, np.newaxis]
