"""The command `fit`: annotated images or focus stacks in, a metric out."""

import argparse

from napari_defocus.cli._console import Progress, interruptible, print_event, refuse_existing
from napari_defocus.cli._options import add_out, add_planes, config_from
from napari_defocus.cli.metric import add_components, write_metric
from napari_defocus.cli.patches import add_annotated_images, cut_patches
from napari_defocus.cli.train import add_training_settings
from napari_defocus.core.errors import DefocusError, about
from napari_defocus.metric.fitting import FitConfig, fit_metric
from napari_defocus.metric.nets import TrainingConfig
from napari_defocus.metric.patches import (
    PatchConfig,
    PatchSet,
    merge_patch_sets,
    require_both_classes,
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_annotated_images(parser, "*")
    parser.add_argument(
        "--from-stack",
        nargs="+",
        metavar="STACK",
        help="in place of annotated images: focus stacks, labelled by comparing their planes",
    )
    add_planes(parser)
    add_out(parser, "the metric, a .safetensors file")
    parser.add_argument("--instant", action="store_true", help="closed form instead of nets")
    add_components(parser)
    add_training_settings(parser)


def run(options: argparse.Namespace) -> int:
    """Make a metric of annotated images."""
    patch_set = _cut_from_stacks(options) if options.from_stack else cut_patches(options)
    require_both_classes(patch_set)
    config = FitConfig(
        method="instant" if options.instant else "nets",
        components=options.components,
        training=config_from(options, TrainingConfig),
    )
    with interruptible() as should_stop:
        made = fit_metric(patch_set, config, on_event=print_event, should_stop=should_stop)
    return write_metric(made, options.out, options.overwrite)


def _cut_from_stacks(options: argparse.Namespace) -> PatchSet:
    """Cut patches from focus stacks whose planes are labelled by comparing them."""
    from napari_defocus.io.folder import open_stack_source
    from napari_defocus.stacks.planes import stacks_in
    from napari_defocus.stacks.training_labels import patches_from_planes

    if options.images:
        raise DefocusError("give images with their labels, or --from-stack, not both")
    refuse_existing(options.out, options.overwrite)
    parts = []
    with interruptible() as should_stop:
        for place in options.from_stack:
            source = open_stack_source(place, options.axes)
            z = source.axes.index("Z")
            for index, planes in stacks_in(source):
                with about(source.name):
                    part = patches_from_planes(
                        planes,
                        lambda at: source.where((*index[:z], at, *index[z:])),  # noqa: B023
                        config_from(options, PatchConfig),
                        register=options.register,
                        on_event=Progress(),
                        should_stop=should_stop,
                    )
                parts.append(part)
    return merge_patch_sets(parts)
