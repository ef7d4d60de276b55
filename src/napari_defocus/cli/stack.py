"""The commands that work on focus stacks: `stack`, and the labels of `fit --from-stack`."""

import argparse
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_defocus.cli import main as cli
from napari_defocus.cli._console import Progress, interruptible, refuse_existing
from napari_defocus.cli._options import config_from
from napari_defocus.core.errors import DefocusError
from napari_defocus.core.progress import ShouldStop, Stopped
from napari_defocus.io.base import ImageSource
from napari_defocus.io.folder import FolderSource
from napari_defocus.io.open import open_stack_source
from napari_defocus.io.raster import read_labels, write_tiff
from napari_defocus.io.tables import column_rows, write_csv
from napari_defocus.metric.patches import PatchConfig, PatchSet, merge_patch_sets
from napari_defocus.plot.curves import save_curve
from napari_defocus.stacks.api import FocusStack, StackConfig, analyse_stack, apply_focus
from napari_defocus.stacks.objects import score_labels
from napari_defocus.stacks.plane_scores import plane_rows
from napari_defocus.stacks.planes import stacks_in
from napari_defocus.stacks.stack_patches import patches_from_planes
from napari_defocus.stacks.timelapse import score_frames

# Of each file, the field of `FocusStack` that it holds.
MAPS = {
    "altitude": "depth_map",
    "confidence": "confidence",
    "fused": "fused",
    "provenance": "source_plane",
}


def stack(options: argparse.Namespace) -> int:
    """Analyse focus stacks; go on where one cannot be used."""
    failed = 0
    done: dict[str, str] = {}
    with interruptible() as should_stop:
        for place in options.inputs:
            try:
                source = open_stack_source(place, options.axes)
                name = stem(source)
                if name in done:
                    raise DefocusError(
                        f"its results would overwrite those of {done[name]}; rename one"
                    )
                for path in _work(source, options.out / name, options, should_stop):
                    print(path)
                done[name] = source.name
            except DefocusError as error:
                failed += 1
                named = str(place) in str(error)
                cli.report_error(error if named else DefocusError(f"{place}: {error}"))
            except Stopped:
                return cli.EXIT_INTERRUPTED
    if len(options.inputs) > 1:
        print(f"{len(done)} of {len(options.inputs)} stacks done", file=sys.stderr)
    return cli.EXIT_BAD_INPUT if failed else 0


def stem(source: ImageSource) -> str:
    """Give the name that the results of a stack start with."""
    path = Path(source.name)
    return path.name if isinstance(source, FolderSource) else path.stem


def _work(
    source: ImageSource, out: Path, options: argparse.Namespace, should_stop: ShouldStop
) -> Iterator[Path]:
    if "Z" not in source.axes and "T" in source.axes:
        yield _frames(source, out, options, should_stop)
        return
    names = [f"{name}.tif" for name in MAPS] + ["planes.csv"]
    names += ["labels.csv"] * (options.labels is not None) + ["planes.png"] * options.picture
    paths = {name: _beside(out, name) for name in names}
    for path in paths.values():
        refuse_existing(path, options.overwrite)
    labels = None if options.labels is None else read_labels(options.labels)
    found = _analyse(source, labels, options, should_stop)
    for name in MAPS:
        data = found.maps.pop(name)
        letters = found.axes.replace("C", "") if options.channel is not None else found.axes
        axes = found.axes if name == "fused" else letters
        write_tiff(
            paths[f"{name}.tif"],
            data,
            axes=axes + ("YXS" if data.ndim == len(axes) + 3 else "YX"),
            pixel_size_um=source.pixel_size_um,
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
    maps: dict[str, dict[tuple[int, ...], npt.NDArray[Any]]] = {name: {} for name in MAPS}
    for index, planes in stacks.items():
        where = dict(zip(found.axes, index, strict=True))
        if _follows(where, options.channel, source):
            continue
        focus = analyse_stack(planes, config, **listeners)
        for name, attribute in MAPS.items():
            maps[name][index] = getattr(focus, attribute)
        for other in _other_channels(index, found.axes, stacks, options.channel):
            maps["fused"][other] = apply_focus(focus, stacks[other], **listeners)
        found.planes += plane_rows(focus.scores, where)
        found.curves[" ".join(f"{letter}{at}" for letter, at in where.items())] = focus.scores
        _tell(source.name, where, focus)
        if labels is not None:
            scores = score_labels(planes, labels, config, transforms=focus.transforms, **listeners)
            found.labels += column_rows(scores.columns(), where)
    found.maps.update({name: _joined(parts, len(found.axes)) for name, parts in maps.items()})
    if options.channel is not None:
        c = found.axes.index("C")
        for name in set(MAPS) - {"fused"}:
            found.maps[name] = found.maps[name].squeeze(axis=c)
    return found


def _joined(parts: dict[tuple[int, ...], npt.NDArray[Any]], leading: int) -> npt.NDArray[Any]:
    """Put maps together by their place along so many leading axes."""
    if not leading:
        return parts[()]
    places = sorted(parts)
    sizes = tuple(len(set(column)) for column in zip(*places, strict=True))
    maps = np.stack([parts[place] for place in places])
    return maps.reshape(sizes + maps.shape[1:])


def _follows(where: dict[str, int], channel: int | None, source: ImageSource) -> bool:
    """Tell whether a stack takes the focus of another channel, after a look at the request."""
    if channel is None:
        return False
    if "C" not in where:
        raise DefocusError(f"{source.name} has axes {source.axes} and no C; leave --channel out")
    count = source.shape[source.axes.index("C")]
    if not 0 <= channel < count:
        raise DefocusError(f"{source.name} has channels 0 to {count - 1}, not {channel}")
    return where["C"] != channel


def _other_channels(
    index: tuple[int, ...], axes: str, stacks: Iterable[tuple[int, ...]], channel: int | None
) -> list[tuple[int, ...]]:
    """Give the stacks that take the focus of the one at `index`."""
    if channel is None:
        return []
    c = axes.index("C")
    return [
        other
        for other in stacks
        if other != index and other[:c] + other[c + 1 :] == index[:c] + index[c + 1 :]
    ]


def _tell(name: str, where: dict[str, int], focus: FocusStack) -> None:
    scores = focus.scores
    place = ", ".join([name, *(f"{letter}={at}" for letter, at in where.items())])
    print(
        f"{place}: plane {scores.best} is in focus "
        f"(confidence {scores.confidence[scores.best]:.2f})",
        file=sys.stderr,
    )
    for warning in focus.warnings:
        print(f"{place}: warning: {warning}", file=sys.stderr)


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


def cut_from_stack(options: argparse.Namespace) -> PatchSet:
    """Cut patches from focus stacks whose planes are labelled by comparing them."""
    if options.images:
        raise DefocusError("give images with their labels, or --from-stack, not both")
    refuse_existing(options.out, options.overwrite)
    config: PatchConfig = config_from(options, PatchConfig)
    try:
        with interruptible() as should_stop:
            parts = [
                part
                for place in options.from_stack
                for part in _parts_of(place, config, options, should_stop)
            ]
    except Stopped:
        raise KeyboardInterrupt from None
    return merge_patch_sets(parts)


def _parts_of(
    place: str, config: PatchConfig, options: argparse.Namespace, should_stop: ShouldStop
) -> Iterator[PatchSet]:
    source = open_stack_source(place, options.axes)
    at = source.axes.index("Z")
    for index, planes in stacks_in(source):
        try:
            yield patches_from_planes(
                planes,
                partial(_name_of_plane, source, index, at),
                config,
                register=options.register,
                on_event=Progress(),
                should_stop=should_stop,
            )
        except DefocusError as error:
            raise DefocusError(f"{source.name}: {error}") from error


def _name_of_plane(source: ImageSource, index: tuple[int, ...], at: int, z: int) -> str:
    return source.where((*index[:at], z, *index[at:]))
