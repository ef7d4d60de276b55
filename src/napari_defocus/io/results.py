"""Folders of results: the masks in them, and what lies beside each."""

from pathlib import Path

from napari_defocus.core.errors import DefocusError
from napari_defocus.io.base import location

# Where a blur map that is OME-Zarr keeps its mask.
MASK_WITHIN = Path("labels") / "mask"
# Longer ones first.
IMAGES = (".ome.zarr", ".ome.tif", ".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp", ".zarr")


def find_masks(given: str) -> list[str]:
    """List the masks that an input stands for: itself, or those in a folder.

    Raises
    ------
    DefocusError
        Where a folder holds none.
    """
    place = location(given)
    if isinstance(place, str) or not place.is_dir() or place.suffix == ".zarr":
        return [given]
    found = [path for path in place.glob("*.mask.*") if path.suffix in IMAGES]
    found += [path for path in place.glob("*.blur.ome.zarr") if (path / MASK_WITHIN).is_dir()]
    # What is being written has a hidden name.
    found = [path for path in found if not path.name.startswith(".")]
    if not found:
        raise DefocusError(f"{given}: a folder without masks, STEM.mask.tif")
    return list(map(str, sorted(found)))


def mask_stem(place: str | Path) -> str:
    """Return the name that a mask shares with its image: ``photo`` of ``photo.mask.tif``."""
    name = Path(str(place)).name
    ending = next((ending for ending in IMAGES if name.lower().endswith(ending)), "")
    return name.removesuffix(ending).removesuffix(".mask").removesuffix(".blur")


def mask_place(place: str | Path) -> str | Path:
    """Return where the mask itself lies: inside a blur map that is OME-Zarr."""
    inside = isinstance(place, Path) and (place / MASK_WITHIN).is_dir()
    return place / MASK_WITHIN if inside and isinstance(place, Path) else place


def blur_beside(place: str | Path, stem: str) -> Path | None:
    """Find the blur map that detection wrote beside a mask."""
    if isinstance(place, str) or (place / MASK_WITHIN).is_dir():
        return place if isinstance(place, Path) else None
    name = f"{stem}.blur"
    return next((p for e in IMAGES if (p := place.with_name(name + e)).exists()), None)
