"""Curves: the focus scores of the planes of a stack, and precision against recall."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from napari_defocus.evaluate.report import Report
from napari_defocus.evaluate.scores import BETA2, Curve
from napari_defocus.io.atomic import whole_file
from napari_defocus.labels.classes import BLURRED, COLOURS, SHARP
from napari_defocus.stacks.plane_scores import PlaneScores

# Of more curves the legend would fill the picture.
MOST_NAMED = 10
# Letters of a name that a legend beside a graph has no room for.
LONG_NAME = 32
CURVE, BEST = COLOURS[BLURRED], COLOURS[SHARP]


def save_curve(path: Path, curves: Mapping[str, PlaneScores], *, overwrite: bool = True) -> None:
    """Draw the score of each plane, with its error and the best plane, as PNG.

    `curves` are the scores of each stack by its name; a single one needs no name.

    Raises
    ------
    DefocusError
        Where `path` cannot be written.
    """
    # A figure of its own, not pyplot's: no window, no state shared with the caller's plots.
    from matplotlib.figure import Figure

    figure = Figure((7.0, 4.2), layout="constrained")
    draw_curve(figure.subplots(), curves)
    with whole_file(path, overwrite) as temporary:
        figure.savefig(temporary, dpi=120)


def draw_curve(axes: Any, curves: Mapping[str, PlaneScores]) -> None:
    """Draw scores of planes into matplotlib axes; see `save_curve`."""
    for name, scores in curves.items():
        planes = np.arange(len(scores.score))
        colour = CURVE if len(curves) == 1 else None
        line = axes.errorbar(
            planes, scores.score, scores.error, color=colour, marker="o", capsize=3, label=name
        )
        if scores.best is None:
            continue
        label = f"{name} best {scores.best} (confidence {scores.sure:.2f})".strip()
        tint = BEST if len(curves) == 1 else line[0].get_color()
        axes.axvline(scores.position, color=tint, linestyle="--", label=label)
    axes.set_xlabel("plane")
    axes.set_ylabel("detail, share of the most")
    axes.set_ylim(bottom=0)
    axes.xaxis.get_major_locator().set_params(integer=True)
    if any(axes.get_legend_handles_labels()) and len(curves) <= MOST_NAMED:
        axes.legend(loc="best", fontsize="small")


def write_report(path: Path, report: Report, *, overwrite: bool = True) -> None:
    """Write a report: a name in .png the mean precision-recall curves, others as `Report.write`.

    The curves are those of the sharp region, with that of the all-sharp map as a dot.
    """
    if path.suffix.lower() != ".png":
        report.write(path, overwrite=overwrite)
        return
    curves = {name: scores.sharp for name, scores in report.methods.items()}
    curves.setdefault("all sharp", report.trivial["all sharp"].sharp)
    save_precision_recall(path, curves, overwrite=overwrite)


def save_precision_recall(
    path: Path, curves: Mapping[str, Curve], *, overwrite: bool = True
) -> None:
    """Draw precision against recall, all curves on one graph, over lines of equal F, as PNG.

    `curves` are named for their methods; the legend shows them by falling Fmax. A dot marks the
    highest F of each. Thresholds that nothing reaches are not drawn.

    Raises
    ------
    DefocusError
        Where `path` cannot be written.
    """
    from matplotlib.figure import Figure

    # Long names stand below, where they do not narrow the graph.
    below = max(map(len, curves), default=0) > LONG_NAME
    height = 5 + 0.22 * len(curves) * below
    figure = Figure(figsize=(7, height), dpi=150, layout="constrained")
    axes = figure.add_subplot(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    for f in np.arange(0.2, 1, 0.1):
        # F = (1 + b) p r / (b p + r), solved for p, from the recall on where p is 1
        recall = np.geomspace(f * BETA2 / (1 + BETA2 - f), 1)
        precision = f * recall / ((1 + BETA2) * recall - BETA2 * f)
        axes.plot(recall, precision, color="0.88", linewidth=0.8, zorder=0)
        axes.text(1, precision[-1], f" {f:.1f}", color="0.6", fontsize="small", va="center")
    ranked = sorted(curves.items(), key=lambda item: -item[1].f_max)
    for place, (name, curve) in enumerate(ranked):
        drawn = curve.recall > 0
        (line,) = axes.plot(
            curve.recall[drawn],
            curve.precision[drawn],
            linestyle=("-", "--", ":")[place // 10 % 3],  # the colours come round after ten
            label=f"{curve.f_max:.3f}  {name}".replace("$", r"\$"),
        )
        best = curve.recall[curve.f.argmax()], curve.precision[curve.f.argmax()]
        axes.plot(*best, "o", color=line.get_color(), clip_on=False)
    figure.legend(
        title="Fmax", loc="outside lower center" if below else "outside right upper", frameon=False
    )
    with whole_file(path, overwrite) as temporary:
        figure.savefig(temporary, format="png")
