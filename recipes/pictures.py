"""Gather the pictures that the dense detector's scenes are rendered from.

    python recipes/pictures.py BOOK

On Debian 12: the packages in `PACKAGES` are downloaded with ``apt-get download`` and unpacked, not
installed. BOOK gets ``backgrounds``, photos in focus all over that were chosen by eye (their list
is ``backgrounds.txt``), and ``objects``, cut-outs of Tux Paint that are large enough and no
drawings. All are under free licences; none is a photo that detectors are scored on.
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from napari_defocus.metric.default_recipe import PICTURES, load_picture

PACKAGES = (
    "lomiri-wallpapers-16.04",
    "lxqt-themes",
    "mate-backgrounds",
    "opencv-doc",
    "plasma-workspace-wallpapers",
    "tuxpaint-stamps-default",
)
LISTED = Path(__file__).with_name("backgrounds.txt")
LARGEST_SIDE = 3000
STAMPS = "usr/share/tuxpaint/stamps"
NO_PHOTOS = ("/symbols/", "cartoon", "mirror", "flip", "naturalforces")
SMALLEST_OBJECT = 150
# An outline of nothing but a few opaque pixels is no object.
LEAST_COVER = 0.08


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("book", type=Path)
    book = parser.parse_args().book
    for name in ("backgrounds", "objects"):
        (book / name).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        unpack(root)
        copy_backgrounds(root, book / "backgrounds")
        copy_objects(root, book / "objects")
    counts = {name: len(list((book / name).iterdir())) for name in ("backgrounds", "objects")}
    print(f"{book}: {counts['backgrounds']} backgrounds, {counts['objects']} objects")


def unpack(root: Path) -> None:
    """Download the packages and unpack them, all into one tree."""
    subprocess.run(["apt-get", "download", *PACKAGES], cwd=root, check=True)
    for package in sorted(root.glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", package, root], check=True)


def copy_backgrounds(root: Path, folder: Path) -> None:
    """Copy the listed photos, the largest ones reduced, and the pictures of Python packages."""
    Image.MAX_IMAGE_PIXELS = None
    for line in LISTED.read_text("utf-8").splitlines():
        name, path = line.split(" ", 1)
        picture = Image.open(root / path).convert("RGB")
        picture.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
        picture.save(folder / name, quality=95)
    for name in (*PICTURES, "chelsea"):
        picture = Image.fromarray(load_picture(name)).convert("RGB")
        picture.save(folder / f"skimage_{name.split('.')[0]}.png")


def copy_objects(root: Path, folder: Path) -> None:
    """Copy the cut-outs that are photos, or at least painted like one, and large enough."""
    for path in sorted((root / STAMPS).rglob("*.png")):
        picture = Image.open(path)
        if any(word in str(path) for word in NO_PHOTOS) or max(picture.size) < SMALLEST_OBJECT:
            continue
        picture = picture.convert("RGBA")
        if (np.asarray(picture)[..., 3] > 250).mean() >= LEAST_COVER:
            picture.save(folder / "_".join(path.relative_to(root / STAMPS).parts))


if __name__ == "__main__":
    main()
