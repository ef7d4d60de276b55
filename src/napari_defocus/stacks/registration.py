"""Registration of the planes of a stack: drift, rotation and breathing.

Neighbouring planes are blurred alike, and blur by a round disc moves nothing: windows of both are
matched by phase correlation, and a similarity is fitted to the shifts that agree (RANSAC). The
similarities are chained from plane to plane.
"""

from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_defocus.core.errors import DefocusError
from napari_defocus.core.progress import OnEvent, ShouldStop, ignore_event, never_stop, track
from napari_defocus.filters.luminance import fill_holes, grey_and_holes
from napari_defocus.stacks.planes import StackPlanes

Float = npt.NDArray[np.float32]
Matrix = npt.NDArray[np.float64]

# Sides, in pixels, of the reduced planes that are matched in turn, and of the windows matched.
SIDES = (384, 768, 1536)
WINDOW = 96
# Windows across and down.
GRID = 8
# What windows are compared by: detail between these standard deviations, in pixels.
BAND = (1.5, 8.0)
UPSAMPLING = 20
# Shifts that a similarity explains up to so many pixels agree with it.
AGREEING = 0.75
# So many windows, and this share of them, must agree.
LEAST_WINDOWS = 6
LEAST_SHARE = 0.4
TRIALS = 500


def register_planes(
    planes: StackPlanes,
    *,
    on_event: OnEvent = ignore_event,
    should_stop: ShouldStop = never_stop,
) -> Matrix:
    """Compute where the pixels of one plane, the reference, lie in each plane.

    The reference is the plane of whose field the others show most: where a lens breathes, that
    with the smallest field. Of several such it is the middle one.

    Parameters
    ----------
    planes : StackPlanes
        Z planes.
    on_event, should_stop : callable
        Called after each plane, and before each.

    Returns
    -------
    ndarray of float64, (Z, 3, 3)
        Similarities from (x, y, 1) in the reference to (x, y, 1) in each plane; that of the
        reference is the identity.

    Raises
    ------
    DefocusError
        Where two neighbouring planes have too little in common.
    Stopped
        Where `should_stop` answered yes.
    """
    steps: list[Matrix] = []
    before: Float | None = None
    for z in track("registering planes", len(planes), on_event, should_stop):
        grey = _grey(planes[z])
        if before is not None:
            steps.append(_match(before, grey, z))
        before = grey
    # From the first plane to each.
    chained = np.stack([*accumulate(steps, lambda to, step: step @ to, initial=np.eye(3))])
    return chained @ np.linalg.inv(chained[_reference(chained, grey.shape)])


def _grey(plane: npt.NDArray[Any]) -> Float:
    grey, holes = grey_and_holes(plane)
    return np.asarray(fill_holes(np.where(holes, 0, grey), holes), np.float32)


def _reference(chained: Matrix, shape: tuple[int, ...]) -> int:
    """Return the plane of whose field the others show most."""
    y, x = np.mgrid[0 : shape[0] - 1 : 33j, 0 : shape[1] - 1 : 33j]
    grid = np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    seen = []
    for own in np.linalg.inv(chained):
        there = chained @ own @ grid
        inside = (there[:, 0] >= -0.5) & (there[:, 0] <= shape[1] - 0.5)
        inside &= (there[:, 1] >= -0.5) & (there[:, 1] <= shape[0] - 0.5)
        seen.append(inside.sum())
    best = np.flatnonzero(np.array(seen) == max(seen))
    return int(min(best, key=lambda z: abs(z - len(seen) // 2)))


def _match(first: Float, second: Float, z: int) -> Matrix:
    """Return the similarity from (x, y, 1) in one plane to the next, from coarse to fine."""
    matrix: Matrix | None = None
    for side in SIDES:
        factor = max(max(first.shape) / side, 1.0)
        small, other = (_reduced(plane, factor) for plane in (first, second))
        scale = _scaling(first.shape, small.shape)
        start = scale @ (np.eye(3) if matrix is None else matrix) @ np.linalg.inv(scale)
        found = _refined(small, other, start)
        if found is None:
            # What is blurred in both planes can be matched at the coarser scales only.
            break
        matrix = np.linalg.inv(scale) @ found @ scale
        if factor == 1:
            break
    if matrix is None:
        raise DefocusError(
            f"planes {z - 1} and {z} have too little in common to be registered; "
            "check that they show one field, or leave registration out"
        )
    return matrix


def _reduced(plane: Float, factor: float) -> Float:
    if factor == 1:
        return plane
    smooth = ndimage.gaussian_filter(plane, 0.4 * factor)
    return np.asarray(ndimage.zoom(smooth, 1 / factor, order=1, grid_mode=True, mode="nearest"))


def _scaling(full: tuple[int, ...], small: tuple[int, ...]) -> Matrix:
    """Map (x, y, 1) of the full plane, whose pixels have their centres at integers, to a small."""
    y, x = (part / whole for part, whole in zip(small, full, strict=True))
    return np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1.0]])


def _refined(first: Float, second: Float, start: Matrix) -> Matrix | None:
    """Correct the map `start` between two planes by the shifts of windows, where they agree."""
    from skimage.measure import ransac
    from skimage.transform import SimilarityTransform, warp

    fine, coarse = BAND
    moved = warp(second, SimilarityTransform(matrix=start), order=1, mode="edge")
    inside = warp(np.ones_like(second), SimilarityTransform(matrix=start), order=0) > 0
    bands = [
        ndimage.gaussian_filter(plane, fine) - ndimage.gaussian_filter(plane, coarse)
        for plane in (first, np.asarray(moved, np.float32))
    ]
    pairs = list(_window_shifts(bands[0], bands[1], inside))
    least = max(LEAST_WINDOWS, LEAST_SHARE * len(pairs))
    if len(pairs) < least:
        return None
    here = np.array([centre for centre, _ in pairs])
    there = here + np.array([shift for _, shift in pairs])
    model, agreeing = ransac(
        (here, there),
        SimilarityTransform,
        min_samples=2,
        residual_threshold=AGREEING,
        max_trials=TRIALS,
        rng=0,
    )
    if model is None or agreeing is None or agreeing.sum() < least:
        return None
    return np.asarray(start @ model.params, np.float64)


def _window_shifts(
    first: Float, second: Float, inside: npt.NDArray[np.bool_]
) -> Iterator[tuple[tuple[float, float], tuple[float, float]]]:
    """Yield the centre (x, y) of each window with detail, and its shift."""
    from skimage.registration import phase_cross_correlation

    rows, columns = first.shape
    side = min(WINDOW, rows, columns)
    taper = np.outer(np.hanning(side), np.hanning(side)).astype(np.float32)
    least = 0.05 * float(np.square(first).mean())
    for top in np.unique(np.linspace(0, rows - side, GRID).astype(int)):
        for left in np.unique(np.linspace(0, columns - side, GRID).astype(int)):
            where = slice(top, top + side), slice(left, left + side)
            a, b = first[where], second[where]
            if not inside[where].all() or min(np.square(a).mean(), np.square(b).mean()) <= least:
                continue
            shift = phase_cross_correlation(
                b * taper, a * taper, upsample_factor=UPSAMPLING, normalization=None
            )[0]
            if np.abs(shift).max() < side / 4:
                centre = (side - 1) / 2
                yield (left + centre, top + centre), (float(shift[1]), float(shift[0]))
