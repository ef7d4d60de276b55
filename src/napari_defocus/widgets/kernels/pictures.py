"""Pictures of a metric: its kernels, their principal components, and what each explains."""

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from napari_defocus.labels.classes import BLURRED, COLOURS, SHARP
from napari_defocus.metric.local_metric import LocalMetric, principal_components

SHOWN_COMPONENTS = 8
SHOWN_RATIOS = 16
MOST_KERNELS = 128

Float = npt.NDArray[np.float32]


def paint_metric(figure: Figure, metric: LocalMetric) -> None:
    """Draw the kernels of a metric, their components and what each explains."""
    pca = principal_components(metric)
    count = len(metric.filters)
    kernels, components, ratios = figure.subplots(3, 1, height_ratios=(4, 1.6, 2.4))
    instant = metric.record.get("method") == "instant"
    whitened = "kernels" if metric.literal else "kernels, in whitened space"
    what = "filters of the fit" if instant else whitened
    shown = metric.kernels[:MOST_KERNELS]
    of = f" of {len(metric.kernels)}" if len(metric.kernels) > len(shown) else ""
    kernels.set_title(f"{len(shown)}{of} {what}", loc="left")
    _paint_tiles(kernels, shown, int(np.ceil(np.sqrt(len(shown)))))
    kernels.set_axis_off()
    first = pca.components[:SHOWN_COMPONENTS]
    components.set_title("components", loc="left")
    _paint_tiles(components, first, SHOWN_COMPONENTS)
    _label_tiles(components, len(first), metric.size, count)
    share = "eigenvalues" if instant else "variance" if metric.literal else "kernels' power"
    _paint_ratios(ratios, pca.explained_variance_ratio, count, share)


def _paint_tiles(axes: Axes, pictures: Float, columns: int) -> None:
    """Draw pictures side by side, each with its own contrast around 0."""
    largest = np.abs(pictures).max(axis=(1, 2), keepdims=True)
    scaled = pictures / np.maximum(largest, np.finfo(np.float32).tiny)
    rows = -(-len(pictures) // columns)
    side = pictures.shape[-1]
    tiles = np.full((rows * columns, side + 1, side + 1), np.nan, np.float32)
    tiles[: len(pictures), :side, :side] = scaled
    mosaic = tiles.reshape(rows, columns, side + 1, side + 1).swapaxes(1, 2)
    mosaic = mosaic.reshape(rows * (side + 1), columns * (side + 1))[:-1, :-1]
    axes.imshow(mosaic, cmap="gray", vmin=-1, vmax=1, interpolation="nearest")


def _label_tiles(axes: Axes, shown: int, side: int, count: int) -> None:
    """Write K1, K2, ... below the tiles, those that the metric takes in colour."""
    names = [f"K{index + 1}" for index in range(shown)]
    axes.set_xticks(np.arange(shown) * (side + 1) + (side - 1) / 2, names)
    axes.set_yticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_facecolor("none")
    for label in axes.get_xticklabels()[:count]:
        label.set(color=COLOURS[SHARP], fontweight="bold")


def _paint_ratios(axes: Axes, ratio: Float, count: int, share: str) -> None:
    shown = ratio[:SHOWN_RATIOS]
    at = np.arange(1, len(shown) + 1)
    colours = [COLOURS[SHARP if index <= count else BLURRED] for index in at]
    axes.set_title(f"share of the {share}: {ratio[:count].sum():.0%} by K1-K{count}", loc="left")
    axes.bar(at, shown, color=colours)
    axes.plot(at, np.cumsum(shown), color="gray", marker=".", markersize=4, linewidth=1)
    axes.set_ylim(0, 1)
    axes.set_xticks(at[::2] if len(at) > SHOWN_COMPONENTS else at)
    axes.set_xlabel("component; line: cumulative")
