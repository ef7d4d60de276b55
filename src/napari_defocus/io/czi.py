"""CZI by Zeiss's own library: any region of any scene, put together from the tiles it touches."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from napari_defocus.io.base import Plane
from napari_defocus.io.foreign import ForeignSource, ask, missing, reading
from napari_defocus.io.optics import optics_of
from napari_defocus.io.series import choose_image

Array = npt.NDArray[Any]

# Time, channel, depth; rotation, illumination, phase, view, block. Those of one place do not count.
_DIMENSIONS = "TCRIHVBZ"
_COLOURS = {"Bgr24": np.uint8, "Bgr48": np.uint16, "Bgr96Float": np.float32}
_TYPES = {"Gray8": np.uint8, "Gray16": np.uint16, "Gray32Float": np.float32} | _COLOURS


class CziSource(ForeignSource):
    """A scene of a CZI; without scenes, all that it holds."""

    def __init__(self, path: Path, axes: str | None, series: int | None) -> None:
        found = ask(path, lambda: _look(path))
        self._letters = list(found.lengths)
        outer = tuple(found.lengths.values())
        shapes = [(*outer, area.h, area.w) for _, area in found.scenes]
        names = [_names(found.xml, number) for number, _ in found.scenes]
        titles = [" ".join(dict.fromkeys(filter(None, each))) for each in names]
        chosen = choose_image(str(path), titles, shapes, series)
        self.well = names[chosen][1]
        self._scene, self._area = found.scenes[chosen]
        self._is_colour = any(kind in _COLOURS for kind in found.kinds)
        channels = found.xml.findall("./Metadata/Information/Image/Dimensions/Channels/Channel")
        self.optics = optics_of(found.xml, tuple(part.get("Name", "") for part in channels))
        super().__init__(
            path,
            chosen,
            axes,
            "".join(self._letters) + "YX" + "S" * self._is_colour,
            shapes[chosen] + (3,) * self._is_colour,
            np.result_type(*(_TYPES[kind] for kind in found.kinds)),
            block=found.block,
            scale=dict(_steps(found.xml)),
        )

    def _open(self) -> Any:
        with reading(self._path):
            return _open(self._path)

    def _piece(self, handle: Any, place: Plane, rows: slice, columns: slice) -> Array:
        x, y = self._area.x + columns.start, self._area.y + rows.start
        piece = handle.read(
            roi=(x, y, columns.stop - columns.start, rows.stop - rows.start),
            plane=dict(zip(self._letters, place, strict=True)),
            scene=self._scene,
        )
        # Blue first; a grey channel beside coloured ones has one sample.
        piece = np.broadcast_to(piece[..., ::-1], (*piece.shape[:2], 1 + 2 * self._is_colour))
        return piece.astype(self.dtype, copy=False)


def count_scenes(path: Path) -> int:
    """Return how many images a CZI holds."""
    return len(ask(path, lambda: _look(path)).scenes)


@dataclass(frozen=True)
class _Look:
    """What a CZI tells: number and place of the scenes, lengths of the other dimensions."""

    scenes: list[tuple[int | None, Any]]
    lengths: dict[str, int]
    kinds: list[str]
    block: tuple[int, int]
    xml: ElementTree.Element


def _look(path: Path) -> _Look:
    file = _open(path)
    try:
        sizes = file.total_bounding_box_no_pyramid
        lengths = {letter: sizes.get(letter, (0, 1))[1] for letter in _DIMENSIONS}
        return _Look(
            _scenes(file),
            {letter: length for letter, length in lengths.items() if length > 1},
            [file.pixel_types[channel] for channel in sorted(file.pixel_types)],
            _first_tile(file),
            ElementTree.fromstring(file.raw_metadata),
        )
    finally:
        file.close()


def _open(path: Path) -> Any:
    try:
        from pylibCZIrw.czi import CziReader
    except ImportError as error:
        raise missing(path, "pylibCZIrw") from error
    return CziReader(str(path))


def _scenes(file: Any) -> list[tuple[int | None, Any]]:
    """List number and place of the scenes; of a file without any, all of it."""
    found = file.scenes_bounding_rectangle_no_pyramid
    return sorted(found.items()) or [(None, file.total_bounding_rectangle_no_pyramid)]


def _names(xml: ElementTree.Element, scene: int | None) -> tuple[str, str]:
    """Return what a scene is called, and the well that it lies in."""
    described = xml.find(f".//Scenes/Scene[@Index='{scene}']")
    if described is None:
        return "", ""
    shape = described.find("Shape")
    return described.get("Name", ""), "" if shape is None else shape.get("Name", "")


def _first_tile(file: Any) -> tuple[int, int]:
    """Return rows and columns of the first tile that is no reduced one."""
    found: list[tuple[int, int]] = []

    def look(index: int, tile: Any) -> bool:
        if tile.get_zoom() == 1:
            found.append((tile.logicalRect.h, tile.logicalRect.w))
        return not found

    file.enumerate_subblocks(look)
    return found[0] if found else (1, 1)


def _steps(xml: ElementTree.Element) -> Iterator[tuple[str, float]]:
    """Yield the steps along the axes in micrometres; the file has them in metres."""
    for letter in "XYZ":
        value = xml.findtext(f"./Metadata/Scaling/Items/Distance[@Id='{letter}']/Value", "")
        with suppress(ValueError):
            if (step := round(float(value) * 1e6, 9)) > 0:
                yield letter, step
