"""Focus stacks: altitude map, all-in-focus image, provenance and the score of each plane.

Not in the paper. The planes of a stack show the same scene, so that the answers of a filter compare
between them as they are; where a plane answers most, it is in focus.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_defocus.core.errors import DefocusError
from napari_defocus.core.progress import (
    Event,
    OnEvent,
    ShouldStop,
    Stopped,
    ignore_event,
    never_stop,
)
from napari_defocus.filters.noise import PlaneStatistics, measure_plane
from napari_defocus.stacks.depth_map import STEP_PLANES, DepthMap, enlarge, estimate_depth
from napari_defocus.stacks.focus_measure import (
    StackScale,
    block_means,
    common_scale,
    measure_detail,
)
from napari_defocus.stacks.fusion import fuse, source_plane
from napari_defocus.stacks.plane_scores import PlaneScores, phase_share, score_planes
from napari_defocus.stacks.planes import StackLike, StackPlanes, check_same, open_stack
from napari_defocus.stacks.registration import register_planes

Float = npt.NDArray[np.float32]

EXTREMA = ("max", "min")
# Detail is kept at every second pixel, of many large planes at fewer, so that it fits into this.
STEP = 2
DETAIL_BYTES = 200 * 2**20
# Planes of a smaller side are kept whole.
LEAST_SIDE = 32
# Side, in pixels, of the blocks that tell objects whose focus is a minimum, and what share of the
# detail such must have for a warning.
PHASE_BLOCK = 32
PHASE_WARNING = 0.5


@dataclass(frozen=True)
class StackConfig:
    """How a focus stack is analysed; the widget and the command line share these defaults.

    Parameters
    ----------
    extremum : str
        ``max``: what is in focus has most detail. ``min``: it has least, as phase objects in bright
        field, between two planes that have more.
    register : bool
        Whether planes are brought to one another first, by shift, turn and scale: hand-held stacks
        drift, and lenses breathe. See `register_planes`.
    """

    extremum: str = "max"
    register: bool = False


@dataclass(frozen=True, eq=False)
class FocusStack:
    """What was found in a focus stack of Z planes.

    Parameters
    ----------
    depth_map : ndarray of float32, (Y, X)
        Where each pixel is in focus, in planes from 0 to Z - 1, with fractions.
    confidence : ndarray of float32, (Y, X)
        Of the altitude, in [0, 1]: 0 taken from surroundings wholly, 1 certain.
    fused : ndarray, (Y, X) or (Y, X, S)
        The image that is in focus all over, in the number type of the stack.
    source_plane : ndarray of uint8 or uint16, (Y, X)
        The plane, from 0, that gave most of each pixel of `fused`.
    scores : PlaneScores
        How much each plane is in focus over the whole field.
    phase_share : float
        Share of the detail, in [0, 1], that is least between two planes that have more: high where
        the objects change phase, not brightness.
    warnings : tuple of str
        What the user should know, in whole sentences; mostly none.
    transforms : ndarray of float64, (Z, 3, 3), or None
        From (x, y, 1) in the registered image to (x, y, 1) in each plane; None where the planes
        were taken as they are.
    """

    depth_map: Float
    confidence: Float
    fused: npt.NDArray[Any]
    source_plane: npt.NDArray[np.unsignedinteger[Any]]
    scores: PlaneScores
    phase_share: float
    warnings: tuple[str, ...] = ()
    transforms: npt.NDArray[np.float64] | None = None


def analyse_stack(
    stack: StackLike,
    config: StackConfig | None = None,
    *,
    axes: str | None = None,
    on_event: OnEvent = ignore_event,
    should_stop: ShouldStop = never_stop,
) -> FocusStack:
    """Find where each pixel of a focus stack is in focus, and fuse what is.

    Parameters
    ----------
    stack : ndarray, array that is read plane by plane (Dask, Zarr), or sequence of planes
        (Z, Y, X), or (Z, Y, X, S) with S = 1 to 4 colours; any real, integer or bool type.
    config : StackConfig, optional
        How.
    axes : str, optional
        A letter for each axis, of Z, Y, X and perhaps S, in any order; ``ZYX`` or ``ZYXS`` where
        not given.
    on_event : callable
        Told after each plane of each step.
    should_stop : callable
        Asked before each plane of each step.

    Returns
    -------
    FocusStack

    Raises
    ------
    DefocusError
        Where the array is no stack of two planes or more, or a plane cannot be used; the message
        names it.
    Stopped
        Where it was asked to stop.
    """
    config = config or StackConfig()
    planes = open_stack(stack, axes)
    _check(config, len(planes))
    scale = measure_stack(planes, on_event=on_event, should_stop=should_stop)
    transforms = None
    if config.register:
        transforms = register_planes(planes, on_event=on_event, should_stop=should_stop)
        planes = planes.registered(transforms)
    shape = planes[0].shape[:2]
    step = sampling(len(planes), shape)
    energy, noise = _details(planes, shape, scale, step, on_event, should_stop)
    scores = score_planes(energy, config.extremum)
    share = _phase_share(energy, noise, step)
    found = estimate_depth(energy, noise, config.extremum, scores.best)
    del energy
    if transforms is not None:
        found = _within_view(found, planes, shape, step)
    depth_map = enlarge(found.depth_map, step, shape, STEP_PLANES)
    confidence = enlarge(found.confidence, step, shape)
    fused = fuse(planes, depth_map, on_event=on_event, should_stop=should_stop)
    return FocusStack(
        depth_map,
        confidence,
        fused,
        source_plane(depth_map, len(planes)),
        scores,
        share,
        _warnings(config, share, scores),
        transforms,
    )


def _check(config: StackConfig, planes: int) -> None:
    if config.extremum not in EXTREMA:
        raise DefocusError(f"extremum is {config.extremum!r}; choose one of {', '.join(EXTREMA)}")
    if config.extremum == "min" and planes < 3:
        raise DefocusError("a minimum lies between two planes: give three planes or more")


def measure_stack(
    planes: StackPlanes,
    *,
    on_event: OnEvent = ignore_event,
    should_stop: ShouldStop = never_stop,
) -> StackScale:
    """Read every plane once: see that all are alike, and what they are measured by.

    Raises
    ------
    DefocusError
        Naming the plane that cannot be used.
    Stopped
        Where it was asked to stop.
    """
    statistics: list[PlaneStatistics] = []
    first = None
    for z in range(len(planes)):
        if should_stop():
            raise Stopped
        plane = planes[z]
        first = plane if first is None else first
        check_same(z, plane, first)
        try:
            statistics.append(measure_plane(plane))
        except DefocusError as error:
            raise DefocusError(f"plane {z}: {error}") from error
        on_event(Event("reading planes", z + 1, len(planes)))
    return common_scale(statistics)


def sampling(planes: int, shape: tuple[int, ...]) -> int:
    """Give at every which pixel detail is kept."""
    if min(shape) < LEAST_SIDE:
        return 1
    step = STEP
    while planes * shape[0] * shape[1] * 4 / step**2 > DETAIL_BYTES:
        step += 1
    return step


def _details(
    planes: StackPlanes,
    shape: tuple[int, ...],
    scale: StackScale,
    step: int,
    on_event: OnEvent,
    should_stop: ShouldStop,
) -> tuple[Float, Float]:
    """Measure all planes: detail (Z, Y / step, X / step), and what noise has of it, (Y, X)."""
    energy: Float | None = None
    noise: Float | None = None
    for z in range(len(planes)):
        if should_stop():
            raise Stopped
        detail = measure_detail(planes[z], scale, step)
        if energy is None or noise is None:
            energy = np.empty((len(planes), *detail.energy.shape), np.float32)
            noise = np.zeros_like(detail.noise)
        energy[z] = detail.energy * planes.seen(z, shape, step)
        noise += detail.noise / np.float32(len(planes))
        on_event(Event("measuring detail", z + 1, len(planes)))
    assert energy is not None
    assert noise is not None
    return energy, noise


def _within_view(
    found: DepthMap, planes: StackPlanes, shape: tuple[int, ...], step: int
) -> DepthMap:
    """Bring altitudes to the nearest plane that shows the place, where drift hid it."""
    depth_map = found.depth_map
    distance = np.full(depth_map.shape, np.inf, np.float32)
    nearest = depth_map.copy()
    inside = np.ones(depth_map.shape, bool)
    for z in range(len(planes)):
        seen = planes.seen(z, shape, step)
        away = np.abs(depth_map - z)
        inside &= seen | (away >= 1)
        nearer = seen & (away < distance)
        nearest[nearer], distance[nearer] = z, away[nearer]
    return DepthMap(
        np.where(inside, depth_map, nearest), np.where(inside, found.confidence, np.float32(0))
    )


def _phase_share(energy: Float, noise: Float, step: int) -> float:
    side = max(PHASE_BLOCK // step, 1)
    blocks = np.stack([block_means(plane, side).ravel() for plane in energy])
    return phase_share(blocks.astype(np.float64), float(noise.mean()) / side)


def _warnings(config: StackConfig, share: float, scores: PlaneScores) -> tuple[str, ...]:
    found = []
    if config.extremum == "max" and share > PHASE_WARNING:
        found.append(
            f"{share:.0%} of the detail is least between planes that have more, as phase objects "
            "in bright field look when they are in focus; if that is what these are, ask for the "
            "extremum min"
        )
    elif config.extremum == "max" and scores.best in (0, len(scores.score) - 1):
        found.append(
            f"the best plane, {scores.best}, is at the end of the stack; the focus may lie beyond"
        )
    return tuple(found)


def apply_focus(
    focus: FocusStack,
    stack: StackLike,
    *,
    axes: str | None = None,
    on_event: OnEvent = ignore_event,
    should_stop: ShouldStop = never_stop,
) -> npt.NDArray[Any]:
    """Fuse another channel of the same field by the altitude found in the first.

    Parameters
    ----------
    focus : FocusStack
        What `analyse_stack` found in one channel.
    stack : array or sequence of planes
        The other channel, of as many planes of the same size; see `analyse_stack`.
    axes : str, optional
        See `analyse_stack`.
    on_event, should_stop : callable
        See `analyse_stack`.

    Returns
    -------
    ndarray, (Y, X) or (Y, X, S)
        In the number type of `stack`.

    Raises
    ------
    DefocusError
        Where the stack does not fit the altitude.
    Stopped
        Where it was asked to stop.
    """
    planes = open_stack(stack, axes).registered(focus.transforms)
    if len(planes) != len(focus.scores.score):
        raise DefocusError(
            f"the focus is of {len(focus.scores.score)} planes, this stack has {len(planes)}; "
            "give a channel of the same stack"
        )
    return fuse(planes, focus.depth_map, on_event=on_event, should_stop=should_stop)
