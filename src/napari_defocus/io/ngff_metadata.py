"""What an OME-Zarr 0.5 tells of itself: axes, scale and position of each level, labels.

The specification: https://ngff.openmicroscopy.org/0.5/
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from napari_defocus.core.errors import DefocusError
from napari_defocus.io.atomic import write_json
from napari_defocus.io.grid import Grid

VERSION = "0.5"
TOP = 1024
"""Levels are added until rows and columns are at most so many."""
_KINDS = {"T": "time", "C": "channel", "S": "channel", "Z": "space", "Y": "space", "X": "space"}
Colours = dict[int, tuple[int, int, int, int]]


def describe_image(grids: Sequence[Grid], name: str) -> dict[str, Any]:
    """Return the attribute ``ome`` of a group of such levels; axes without a scale have 1."""
    axes, units = ome_order(grids[0].axes), grids[0].units
    described = {
        "name": name,
        "axes": [_describe_axis(letter, units) for letter in axes],
        "datasets": [
            {
                "path": str(level),
                "coordinateTransformations": [
                    {"type": "scale", "scale": [grid.scale.get(a, 1.0) for a in axes]},
                    {
                        "type": "translation",
                        "translation": [grid.translate.get(a, 0.0) for a in axes],
                    },
                ],
            }
            for level, grid in enumerate(grids)
        ],
    }
    return {"version": VERSION, "multiscales": [described]}


def describe_labels(is_part_of_image: bool, colours: Colours) -> dict[str, Any]:
    """Describe labels: their colours, and where their image is."""
    described: dict[str, Any] = {}
    if colours:
        described["colors"] = [
            {"label-value": int(number), "rgba": [int(part) for part in colour]}
            for number, colour in sorted(colours.items())
        ]
    if is_part_of_image:
        described["source"] = {"image": "../../"}
    return described


def _describe_axis(letter: str, units: Mapping[str, str]) -> dict[str, str]:
    described = {"name": "c" if letter == "S" else letter.lower()}
    if letter in _KINDS:
        described["type"] = _KINDS[letter]
    if letter in units:
        described["unit"] = units[letter]
    return described


def ome_order(axes: str) -> str:
    """Return the order in which OME-Zarr wants axes; DefocusError where it cannot hold them."""
    others = [letter for letter in axes if letter not in "TZYX"]
    if len(others) > 1:
        raise DefocusError(
            f"OME-Zarr cannot hold axes {axes}: of {', '.join(others)} it takes one; "
            "write BigTIFF, or work on one part"
        )
    return "".join(letter for letter in "T" + "".join(others) + "ZYX" if letter in axes)


def level_grids(grid: Grid, levels: int | None) -> list[Grid]:
    """Halve rows and columns, rounded up, for each level; by default until both are <= `TOP`."""
    ome_order(grid.axes)
    grids = [grid]
    while len(grids) < levels if levels else max(grids[-1].plane_shape) > TOP:
        last, factor = grids[-1], 2 ** len(grids)
        half = iter(-(-size // 2) for size in last.plane_shape)
        shape = [
            next(half) if letter in "YX" else size
            for letter, size in zip(last.axes, last.shape, strict=True)
        ]
        steps = {letter: grid.scale.get(letter, 1.0) for letter in "YX"}
        # A pixel made of several has its centre between theirs.
        places = {
            a: grid.translate.get(a, 0.0) + step * (factor - 1) / 2 for a, step in steps.items()
        }
        wider = {letter: step * factor for letter, step in steps.items()}
        grids.append(
            replace(
                grid,
                shape=tuple(shape),
                scale={**grid.scale, **wider},
                translate={**grid.translate, **places},
            )
        )
    return grids


def write_group(folder: Path, ome: dict[str, Any]) -> None:
    """Write a Zarr group with what OME says of it, whole or not at all."""
    described = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome}}
    write_json(folder / "zarr.json", described)


def add_note(folder: Path, note: str) -> None:
    """Say of a group how it was made, beside what OME says."""
    file = folder / "zarr.json"
    described = json.loads(file.read_text(encoding="utf-8"))
    described["attributes"]["napari-defocus"] = {"note": note}
    write_json(file, described)


def add_label_image(path: Path) -> None:
    """Add a label image to the list of those that its image has."""
    names = [name for name in _listed(path.parent) if name != path.name]
    write_group(path.parent, {"version": VERSION, "labels": [*names, path.name]})


def _listed(folder: Path) -> list[str]:
    """Read which labels a group lists; none where it is not there or not whole."""
    try:
        described = json.loads((folder / "zarr.json").read_text(encoding="utf-8"))
        return list(described["attributes"]["ome"]["labels"])
    except (OSError, ValueError, KeyError, TypeError):
        return []
