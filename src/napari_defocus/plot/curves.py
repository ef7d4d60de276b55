"""The focus scores of the planes of a stack as a curve."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from napari_defocus.io.atomic import whole_file
from napari_defocus.stacks.plane_scores import PlaneScores

# Blue and orange are told apart by people who do not see red and green.
CURVE, BEST = (0.0, 0.45, 0.70), (0.90, 0.62, 0.0)


def save_curve(path: Path, curves: Mapping[str, PlaneScores], *, overwrite: bool = True) -> None:
    """Draw the score of each plane, with its error and the best plane, as PNG.

    Parameters
    ----------
    path : Path
        The file to be.
    curves : mapping of str to PlaneScores
        Name and scores of each stack; a single one needs no name.
    overwrite : bool
        Whether an existing `path` may be replaced.

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
        sure = scores.confidence[scores.best]
        label = f"{name} best {scores.best} (confidence {sure:.2f})".strip()
        tint = BEST if len(curves) == 1 else line[0].get_color()
        axes.axvline(scores.position, color=tint, linestyle="--", label=label)
    axes.set_xlabel("plane")
    axes.set_ylabel("detail, share of the most")
    axes.set_ylim(bottom=0)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(loc="best", fontsize="small")
