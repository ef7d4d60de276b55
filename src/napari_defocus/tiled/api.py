"""Detection of one image file, tile by tile, into OME-Zarr or BigTIFF."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

from napari_defocus.core.errors import DefocusError
from napari_defocus.core.progress import OnEvent, ShouldStop, ignore_event, never_stop
from napari_defocus.core.settings import Allowed, Settings
from napari_defocus.dense.plane import MARGIN
from napari_defocus.detection.config import DetectionConfig
from napari_defocus.detection.detectors import (
    Detector,
    DetectorLike,
    choose_detector,
    settle,
)
from napari_defocus.detection.identity import result_identity
from napari_defocus.detection.own_stack import StackDetectors
from napari_defocus.detection.postprocess import Limits
from napari_defocus.io.atomic import partial_path
from napari_defocus.io.base import ImageSource
from napari_defocus.io.maps import SIDE, MapFiles, map_names
from napari_defocus.metric.response import halo
from napari_defocus.tiled.checkpoint import TileStore
from napari_defocus.tiled.executors import Tasks
from napari_defocus.tiled.rounds import TiledJob, detect_in_tiles, tile_step

# Measured peaks: of the program, of a pixel of a tile's window, of the network at work, and of a
# pixel of a plane while what is undecided is filled.
BASE_BYTES = 300e6
BYTES_PER_PIXEL = {"metric": 100.0, "dense": 110.0}
NETWORK_BYTES = 400e6
BYTES_PER_PLANE_PIXEL = 0.13
# Planes that a stack is judged against itself by are read whole.
MOST_COMPARED_PIXELS = 2**26


@dataclass(frozen=True)
class TileConfig(Settings):
    """How an image is cut and written.

    Parameters
    ----------
    side : int
        Of a tile in pixels; raised to the next side that the detector can take.
    format : str
        ``zarr``: OME-Zarr, with coarser levels. ``tif``: BigTIFF.
    maps : tuple of str
        What to write beside ``blur`` and ``mask``: ``confidence``, ``radius``, see `map_names`.
    overwrite : bool
        Whether earlier results may be replaced.
    """

    side: int = SIDE
    format: str = "zarr"
    maps: tuple[str, ...] = ()
    overwrite: bool = False

    _allowed: ClassVar[Allowed] = {"side": (1, 10**6), "format": ("zarr", "tif")}
    _called: ClassVar[dict[str, str]] = {"side": "tile"}


@dataclass(frozen=True)
class TiledRun:
    """What came of a run.

    Parameters
    ----------
    outputs : list of Path
        What was written.
    worked : mapping of str to int
        How many tiles were worked in each round; the others had been finished by an earlier run.
    limits : Limits or None
        The sharpness limit of each plane; by the dense detector alone.
    note : str
        See `Detection`.
    """

    outputs: list[Path]
    worked: dict[str, int] = field(default_factory=dict)
    limits: Limits | None = None
    note: str = ""


def detect_file_in_tiles(
    source: ImageSource,
    out: Path,
    detector: Detector | DetectorLike | str | Path,
    config: DetectionConfig,
    tiling: TileConfig,
    tasks: Tasks,
    *,
    record: Callable[[TiledRun], None] = lambda run: None,
    on_event: OnEvent = ignore_event,
    should_stop: ShouldStop = never_stop,
) -> TiledRun:
    """Detect defocus in an image of any size.

    A run that was stopped or killed leaves ``.partial-NAME`` files and folders and goes on where it
    stopped when it is run again with the same image, detector and settings.

    Parameters
    ----------
    source : ImageSource
        The image.
    out : Path
        Folder and stem of the results, see `MapFiles`.
    detector, config
        See `detect`.
    tiling : TileConfig
        How the image is cut, and what is written.
    tasks : Tasks
        Who works.
    record : callable
        Gets the run when all is whole, before what a killed run goes on from is removed.
    on_event, should_stop : callable
        See `detect_in_tiles`.

    Raises
    ------
    DefocusError
        Where the image cannot be read or judged, or results cannot be written.
    Stopped
        Where it was asked to stop.
    """
    chosen, note = _taught_by_stack(choose_detector(detector, config), source, should_stop)
    config = settle(config, chosen, source.grid.pixel_size_um, source.optics)
    step = tile_step(chosen)
    side = -(-tiling.side // step) * step
    names = map_names(tiling.maps, source.grid)
    # Workers may have another working directory.
    files = MapFiles(out.absolute(), names, source.grid, tiling.format, side)
    store = TileStore(partial_path(files.out))
    identity = {
        **result_identity(source.fingerprint(), chosen, config),
        "axes": source.axes,
        "side": side,
        "format": tiling.format,
        "maps": list(names),
    }
    if not (store.is_of(identity) and _goes_on(store, files)):
        files.check_new(tiling.overwrite)
        store.begin(identity)
        files.create()
        store.put("create", (), {})
    job = TiledJob(source, files.open(), chosen, config, side, store)
    worked = detect_in_tiles(job, tasks, on_event=on_event, should_stop=should_stop)
    store.put("worked", (), {})
    limits = job.limits()
    in_tasks = partial(tasks.run, on_event=on_event, should_stop=should_stop)
    files.finish(in_tasks, note="; ".join(filter(None, (note, str(limits or "")))))
    run = TiledRun(replace(files, out=out).outputs(), worked, limits, note)
    record(run)
    store.remove()
    return run


def _taught_by_stack(
    chosen: Detector, source: ImageSource, should_stop: ShouldStop
) -> tuple[Detector, str]:
    """Return what judges all tiles and, where the stack taught it, a line about that."""
    if not chosen.by_stack:
        return chosen, ""
    size = source.grid.pixel_size_um
    every = StackDetectors(chosen, source.axes, source.leading, source.read, source.name, size)
    stacks = math.prod(source.leading) // source.leading[every.axis]
    if stacks > 1 or math.prod(source.grid.plane_shape) > MOST_COMPARED_PIXELS:
        raise DefocusError(
            f"{source.name}: in tiles, one stack of planes of up to "
            f"{MOST_COMPARED_PIXELS / 1e6:.0f} megapixels can be judged against itself; teach a "
            "profile by a part of it, with fit --from-stack, and give that as detector"
        )
    return every.at((0,) * len(source.leading), should_stop), every.note


def _goes_on(store: TileStore, files: MapFiles) -> bool:
    """Check whether maps of an earlier run are there: until all is worked, all are unfinished."""
    if store.has("worked", ()):
        return all(path.exists() or partial_path(path).exists() for path in files.outputs())
    return store.has("create", ()) and len(files.begun()) == len(files.names)


def fit_memory(
    tiling: TileConfig,
    memory_gib: float,
    source: ImageSource,
    detector: Detector,
    tasks: Tasks,
) -> TileConfig:
    """Make tiles small enough for a bound of memory, all workers of this machine together.

    Raises
    ------
    DefocusError
        Where even the smallest tiles need more.
    """
    step = tile_step(detector)
    at_once, processes = tasks.at_once()
    planes = math.prod(source.leading)
    pixels = min(at_once, planes) * math.prod(source.shape) / planes
    for side in range(tiling.side // step * step or step, 0, -step):
        if memory_needed(side, detector, at_once, processes, pixels) <= memory_gib:
            return replace(tiling, side=side)
    least = memory_needed(step, detector, at_once, processes, pixels)
    raise DefocusError(
        f"memory is {memory_gib} GiB; {at_once} tiles at once need {least:.2f} at least"
    )


def memory_needed(
    side: int,
    detector: Detector,
    at_once: int,
    processes: int = 1,
    pixels: float = 0,
) -> float:
    """Estimate how much memory tiles of `side` pixels take at most, in GiB; measured.

    Parameters
    ----------
    side : int
        Of a tile, in pixels.
    detector : Detector
        What works.
    at_once, processes : int
        Tiles that are worked at once, and the processes that do so.
    pixels : float
        Of the planes that are worked at once.
    """
    network = detector.network is not None
    window = side + 2 * (MARGIN if network else halo(detector.metric))
    per_pixel = BYTES_PER_PIXEL["dense" if network else "metric"]
    tiles = at_once * (window**2 * per_pixel + network * NETWORK_BYTES)
    return (processes * BASE_BYTES + max(tiles, pixels * BYTES_PER_PLANE_PIXEL)) / 2**30
