"""Focus stacks: depth map, all-in-focus image, source planes and the score of each plane.

Not in the paper. The planes of a stack show the same scene, so that the responses of a filter
compare between them as they are; a pixel is in focus in the plane with the largest response.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from napari_defocus.core.errors import DefocusError
from napari_defocus.core.progress import OnEvent, ShouldStop, ignore_event, never_stop, track
from napari_defocus.core.settings import Allowed, Settings
from napari_defocus.stacks.depth_map import STEP_PLANES, DepthMap, estimate_depth, upsample
from napari_defocus.stacks.flaws import Flaws, lost_planes
from napari_defocus.stacks.focus_measure import (
    StackScale,
    block_means,
    measure_detail,
    measure_scale,
)
from napari_defocus.stacks.fusion import fuse, source_plane
from napari_defocus.stacks.plane_scores import (
    LEAST_BLOCK,
    PlaneScores,
    blocks_of,
    phase_share,
    score_samples,
)
from napari_defocus.stacks.planes import StackLike, StackPlanes, open_stack
from napari_defocus.stacks.registration import register_planes

Float = npt.NDArray[np.float32]

EXTREMA = ("max", "min")
# Detail is averaged over blocks of this side, of many large planes over larger ones, to fit these.
STEP = 2
DETAIL_BYTES = 200 * 2**20
# Planes of a smaller side are not averaged.
LEAST_SIDE = 32
# Side, in pixels, of the blocks in which objects whose focus is a minimum are looked for, and the
# share of the detail that they need for a warning.
PHASE_BLOCK = 32
PHASE_WARNING = 0.5


@dataclass(frozen=True)
class StackConfig(Settings):
    """How a focus stack is analysed; the widget and the command line share these defaults.

    Parameters
    ----------
    extremum : str
        ``max``: what is in focus has most detail. ``min``: it has least, as phase objects in bright
        field, between two planes that have more.
    register : bool
        Whether planes are registered first, by shift, rotation and scale: hand-held stacks drift,
        and lenses breathe. See `register_planes`.
    """

    extremum: str = "max"
    register: bool = False

    _allowed: ClassVar[Allowed] = {"extremum": EXTREMA}


@dataclass(frozen=True, eq=False)
class FocusStack:
    """The result for a focus stack of Z planes.

    Parameters
    ----------
    depth_map : ndarray of float32, (Y, X)
        The plane, with a fraction, in which each pixel is in focus, from 0 to Z - 1.
    confidence : ndarray of float32, (Y, X)
        Of the depth, in [0, 1]: 0 from the surroundings alone, 1 certain.
    fused : ndarray, (Y, X) or (Y, X, S)
        The image that is in focus all over, in the number type of the stack.
    source_plane : ndarray of uint8 or uint16, (Y, X)
        The plane, from 0, of the largest weight at each pixel of `fused`.
    scores : PlaneScores
        Focus scores of the planes over the whole field.
    phase_share : float
        Share of the detail, in [0, 1], that is least between two planes that have more: high where
        the objects change phase, not brightness.
    warnings : tuple of str
        What the user should know, in whole sentences; mostly none.
    transforms : ndarray of float64, (Z, 3, 3), or None
        From (x, y, 1) in the registered image to (x, y, 1) in each plane; None where the planes
        were not registered.
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
    """Compute the depth map of a focus stack, and the image that is in focus all over.

    Parameters
    ----------
    stack : ndarray, array that is read plane by plane (Dask, Zarr), or sequence of planes
        (Z, Y, X), or (Z, Y, X, S) with S = 1 to 4 colours; any real, integer or bool type.
    config : StackConfig, optional
        How.
    axes : str, optional
        A letter for each axis, of Z, Y, X and perhaps S, in any order; ``ZYX`` or ``ZYXS`` where
        not given.
    on_event, should_stop : callable
        Called after each plane of each step, and before each.

    Raises
    ------
    DefocusError
        Where the array is no stack of two planes or more, or a plane cannot be used; the message
        names it.
    Stopped
        Where `should_stop` answered yes.
    """
    config = config or StackConfig()
    planes = open_stack(stack, axes)
    _check(config, len(planes))
    scale = measure_scale(planes, on_event, should_stop)
    flaws = scale.flaws
    planes = replace(planes, flaws=flaws)
    transforms = None
    if config.register:
        transforms = register_planes(planes, on_event=on_event, should_stop=should_stop)
        planes = planes.registered(transforms)
    shape = planes[0].shape[:2]
    step = block_side(len(planes), shape)
    energy, noise = _details(planes, shape, scale, step, on_event, should_stop)
    if config.extremum == "max":
        lost = lost_planes(*_phase_samples(energy, noise, step), flaws)
        flaws = replace(flaws, odd=flaws.odd | lost)
        planes = replace(planes, flaws=flaws)
    flaws.fill(energy)
    scores = _scores(energy, noise, step, config, flaws)
    share = phase_share(*_phase_samples(energy, noise, step))
    depth = estimate_depth(energy, noise, config.extremum, scores.best or 0)
    del energy
    if transforms is not None:
        depth = _within_view(depth, planes, shape, step)
    depth_map = upsample(depth.depth, step, shape, STEP_PLANES)
    return FocusStack(
        depth_map,
        upsample(depth.confidence, step, shape),
        fuse(planes, depth_map, on_event=on_event, should_stop=should_stop),
        _source(depth_map, planes),
        scores,
        share,
        flaws.warnings() + _warnings(config, share, scores),
        transforms,
    )


def _check(config: StackConfig, planes: int) -> None:
    if config.extremum == "min" and planes < 3:
        raise DefocusError("a minimum lies between two planes: give three planes or more")


def block_side(planes: int, shape: tuple[int, ...]) -> int:
    """Return the side, in pixels, of the blocks over which detail is averaged."""
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
    """Compute the detail of all planes, (Z, Y / step, X / step), and the noise's."""
    sides = [-(-size // step) for size in shape]
    energy = np.empty((len(planes), *sides), np.float32)
    noise = np.zeros(sides, np.float32)
    for z in track("measuring detail", len(planes), on_event, should_stop):
        detail, own_noise = measure_detail(planes[z], scale, step)
        energy[z] = detail * planes.in_view(z, shape, step)
        noise += own_noise / np.float32(len(planes))
    return energy, noise


def _within_view(
    depth: DepthMap, planes: StackPlanes, shape: tuple[int, ...], step: int
) -> DepthMap:
    """Move depths whose planes drift took out of view to the nearest plane that shows the place."""
    distance = np.full(depth.depth.shape, np.inf, np.float32)
    nearest = depth.depth.copy()
    inside = np.ones(depth.depth.shape, bool)
    for z in range(len(planes)):
        in_view = planes.in_view(z, shape, step)
        away = np.abs(depth.depth - z)
        inside &= in_view | (away >= 1)
        nearer = in_view & (away < distance)
        nearest[nearer], distance[nearer] = z, away[nearer]
    return DepthMap(
        np.where(inside, depth.depth, nearest), np.where(inside, depth.confidence, np.float32(0))
    )


def _source(depth_map: Float, planes: StackPlanes) -> npt.NDArray[np.unsignedinteger[Any]]:
    """Return the plane at each pixel, those beside odd ones in their place."""
    count = len(planes)
    source = source_plane(depth_map, count)
    shown = [planes.flaws.stand_in(z, count) for z in range(count)]
    return np.asarray(np.array(shown)[source], source.dtype)


def _scores(
    energy: Float, noise: Float, step: int, config: StackConfig, flaws: Flaws
) -> PlaneScores:
    part = max(LEAST_BLOCK // step, 1)
    peak = max(float(block_means(plane, part).max()) for plane in energy)
    blocks, level = blocks_of(energy, step), float(noise.mean())
    return score_samples(blocks, config.extremum, noise=level, peak=peak, left_out=flaws.odd)


def _phase_samples(energy: Float, noise: Float, step: int) -> tuple[npt.NDArray[np.float64], float]:
    """Return the detail in small blocks (Z, N), and what remains of noise in a block."""
    side = max(PHASE_BLOCK // step, 1)
    blocks = np.stack([block_means(plane, side).ravel() for plane in energy])
    return blocks.astype(np.float64), float(noise.mean()) / side


def _warnings(config: StackConfig, share: float, scores: PlaneScores) -> tuple[str, ...]:
    if scores.best is None:
        return (
            "no plane shows detail above the noise, or none more than the others: an empty field, "
            "a closed shutter, or planes that are alike",
        )
    if config.extremum == "min":
        return ()
    if share > PHASE_WARNING:
        return (
            f"{share:.0%} of the detail is least between planes that have more, as phase objects "
            "in bright field look when they are in focus; if that is what these are, ask for the "
            "extremum min",
        )
    if scores.best in (0, len(scores.score) - 1):
        return (
            f"the best plane, {scores.best}, is at the end of the stack; the focus may lie beyond",
        )
    return ()


def apply_focus(
    focus: FocusStack,
    stack: StackLike,
    *,
    axes: str | None = None,
    on_event: OnEvent = ignore_event,
    should_stop: ShouldStop = never_stop,
) -> npt.NDArray[Any]:
    """Fuse another channel of the same field with the depth map of the first.

    Parameters
    ----------
    focus : FocusStack
        The result of `analyse_stack` for one channel.
    stack : array or sequence of planes
        The other channel, of as many planes of the same size; see `analyse_stack`.
    axes, on_event, should_stop
        See `analyse_stack`.

    Returns
    -------
    ndarray, (Y, X) or (Y, X, S)
        In the number type of `stack`.

    Raises
    ------
    DefocusError
        Where the stack does not fit the depth map.
    Stopped
        Where `should_stop` answered yes.
    """
    planes = open_stack(stack, axes).registered(focus.transforms)
    if len(planes) != len(focus.scores.score):
        raise DefocusError(
            f"the focus is of {len(focus.scores.score)} planes, this stack has {len(planes)}; "
            "give a channel of the same stack"
        )
    return fuse(planes, focus.depth_map, on_event=on_event, should_stop=should_stop)
