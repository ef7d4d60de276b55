"""Gather and reduce the pictures that the dense network is trained on into one small folder.

    python prepare_pictures.py BOOK SHARED OUT [--only PART ...]

BOOK is what `recipes/pictures.py` made; SHARED holds ``train_micro``, ``train_photos`` and
``train_szu``. OUT gets

book/backgrounds, book/objects   photos in focus all over, and cut-outs, for rendered scenes
micro, micro.json                microscope images in focus (grade A); source and licence of each
stacks                           planes of focus stacks, NAME.jpg, and their labels, NAME.png:
                                 0 unlabelled, 1 blurred, 2 sharp
szu                              annotated photos with masks (255 = blurred)
photos                           photos of shallow depth of field without masks
"""

import argparse
import csv
import json
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from napari_defocus.core.errors import DefocusError
from napari_defocus.stacks.planes import open_stack
from napari_defocus.stacks.registration import register_planes
from napari_defocus.stacks.training_labels import propose_annotations

BACKGROUND_SIDE, OBJECT_SIDE, MICRO_SIDE, STACK_SIDE = 1150, 400, 640, 800
# Of the same experiment as a series that detectors are scored on.
LEFT_OUT = ("in_silico_labeling",)
STACKS = {
    "mineral": "z-stackr/mineral",
    "ball": "johnnewto_FocusStackPy/aligned",
    "keyboard": "dorinbotan_FocusStack/keyboard_dslr_7",
    "ring": "cmcguinness_focusstack/ring",
    "leaf": "josephlewis42_focus-stack/leaf",
}
PHOTOS = ("kodak_unrestricted", "skimage_cc0", "wallpapers_cc0_ccby")
FLOWERS = 130


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("book", type=Path)
    parser.add_argument("shared", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="+", default=["szu", "book", "photos", "stacks", "micro"])
    options = parser.parse_args()
    prepare = {
        "book": prepare_book,
        "micro": prepare_micro,
        "stacks": prepare_stacks,
        "szu": prepare_szu,
        "photos": prepare_photos,
    }
    for part in options.only:
        prepare[part](options)
        print(part, "done", flush=True)


def reduced(picture: Image.Image, side: int) -> Image.Image:
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return picture


def prepare_book(options: argparse.Namespace) -> None:
    for kind in ("backgrounds", "objects"):
        folder = options.out / "book" / kind
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted((options.book / kind).iterdir()):
            picture = Image.open(path)
            picture.draft("RGB", (2 * BACKGROUND_SIDE, 2 * BACKGROUND_SIDE))
            if kind == "backgrounds":
                reduced(picture.convert("RGB"), BACKGROUND_SIDE).save(
                    folder / f"{path.stem}.jpg", quality=91
                )
            else:
                reduced(picture.convert("RGBA"), OBJECT_SIDE).save(
                    folder / f"{path.stem}.webp", quality=85
                )


def prepare_micro(options: argparse.Namespace) -> None:
    import tifffile

    folder = options.out / "micro"
    folder.mkdir(parents=True, exist_ok=True)
    known = {}
    source = options.shared / "train_micro"
    for row in csv.DictReader((source / "manifest.csv").open()):
        path = source / row["source"] / row["file"]
        if (
            row["source"] in LEFT_OUT
            or ",A," not in ",".join(map(str, row.values()))
            or not path.exists()
        ):
            continue
        image = (
            tifffile.imread(path)
            if path.suffix in (".tif", ".tiff")
            else np.asarray(Image.open(path))
        )
        image = np.squeeze(image)
        if image.ndim == 3 and image.shape[-1] > 3:
            image = image[..., :3]
        if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[-1] != 3):
            print("left out:", path, image.shape)
            continue
        if image.dtype != np.uint8:
            low, high = np.percentile(image, (0.05, 99.95))
            image = np.clip(255 * (image - low) / max(high - low, 1e-6), 0, 255).astype(np.uint8)
        image = textured_part(image, MICRO_SIDE)  # of a large image, the part of most structure
        name = f"{row['source']}_{len(known):03d}.webp"
        Image.fromarray(image).save(folder / name, quality=94, method=4)
        known[name] = {"source": row["source"], "file": row["file"], "licence": row["licence"]}
    (options.out / "micro.json").write_text(json.dumps(known, indent=0))


def textured_part(image: np.ndarray, side: int) -> np.ndarray:
    grey = image.mean(axis=2) if image.ndim == 3 else image.astype(float)
    best, chosen = -1.0, (0, 0)
    for y in {0, max((grey.shape[0] - side) // 2, 0), max(grey.shape[0] - side, 0)}:
        for x in {0, max((grey.shape[1] - side) // 2, 0), max(grey.shape[1] - side, 0)}:
            part = grey[y : y + side : 2, x : x + side : 2]
            detail = np.abs(np.diff(part, axis=0)).mean() + np.abs(np.diff(part, axis=1)).mean()
            if detail > best:
                best, chosen = detail, (y, x)
    return np.ascontiguousarray(image[chosen[0] : chosen[0] + side, chosen[1] : chosen[1] + side])


def prepare_stacks(options: argparse.Namespace) -> None:
    folder = options.out / "stacks"
    folder.mkdir(parents=True, exist_ok=True)
    for name, where in STACKS.items():
        paths = sorted(
            (options.shared / "train_photos" / where).glob("*.*"),
            key=lambda p: int("".join(c for c in p.stem if c.isdigit())),
        )
        paths = paths[:: 2 if name == "keyboard" else 1]
        images = np.stack(
            [np.asarray(reduced(Image.open(p).convert("RGB"), STACK_SIDE)) for p in paths]
        )
        planes = open_stack(images)
        try:
            planes = planes.registered(register_planes(planes))
        except DefocusError as error:  # a stack that cannot be registered is used as it is
            print(name, error)
        for index, labels in enumerate(propose_annotations(planes)):
            in_view = planes.in_view(index, labels.shape, 1)
            labels = np.where(in_view, labels, 0).astype(np.uint8)
            counts = np.bincount(labels.ravel(), minlength=3)
            print(name, index, counts, flush=True)
            if index % (2 if name in ("mineral", "ball") else 1) or counts[1:].sum() < 2000:
                continue
            Image.fromarray(np.asarray(planes[index])).save(
                folder / f"{name}_{index:02d}.jpg", quality=92
            )
            Image.fromarray(labels).save(folder / f"{name}_{index:02d}.png")


def prepare_szu(options: argparse.Namespace) -> None:
    for part in ("images", "masks"):
        folder = options.out / "szu" / part
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted((options.shared / "train_szu" / part).iterdir()):
            shutil.copy(path, folder)


def prepare_photos(options: argparse.Namespace) -> None:
    folder = options.out / "photos"
    folder.mkdir(parents=True, exist_ok=True)
    root = options.shared / "train_photos"
    flowers = sorted((root / "tf_flower_photos_ccby" / "img").iterdir())
    chosen = [flowers[i] for i in np.linspace(0, len(flowers) - 1, FLOWERS).astype(int)]
    others = [
        p
        for name in PHOTOS
        for p in sorted((root / name).iterdir())
        if p.suffix in (".png", ".jpg")
    ]
    for path in chosen + others:
        reduced(Image.open(path).convert("RGB"), 640).save(folder / f"{path.stem}.webp", quality=86)


if __name__ == "__main__":
    main()
