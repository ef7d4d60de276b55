"""The command `stack`: focus stacks and time series in, fused images, maps and tables out."""

import argparse
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_defocus.cli._console import (
    Progress,
    as_options,
    interruptible,
    refuse_existing,
    run_each,
)
from napari_defocus.cli._options import (
    Given,
    add_out,
    add_planes,
    add_setting,
    config_from,
    each_series,
)
from napari_defocus.core.errors import DefocusError
from napari_defocus.core.progress import ShouldStop
from napari_defocus.io.axes import stack_axis
from napari_defocus.io.base import ImageSource
from napari_defocus.io.folder import FolderSource, open_stack_source
from napari_defocus.io.open import read_labels
from napari_defocus.io.tables import column_rows, write_csv
from napari_defocus.io.tiff_writer import write_image
from napari_defocus.plot.curves import save_curve
from napari_defocus.stacks.api import EXTREMA, FocusStack, StackConfig, analyse_stack, apply_focus
from napari_defocus.stacks.objects import score_labels
from napari_defocus.stacks.plane_scores import plane_rows
from napari_defocus.stacks.planes import stacks_in
from napari_defocus.stacks.timelapse import score_frames

# Of each file, the field of `FocusStack` that it holds.
MAPS = {
    "altitude": "depth_map",
    "confidence": "confidence",
    "fused": "fused",
    "provenance": "source_plane",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="stack files, OME-Zarr folders or URLs, or folders of images that are the planes",
    )
    add_out(
        parser,
        "folder for STEM.altitude.tif (in planes from 0), STEM.confidence.tif, STEM.fused.tif, "
        "STEM.provenance.tif and STEM.planes.csv; of a time series without Z, STEM.frames.csv",
    )
    add_planes(parser)
    config = StackConfig()
    add_setting(
        parser, config, "extremum", "where focus has most detail, or least", choices=EXTREMA
    )
    parser.add_argument(
        "--labels", type=Path, metavar="LABELS", help="objects: write STEM.labels.csv too"
    )
    parser.add_argument(
        "--channel", type=int, metavar="N", help="apply the focus of this channel, from 0, to all"
    )
    parser.add_argument("--picture", action="store_true", help="write the curve, STEM.planes.png")


def run(options: argparse.Namespace) -> int:
    """Analyse focus stacks; go on where one cannot be used."""
    with interruptible() as should_stop:

        def work(given: Given) -> tuple[str, Iterable[Path]]:
            source = open_stack_source(given.place, options.axes, series=given.series)
            path = Path(source.name)
            name = (path.name if isinstance(source, FolderSource) else path.stem) + given.ending
            return name, _write_stack(
                source, options.out / name, options, given.series, should_stop
            )

        stacks = [each for place in options.inputs for each in each_series(place, options.series)]
        return run_each(stacks, work, noun="stacks")


def _write_stack(
    source: ImageSource,
    out: Path,
    options: argparse.Namespace,
    series: int | None,
    should_stop: ShouldStop,
) -> Iterator[Path]:
    along = stack_axis(source.axes)
    if along is not None and source.axes[along] == "T":
        yield _frames(source, out, options, should_stop)
        return
    names = [f"{name}.tif" for name in MAPS] + ["planes.csv"]
    names += ["labels.csv"] * (options.labels is not None) + ["planes.png"] * options.picture
    paths = {name: _beside(out, name) for name in names}
    for path in paths.values():
        refuse_existing(path, options.overwrite)
    labels = None if options.labels is None else read_labels(options.labels, series=series)
    found = _analyse(source, labels, options, should_stop)
    for name in MAPS:
        data = found.maps.pop(name)
        letters = found.axes.replace("C", "") if options.channel is not None else found.axes
        axes = found.axes if name == "fused" else letters
        axes += "YXS" if data.ndim == len(axes) + 3 else "YX"
        grid = source.grid.without(*(set(source.axes) - set(axes)))
        write_image(
            paths[f"{name}.tif"],
            data,
            replace(grid, shape=data.shape),
            overwrite=options.overwrite,
        )
    write_csv(paths["planes.csv"], found.planes, overwrite=options.overwrite)
    if labels is not None:
        write_csv(paths["labels.csv"], found.labels, overwrite=options.overwrite)
    if options.picture:
        save_curve(paths["planes.png"], found.curves, overwrite=options.overwrite)
    yield from paths.values()


def _beside(out: Path, ending: str) -> Path:
    return out.with_name(f"{out.name}.{ending}")


@dataclass
class _Found:
    """What was found in all stacks of an image; maps have the axes `axes`, Y, X and perhaps S."""

    axes: str
    maps: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    planes: list[dict[str, Any]] = field(default_factory=list)
    labels: list[dict[str, Any]] = field(default_factory=list)
    curves: dict[str, Any] = field(default_factory=dict)


def _analyse(
    source: ImageSource,
    labels: npt.NDArray[Any] | None,
    options: argparse.Namespace,
    should_stop: ShouldStop,
) -> _Found:
    config = config_from(options, StackConfig)
    listeners: dict[str, Any] = {"on_event": Progress(), "should_stop": should_stop}
    stacks = dict(stacks_in(source))
    found = _Found(source.axes[: len(source.leading)].replace("Z", ""))
    c = None if options.channel is None else _channel_axis(source, found.axes, options.channel)
    maps: dict[str, dict[tuple[int, ...], npt.NDArray[Any]]] = {name: {} for name in MAPS}
    for index, planes in stacks.items():
        if c is not None and index[c] != options.channel:
            continue
        where = dict(zip(found.axes, index, strict=True))
        focus = analyse_stack(planes, config, **listeners)
        own = _without(index, c)
        for name, attribute in MAPS.items():
            maps[name][index if name == "fused" else own] = getattr(focus, attribute)
        for other, channel in stacks.items():
            if other != index and _without(other, c) == own:
                maps["fused"][other] = apply_focus(focus, channel, **listeners)
        found.planes += plane_rows(focus.scores, where)
        found.curves[" ".join(f"{letter}{at}" for letter, at in where.items())] = focus.scores
        _print_focus(source.name, where, focus)
        if labels is not None:
            scores = score_labels(planes, labels, config, transforms=focus.transforms, **listeners)
            found.labels += scores.rows(where)
    found.maps.update({name: _joined(parts) for name, parts in maps.items()})
    return found


def _channel_axis(source: ImageSource, axes: str, channel: int) -> int:
    """Check that there is such a channel, and return the axis of channels."""
    if "C" not in axes:
        raise DefocusError(f"{source.name} has axes {source.axes} and no C; leave --channel out")
    count = source.shape[source.axes.index("C")]
    if not 0 <= channel < count:
        raise DefocusError(f"{source.name} has channels 0 to {count - 1}, not {channel}")
    return axes.index("C")


def _without(index: tuple[int, ...], axis: int | None) -> tuple[int, ...]:
    return index if axis is None else index[:axis] + index[axis + 1 :]


def _joined(parts: dict[tuple[int, ...], npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Put maps together by their place along leading axes."""
    if () in parts:
        return parts[()]
    places = sorted(parts)
    sizes = tuple(len(set(column)) for column in zip(*places, strict=True))
    maps = np.stack([parts[place] for place in places])
    return maps.reshape(sizes + maps.shape[1:])


def _print_focus(name: str, where: dict[str, int], focus: FocusStack) -> None:
    place = ", ".join([name, *(f"{letter}={at}" for letter, at in where.items())])
    print(f"{place}: {focus.scores.told()}", file=sys.stderr)
    for warning in focus.warnings:
        print(f"{place}: warning: {as_options(warning)}", file=sys.stderr)


def _frames(
    source: ImageSource, out: Path, options: argparse.Namespace, should_stop: ShouldStop
) -> Path:
    path = _beside(out, "frames.csv")
    refuse_existing(path, options.overwrite)
    scores = score_frames(source, on_event=Progress(), should_stop=should_stop)
    columns = {
        "frame": np.arange(len(scores.score)),
        "score": scores.score,
        "error": scores.error,
        "out_of_focus": scores.out_of_focus.astype(int),
    }
    write_csv(path, column_rows(columns), overwrite=options.overwrite)
    out_of_focus = np.flatnonzero(scores.out_of_focus)
    listed = ", ".join(map(str, out_of_focus)) or "none"
    print(f"{source.name}: frames out of focus: {listed}", file=sys.stderr)
    return path
