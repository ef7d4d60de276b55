"""CZI by Zeiss's own library: any region of any scene, put together from the tiles it touches."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from napari_defocus.io.base import Plane
from napari_defocus.io.foreign import ForeignSource, in_time, missing, reading
from napari_defocus.io.optics import optics_of
from napari_defocus.io.series import choose_image

Array = npt.NDArray[Any]

# Time, channel, depth; rotation, illumination, phase, view, block. Those of one place do not count.
_DIMENSIONS = "TCRIHVBZ"
_TYPES = {"Gray8": np.uint8, "Gray16": np.uint16, "Gray32Float": np.float32}
_COLOURS = {"Bgr24": np.uint8, "Bgr48": np.uint16, "Bgr96Float": np.float32}


class CziSource(ForeignSource):
    """A scene of a CZI; without scenes, all that it holds."""

    def __init__(self, path: Path, axes: str | None, series: int | None) -> None:
        with reading(path):
            file = _open(path)
            try:
                scenes, sizes = _scenes(file), file.total_bounding_box_no_pyramid
                kinds = [file.pixel_types[channel] for channel in sorted(file.pixel_types)]
                block = _first_tile(file)
                xml = ElementTree.fromstring(file.raw_metadata)
            finally:
                file.close()
            lengths = {letter: sizes.get(letter, (0, 1))[1] for letter in _DIMENSIONS}
            self._letters = [letter for letter, length in lengths.items() if length > 1]
            outer = tuple(lengths[letter] for letter in self._letters)
            shapes = [(*outer, area.h, area.w) for _, area in scenes]
            titles = [_title(xml, number) for number, _ in scenes]
            chosen = choose_image(str(path), titles, shapes, series)
            self._scene, self._area = scenes[chosen]
            self._is_colour = any(kind in _COLOURS for kind in kinds)
            dtype = np.result_type(*((_TYPES | _COLOURS)[kind] for kind in kinds))
            channels = tuple(
                str(part.get("Name", ""))
                for part in xml.findall("./Metadata/Information/Image/Dimensions/Channels/Channel")
            )
            self.optics = optics_of(xml, channels)
            super().__init__(
                path,
                chosen,
                axes,
                "".join(self._letters) + "YX" + "S" * self._is_colour,
                shapes[chosen] + (3,) * self._is_colour,
                dtype,
                block=block,
                scale=dict(_steps(xml)),
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
    with reading(path):
        file = _open(path)
        try:
            return len(_scenes(file))
        finally:
            file.close()


def _open(path: Path) -> Any:
    try:
        from pylibCZIrw.czi import CziReader
    except ImportError as error:
        raise missing(path, "pylibCZIrw") from error
    return in_time(lambda: CziReader(str(path)))


def _scenes(file: Any) -> list[tuple[int | None, Any]]:
    """List number and place of the scenes; of a file without any, all of it."""
    found = file.scenes_bounding_rectangle_no_pyramid
    return sorted(found.items()) or [(None, file.total_bounding_rectangle_no_pyramid)]


def _title(xml: ElementTree.Element, scene: int | None) -> str:
    """Name a scene as the microscope does; of a plate, by its well too."""
    described = xml.find(f".//Scenes/Scene[@Index='{scene}']")
    if described is None:
        return ""
    shape = described.find("Shape")
    names = [described.get("Name"), None if shape is None else shape.get("Name")]
    return "-".join(name for name in dict.fromkeys(names) if name)


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
