"""What an OME-Zarr 0.5 says of itself: axes, scale and position of each level, labels.

The specification: https://ngff.openmicroscopy.org/0.5/
"""

import json
from pathlib import Path
from typing import Any

from napari_defocus.core.errors import DefocusError
from napari_defocus.io.atomic import write_json

VERSION = "0.5"
TOP = 1024
"""Levels are added until rows and columns are at most so many."""
_KINDS = {"T": "time", "C": "channel", "S": "channel", "Z": "space", "Y": "space", "X": "space"}
Numbers = dict[str, float]


def describe_image(
    axes: str,
    levels: int,
    name: str,
    scale: Numbers,
    translate: Numbers,
    units: dict[str, str],
) -> dict[str, Any]:
    """Describe a multiscale image.

    Parameters
    ----------
    axes : str
        As `ome_order` gives them.
    levels : int
        Their number; rows and columns are halved from each to the next.
    name : str
        What viewers call it.
    scale, translate, units : dict
        By axis letter; see `napari_defocus.io.base.ImageSource`.

    Returns
    -------
    dict
        The attribute ``ome`` of the group. Axes without a scale have 1.
    """
    datasets = []
    for level in range(levels):
        factors = dict.fromkeys("YX", 2.0**level)
        steps = [scale.get(letter, 1.0) * factors.get(letter, 1.0) for letter in axes]
        # A pixel made of several has its centre between theirs.
        places = [
            translate.get(letter, 0.0) + scale.get(letter, 1.0) * (factors.get(letter, 1.0) - 1) / 2
            for letter in axes
        ]
        transformations = [
            {"type": "scale", "scale": steps},
            {"type": "translation", "translation": places},
        ]
        datasets.append({"path": str(level), "coordinateTransformations": transformations})
    described = {
        "name": name,
        "axes": [_describe_axis(letter, units) for letter in axes],
        "datasets": datasets,
    }
    return {"version": VERSION, "multiscales": [described]}


def describe_labels(
    is_part_of_image: bool, colors: dict[int, tuple[int, int, int, int]] | None
) -> dict[str, Any]:
    """Describe labels: their colours, and where their image is."""
    described: dict[str, Any] = {}
    if colors:
        described["colors"] = [
            {"label-value": int(number), "rgba": [int(part) for part in color]}
            for number, color in sorted(colors.items())
        ]
    if is_part_of_image:
        described["source"] = {"image": "../../"}
    return described


def _describe_axis(letter: str, units: dict[str, str]) -> dict[str, str]:
    described = {"name": "c" if letter == "S" else letter.lower()}
    if letter in _KINDS:
        described["type"] = _KINDS[letter]
    if letter in units:
        described["unit"] = units[letter]
    return described


def ome_order(axes: str) -> str:
    """Give the order in which OME-Zarr wants axes, which are in the standard one.

    Raises
    ------
    DefocusError
        Where it cannot hold them.
    """
    others = [letter for letter in axes if letter not in "TZYX"]
    if len(others) > 1:
        raise DefocusError(
            f"OME-Zarr cannot hold axes {axes}: of {', '.join(others)} it takes one; "
            "write BigTIFF, or work on one part"
        )
    return "".join(letter for letter in "T" + "".join(others) + "ZYX" if letter in axes)


def level_shapes(axes: str, shape: tuple[int, ...], levels: int | None) -> list[tuple[int, ...]]:
    """Halve rows and columns, rounded up, for each level; by default until both are <= `TOP`."""
    y = axes.index("Y")
    shapes = [tuple(shape)]
    while len(shapes) < levels if levels else max(shapes[-1][y : y + 2]) > TOP:
        last = shapes[-1]
        half = tuple(-(-size // 2) for size in last[y : y + 2])
        shapes.append((*last[:y], *half, *last[y + 2 :]))
    return shapes


def write_group(folder: Path, attributes: dict[str, Any]) -> None:
    """Write a Zarr group of these attributes, whole or not at all."""
    described = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    write_json(folder / "zarr.json", described)


def read_attributes(folder: Path) -> dict[str, Any] | None:
    """Read the attributes of a group; None where it is not there or not whole."""
    try:
        described = json.loads((folder / "zarr.json").read_text(encoding="utf-8"))
        found = described["attributes"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, dict) else None
