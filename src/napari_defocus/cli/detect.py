"""The command `detect`: images of any size in, maps out."""

import argparse
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
import numpy.typing as npt

from napari_defocus.cli._console import (
    Progress,
    interruptible,
    refuse_existing,
    report_error,
    run_each,
)
from napari_defocus.cli._detection_options import add_detection_settings, detection_config
from napari_defocus.cli._options import add_out
from napari_defocus.core.devices import DeviceWarning
from napari_defocus.core.errors import DefocusError
from napari_defocus.core.progress import Stopped
from napari_defocus.detection.api import detect as detect_image
from napari_defocus.detection.config import DetectionConfig
from napari_defocus.detection.identity import result_identity
from napari_defocus.detection.inference import detector_for
from napari_defocus.detection.postprocess import Detection
from napari_defocus.io.axes import check_axes, planes_last
from napari_defocus.io.base import digest, file_identity, location
from napari_defocus.io.manifest import RunRecord
from napari_defocus.io.open import is_zarr, open_source
from napari_defocus.io.raster import find_images, read_image, write_tiff
from napari_defocus.metric.local_metric import LocalMetric, load_metric

if TYPE_CHECKING:
    from napari_defocus.tiled.executors import Tasks

# Files of more pixels, in all planes, are worked tile by tile.
MOST_PIXELS = 2**28


@dataclass(frozen=True)
class Request:
    """What is asked of every input alike.

    Parameters
    ----------
    metric : LocalMetric
        The metric.
    config : DetectionConfig
        How.
    out : Path
        Folder of the results.
    names : tuple of str
        What to write beside blur map and mask: ``confidence``, ``radius``, ``picture``.
    axes : str or None
        Of the inputs, where their files do not say.
    overwrite, resume : bool
        Whether earlier results may be replaced; whether finished ones are left alone.
    """

    metric: LocalMetric
    config: DetectionConfig
    out: Path
    names: tuple[str, ...] = ()
    axes: str | None = None
    overwrite: bool = False
    resume: bool = False

    @cached_property
    def record(self) -> RunRecord:
        """The record of what is in the folder of the results."""
        return RunRecord(self.out)

    def identity(self, fingerprint: str) -> dict[str, Any]:
        """Return all that the results of an input depend on."""
        return self._identity | {"input": fingerprint}

    @cached_property
    def _identity(self) -> dict[str, Any]:
        outputs = ["blur", "mask", *self.names]
        known = result_identity("", self.metric, self.config)
        return {**known, "axes": self.axes, "outputs": outputs}

    def wanted(self, pixel_size_um: float | None) -> list[str]:
        """List the endings of the files that are asked for."""
        names = ["blur", "mask"]
        names += ["confidence"] * ("confidence" in self.names)
        if "radius" in self.names:
            units = ["px", "um"] if pixel_size_um else ["px"]
            names += [f"{name}_{unit}" for unit in units for name in ("radius", "radius_error")]
        return [f"{name}.tif" for name in names] + ["overview.png"] * ("picture" in self.names)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="images, folders of images, OME-Zarr folders, or URLs of OME-Zarr",
    )
    add_out(parser, "folder for STEM.blur.tif and STEM.mask.tif")
    parser.add_argument("--metric", default="default", help="a metric file, or the name of one")
    parser.add_argument("--picture", action="store_true", help="write STEM.overview.png too")
    parser.add_argument("--confidence", action="store_true", help="write STEM.confidence.tif too")
    parser.add_argument(
        "--radius",
        action="store_true",
        help="write the radius of the blur and its error too, STEM.radius_px.tif and "
        "STEM.radius_error_px.tif, and the same in _um where the pixel size is known; "
        "dense detector only",
    )
    parser.add_argument(
        "--axes", help="a letter for each dimension, where the file does not say, such as TCZYX"
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="leave finished results alone unless input, metric or settings changed",
    )
    _add_tiles(parser)
    add_detection_settings(parser)


def _add_tiles(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "large images",
        "Zarr, and files of more than 268 megapixels, are worked in tiles; so is any image where "
        "one of the first three is given. A killed run goes on where it stopped.",
    )
    group.add_argument("--tile", type=int, metavar="N", help="side of a tile, pixels")
    group.add_argument("--memory", type=float, metavar="GIB", help="most memory on this machine")
    group.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="threads, processes, or the address of a Dask scheduler, such as tcp://host:8786",
    )
    group.add_argument(
        "--format",
        choices=("zarr", "tif"),
        help="of the results: OME-Zarr with coarser levels (for Zarr), or BigTIFF (for others)",
    )
    group.add_argument(
        "--missing",
        choices=("error", "fill"),
        default="error",
        help="what a chunk is that a Zarr does not hold: lost, or empty",
    )


def run(options: argparse.Namespace) -> int:
    """Write blur maps and masks of images; go on where one cannot be used."""
    request = _request(options)
    if request.config.detector == "auto" and not find_spec("torch"):
        print("torch is not installed: the local metric detects", file=sys.stderr)
    sources, failed = _sources(options.inputs)
    with _notices_in_a_line(), _tasks(options) as tasks:

        def work(source: str | Path) -> tuple[str, Iterable[Path]]:
            stem = _stem(source)
            return stem, _detect_input(source, stem, request, options, tasks)

        try:
            return run_each(sources, work, failed=failed, noun="images")
        except Stopped:
            print("stopped; the same command goes on where it was", file=sys.stderr)
            raise


@contextmanager
def _notices_in_a_line() -> Iterator[None]:
    """Print what a device tells as users read it, without the line of code that tells it."""
    with warnings.catch_warnings():
        others = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, DeviceWarning):
                print(message, file=sys.stderr)
            else:
                others(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield


def _request(options: argparse.Namespace) -> Request:
    metric = load_metric(options.metric)
    config = detection_config(options)
    if options.radius and detector_for(metric, config) == "metric":
        raise DefocusError("the metric tells no blur radius; give --detector dense beside --radius")
    names = tuple(n for n in ("confidence", "radius", "picture") if getattr(options, n))
    return Request(
        metric, config, options.out, names, options.axes, options.overwrite, options.resume
    )


def _sources(inputs: Sequence[str | Path]) -> tuple[list[str | Path], int]:
    """List the images of the inputs, and count the inputs that have none."""
    sources: dict[str | Path, None] = {}
    failed = 0
    for given in inputs:
        try:
            place = location(given)
            found = [place] if _is_zarr(place) else find_images([Path(place)])
            sources.update(dict.fromkeys(found))
        except DefocusError as error:
            failed += 1
            report_error(error)
    return list(sources), failed


def _is_zarr(place: str | Path) -> bool:
    return isinstance(place, str) or is_zarr(place)


def _stem(source: str | Path) -> str:
    name = source.rstrip("/").rpartition("/")[2] if isinstance(source, str) else source.name
    for ending in (".ome.zarr", ".zarr", ".zarr.zip"):
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return Path(name).stem


@contextmanager
def _tasks(options: argparse.Namespace) -> Iterator["Tasks | None"]:
    """Connect to the scheduler that is asked for, before any work."""
    if options.scheduler is None and options.tile is None and options.memory is None:
        yield None
        return
    from napari_defocus.tiled.executors import tasks_on

    with tasks_on(options.scheduler or "threads") as tasks:
        yield tasks


def _detect_input(
    source: str | Path,
    stem: str,
    request: Request,
    options: argparse.Namespace,
    tasks: "Tasks | None",
) -> Iterator[Path]:
    if tasks is not None or _is_zarr(source) or _is_large(Path(source)):
        yield from _detect_tiled(source, stem, request, options, tasks)
    else:
        yield from detect_file(Path(source), stem, request)


def _is_large(path: Path) -> bool:
    # Compressed files seldom hold more than 8 pixels a byte; smaller ones need not be opened.
    if not path.is_file() or path.stat().st_size < MOST_PIXELS // 8:
        return False
    return int(np.prod(open_source(path).shape, dtype=np.int64)) > MOST_PIXELS


def detect_file(source: Path, stem: str, request: Request) -> list[Path]:
    """Detect defocus in one image file that fits into memory, and write the maps.

    Returns
    -------
    list of Path
        What was written or, where finished results are left alone, is there.
    """
    record = request.record
    identity = request.identity(digest(file_identity(source)))
    if request.resume and (finished := record.finished(stem, identity)):
        return finished

    def replaceable(path: Path) -> bool:
        return request.overwrite or (request.resume and record.mine(path))

    for name in request.wanted(None):
        path = request.out / f"{stem}.{name}"
        refuse_existing(path, replaceable(path))
    image = read_image(source)
    data, axes = _in_order(image.data, request.axes or image.axes)
    wanted = request.wanted(image.pixel_size_um)
    outputs = [request.out / f"{stem}.{name}" for name in wanted]
    for path in outputs:  # those in micrometres are known only now
        refuse_existing(path, replaceable(path))
    detection = detect_image(data, request.metric, request.config, axes=axes)
    for path, name in zip(outputs, wanted, strict=True):
        if name == "overview.png":
            _overview(path, data, detection, replaceable(path))
        else:
            write_tiff(
                path,
                _result(detection, name.removesuffix(".tif"), image.pixel_size_um),
                axes=axes.removesuffix("S"),
                pixel_size_um=image.pixel_size_um,
                overwrite=replaceable(path),
            )
    record.add(stem, identity, outputs)
    return outputs


def _in_order(data: npt.NDArray[Any], axes: str) -> tuple[npt.NDArray[Any], str]:
    """Bring planes and their colours last."""
    standard, order = planes_last(check_axes(axes, data.shape))
    return data.transpose(order), standard


def _result(detection: Detection, name: str, pixel_size_um: float | None) -> npt.NDArray[Any]:
    field, _, unit = name.rpartition("_") if name.endswith(("_px", "_um")) else (name, "", "")
    values: npt.NDArray[Any] = getattr(detection, field)
    return np.asarray(values * np.float32(pixel_size_um)) if unit == "um" else values


def _overview(path: Path, image: npt.NDArray[Any], detection: Detection, overwrite: bool) -> None:
    from napari_defocus.plot.overview import save_overview

    stack = detection.blur.ndim - 2
    middle = tuple(size // 2 for size in detection.blur.shape[:stack])
    save_overview(
        path, image[middle], detection.blur[middle], detection.mask[middle], overwrite=overwrite
    )


def _detect_tiled(
    source: str | Path,
    stem: str,
    request: Request,
    options: argparse.Namespace,
    tasks: "Tasks | None",
) -> list[Path]:
    """Detect defocus in an image of any size, tile by tile."""
    from napari_defocus.tiled.api import (
        SIDE,
        TileConfig,
        detect_file_in_tiles,
        fit_memory,
    )
    from napari_defocus.tiled.executors import tasks_on
    from napari_defocus.tiled.outputs import MapFiles

    # Workers may have another working directory.
    place = source.absolute() if isinstance(source, Path) else source
    image = open_source(place, request.axes, missing=options.missing)
    form = options.format or ("zarr" if _is_zarr(source) else "tif")
    tiling = TileConfig(options.tile or SIDE, form)
    names = [name.removesuffix(".tif") for name in request.wanted(None)]
    if "overview.png" in names:
        names.remove("overview.png")
        print(f"{source}: no overview of an image worked in tiles", file=sys.stderr)
    record = request.record
    identity = request.identity(image.fingerprint())
    identity |= {"tiles": asdict(tiling), "missing": options.missing}
    if request.resume and (finished := record.finished(stem, identity)):
        return finished
    files = MapFiles(request.out / stem, tuple(names), form)
    there = [path for path in files.outputs() if path.exists()]
    replaceable = request.overwrite or (request.resume and all(map(record.mine, there)))
    with interruptible() as should_stop, tasks_on() if tasks is None else nullcontext(tasks) as on:
        if options.memory is not None:
            tiling = fit_memory(tiling, options.memory, image, request.metric, request.config, on)
        run = detect_file_in_tiles(
            image,
            request.out / stem,
            names,
            request.metric,
            request.config,
            tiling,
            on,
            overwrite=replaceable,
            record=partial(record.add, stem, identity),
            on_event=Progress(),
            should_stop=should_stop,
        )
    return run.outputs
