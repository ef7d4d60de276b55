"""Draw the figures of the first and the method page: ``python docs/figures/draw.py [FOLDER]``."""

import sys
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from napari_defocus import detect, load_metric
from napari_defocus.data.samples import read_sample
from napari_defocus.detection.refinement import RefinementConfig
from napari_defocus.labels.classes import COLOURS
from napari_defocus.metric.local_metric import principal_components
from napari_defocus.plot.overview import save_overview

SHARP_BLUE, SHARP_ORANGE = COLOURS.values()
SHOWN = 12
COMPONENTS = 12
SAMPLES = ("tilted_plane", "photo")
WIDTH = 1000
MARGIN = 8


def draw_overview(path: Path) -> None:
    """Draw two samples with what the default detector makes of them."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in SAMPLES:
            image = read_sample(name).image
            found = detect(image)
            drawn = Path(folder) / f"{name}.png"
            save_overview(drawn, image, found.blur, found.mask)
            row = Image.open(drawn).convert("RGB")
            filled = np.flatnonzero((np.asarray(row) < 255).any(axis=(1, 2)))
            row = row.crop((0, filled[0] - MARGIN, row.width, filled[-1] + MARGIN))
            rows.append(row.resize((WIDTH, round(row.height * WIDTH / row.width)), Image.LANCZOS))
    whole = Image.new("RGB", (WIDTH, sum(row.height for row in rows)))
    for at, row in zip(np.cumsum([0, *(row.height for row in rows)]), rows, strict=False):
        whole.paste(row, (0, int(at)))
    whole.save(path, optimize=True)


def draw_kernels(path: Path) -> None:
    """Draw the two filters, the share of every component, and some of the trained kernels."""
    metric = load_metric()
    figure = Figure((9.6, 4.4), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(2.2, 1))
    left, middle, right = above.subplots(1, 3, width_ratios=(1, 1, 1.6))
    limit = np.abs(metric.filters).max()
    for axes, kernel, name in zip(
        (left, middle), metric.filters, ("K1", "K2: K1 turned by 90°"), strict=True
    ):
        shown = axes.imshow(kernel, cmap="PuOr", vmin=-limit, vmax=limit)
        axes.set_title(name)
        axes.set_axis_off()
    above.colorbar(shown, ax=middle, fraction=0.05)
    shares = principal_components(metric).explained_variance_ratio[:COMPONENTS]
    colours = [SHARP_ORANGE if k < len(metric.filters) else SHARP_BLUE for k in range(len(shares))]
    right.bar(np.arange(1, len(shares) + 1), shares, color=colours)
    right.set_xlabel("component")
    right.set_ylabel("share of the power")
    below.suptitle("some of the kernels, as they act on pixels", fontsize="medium")
    size = metric.size**2
    flat = metric.kernels.reshape(-1, size) @ metric.whitening.T
    chosen = np.argsort(-np.square(flat).sum(axis=1))[:SHOWN]
    for axes, kernel in zip(below.subplots(1, SHOWN), flat[chosen], strict=True):
        axes.imshow(kernel.reshape(metric.filters.shape[1:]), cmap="PuOr")
        axes.set_axis_off()
    figure.savefig(path, dpi=110)


def draw_update(path: Path) -> None:
    """Draw what becomes of a value that survives, by plain tanh and as we take it."""
    values = np.linspace(0, 1, 401)
    config = RefinementConfig()
    figure = Figure((9.6, 3.4), layout="constrained")
    for axes, scale, title in zip(
        figure.subplots(1, 2, sharey=True),
        (1.0, np.tanh(1.0)),
        ("tanh alone, as in the paper", "tanh, divided by tanh(1)"),
        strict=True,
    ):
        grown, mixed = values, np.zeros_like(values)
        for iteration in range(1, max(config.iterations) + 1):
            grown = np.tanh(grown) / scale
            if iteration in config.iterations:
                mixed += config.weights[config.iterations.index(iteration)] * grown
                axes.plot(values, grown, label=f"after {iteration}")
        axes.plot(values, mixed, color="black", label="weighed .3, .2, .5")
        axes.plot(values, values, color="grey", linestyle=":", label="before")
        axes.set_title(title)
        axes.set_xlabel("sharpness before")
    figure.axes[0].set_ylabel("sharpness after")
    figure.axes[1].legend(loc="lower right")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Draw all."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    draw_overview(folder / "overview.png")
    draw_kernels(folder / "kernels.png")
    draw_update(folder / "update.png")


if __name__ == "__main__":
    main()
