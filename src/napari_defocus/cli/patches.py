"""The command `patches`: annotated images in, a patch set out."""

import argparse
from pathlib import Path
from typing import Any

import numpy.typing as npt

from napari_defocus.cli._console import refuse_existing
from napari_defocus.cli._options import add_out, add_series, add_setting, config_from, one_series
from napari_defocus.core.errors import DefocusError
from napari_defocus.io.open import read_image, read_labels
from napari_defocus.labels.classes import annotation_from_mask
from napari_defocus.metric.patches import PatchConfig, PatchSet, build_patch_set, save_patch_set


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_annotated_images(parser)
    add_series(parser)
    add_out(parser, "the patch set, a .safetensors file")


def add_annotated_images(parser: argparse.ArgumentParser, nargs: str = "+") -> None:
    """Add the images, their labels, and how patches are cut from them."""
    parser.add_argument(
        "images",
        type=Path,
        nargs=nargs,
        metavar="IMAGE LABELS",
        help="an image and its annotation (0 unlabelled, 1 blurred, 2 sharp), in turn",
    )
    parser.add_argument(
        "--labels-are-masks",
        action="store_true",
        help="the labels are masks instead: 255 blurred, 0 sharp",
    )
    group = parser.add_argument_group("patches")
    config = PatchConfig()
    add_setting(group, config, "size", "side of a patch, pixels")
    add_setting(group, config, "superpixel", "side of a super-pixel, pixels")
    add_setting(group, config, "purity", "least share of one class in the annotated area")
    add_setting(group, config, "coverage", "least share of a patch that is annotated")
    add_setting(group, config, "area", "least share of one class in the whole patch")


def run(options: argparse.Namespace) -> int:
    """Cut patches from annotated images into one set."""
    patch_set = cut_patches(options)
    save_patch_set(patch_set, options.out, overwrite=options.overwrite)
    counts = patch_set.counts()
    print(options.out, f"({counts['blurred']} blurred and {counts['sharp']} sharp patches)")
    return 0


def cut_patches(options: argparse.Namespace, config: PatchConfig | None = None) -> PatchSet:
    """Return the patches of the annotated images; cut as the options say, unless a config does."""
    pairs = annotated_pairs(options.images)
    refuse_existing(options.out, options.overwrite)
    series = one_series(options)
    return build_patch_set(
        (_annotated(image, labels, options.labels_are_masks, series) for image, labels in pairs),
        config or config_from(options, PatchConfig),
    )


def annotated_pairs(paths: list[Path]) -> list[tuple[Path, Path]]:
    """Return images with their labels from the two in turn."""
    if len(paths) % 2:
        raise DefocusError(f"{paths[-1]} stands alone: give each image with its labels behind it")
    return list(zip(paths[::2], paths[1::2], strict=True))


def read_annotation(path: Path, is_mask: bool, series: int | None) -> npt.NDArray[Any]:
    """Read labels 0 to 2 or, where it is one, a mask in which 255 is blurred."""
    found = read_labels(path, series=series)
    return annotation_from_mask(found) if is_mask else found


def _annotated(
    image: Path, labels: Path, are_masks: bool, series: int | None
) -> tuple[str, npt.NDArray[Any], npt.NDArray[Any]]:
    picture = read_image(image, series=series)
    if picture.axes not in ("YX", "YXS"):
        raise DefocusError(f"{image}: a stack ({picture.axes}); annotate one plane of it")
    return str(image), picture.data, read_annotation(labels, are_masks, series)
