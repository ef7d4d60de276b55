"""Detection of one image file, tile by tile, into OME-Zarr or BigTIFF."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from napari_defocus import __version__
from napari_defocus.detection_config import DetectionConfig
from napari_defocus.errors import DefocusError, check_range
from napari_defocus.events import OnEvent, ShouldStop, ignore_event, never_stop
from napari_defocus.judging import detector_for
from napari_defocus.metric import LocalMetric
from napari_defocus.sharpness import halo
from napari_defocus.sources import ImageSource
from napari_defocus.tasks import Tasks
from napari_defocus.tile_store import TileStore
from napari_defocus.tiled_detection import TiledJob, detect_in_tiles, tile_step
from napari_defocus.tiled_maps import MapFiles

SIDE = 2048
# Measured peaks: of the program, of a pixel of a tile's window, and of the network at work.
BASE_BYTES = 300e6
BYTES_PER_PIXEL = {"metric": 80.0, "dense": 100.0}
NETWORK_BYTES = 900e6


@dataclass(frozen=True)
class TileConfig:
    """How an image is cut and written.

    Parameters
    ----------
    side : int
        Of a tile in pixels; raised to the next side that the detector can take.
    format : str
        ``zarr``: OME-Zarr, with coarser levels. ``tif``: BigTIFF.
    """

    side: int = SIDE
    format: str = "zarr"


@dataclass(frozen=True)
class TiledRun:
    """What came of a run.

    Parameters
    ----------
    outputs : list of Path
        What was written.
    worked : mapping of str to int
        How many tiles were worked in each round; the others had been finished by an earlier run.
    """

    outputs: list[Path]
    worked: dict[str, int] = field(default_factory=dict)


def detect_file_in_tiles(
    source: ImageSource,
    out: Path,
    names: Sequence[str],
    metric: LocalMetric,
    config: DetectionConfig,
    tiling: TileConfig,
    tasks: Tasks,
    *,
    overwrite: bool = False,
    on_event: OnEvent = ignore_event,
    should_stop: ShouldStop = never_stop,
) -> TiledRun:
    """Detect defocus in an image of any size.

    A run that was stopped or killed leaves ``.NAME.partial`` folders and goes on where it stopped
    when it is run again with the same image, metric and settings.

    Parameters
    ----------
    source : ImageSource
        The image.
    out : Path
        Folder and stem of the results, see `MapFiles`.
    names : sequence of str
        What to write: ``blur`` and ``mask``, and any of ``confidence``, ``radius_px``,
        ``radius_error_px``.
    metric, config
        See `detect`.
    tiling : TileConfig
        How the image is cut and written.
    tasks : Tasks
        Who works.
    overwrite : bool
        Whether earlier results may be replaced.
    on_event, should_stop : callable
        See `detect_in_tiles`.

    Raises
    ------
    DefocusError
        Where the image cannot be read or judged, or results cannot be written.
    Stopped
        Where it was asked to stop.
    """
    check_range("tile", tiling.side, 1)
    step = tile_step(metric, config)
    side = -(-tiling.side // step) * step
    files = MapFiles(out, tuple(names), tiling.format)
    store = TileStore(out.with_name(f".{out.name}.partial"))
    identity = {
        "version": __version__,
        "input": source.fingerprint(),
        "axes": source.axes,
        "metric": metric.digest,
        "detector": detector_for(metric, config),
        "config": asdict(config),
        "side": side,
        "format": tiling.format,
        "maps": list(names),
    }
    if not (store.is_of(identity) and store.has("create", ())):
        files.check_new(overwrite)
        store.begin(identity)
        files.create(source, side)
        store.put("create", (), {})
    job = TiledJob(source, files.open(), metric, config, side, store)
    worked = detect_in_tiles(job, tasks, on_event=on_event, should_stop=should_stop)
    files.finish(tasks, on_event, should_stop)
    store.remove()
    return TiledRun(files.outputs(), worked)


def fit_memory(
    tiling: TileConfig,
    memory_gib: float,
    metric: LocalMetric,
    config: DetectionConfig,
    tasks: Tasks,
) -> TileConfig:
    """Make tiles small enough for a bound of memory, all workers of this machine together.

    Raises
    ------
    DefocusError
        Where even the smallest tiles need more.
    """
    step = tile_step(metric, config)
    for side in range(tiling.side // step * step or step, 0, -step):
        if memory_needed(side, metric, config, tasks.workers) <= memory_gib:
            return replace(tiling, side=side)
    least = memory_needed(step, metric, config, tasks.workers)
    raise DefocusError(
        f"memory is {memory_gib} GiB; {tasks.workers} workers need {least:.1f} at least"
    )


def memory_needed(side: int, metric: LocalMetric, config: DetectionConfig, workers: int) -> float:
    """Estimate how much memory tiles of `side` pixels take at most, in GiB; measured."""
    detector = detector_for(metric, config)
    window = side + 2 * halo(metric)
    per_pixel = BYTES_PER_PIXEL["metric" if detector == "metric" else "dense"]
    network = 0 if detector == "metric" else NETWORK_BYTES
    return (BASE_BYTES + workers * (window**2 * per_pixel + network)) / 2**30
