"""The settings of a detection as options of the command line."""

import argparse
from collections.abc import Callable

from napari_defocus.cli._options import add_setting, config_from
from napari_defocus.core.devices import DEVICES
from napari_defocus.core.errors import DefocusError
from napari_defocus.detection.config import SCALES, DetectionConfig
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
        "'metric', 'dense', 'zeng2019' (the paper as written), 'auto', or a profile's or "
        "detector's file",
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
    group = parser.add_argument_group("refinement")
    refinement = RefinementConfig()
    for field, text in (
        ("iterations", "iterations after which a map is kept"),
        ("weights", "weight of each kept map"),
    ):
        kind = type(getattr(refinement, field)[0])
        add_setting(group, refinement, field, text, type=kind, nargs="+", metavar="N")
    add_setting(group, refinement, "neighbourhood", "side of the square whose mean decides, pixels")
    group.add_argument(
        "--refine-threshold",
        type=_number_or("mean"),
        default=refinement.threshold,
        metavar="T",
        help="the global threshold in [0, 1], or 'mean' for that of the map",
    )
    add_setting(group, refinement, "keep", "share of the unrefined map in the result, 0 to 1")
    group.add_argument(
        "--tanh-alone",
        dest="growing",
        action="store_false",
        help="do not divide by tanh(1) after each iteration: what survives falls, as in the paper",
    )
    group = parser.add_argument_group("mask")
    mask = MaskConfig()
    add_setting(
        group,
        mask,
        "threshold",
        "least sharpness of a sharp pixel in [0, 1], or the rule 'otsu' or 'mean'",
        type=_number_or("otsu", "mean"),
        flag="mask-threshold",
        metavar="T",
    )
    add_setting(group, mask, "smallest", "spots of fewer pixels are given to their surroundings")


def _limit(text: str) -> float | str:
    try:
        return parse_limit(text)
    except DefocusError:
        return text  # which is refused with the other settings, in a line


def _number_or(*words: str) -> Callable[[str], float | str]:
    def number(text: str) -> float | str:
        return text if text in words else float(text)

    return number


def detection_config(options: argparse.Namespace) -> DetectionConfig:
    """Return the detection config that the options ask for."""
    threshold = options.refine_threshold
    refinement = config_from(
        options,
        RefinementConfig,
        iterations=tuple(options.iterations),
        weights=tuple(options.weights),
        threshold=None if threshold == "mean" else threshold,
    )
    config: DetectionConfig = config_from(
        options, DetectionConfig, refinement=refinement, mask=config_from(options, MaskConfig)
    )
    return config
