"""The command `detect`: images of any size in, maps out."""

import argparse
import math
import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from napari_defocus.cli._console import (
    Progress,
    interruptible,
    list_inputs,
    refuse_existing,
    run_each,
)
from napari_defocus.cli._detection_options import add_detection_settings, detection_config
from napari_defocus.cli._options import (
    Given,
    add_out,
    add_series,
    config_from,
    each_series,
)
from napari_defocus.core.devices import inference_device
from napari_defocus.core.errors import ABOVE_0, DefocusError, check_range, explained, notice
from napari_defocus.core.progress import Stopped
from napari_defocus.detection.api import detect as detect_image
from napari_defocus.detection.config import DetectionConfig
from napari_defocus.detection.detectors import (
    Detector,
    choose_detector,
    objective_note,
    scale_note,
)
from napari_defocus.detection.identity import result_identity
from napari_defocus.detection.postprocess import Limits
from napari_defocus.io.axes import check_letters
from napari_defocus.io.base import ImageSource, digest, file_identity, location
from napari_defocus.io.folder import find_images
from napari_defocus.io.manifest import RunRecord
from napari_defocus.io.maps import SIDE, MapFiles, map_names
from napari_defocus.io.open import is_zarr, open_source
from napari_defocus.tiled.executors import Tasks, tasks_on

# Files of more pixels, in all planes, are worked tile by tile.
MOST_PIXELS = 2**28


@dataclass(frozen=True)
class Request:
    """What is requested for every input alike.

    `names` are what to write beside blur map and mask: ``confidence``, ``radius``, ``picture``.
    """

    detector: Detector
    config: DetectionConfig
    out: Path
    names: tuple[str, ...] = ()
    axes: str | None = None
    overwrite: bool = False
    resume: bool = False
    tile: int | None = None
    memory: float | None = None
    format: str | None = None
    missing: str = "fill"

    @property
    def maps(self) -> tuple[str, ...]:
        """What to write beside blur map and mask that is a map."""
        return tuple(name for name in self.names if name != "picture")

    @cached_property
    def record(self) -> RunRecord:
        """The record of what is in the folder of the results."""
        return RunRecord(self.out)

    def identity(self, fingerprint: str) -> dict[str, Any]:
        """Return all that the results of an input depend on."""
        return self._identity | {"input": fingerprint}

    def may_replace(self, path: Path) -> bool:
        """Check whether an output that exists may be replaced."""
        return self.overwrite or (self.resume and self.record.mine(path))

    @cached_property
    def _identity(self) -> dict[str, Any]:
        outputs = ["blur", "mask", *self.names]
        known = result_identity("", self.detector, self.config)
        return {**known, "axes": self.axes, "outputs": outputs}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="images, OME-Zarr, folders of either, or URLs of OME-Zarr",
    )
    add_out(parser, "folder for STEM.blur.tif and STEM.mask.tif")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="leave finished results alone unless input, metric or settings changed",
    )
    add_output_options(parser)


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of what is written for each image, and how."""
    parser.add_argument("--metric", default="default", help="a metric's name, or a detector's file")
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
        "--axes",
        help="a letter for each dimension as stored, where the file does not say, such as TCZYX",
    )
    add_series(parser)
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
        default="fill",
        help="what a chunk is that a Zarr does not hold: lost (error), or empty (fill)",
    )


def run(options: argparse.Namespace) -> int:
    """Write blur maps and masks of images; go on where one cannot be used."""
    request = request_from(options)
    if request.config.detector == "auto" and not find_spec("onnxruntime"):
        print("onnxruntime is not installed: the local metric detects", file=sys.stderr)
    sources, failed = list_inputs(options.inputs, lambda place: _images(place, options.series))
    if len(sources) > 1:  # else it is said with the name of the image
        inference_device(request.config.device, dense=request.detector.network is not None)
    in_tiles = {options.scheduler, request.tile, request.memory} != {None}
    # Connected to before any work.
    connected = tasks_on(options.scheduler or "threads") if in_tiles else nullcontext()
    with connected as tasks:

        def work(image: Given) -> tuple[str, Iterable[Path]]:
            stem = stem_of(image.place) + image.ending
            return stem, detect_input(image, stem, request, tasks)

        try:
            return run_each(sources, work, failed=failed, noun="images")
        except Stopped:
            print("stopped; the same command goes on where it was", file=sys.stderr)
            raise


def request_from(options: argparse.Namespace, **given: Any) -> Request:
    """Return what the options, and `given`, request."""
    if options.tile is not None:
        check_range("tile", options.tile, 1, 10**6)
    if options.memory is not None:
        check_range("memory", options.memory, ABOVE_0)
    check_letters(options.axes or "YX")
    config = detection_config(options)
    detector = choose_detector(options.metric, config)
    if options.radius and detector.network is None:
        raise DefocusError("the metric tells no blur radius; give --detector dense beside --radius")
    _tell_unused(config, detector)
    config = detection_config(options, literal=detector.literal)
    names = tuple(n for n in ("confidence", "radius", "picture") if getattr(options, n))
    request: Request = config_from(
        options, Request, detector=detector, config=config, names=names, **given
    )
    return request


def _tell_unused(config: DetectionConfig, detector: Detector) -> None:
    """Tell which settings were given that do not count with the detector."""
    default, network = DetectionConfig(), detector.network is not None
    settings = ("scale", "adapt", "reach", "caution", "gain") if network else ("limit",)
    unused = [name for name in settings if getattr(config, name) != getattr(default, name)]
    if unused:
        kind = "local metric, not of the network" if network else "dense detector, not of a metric"
        notice(f"{', '.join(f'--{name}' for name in unused)}: of the {kind}; left out")


def _images(given: str | Path, series: int | str | None) -> Iterator[Given]:
    """Yield the images that an input stands for."""
    place = location(given)
    for image in [place] if isinstance(place, str) else find_images([place]):
        yield from each_series(image, series)


def stem_of(source: str | Path) -> str:
    """Return what the results of an image are named."""
    name = source.rstrip("/").rpartition("/")[2] if isinstance(source, str) else source.name
    for ending in (".ome.zarr", ".zarr", ".zarr.zip"):
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return Path(name).stem


def _open(given: Given, request: Request, *, absolute: bool = False) -> ImageSource:
    place = given.place
    if absolute and isinstance(place, Path):
        place = place.absolute()
    return open_source(place, request.axes, missing=request.missing, series=given.series)


def detect_input(
    given: Given, stem: str, request: Request, tasks: Tasks | None = None
) -> Iterator[Path]:
    """Detect defocus in one image, and yield what was written or is there already."""
    place = given.place
    form = request.format or ("zarr" if is_zarr(place) else "tif")
    if isinstance(place, Path) and tasks is None and not is_zarr(place):
        identity = identity_whole(given, request, form)
        if request.resume and (finished := request.record.finished(stem, identity)):
            yield from finished
            return
        image = _open(given, request)
        if math.prod(image.shape) <= MOST_PIXELS:
            yield from _detect_whole(image, stem, request, form, identity)
            return
    yield from _detect_tiled(given, stem, request, form, tasks)


def detect_file(path: Path, stem: str, request: Request) -> list[Path]:
    """Detect defocus in one image file that fits into memory, and write the maps as TIFF."""
    given = Given(path)
    identity = identity_whole(given, request, "tif")
    return _detect_whole(_open(given, request), stem, request, "tif", identity)


def identity_whole(given: Given, request: Request, form: str) -> dict[str, Any]:
    """Return what the results of an image depend on that is not worked in tiles."""
    with explained(given, "read"):
        found = request.identity(digest(file_identity(Path(given.place))))
    found |= {} if given.series is None else {"series": given.series}
    return found if form == "tif" else found | {"format": form}


def _detect_whole(
    image: ImageSource, stem: str, request: Request, form: str, identity: dict[str, Any]
) -> list[Path]:
    """Detect defocus in an image that fits into memory, and list what was written."""
    files = MapFiles(request.out / stem, map_names(request.maps, image.grid), image.grid, form)
    overview = request.out / f"{stem}.overview.png"
    outputs = files.outputs() + [overview] * ("picture" in request.names)
    for output in outputs:
        refuse_existing(output, request.may_replace(output))
    data = image.read_whole()
    radius = "radius" in request.names
    detection = detect_image(
        data,
        request.detector,
        request.config,
        axes=image.axes,
        pixel_size=image.grid.pixel_size_um,
        optics=image.optics,
        radius=radius,
    )
    limits = Limits.of(detection)
    note = "; ".join(filter(None, (detection.note, str(limits or ""))))
    files.save(vars(detection), request.may_replace, note)
    if overview in outputs:
        from napari_defocus.plot.overview import save_overview

        middle = tuple(size // 2 for size in image.leading)
        shown = data[middle], detection.blur[middle], detection.mask[middle]
        save_overview(overview, *shown, overwrite=request.may_replace(overview))
    _record(request, image, stem, identity, limits, outputs, detection.note)
    return outputs


def _record(
    request: Request,
    image: ImageSource,
    stem: str,
    identity: dict[str, Any],
    limits: Limits | None,
    outputs: list[Path],
    note: str,
) -> None:
    """Write into the record of the folder what was done, and print the sharpness limit."""
    size = image.grid.pixel_size_um
    by_objective = objective_note(request.config, request.detector, size, image.optics)
    notes = note, by_objective, str(limits or ""), scale_note(request.detector, size)
    for line in filter(None, notes):
        print(f"{image.name}: {line}", file=sys.stderr)
    found = limits.as_record() | ({"note": note} if note else {}) if limits else None
    request.record.add(stem, identity, outputs, found, _address(image.name), image.well)


def _address(name: str) -> str:
    """Return where an image is, from any folder."""
    place = location(name)
    return place if isinstance(place, str) else str(place.absolute())


def _detect_tiled(
    given: Given, stem: str, request: Request, form: str, tasks: Tasks | None
) -> list[Path]:
    """Detect defocus in an image of any size, tile by tile."""
    from napari_defocus.tiled.api import TileConfig, detect_file_in_tiles, fit_memory

    if "picture" in request.names:
        print(f"{given}: no overview of an image worked in tiles", file=sys.stderr)
    image = _open(given, request, absolute=True)  # workers may have another working directory
    tiling = TileConfig(request.tile or SIDE, form, request.maps)
    identity = request.identity(image.fingerprint())
    identity |= {"tiles": {"side": tiling.side, "format": form}, "missing": request.missing}
    if request.resume and (finished := request.record.finished(stem, identity)):
        return finished
    files = MapFiles(request.out / stem, map_names(request.maps, image.grid), image.grid, form)
    there = [path for path in files.outputs() if path.exists()]
    tiling = replace(tiling, overwrite=all(map(request.may_replace, there)))
    with interruptible() as should_stop, tasks_on() if tasks is None else nullcontext(tasks) as on:
        if request.memory is not None:
            tiling = fit_memory(tiling, request.memory, image, request.detector, on)
        run = detect_file_in_tiles(
            image,
            request.out / stem,
            request.detector,
            request.config,
            tiling,
            on,
            record=lambda run: _record(
                request, image, stem, identity, run.limits, run.outputs, run.note
            ),
            on_event=Progress(),
            should_stop=should_stop,
        )
    return run.outputs
