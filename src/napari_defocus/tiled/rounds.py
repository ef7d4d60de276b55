"""Detection of images larger than memory: tile by tile, with the same result as in one piece.

Three rounds over the tiles, since a threshold can only be set when all of a plane was seen:
`predict` applies metric or network, `refine` sharpens the map, `finish` cuts the mask. What a round
leaves for the next lies in a folder beside the results, so that a run that was killed goes on
where it stopped, and so that tiles may be worked by any process of any machine that sees the
folder.
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, fields, replace
from functools import partial, reduce
from itertools import product
from operator import add
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_defocus.core.errors import DefocusError, NoDetailError, about
from napari_defocus.core.progress import OnEvent, ShouldStop, ignore_event, never_stop
from napari_defocus.core.tiling import Region, Tile, plan_tiles, widen, within
from napari_defocus.detection import refinement
from napari_defocus.detection import threshold as masking
from napari_defocus.detection.config import DetectionConfig, check_config
from napari_defocus.detection.detectors import Detector
from napari_defocus.detection.fill import CELL, Surroundings, at_pixels, cells_around
from napari_defocus.detection.inference import predict_region, region_step, undecided
from napari_defocus.detection.postprocess import (
    LOG_ODDS_RANGE,
    Limits,
    RefinedStatistics,
    ScoreStatistics,
    confidence_of,
    fill,
    initial_sharpness,
    refined_blur,
)
from napari_defocus.detection.threshold import count_sharpness, cut_mask, mask_threshold
from napari_defocus.filters.histogram import Histogram
from napari_defocus.filters.noise import PlaneStatistics, measure
from napari_defocus.io.axes import plane_name
from napari_defocus.io.base import ImageSource
from napari_defocus.io.maps import MapWriter
from napari_defocus.profile.limit import EdgeRadii
from napari_defocus.tiled.checkpoint import TileKey, TileStore
from napari_defocus.tiled.executors import Tasks

Float = npt.NDArray[np.float32]
Plane = tuple[int, ...]

MAPS = ("blur", "mask", "confidence", "radius", "radius_error")
# Larger spots would need tiles with too wide a margin.
MOST_SMALLEST = 1000


@dataclass(frozen=True, eq=False)
class TiledJob:
    """All that a task needs; small when pickled.

    `maps` are where results are written, by the names of `MAPS`; the `side` of a tile is a multiple
    of `tile_step`.
    """

    source: ImageSource
    maps: dict[str, MapWriter]
    detector: Detector
    config: DetectionConfig
    side: int
    store: TileStore

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of a plane."""
        return self.source.grid.plane_shape

    @property
    def filled(self) -> bool:
        """Whether undecided pixels take the sharpness around them, see `ScoreStatistics`."""
        return self.detector.network is None

    def tiles(self) -> list[Tile]:
        """List the tiles of a plane."""
        return plan_tiles(self.shape, self.side)

    def tiles_at(self, window: Region) -> list[Tile]:
        """List the tiles that a window of a plane touches; among many, quickly."""
        rows, columns = (
            [
                (i, slice(i * self.side, min((i + 1) * self.side, size)))
                for i in range(part.start // self.side, -(-part.stop // self.side))
            ]
            for part, size in zip(window, self.shape, strict=True)
        )
        return [Tile(i, j, (down, across)) for (i, down), (j, across) in product(rows, columns)]

    def keys(self) -> list[TileKey]:
        """List the tiles of all planes."""
        planes = np.ndindex(self.source.leading)
        return [TileKey(plane, tile) for plane, tile in product(planes, self.tiles())]

    def limits(self) -> Limits | None:
        """Return the limits of the planes, when all tiles were compared; None by the metric."""
        planes = [_scores(self, "scores", p) for p in np.ndindex(self.source.leading)]
        used = [
            (scores.limit(self.config), scores.edges.sharpest, scores.near_limit(self.config))
            for scores in planes
            if scores.edges is not None
        ]
        if not used:
            return None
        parts = np.array(used, float).T
        return Limits(*(part.reshape(self.source.leading) for part in parts))


def tile_step(detector: Detector) -> int:
    """Return what the side of a tile is a multiple of, in pixels."""
    return int(np.lcm(CELL, region_step(detector)))


def detect_in_tiles(
    job: TiledJob,
    tasks: Tasks,
    *,
    on_event: OnEvent = ignore_event,
    should_stop: ShouldStop = never_stop,
) -> dict[str, int]:
    """Detect tile by tile, but for what an earlier run finished; count the tiles of each round.

    `on_event` and `should_stop` are called after each tile; DefocusError names the plane at fault.
    """
    check_config(job.config)
    if job.config.mask.smallest > MOST_SMALLEST:
        raise DefocusError(
            f"smallest is {job.config.mask.smallest}; in tiles it can be {MOST_SMALLEST} at most"
        )
    worked: dict[str, int] = {}
    planes, tiles = list(np.ndindex(job.source.leading)), job.keys()
    by_mean = _needs_mean(job.config)
    rounds: list[tuple[str, str, Any, Sequence[Any]]] = [
        ("measure", "measuring planes", _measure, planes),
        ("predict", "predicting tiles", _predict, tiles),
        ("scores", "comparing tiles", _add_scores, planes),
        ("sum", "averaging tiles", _sum, tiles if by_mean else []),
        ("mean", "averaging planes", _mean, planes if by_mean else []),
        ("refine", "refining tiles", _refine, tiles),
        ("spread", "looking around what is undecided", _spread, planes),
        ("finish", "cutting masks", _finish, tiles),
    ]
    for name, stage, work, keys in rounds:
        left = [key for key in keys if not job.store.has(name, key)]
        worked[name] = len(left)
        tasks.run(
            partial(work, job),
            left,
            stage,
            done=len(keys) - len(left),
            on_event=on_event,
            should_stop=should_stop,
        )
    return worked


def _naming(job: TiledJob, plane: Plane) -> AbstractContextManager[None]:
    """Name image and plane in an error that does not name them yet."""
    return about(", ".join(filter(None, [job.source.name, plane_name(job.source.axes, plane)])))


def _measure(job: TiledJob, plane: Plane) -> None:
    with _naming(job, plane):
        try:
            statistics = measure(
                partial(job.source.read, plane),
                job.shape,
                job.source.block,
                colours=job.detector.network is not None,
            )
        except NoDetailError:
            if math.prod(job.source.leading) == 1:
                raise
            statistics = PlaneStatistics((0.0, 0.0), (0.0, 0.0))
    job.store.put("measure", plane, {n: np.array(v) for n, v in asdict(statistics).items()})


def _predict(job: TiledJob, key: TileKey) -> None:
    plane, region = key.plane, key.tile.region
    names = [part.name for part in fields(PlaneStatistics)]
    *pairs, contrast = job.store.get("measure", plane, *names)
    limits, noise, colours = ((float(a), float(b)) for a, b in pairs)
    statistics = PlaneStatistics(limits, noise, colours, contrast.item())
    with _naming(job, plane):
        read = partial(job.source.read, plane)
        try:
            found = predict_region(
                read,
                region,
                job.shape,
                statistics,
                job.detector,
                job.config,
                radius="radius" in job.maps or "radius_error" in job.maps,
            )
        except NoDetailError:
            if math.prod(job.source.leading) == 1:
                raise
            size = [part.stop - part.start for part in region]
            found = undecided(size, job.detector, job.config)
    for name in ("radius", "radius_error"):
        if name in job.maps:
            job.maps[name].write(plane, *region, getattr(found, name))
    arrays = {"score": found.score, "valid": found.valid}
    job.store.put("predict", key, arrays | _as_arrays(ScoreStatistics.of(found)))


def _add_scores(job: TiledJob, plane: Plane) -> None:
    parts = [_scores(job, "predict", TileKey(plane, tile)) for tile in job.tiles()]
    job.store.put("scores", plane, _as_arrays(reduce(add, parts)))


def _as_arrays(scores: ScoreStatistics) -> dict[str, npt.NDArray[Any]]:
    ends = np.array([scores.low, scores.high, scores.valid.total])
    arrays = {"counts": scores.valid.counts, "ends": ends}
    return arrays if scores.edges is None else arrays | {"edges": scores.edges.counts}


def _scores(job: TiledJob, name: str, key: Any) -> ScoreStatistics:
    by_network = job.detector.network is not None
    counts, ends, *edges = job.store.get(name, key, "counts", "ends", *["edges"] * by_network)
    low, high, total = map(float, ends)
    found = EdgeRadii(edges[0]) if edges else None
    return ScoreStatistics(Histogram(counts, *LOG_ODDS_RANGE, total), low, high, found)


def _start(job: TiledJob, plane: Plane, window: Region) -> Float:
    """Return the map before refinement."""
    score = job.store.window("predict", plane, job.tiles_at(window), "score", window)
    calibrated = job.config.scale == "calibrated" or job.detector.network is not None
    return initial_sharpness(score, _scores(job, "scores", plane), job.config, calibrated)


def _needs_mean(config: DetectionConfig) -> bool:
    return config.refine and config.refinement.threshold is None


def _sum(job: TiledJob, key: TileKey) -> None:
    start = _start(job, key.plane, key.tile.region)
    job.store.put("sum", key, {"sum": np.array([start.sum(dtype=np.float64)])})


def _mean(job: TiledJob, plane: Plane) -> None:
    sums = [job.store.get("sum", TileKey(plane, tile), "sum")[0][0] for tile in job.tiles()]
    job.store.put("mean", plane, {"mean": np.array([np.sum(sums) / math.prod(job.shape)])})


def _refine(job: TiledJob, key: TileKey) -> None:
    plane, region = key.plane, key.tile.region
    config = job.config
    if _needs_mean(config):
        mean = float(job.store.get("mean", plane, "mean")[0][0])
        config = replace(config, refinement=replace(config.refinement, threshold=mean))
    margin = refinement.halo(config.refinement) if config.refine else 0
    window = widen(region, margin, job.shape)
    blur = refined_blur(_start(job, plane, window), config)[within(region, window)]
    valid = job.store.get("predict", key, "valid")[0]
    refined = RefinedStatistics.of(blur, valid, filled=job.filled)
    job.maps["blur"].write(plane, *region, blur)
    arrays = {
        "counts": refined.sharpness.counts,
        "total": np.array([refined.sharpness.total]),
    }
    if refined.surroundings is not None:
        sums = refined.surroundings
        arrays |= {"sharpness": sums.sharpness, "valid": sums.valid}
    job.store.put("refine", key, arrays)


def _spread(job: TiledJob, plane: Plane) -> None:
    surroundings = Surroundings.empty(job.shape)
    sharpness = count_sharpness(np.empty(0, np.float32))
    for tile in job.tiles():
        key = TileKey(plane, tile)
        counts, total = job.store.get("refine", key, "counts", "total")
        sharpness += replace(sharpness, counts=counts, total=float(total[0]))
        if job.filled:
            sums, valid = job.store.get("refine", key, "sharpness", "valid")
            rows, columns = tile.region
            shape = (rows.stop - rows.start, columns.stop - columns.start)
            surroundings.put(Surroundings(sums, valid, shape), tile.region)
    arrays = {"threshold": np.array([mask_threshold(sharpness, job.config.mask)])}
    if job.filled:
        arrays["cells"] = surroundings.spread()
    job.store.put("spread", plane, arrays)


def _finish(job: TiledJob, key: TileKey) -> None:
    plane, region = key.plane, key.tile.region
    smallest = job.config.mask.smallest
    window = widen(region, masking.halo(job.config.mask), job.shape, CELL)
    # Tiles beside this one may be filled already: what is filled is filled again alike.
    blur = job.maps["blur"].read(plane, *window)
    valid = job.store.window("predict", plane, job.tiles_at(window), "valid", window)
    if job.filled and not valid.all():
        cells = cells_around(window, [-(-size // CELL) for size in job.shape])
        values = job.store.part("spread", plane, "cells", cells)
        blur = fill(blur, valid, at_pixels(values, window, cells))
    threshold = float(job.store.get("spread", plane, "threshold")[0][0])
    mask = cut_mask(np.float32(1) - blur, ~valid, threshold, smallest)
    inside = within(region, window)
    if job.filled and not valid[inside].all():
        job.maps["blur"].write(plane, *region, blur[inside])
    job.maps["mask"].write(plane, *region, mask[inside])
    if "confidence" in job.maps:
        start, by_network = _start(job, plane, region), job.detector.network is not None
        confidence = confidence_of(start, valid[inside], by_network=by_network)
        job.maps["confidence"].write(plane, *region, confidence)
    job.store.put("finish", key, {})
