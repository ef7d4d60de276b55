"""Reading images and labels, writing maps and pictures."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import BmpImagePlugin, Image, JpegImagePlugin, PngImagePlugin
from PIL.ImageFile import ImageFile as PillowFile

from napari_defocus.core.errors import DefocusError
from napari_defocus.io.atomic import whole_file
from napari_defocus.io.tiff_metadata import Pixels, quiet_tifffile, read_tiff

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
# What detection and stacks write beside images; an all-in-focus image is an image.
OUTPUT_ENDINGS = (
    *(f".{name}.tif" for name in ("blur", "mask", "confidence", "altitude", "provenance")),
    *(f".{name}_{unit}.tif" for name in ("radius", "radius_error") for unit in ("px", "um")),
    ".overview.png",
)
MAX_PIXELS = 2 * 10**9
"""Largest PNG, JPEG or BMP that is read: a broken header may ask for any amount of memory."""
MOST_PIXELS_A_BYTE = 10_000
"""More than PNG, JPEG and BMP can hold: PNG of 1 bit and one colour comes to 8,300."""


@dataclass(frozen=True, eq=False)
class ImageFile:
    """An image and what its file says about it.

    Parameters
    ----------
    data : array
        The pixels, in the number type of the file.
    axes : str
        A letter for each axis of `data`, as tifffile writes them: "YX", or "YXS" with S the
        samples of a pixel (2 grey and alpha, 3 RGB, 4 RGBA), behind letters of the stack if any
        (T time, Z depth, C channel, I, Q or others for pages of unknown meaning).
    pixel_size_um : float or None
        Edge of a square pixel in micrometres; None where the file does not say so for certain.
    path : Path
        Where it was read.
    """

    data: NDArray[Any]
    axes: str
    pixel_size_um: float | None
    path: Path


def read_image(path: Path) -> ImageFile:
    """Read a PNG, JPEG, BMP or TIFF image or stack; the content decides, not the suffix.

    Palettes are applied and MinIsWhite TIFFs inverted, but for the look-up tables of ImageJ,
    whose pixels are measured values. CMYK JPEGs become RGB. Of a TIFF the first series is read,
    of a pyramid the full resolution. The pixel grid stays as stored: EXIF and TIFF orientation
    are not applied, as in napari and scikit-image. In place of Pillow's limit, PNG, JPEG and BMP
    may have up to 2 gigapixels.

    Parameters
    ----------
    path : Path
        The image file.

    Returns
    -------
    ImageFile
        Pixels (bool, integer or float, as stored), axes and pixel size.

    Raises
    ------
    DefocusError
        Where the file is missing, empty, damaged, cut short, has no pixels or is not supported.
    """
    data, axes, pixel_size_um = _read(path, as_stored=False)
    return ImageFile(data, axes, pixel_size_um, path)


def read_labels(path: Path) -> NDArray[Any]:
    """Read an annotation or mask: one whole number a pixel, from PNG, BMP or TIFF.

    Parameters
    ----------
    path : Path
        The label file. The numbers count, not their display: a palette gives its indices, and
        MinIsWhite is not inverted.

    Returns
    -------
    array of int, shape (Y, X)
        The integers as stored; bool becomes uint8 with 0 and 1, whole floats become int32.

    Raises
    ------
    DefocusError
        As `read_image`, and where the file is a colour image, a stack or holds fractions.
    """
    labels, axes, _ = _read(path, as_stored=True)
    if axes.endswith("S"):
        raise DefocusError(
            f"{path} is a colour image, labels are one whole number a pixel; "
            "save it as a grey or palette image"
        )
    if axes != "YX":
        raise DefocusError(f"{path} is a stack ({axes}), labels are one plane; save that plane")
    if labels.dtype.kind == "b":
        return labels.astype(np.uint8)
    if labels.dtype.kind == "f":
        # NaN compares as False, so it is refused too.
        if not np.all((np.abs(labels) < 2**31) & (labels == np.rint(labels))):
            raise DefocusError(f"{path} holds fractions, labels are whole numbers; convert it")
        return labels.astype(np.int32)
    return labels


def find_images(inputs: Sequence[Path]) -> list[Path]:
    """List the images that files and folders stand for.

    Parameters
    ----------
    inputs : sequence of Path
        Files are kept as they are. A folder stands for the image files in it, sorted by name,
        without subfolders, hidden files and our own outputs (`OUTPUT_ENDINGS`).

    Returns
    -------
    list of Path
        In the order of `inputs`, each path once.

    Raises
    ------
    DefocusError
        Where a path does not exist, or a folder has no images or cannot be read.
    """
    found: dict[Path, None] = {}
    for path in inputs:
        if path.is_dir():
            found |= dict.fromkeys(_images_in(path))
        elif path.exists():
            found[path] = None
        else:
            raise DefocusError(f"{path} does not exist; check its name")
    return list(found)


def _images_in(folder: Path) -> list[Path]:
    try:
        names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    except OSError as error:
        raise DefocusError(f"cannot read {folder}: {error.strerror or error}") from error
    images = [
        folder / name
        for name in names
        if name.lower().endswith(IMAGE_SUFFIXES)
        and not name.lower().endswith(OUTPUT_ENDINGS)
        and not name.startswith(".")
    ]
    if not images:
        raise DefocusError(f"{folder} holds no PNG, JPEG, BMP or TIFF images; name another folder")
    return images


# Pillow's own classes by first bytes: Image.open would enforce the size limit of the whole process.
_FLAT: dict[bytes, type[PillowFile]] = {
    b"\x89PNG\r\n\x1a\n": PngImagePlugin.PngImageFile,
    b"\xff\xd8\xff": JpegImagePlugin.JpegImageFile,
    b"BM": BmpImagePlugin.BmpImageFile,
}


def _read(path: Path, as_stored: bool) -> Pixels:
    """Read any format; `as_stored` keeps the numbers where they stand for colours."""
    reader = _reader(path)
    try:
        with quiet_tifffile():
            data, axes, pixel_size_um = reader(path, as_stored)
    except DefocusError:
        raise
    except MemoryError as error:
        raise DefocusError(
            f"{path} does not fit into memory; crop it or save it in parts"
        ) from error
    except Exception as error:  # on broken bytes the decoders raise nearly anything
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise DefocusError(
            f"{path} is damaged, cut short or not supported ({reason}); "
            "copy it again, or export it as PNG or uncompressed TIFF"
        ) from error
    if data.size == 0:
        raise DefocusError(f"{path} has no pixels (size {data.shape}); export it again")
    if data.dtype.kind not in "buif":
        raise DefocusError(f"{path} holds {data.dtype} pixels; convert them to integer or float")
    return data, axes, pixel_size_um


def _reader(path: Path) -> Callable[[Path, bool], Pixels]:
    """Choose by the first bytes of the file."""
    if path.is_dir():
        raise DefocusError(f"{path} is a folder; name an image file")
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except FileNotFoundError as error:
        raise DefocusError(f"{path} does not exist; check its name") from error
    except OSError as error:
        raise DefocusError(f"cannot read {path}: {error.strerror or error}") from error
    if not head:
        raise DefocusError(f"{path} is empty; copy or export it again")
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return read_tiff
    for start, form in _FLAT.items():
        if head.startswith(start):
            return partial(_read_flat, form)
    raise DefocusError(f"{path} is not a PNG, JPEG, BMP or TIFF image; export it as one of these")


def _read_flat(form: type[PillowFile], path: Path, as_stored: bool) -> Pixels:
    """Read PNG, JPEG or BMP."""
    with path.open("rb") as file:
        head = file.read(26)
        file.seek(0)
        if len(head) < 26:
            raise ValueError("the header is incomplete")
        depth, kind = head[24:26] if form is PngImagePlugin.PngImageFile else (8, 0)
        with form(file) as image:
            _check_size(path, *image.size, path.stat().st_size)
            if depth == 16:  # Pillow would cut colours to 8 bits
                image.verify()
                file.seek(0)
                data = imagecodecs.png_decode(file.read())
            else:
                data = _pillow_array(image, as_stored)
    if as_stored and kind == 0 and depth in (2, 4):
        data //= 255 // (2**depth - 1)  # undo the scaling of small greys to 0..255
    return _flat(data)


def _check_size(path: Path, width: int, height: int, held: int) -> None:
    if width * height > MAX_PIXELS:
        raise DefocusError(
            f"{path} claims {width} x {height} pixels, more than {MAX_PIXELS // 10**9} gigapixels; "
            "crop it or save it as TIFF"
        )
    # Of a JPEG that ends early the decoder would make up the rest.
    if width * height > MOST_PIXELS_A_BYTE * held:
        raise ValueError(f"{width} x {height} pixels cannot be in {held} bytes")


def _pillow_array(image: Image.Image, as_stored: bool) -> NDArray[Any]:
    if image.mode == "P":
        if not as_stored:
            image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    elif image.mode not in ("1", "L", "LA", "RGB", "RGBA"):
        image = image.convert("RGB")  # CMYK
    return np.array(image)


def _flat(data: NDArray[Any]) -> Pixels:
    # The print density of these formats says nothing about the size of a pixel.
    return data, "YXS"[: data.ndim], None


def write_tiff(
    path: Path,
    data: NDArray[Any],
    *,
    axes: str,
    pixel_size_um: float | None = None,
    overwrite: bool = True,
) -> None:
    """Write a map, mask or stack such that Fiji and napari see its axes and scale.

    One plane of uint8, uint16 or float32, or RGB of uint8, becomes an ImageJ TIFF with deflate
    compression. A stack of these is an ImageJ TIFF without compression, as Fiji reads ImageJ
    stacks in one piece only. Anything else is a plain, compressed TIFF.

    Parameters
    ----------
    path : Path
        The file to be.
    data : array
        Blur maps are float32 in [0, 1], masks uint8.
    axes : str
        A letter for each axis of `data`, "YX" or "YXS" at the end. ImageJ keeps stacks in the
        order "TZC", so that "CZYX" is read back as "ZCYX".
    pixel_size_um : float, optional
        Edge of a pixel in micrometres.
    overwrite : bool
        Whether an existing `path` may be replaced.

    Raises
    ------
    DefocusError
        Where `path` cannot be written.
    """
    is_rgb = axes.endswith("S") and data.shape[-1] in (3, 4)
    leading = axes.removesuffix("S").removesuffix("YX")
    options: dict[str, Any] = {"photometric": "rgb" if is_rgb else "minisblack"}
    is_imagej = (
        set(leading) <= set("TZC")
        and data.dtype in ((np.uint8,) if "S" in axes else (np.uint8, np.uint16, np.float32))
        and ("S" not in axes or is_rgb)
        and data.nbytes < 2**31  # ImageJ knows no BigTIFF
    )
    if is_imagej:
        order = sorted(range(len(leading)), key=lambda i: "TZC".index(leading[i]))
        data = data.transpose([*order, *range(len(leading), data.ndim)])
        axes = "".join(axes[i] for i in order) + axes[len(leading) :]
    metadata: dict[str, Any] = {"axes": axes}
    if pixel_size_um is not None:
        per_pixel = 1 / pixel_size_um if is_imagej else 1e4 / pixel_size_um
        options["resolution"] = (per_pixel, per_pixel)
        if is_imagej:
            metadata["unit"] = "um"
        else:
            options["resolutionunit"] = "CENTIMETER"
    if not is_imagej or data.size == math.prod(data.shape[len(leading) :]):
        options["compression"] = "zlib"
    with whole_file(path, overwrite) as temporary:
        tifffile.imwrite(temporary, data, imagej=is_imagej, ome=False, metadata=metadata, **options)


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
