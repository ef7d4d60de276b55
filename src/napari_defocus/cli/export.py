"""The command `export`: masks in, polygons for QuPath and tables of what is blurred out."""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_defocus.cli._console import list_inputs, refuse_existing, run_each
from napari_defocus.cli._options import add_out, add_series, one_series
from napari_defocus.core.errors import DefocusError, check_range
from napari_defocus.detection.postprocess import Detection
from napari_defocus.io.base import ImageSource, location
from napari_defocus.io.geojson import write_geojson
from napari_defocus.io.open import open_source, series_of
from napari_defocus.io.results import IMAGES, blur_beside, find_masks, mask_place, mask_stem
from napari_defocus.io.tables import write_csv
from napari_defocus.labels.classes import BLURRED, SHARP, UNLABELLED
from napari_defocus.measure.polygons import check_mask, mask_features
from napari_defocus.measure.regions import NO_OBJECT
from napari_defocus.measure.tables import object_rows, share_row

Array = npt.NDArray[Any]
Plane = tuple[int, ...]

# The table of the shares of several masks.
TOGETHER = "shares.csv"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "masks",
        nargs="+",
        metavar="MASK",
        help="masks that detect wrote, or that were corrected; STEM.blur.ome.zarr, which holds its "
        "mask; a folder with such files",
    )
    add_out(
        parser,
        "folder for STEM.geojson, an outline for each region, and STEM.shares.csv, how much of the "
        f"image is blurred, sharp and undecided; of several masks {TOGETHER}, a table of all",
    )
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="PATH",
        help="objects or regions of interest: write STEM.objects.csv, a row for each; this and "
        "the next two are a file, or a folder with one named as the mask or the image is",
    )
    parser.add_argument(
        "--image", type=Path, metavar="PATH", help="the image: objects get a focus score too"
    )
    parser.add_argument(
        "--blur", type=Path, metavar="PATH", help="blur map, if not STEM.blur beside the mask"
    )
    parser.add_argument(
        "--axes",
        help="a letter for each dimension of masks whose files do not say, such as ZYX",
    )
    add_series(parser)
    parser.add_argument(
        "--micrometres",
        action="store_true",
        help="coordinates in micrometres; QuPath and Fiji take pixels",
    )
    parser.add_argument(
        "--undecided", action="store_true", help="outlines of what is undecided, too"
    )
    parser.add_argument(
        "--smallest", type=int, default=1, metavar="N", help="leave smaller regions out, pixels"
    )


def run(options: argparse.Namespace) -> int:
    """Write the polygons and tables of masks; go on where one cannot be used."""
    check_range("smallest", options.smallest, 0)
    masks, failed = list_inputs(options.masks, find_masks)
    rows: list[dict[str, Any]] = []
    together = options.out / TOGETHER
    if len(masks) > 1:
        refuse_existing(together, options.overwrite)

    def work(given: str) -> tuple[str, Iterable[Path]]:
        stem = mask_stem(given)
        return stem, _export(given, stem, options, rows)

    status = run_each(masks, work, failed=failed)
    if len({row["image"] for row in rows}) > 1:
        write_csv(together, rows, overwrite=options.overwrite)
        print(together)
    return status


@dataclass(frozen=True, eq=False)
class _Inputs:
    """A mask and what belongs to it."""

    mask: ImageSource
    blur: ImageSource | None
    labels: ImageSource | None
    image: ImageSource | None


def _export(
    given: str, stem: str, options: argparse.Namespace, all_rows: list[dict[str, Any]]
) -> Iterator[Path]:
    """Write the polygons and tables of one mask, and add its shares to those of all."""
    endings = ["geojson", "shares.csv"] + ["objects.csv"] * (options.labels is not None)
    paths = {ending: options.out / f"{stem}.{ending}" for ending in endings}
    for path in paths.values():
        refuse_existing(path, options.overwrite)
    inputs = _open(given, stem, options)
    features: list[dict[str, Any]] = []
    tables: dict[str, list[dict[str, Any]]] = {"shares.csv": [], "objects.csv": []}
    for index in np.ndindex(inputs.mask.leading):
        where = dict(zip(inputs.mask.axes, index, strict=False))
        mask = check_mask(inputs.mask.read(index))
        blur = None if inputs.blur is None else np.asarray(inputs.blur.read(index), np.float32)
        size = inputs.mask.pixel_size_um
        features += mask_features(
            mask,
            labels=(BLURRED, SHARP) + (UNLABELLED,) * options.undecided,
            blur=blur,
            pixel_size_um=size,
            micrometres=options.micrometres,
            smallest=options.smallest,
            plane=where,
        )
        tables["shares.csv"].append({"image": stem, **where, **share_row(mask, size)})
        if inputs.labels is not None:
            rows = _objects(inputs, index, where, mask, blur)
            tables["objects.csv"] += [{"image": stem} | row for row in rows]
    if inputs.labels is not None and not tables["objects.csv"]:
        raise DefocusError(f"{inputs.labels.name}: {NO_OBJECT}")
    write_geojson(paths["geojson"], features, overwrite=options.overwrite)
    for name, rows in tables.items():
        if name in paths:
            write_csv(paths[name], rows, overwrite=options.overwrite)
    all_rows += tables["shares.csv"]
    yield from paths.values()


def _objects(
    inputs: _Inputs, index: Plane, where: dict[str, int], mask: Array, blur: Array | None
) -> list[dict[str, Any]]:
    """Score the objects of a plane."""
    assert inputs.labels is not None
    # Labels of one plane count for every plane of a stack.
    labels = inputs.labels.read(index if inputs.labels.leading else ())
    if labels.dtype.kind not in "bui":
        raise DefocusError(f"{inputs.labels.name} holds {labels.dtype}, labels are whole numbers")
    if blur is None:
        raise DefocusError("there is no blur map beside it; say with --blur where it is")
    image = None if inputs.image is None else inputs.image.read(index)
    size = inputs.mask.pixel_size_um
    return object_rows(Detection(blur, mask), labels, image, where=where, pixel_size_um=size)


def _open(given: str, stem: str, options: argparse.Namespace) -> _Inputs:
    place = location(given)
    blur: Path | None = options.blur or blur_beside(place, stem)
    mask = open_source(mask_place(place), options.axes)
    parts: dict[str, ImageSource | None] = {}
    for name, path in (("blur", blur), ("labels", options.labels), ("image", options.image)):
        source = None
        if path is not None:
            named = _named(path, stem)
            source = open_source(named, series=series_of(named, one_series(options)))
        if source is not None:
            _check_fit(source, mask, one_plane=name == "labels")
        parts[name] = source
    return _Inputs(mask, **parts)


def _named(place: Path, stem: str) -> Path:
    """Return a file as it is; of a folder, the file that belongs to a mask."""
    if not place.is_dir() or place.suffix == ".zarr":
        return place
    names: Sequence[str] = [stem + ending for ending in IMAGES]
    found = [place / name for name in names if (place / name).exists()]
    if len(found) != 1:
        several = " and ".join(path.name for path in found)
        raise DefocusError(f"{place} has {several or f'no image named {stem}'}; name one")
    return found[0]


def _check_fit(source: ImageSource, mask: ImageSource, one_plane: bool) -> None:
    """Raise where another image has not the planes or the size of the mask."""
    same = source.grid.plane_shape == mask.grid.plane_shape
    alike = source.leading == mask.leading or (one_plane and not source.leading)
    if not (same and alike):
        raise DefocusError(
            f"{source.name} is {source.shape}, the mask {mask.shape}; give what belongs to it"
        )
