"""PNG, JPEG, BMP and WebP: pictures that are read whole."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import BmpImagePlugin, Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin
from PIL.ImageFile import ImageFile as PillowFile

from napari_defocus.core.errors import DefocusError, notice
from napari_defocus.io.atomic import whole_file
from napari_defocus.io.base import ArraySource, decoding, file_identity

Array = NDArray[Any]

MAX_PIXELS = 2 * 10**9
"""Largest picture that is read: a broken header may ask for any amount of memory."""
MOST_PIXELS_A_BYTE = 10_000
"""More than pictures hold: PNG of 1 bit and one colour comes to 8,300."""


# Pillow's own classes by first bytes: Image.open would enforce the size limit of the whole process.
_FLAT: dict[bytes, type[PillowFile]] = {
    b"\x89PNG\r\n\x1a\n": PngImagePlugin.PngImageFile,
    b"\xff\xd8\xff": JpegImagePlugin.JpegImageFile,
    b"BM": BmpImagePlugin.BmpImageFile,
    b"RIFF": WebPImagePlugin.WebPImageFile,
}


class RasterSource(ArraySource):
    """A picture that can only be read whole; its pixels stay in memory, as labels `as_stored`."""

    def __init__(self, path: Path, axes: str | None = None, as_stored: bool = False) -> None:
        self._path, self._as_stored = path, as_stored
        data = self._decode()
        # The print density of these formats says nothing about the size of a pixel.
        super().__init__(str(path), axes or "YXS"[: data.ndim], data)
        self._opened, self._array = data, None

    def _open(self) -> Array:
        return self._decode()

    def _identity(self) -> Iterable[str | bytes]:
        return file_identity(self._path)

    def _decode(self) -> Array:
        with self._path.open("rb") as file:
            head = file.read(8)
        form = next((form for start, form in _FLAT.items() if head.startswith(start)), None)
        if form is None:
            raise DefocusError(
                f"{self._path} is not a PNG, JPEG, BMP or TIFF image, nor WebP; "
                "export it as one of these"
            )
        with decoding(self._path):
            return _read(form, self._path, self._as_stored)


def _read(form: type[PillowFile], path: Path, as_stored: bool) -> Array:
    """Read any of them; `as_stored` keeps the numbers where they stand for colours."""
    with path.open("rb") as file:
        head = file.read(26)
        file.seek(0)
        if len(head) < 26:
            raise ValueError("the header is incomplete")
        depth, kind = head[24:26] if form is PngImagePlugin.PngImageFile else (8, 0)
        with form(file) as image:
            _check_size(path, *image.size, path.stat().st_size)
            frames = getattr(image, "n_frames", 1)
            if frames > 1:
                notice(f"{path} holds {frames} pictures; the first is taken")
            if depth == 16:  # Pillow would cut colours to 8 bits
                image.verify()
                file.seek(0)
                data = imagecodecs.png_decode(file.read())
            else:
                data = _pillow_array(image, as_stored)
    if as_stored and kind == 0 and depth in (2, 4):
        data //= 255 // (2**depth - 1)  # undo the scaling of small greys to 0..255
    return data


def _check_size(path: Path, width: int, height: int, held: int) -> None:
    if width * height > MAX_PIXELS:
        raise DefocusError(
            f"{path} claims {width} x {height} pixels, more than {MAX_PIXELS // 10**9} gigapixels; "
            "crop it or save it as TIFF"
        )
    # Of a JPEG that ends early the decoder would make up the rest.
    if width * height > MOST_PIXELS_A_BYTE * held:
        raise ValueError(f"{width} x {height} pixels cannot be in {held} bytes")


def _pillow_array(image: Image.Image, as_stored: bool) -> Array:
    if image.mode == "P":
        if not as_stored:
            image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    elif image.mode not in ("1", "L", "LA", "RGB", "RGBA"):
        image = image.convert("RGB")  # CMYK
    return np.array(image)


def write_png(path: Path, image: NDArray[np.uint8], *, overwrite: bool = True) -> None:
    """Write a picture as PNG.

    Parameters
    ----------
    path : Path
        The file to be.
    image : array of uint8, shape (Y, X), (Y, X, 3) or (Y, X, 4)
        Grey, RGB or RGBA levels, 0 to 255.
    overwrite : bool
        Whether an existing `path` may be replaced.

    Raises
    ------
    DefocusError
        Where `path` cannot be written.
    """
    with whole_file(path, overwrite) as temporary:
        Image.fromarray(np.ascontiguousarray(image)).save(temporary, format="PNG")
