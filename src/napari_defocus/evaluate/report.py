"""Evaluation of folders of maps, and reports of it: a table, CSV and JSON."""

import csv
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_defocus.core.errors import DefocusError, about
from napari_defocus.core.progress import Event, OnEvent, ShouldStop, ignore_event, never_stop
from napari_defocus.evaluate.scores import (
    BETA2,
    PROTOCOLS,
    TRIVIAL_MAPS,
    Array,
    Bools,
    MapScores,
    SetScores,
    iou_mask,
    score_map,
    score_set,
    trivial_scores,
)
from napari_defocus.io.atomic import whole_file, write_json
from napari_defocus.io.open import read_image, read_labels, series_of

FORMAT_VERSION = 1  # of the JSON file's layout
MAP_SUFFIXES = (".blur.tif", ".npy", ".png", ".tif")  # behind the image's name, first come first
TRUTH_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")  # other files beside the masks are passed over


@dataclass(frozen=True, eq=False)
class Report:
    """Scores of one or several methods, and of the trivial maps.

    Parameters
    ----------
    methods : mapping of str to SetScores
        Scores by name of the method.
    trivial : mapping of str to SetScores
        Scores of the trivial maps, on every image that any method gave a map for.
    missing : mapping of str to tuple of str
        By method, the images of the truth that it gave no map for.
    """

    methods: Mapping[str, SetScores]
    trivial: Mapping[str, SetScores]
    missing: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def table(self) -> str:
        """Return the means as text, a line a protocol, a column a method; "-" where undefined."""
        columns = [["", "images", *PROTOCOLS]]
        columns += [_column(*item, spread=True) for item in self.methods.items()]
        columns += [_column(*item, spread=False) for item in self.trivial.items()]
        widths = [max(map(len, column)) for column in columns]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in zip(*columns, strict=True)
        ]
        lines.append(f"± half of the 95 % interval over images; F with beta^2 = {BETA2}")
        for name, images in self.missing.items():
            if images:
                lines.append(f"no map of {name} for {len(images)}: {', '.join(images)}")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as nested dictionaries, as the JSON file holds them.

        These are ``format``, ``version``, ``beta2``, ``protocols`` (definitions), ``methods`` and
        ``trivial``: by name the number of ``images``, ``mean``, ``interval`` (ends of 95 %), and of
        methods ``missing`` and ``per_image``. An undefined score is nan, null in JSON.
        """
        methods = {}
        for name, scores in self.methods.items():
            rows = {image: dict(row.values) for image, row in scores.images.items()}
            missing = list(self.missing.get(name, ()))
            methods[name] = {**_summary(scores), "missing": missing, "per_image": rows}
        return {
            "format": "napari-defocus report",
            "version": FORMAT_VERSION,
            "beta2": BETA2,
            "protocols": dict(PROTOCOLS),
            "methods": methods,
            "trivial": {name: _summary(scores) for name, scores in self.trivial.items()},
        }

    def write(self, path: Path, *, overwrite: bool = True) -> None:
        """Write the report as CSV or JSON, by the ending of the file's name.

        CSV has the columns ``method``, ``row`` (image, mean, low or high: the mean's 95 %
        interval), ``image``, then the protocols; an undefined score is an empty cell, as are Fmax
        and Fmax blur of an image: they belong to sets. JSON is `as_dict`.

        Parameters
        ----------
        path : Path
            The file to be, ending in .csv or .json.
        overwrite : bool
            Whether an existing file may be replaced.

        Raises
        ------
        DefocusError
            Where the name ends otherwise, or the file cannot or may not be written.
        """
        kind = path.suffix.lower()
        if kind == ".csv":
            with (
                whole_file(path, overwrite) as temporary,
                temporary.open("w", encoding="utf-8", newline="") as file,
            ):
                csv.writer(file).writerows(_csv_rows(self))
        elif kind == ".json":
            write_json(path, self.as_dict(), overwrite=overwrite)
        else:
            raise DefocusError(f"{path}: cannot tell what to write; end it in .csv, .json or .png")


def _column(name: str, scores: SetScores, *, spread: bool) -> list[str]:
    """Return a method's means as text, with half of their intervals where `spread`."""
    cells = [name, str(len(scores.images))]
    for protocol, mean in scores.mean.items():
        low, high = scores.interval[protocol]
        half = f" ±{(high - low) / 2:.3f}" if spread and not math.isnan(low) else ""
        cells.append("-" if math.isnan(mean) else f"{mean:.4f}{half}")
    return cells


def _summary(scores: SetScores) -> dict[str, Any]:
    """Return the entries that methods and trivial maps have in common."""
    interval = {name: list(ends) for name, ends in scores.interval.items()}
    return {"images": len(scores.images), "mean": dict(scores.mean), "interval": interval}


def _csv_rows(report: Report) -> Iterator[list[str]]:
    """Yield the lines of the CSV file, its head first."""
    yield ["method", "row", "image", *PROTOCOLS]
    for method, scores in report.methods.items():
        for image, row in scores.images.items():
            yield [method, "image", image, *_cells(row.values)]
        yield [method, "mean", "", *_cells(scores.mean)]
        for end, kind in enumerate(("low", "high")):
            ends = {name: pair[end] for name, pair in scores.interval.items()}
            yield [method, kind, "", *_cells(ends)]
    for method, scores in report.trivial.items():
        yield [method, "mean", "", *_cells(scores.mean)]


def _cells(values: Mapping[str, float]) -> list[str]:
    """Return scores as text, undefined ones as nothing."""
    numbers = [values.get(name, math.nan) for name in PROTOCOLS]
    return ["" if math.isnan(number) else f"{number:.6f}" for number in numbers]


def evaluate_folders(
    maps: Path | Mapping[str, Path],
    truth: Path,
    *,
    sharpness: bool | Collection[str] = False,
    series: int | None = None,
    on_event: OnEvent = ignore_event,
    should_stop: ShouldStop = never_stop,
) -> Report | None:
    """Score folders of maps against a folder of truth masks.

    The map of NAME.png is NAME.blur.tif, NAME.npy, NAME.png or NAME.tif, in that order: 8 bit
    levels divided by 255, 16 bit by 65535, arrays and floats as they are. NAME.mask.tif beside it
    (0 undecided, 1 blurred, 2 sharp) gives IoU(mask).

    Parameters
    ----------
    maps : Path or mapping of str to Path
        A folder of maps, or several by name of the method; one alone is named for its folder.
    truth : Path
        Folder of masks (PNG, TIFF, BMP), 255 = blurred and 0 = sharp, parted at level 128.
    sharpness : bool or collection of str
        Whether the maps are sharpness maps, 1 = sharp, whatever their names; or the names of the
        methods whose maps are.
    series : int, optional
        Which image, from 0, of the files that hold several.
    on_event, should_stop : callable
        Called before every image.

    Returns
    -------
    Report or None
        Each method scored on the images that it has maps for, the others listed as missing. None
        where it was stopped.

    Raises
    ------
    DefocusError
        Where a folder is missing, the truth has no masks, a method has no map for any of them, a
        file cannot be read, sizes differ, or values leave [0, 1] or are not finite.
    """
    folders = maps if isinstance(maps, Mapping) else {maps.resolve().name: maps}
    if not folders:
        raise DefocusError("no folder of maps was given: name at least one")
    inverted = _inverted(sharpness, folders)
    truths = _find_truths(truth)
    found = {method: _find_maps(folder, truths, truth) for method, folder in folders.items()}
    wanted = {name: path for name, path in truths.items() if any(name in f for f in found.values())}
    rows: dict[str, dict[str, MapScores]] = {method: {} for method in folders}
    trivial: dict[str, dict[str, MapScores]] = {kind: {} for kind in TRIVIAL_MAPS}
    for done, (name, path) in enumerate(wanted.items()):
        if should_stop():
            return None
        on_event(Event("scoring maps", done, len(wanted)))
        blurred = _read_truth(path, series)
        for method, files in found.items():
            if name in files:
                rows[method][name] = _score_file(
                    files[name], name, blurred, method in inverted, series
                )
        for kind, scores in trivial_scores(blurred).items():
            trivial[kind][name] = scores
    on_event(Event("scoring maps", len(wanted), len(wanted)))
    return Report(
        {method: score_set(images) for method, images in rows.items()},
        {kind: score_set(images) for kind, images in trivial.items()},
        {method: tuple(name for name in truths if name not in found[method]) for method in found},
    )


def _inverted(sharpness: bool | Collection[str], folders: Mapping[str, Path]) -> set[str]:
    """Return the methods whose maps are 1 = sharp."""
    if isinstance(sharpness, bool):
        return set(folders) if sharpness else set()
    names = {sharpness} if isinstance(sharpness, str) else set(sharpness)
    if unknown := sorted(names - set(folders)):
        raise DefocusError(f"no method {', '.join(unknown)}: choose from {', '.join(folders)}")
    return names


def _find_truths(folder: Path) -> dict[str, Path]:
    """Return the masks of a truth folder by the name of their image."""
    truths: dict[str, Path] = {}
    for path in _listed(folder, "truth"):
        if path.suffix.lower() not in TRUTH_SUFFIXES or path.name.startswith("."):
            continue
        if path.stem in truths:
            raise DefocusError(f"{path}: {truths[path.stem].name} is there too; keep one of them")
        truths[path.stem] = path
    if not truths:
        raise DefocusError(f"{folder}: no PNG, TIFF or BMP mask in it; give the folder of truth")
    return truths


def _find_maps(folder: Path, truths: Mapping[str, Path], truth: Path) -> dict[str, Path]:
    """Return a method's maps by the name of their image."""
    present = {path.name: path for path in _listed(folder, "maps")}
    found = {}
    for name in truths:
        if names := [name + suffix for suffix in MAP_SUFFIXES if name + suffix in present]:
            found[name] = present[names[0]]
    if not found:
        name = next(iter(truths))
        raise DefocusError(
            f"{folder}: no map for any of the {len(truths)} masks in {truth}; "
            f"name them as the masks, such as {name}.blur.tif or {name}.png"
        )
    return found


def _listed(folder: Path, what: str) -> list[Path]:
    """List the files of a folder, sorted by name."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_file())
    except OSError as error:
        raise DefocusError(
            f"{folder}: cannot read this folder of {what} ({error.strerror}); give one that exists"
        ) from error


def _score_file(
    path: Path, name: str, blurred: Bools, sharpness: bool, series: int | None
) -> MapScores:
    """Score a map file, and the mask beside it."""
    values = _read_array(path) if path.suffix == ".npy" else _read_grey(path, series)
    with about(path):
        scores = score_map(values, blurred, sharpness=sharpness)
    mask_path = path.with_name(name + ".mask.tif")
    if not mask_path.exists():
        return scores
    mask = read_labels(mask_path, series=series)
    with about(mask_path):
        return replace(scores, values={**scores.values, "IoU(mask)": iou_mask(mask, blurred)})


def _read_truth(path: Path, series: int | None) -> Bools:
    """Read a truth mask, True = blurred."""
    levels = _read_grey(path, series)
    if 0 < levels.max() <= 2 / 255:
        raise DefocusError(
            f"{path}: none of its levels reaches 3 of 255, as in a mask of labels; "
            "save the truth as 255 = blurred and 0 = sharp"
        )
    return np.asarray(levels >= 128 / 255)


def _read_array(path: Path) -> Array:
    """Read a NumPy file."""
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise DefocusError(f"{path}: is not a whole NumPy array; write it again") from error


def _read_grey(path: Path, series: int | None) -> Array:
    """Read an image as grey, its 8 or 16 bit levels as [0, 1]."""
    image = read_image(path, series=series_of(path, series))
    levels: Array = image.data
    if image.axes == "YXS":
        colours = levels[..., :3] if levels.shape[-1] > 2 else levels[..., :1]
        weights = (0.299, 0.587, 0.114)[: colours.shape[-1]]  # luma of ITU-R BT.601
        # rounded, as the weights of equal colours do not add up to the very same level
        levels = np.average(colours, axis=-1, weights=weights).round(6)
    elif image.axes != "YX":
        raise DefocusError(f"{path}: is a stack ({image.axes}); save the one plane of it")
    highest = {"uint8": 255, "uint16": 65535}.get(image.data.dtype.name, 1)
    return levels / highest
