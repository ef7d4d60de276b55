"""Fields: the planes of a folder of results, and whether each is in focus.

A field counts by the share of its *structure* that is sharp: what shows nothing is no evidence. Of
a focus stack the plane with most that is sharp counts. Planes much larger than a tile are cut.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from napari_defocus.core.errors import DefocusError, check_range
from napari_defocus.core.settings import Allowed, Settings
from napari_defocus.core.tiling import Region, plan_tiles
from napari_defocus.filters.noise import NORMAL
from napari_defocus.io.base import ImageSource
from napari_defocus.io.manifest import RunRecord
from napari_defocus.io.open import open_source
from napari_defocus.io.results import find_masks, mask_place, mask_stem
from napari_defocus.labels.classes import BLURRED, SHARP
from napari_defocus.report.wells import Well, find_well

IN_FOCUS, SOFT, OUT_OF_FOCUS, NOTHING = "in focus", "soft", "out of focus", "nothing to see"
VERDICTS = (IN_FOCUS, SOFT, OUT_OF_FOCUS, NOTHING)
# Planes are cut into tiles where a side is larger than so many tiles.
LARGE = 4
# A field stands out by this z-score, of so many fields, where they differ by so much at least.
MOST_Z, FEWEST_ALIKE, LEAST_SPREAD = 3.5, 20, 0.25


@dataclass(frozen=True)
class Thresholds(Settings):
    """What the shares of a field mean.

    Parameters
    ----------
    in_focus : float
        From this sharp share of its structure on a field is in focus.
    out_of_focus : float
        Below this one it is out of focus; between both it is soft.
    least : float
        With structure on less than this share of its area a field has nothing to see.
    """

    in_focus: float = 0.6
    out_of_focus: float = 0.2
    least: float = 0.002

    _allowed: ClassVar[Allowed] = {"in_focus": (0, 1), "least": (0, 1)}
    _called: ClassVar[dict[str, str]] = {"in_focus": "in-focus", "out_of_focus": "out-of-focus"}

    def _check(self) -> None:
        check_range("out-of-focus", self.out_of_focus, 0, self.in_focus)

    def judge(self, field: "Field") -> str:
        """Return one of `VERDICTS`."""
        if math.isnan(field.sharp) or field.structure < self.least:
            return NOTHING
        if field.sharp >= self.in_focus:
            return SOFT if field.odd else IN_FOCUS
        return OUT_OF_FOCUS if field.sharp < self.out_of_focus else SOFT


@dataclass(frozen=True)
class Field:
    """A plane of an image, or a tile of one.

    Parameters
    ----------
    name : str
        Of the image, without its ending.
    mask : str
        File or folder with its mask.
    plane : tuple of int
        Place along the leading axes; `where` names them.
    region : (slice, slice)
        Rows and columns; `tiled` where these are not all.
    sharp, structure : float
        Sharp share of the structure (nan without any), share of the area that shows structure.
    found : mapping
        What the run record says of the plane: ``limit_px``, ``sharpest_px``, ``near_limit``.
    source : str
        The image; empty where the record does not tell. It was opened with `axes` and `series`.
    odd : bool
        Whether its sharpest structure is far wider than that of the other fields.
    """

    name: str
    mask: str
    plane: tuple[int, ...]
    where: Mapping[str, int]
    region: Region
    tiled: bool
    sharp: float
    structure: float
    pixel_size_um: float | None = None
    found: Mapping[str, float | None] = field(default_factory=dict)
    source: str = ""
    axes: str | None = None
    series: int | None = None
    odd: bool = False
    well: Well | None = None
    site: int | None = None

    @property
    def title(self) -> str:
        """Its name, plane and place, for people."""
        parts = [f"{letter} {index}" for letter, index in self.where.items()]
        if self.tiled:
            parts.append("row {}, column {}".format(*(part.start for part in self.region)))
        return ", ".join([self.name, *parts])

    def row(self, thresholds: Thresholds) -> dict[str, Any]:
        """Return it as a row of `fields.csv`, without the indices of axes."""
        rows, columns = self.region
        return {
            "field": self.name,
            "verdict": thresholds.judge(self),
            "sharp_of_structure": self.sharp,
            "structure": self.structure,
            "well": "" if self.well is None else str(self.well),
            "site": "" if self.site is None else self.site,
            "row": rows.start,
            "column": columns.start,
            "height": rows.stop - rows.start,
            "width": columns.stop - columns.start,
            "pixel_size_um": self.pixel_size_um or "",
            **{name: self.found.get(name) for name in ("limit_px", "sharpest_px", "near_limit")},
            "image": self.source,
        }


class Results:
    """A folder of results; masks that did not change since are not read again.

    Parameters
    ----------
    folder : Path
        Where detection wrote.
    tile : int
        Side of the tiles, in pixels, that planes of more than `LARGE` of them are cut into.
    """

    def __init__(self, folder: Path, tile: int = 1024) -> None:
        if tile < 1:
            raise DefocusError(f"the tile is {tile}; give a side of one pixel or more")
        self.folder, self.tile = folder, tile
        self.record = RunRecord(folder)
        self.failed: dict[str, DefocusError] = {}
        self._known: dict[str, tuple[Any, list[Field]]] = {}

    def fields(self) -> list[Field]:
        """Read the fields; masks that cannot be read are in `failed`.

        Raises
        ------
        DefocusError
            Where there is no such folder, it holds no masks, or its record cannot be read.
        """
        if not self.folder.is_dir():
            raise DefocusError(f"{self.folder} is no folder of results; name what detect wrote")
        found: list[Field] = []
        self.failed = {}
        for mask in find_masks(str(self.folder)):
            try:
                found += self.fields_of(mask)
            except DefocusError as error:
                self.failed[mask] = error
        return mark_odd(found)

    def fields_of(self, mask: str) -> list[Field]:
        """Read the fields of one mask.

        Raises
        ------
        DefocusError
            Where it cannot be read.
        """
        entry = self.record.entries().get(mask_stem(mask), {})
        seen = _seen(Path(mask)), entry.get("source")
        if self._known.get(mask, (None,))[0] != seen:
            self._known[mask] = seen, list(self._read(mask, entry))
        return self._known[mask][1]

    def _read(self, mask: str, entry: Mapping[str, Any]) -> Iterator[Field]:
        source = open_source(mask_place(Path(mask)))
        if source.dtype.kind not in "bui" or source.axes.endswith("S"):
            raise DefocusError(f"{mask} is no mask; it holds {source.dtype} along {source.axes}")
        stem = mask_stem(mask)
        well, site = find_well(str(entry.get("well") or stem))
        tiles = self._tiles(source)
        for region in tiles:
            counts = {i: _count(source.read(i, *region)) for i in np.ndindex(source.leading)}
            for plane in _best_of_stacks(source, counts):
                blurred, sharp, area = counts[plane]
                decided = blurred + sharp
                yield Field(
                    name=stem,
                    mask=mask,
                    plane=plane,
                    where=dict(zip(source.axes, plane, strict=False)),
                    region=region,
                    tiled=len(tiles) > 1,
                    sharp=sharp / decided if decided else math.nan,
                    structure=decided / area,
                    pixel_size_um=source.pixel_size_um,
                    found=_found(entry, source, plane),
                    source=str(entry.get("source", "")),
                    axes=entry.get("identity", {}).get("axes"),
                    series=entry.get("identity", {}).get("series"),
                    well=well,
                    site=site,
                )

    def _tiles(self, source: ImageSource) -> Sequence[Region]:
        shape = source.grid.plane_shape
        side = self.tile if max(shape) > LARGE * self.tile else max(shape)
        return [tile.region for tile in plan_tiles(shape, side)]


def _seen(mask: Path) -> tuple[int, int]:
    try:
        seen = mask.stat()
    except OSError as error:
        raise DefocusError(f"cannot read {mask}: {error.strerror or error}") from error
    return seen.st_mtime_ns, seen.st_size


def _count(mask: npt.NDArray[Any]) -> tuple[int, int, int]:
    blurred, sharp = (int(np.count_nonzero(mask == label)) for label in (BLURRED, SHARP))
    return blurred, sharp, mask.size


def _best_of_stacks(
    source: ImageSource, counts: Mapping[tuple[int, ...], tuple[int, int, int]]
) -> list[tuple[int, ...]]:
    """List the planes that count: along Z the one with most that is sharp."""
    if "Z" not in source.axes:
        return list(counts)
    along = source.axes.index("Z")
    best: dict[tuple[int, ...], tuple[int, ...]] = {}
    for plane, (_, sharp, _) in counts.items():
        stack = plane[:along] + plane[along + 1 :]
        if stack not in best or sharp > counts[best[stack]][1]:
            best[stack] = plane
    return list(best.values())


def _found(
    entry: Mapping[str, Any], source: ImageSource, plane: tuple[int, ...]
) -> dict[str, float | None]:
    """Return what the record says of a plane; nothing where it says it of other planes."""
    index = int(np.ravel_multi_index(plane, source.leading)) if source.leading else 0
    planes = math.prod(source.leading)
    found = entry.get("found", {})
    return {
        name: values[index]
        for name, values in (found.items() if isinstance(found, dict) else ())
        if isinstance(values, list) and len(values) == planes
    }


def mark_odd(fields: list[Field]) -> list[Field]:
    """Mark fields whose sharpest structure stands out: in one acquisition all are much alike.

    By the modified z-score of Iglewicz and Hoaglin, of the logarithm of the radius.
    """
    radii = [one.found.get("sharpest_px") for one in fields]
    logs = np.log([np.nan if radius is None else max(radius, 1e-2) for radius in radii])
    if np.count_nonzero(~np.isnan(logs)) < FEWEST_ALIKE:
        return fields
    middle = np.nanmedian(logs)
    spread = max(NORMAL * np.nanmedian(np.abs(logs - middle)), LEAST_SPREAD)
    odd = (logs - middle) / spread > MOST_Z
    return [
        replace(one, odd=True) if is_odd else one for one, is_odd in zip(fields, odd, strict=True)
    ]


def field_rows(fields: Sequence[Field], thresholds: Thresholds) -> list[dict[str, Any]]:
    """Return the rows of `fields.csv`: all with the same columns, axes after the name."""
    letters = list(dict.fromkeys(letter for one in fields for letter in one.where))
    rows = []
    for one in fields:
        row = one.row(thresholds)
        axes = {letter: one.where.get(letter, "") for letter in letters}
        rows.append({"field": row.pop("field"), **axes, **row})
    return rows
