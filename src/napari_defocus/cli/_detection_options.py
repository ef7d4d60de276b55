"""The settings of a detection as options of the command line."""

import argparse
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from napari_defocus.cli._options import add_setting, config_from
from napari_defocus.core.devices import DEVICES
from napari_defocus.core.errors import DefocusError
from napari_defocus.detection.config import SCALES, ZENG2019, DetectionConfig
from napari_defocus.detection.refinement import RefinementConfig
from napari_defocus.detection.threshold import MaskConfig
from napari_defocus.profile.limit import parse_limit


def add_detection_settings(parser: argparse.ArgumentParser) -> None:
    """Add the settings of detection, refinement and mask."""
    group = parser.add_argument_group("detection")
    config = DetectionConfig()
    add_setting(
        group,
        config,
        "detector",
        "'metric', 'dense', 'stack' (judges the planes of a focus stack against each other), "
        "'zeng2019' (the paper as written), 'auto', or a profile's or detector's file",
    )
    add_setting(
        group,
        config,
        "limit",
        "widest blur radius that counts as sharp: 2.5 (pixels), 0.8um, or 'auto'",
        type=_limit,
        metavar="WIDTH",
    )
    add_setting(group, config, "scale", "the metric's own scale, or each image's", choices=SCALES)
    add_setting(group, config, "adapt", "share of the way to the image's own threshold, 0 to 1")
    add_setting(group, config, "reach", "furthest the threshold may move, log odds")
    add_setting(group, config, "caution", "log odds a sharp pixel needs above even")
    add_setting(group, config, "gain", "steepness of the map")
    add_setting(group, config, "device", "where to compute", choices=DEVICES)
    group.add_argument("--no-refine", dest="refine", action="store_false", help="skip refinement")
    _add_refinement(parser.add_argument_group("refinement"))
    group = parser.add_argument_group("mask")
    mask = MaskConfig()
    add_setting(
        group,
        mask,
        "threshold",
        "least sharpness of a sharp pixel in [0, 1], or the rule 'otsu' or 'mean'",
        told=True,
        type=_number_or("otsu", "mean"),
        flag="mask-threshold",
        dest="mask_threshold",
        metavar="T",
    )
    add_setting(
        group,
        mask,
        "range",
        "what an adapted threshold stays within",
        told=True,
        type=float,
        nargs=2,
        flag="mask-range",
        dest="mask_range",
        metavar=("LOW", "HIGH"),
    )
    text = "spots of fewer pixels are given to their surroundings"
    add_setting(group, mask, "smallest", text, told=True)


def _add_refinement(group: Any) -> None:
    refinement = RefinementConfig()
    for field, text in (
        ("iterations", "iterations after which a map is kept"),
        ("weights", "weight of each kept map"),
    ):
        kind = type(getattr(refinement, field)[0])
        add_setting(group, refinement, field, text, told=True, type=kind, nargs="+", metavar="N")
    for field, text in (
        ("neighbourhood", "side of the square whose mean decides, pixels"),
        ("keep", "share of the unrefined map in the result, 0 to 1"),
    ):
        add_setting(group, refinement, field, text, told=True)
    add_setting(
        group,
        refinement,
        "threshold",
        "the global threshold in [0, 1], or 'mean' for that of the map",
        told=True,
        type=_number_or("mean"),
        flag="refine-threshold",
        dest="refine_threshold",
        metavar="T",
    )
    group.add_argument(
        "--growing",
        action=argparse.BooleanOptionalAction,
        default=argparse.SUPPRESS,
        help="divide by tanh(1) after each iteration, so that what survives rises; the paper does "
        "not",
    )


def _limit(text: str) -> float | str:
    try:
        return parse_limit(text)
    except DefocusError:
        return text  # which is refused with the other settings, in a line


def _number_or(*words: str) -> Callable[[str], float | str]:
    def number(text: str) -> float | str:
        return text if text in words else float(text)

    return number


def detection_config(options: argparse.Namespace, *, literal: bool = False) -> DetectionConfig:
    """Return the detection config that the options ask for; what is not told is as it should be.

    That is the default or, for a `literal` metric and the paper's method, as in `ZENG2019`.
    """
    literal = literal or options.detector == ZENG2019.detector
    base = ZENG2019 if literal else DetectionConfig()
    refinement, mask = (
        {f.name: getattr(options, f.name) for f in fields(part) if hasattr(options, f.name)}
        for part in (base.refinement, base.mask)
    )
    for name in {"iterations", "weights"} & refinement.keys():
        refinement[name] = tuple(refinement[name])
    if hasattr(options, "refine_threshold"):
        told = options.refine_threshold
        refinement["threshold"] = None if told == "mean" else told
    if hasattr(options, "mask_threshold"):
        mask["threshold"] = options.mask_threshold
    if hasattr(options, "mask_range"):
        mask["range"] = tuple(options.mask_range)
    config: DetectionConfig = config_from(
        options,
        DetectionConfig,
        refinement=replace(base.refinement, **refinement),
        mask=replace(base.mask, **mask),
    )
    return config
