"""Time series: a focus score of each frame, and which frames are out of focus.

The score does not depend on a frame's brightness: it is the log of the mean squared spatial
frequency of its detail, as that of an object (see `focus_scores`). A frame is out of focus where it
is further below the median of the series than frames in focus scatter, by their scores above the
median, which no blurred frame can widen (modified z-scores: B. Iglewicz, D. Hoaglin, "How to detect
and handle outliers", 1993).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_defocus.core.errors import DefocusError
from napari_defocus.core.progress import OnEvent, ShouldStop, ignore_event, never_stop, track
from napari_defocus.filters.noise import NORMAL
from napari_defocus.io.axes import guess_stack_axes
from napari_defocus.io.base import ImageSource, array_source
from napari_defocus.measure.regions import focus_scores

Values = npt.NDArray[np.float64]

# Scatters below the median from which on a frame is out of focus.
OUTLYING = 3.5
# A smaller drop of the log score is never reported.
LEAST_DROP = 0.15
# Blocks across and down, whose scatter gives the error of a score.
BLOCKS = 4
LEAST_FRAMES = 3


@dataclass(frozen=True, eq=False)
class FrameScores:
    """Focus scores of T frames.

    Parameters
    ----------
    score : ndarray of float64, (T,)
        Log of the mean squared spatial frequency of the detail, per squared pixel; nan where a
        frame has nothing above its noise.
    error : ndarray of float64, (T,)
        Standard error of it, by the scatter of the blocks of a frame.
    out_of_focus : ndarray of bool, (T,)
        Frames further below the series than its scatter and their error explain, and those without
        a score.
    """

    score: Values
    error: Values
    out_of_focus: npt.NDArray[np.bool_]


def score_frames(
    series: npt.NDArray[Any] | ImageSource,
    *,
    axes: str | None = None,
    on_event: OnEvent = ignore_event,
    should_stop: ShouldStop = never_stop,
) -> FrameScores:
    """Flag the frames of a time series that are out of focus.

    Parameters
    ----------
    series : array that is read plane by plane, or ImageSource
        (T, Y, X), or (T, Y, X, S) with colours.
    axes : str, optional
        A letter for each axis, of T, Y, X and perhaps S, in any order.
    on_event, should_stop : callable
        Called after each frame, and before each.

    Raises
    ------
    DefocusError
        Where there are fewer than three frames, or one cannot be used.
    Stopped
        Where `should_stop` answered yes.
    """
    source = series
    if not isinstance(source, ImageSource):
        given = axes or guess_stack_axes("T", tuple(source.shape))
        source = array_source(source, given, name="the series")
    if source.axes.removesuffix("S") != "TYX" or source.leading[0] < LEAST_FRAMES:
        raise DefocusError(
            f"{source.name} has axes {source.axes} of {source.shape}; give {LEAST_FRAMES} frames "
            "or more along T, and no other axes but Y, X and S"
        )
    frames = track("scoring frames", source.leading[0], on_event, should_stop)
    score, error = np.array([_score(source.read((t,))) for t in frames]).T
    return FrameScores(score, error, flag(score, error))


def flag(score: Values, error: Values) -> npt.NDArray[np.bool_]:
    """Return the frames (T,) whose score is below the series beyond scatter and error."""
    known = np.isfinite(score)
    if not known.any():
        return ~known
    median = np.median(score[known])
    above = score[known & (score >= median)] - median
    scatter = NORMAL * float(np.median(above))
    drop = np.maximum(OUTLYING * np.hypot(scatter, error), LEAST_DROP)
    return np.asarray(~known | (median - score > drop))


def _score(frame: npt.NDArray[Any]) -> tuple[float, float]:
    """Return the log score of a frame, and its error by the scatter of its blocks."""
    # The block of each pixel.
    rows, columns = (np.arange(size) * BLOCKS // size for size in frame.shape[:2])
    blocks = 1 + rows[:, np.newaxis] * BLOCKS + columns
    whole = focus_scores(frame, np.ones(frame.shape[:2], np.uint8))[0]
    parts = focus_scores(frame, blocks)
    parts = np.log(parts[parts > 0])
    if not whole > 0 or not parts.size:
        return np.nan, np.nan
    error = parts.std(ddof=1) / np.sqrt(parts.size) if parts.size > 1 else 0.0
    return float(np.log(whole)), float(error)
