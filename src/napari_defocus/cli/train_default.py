"""The command `train-default`: a metric of the package, and the nets it is of, made anew."""

import argparse

from napari_defocus.cli._console import interruptible, print_event, refuse_existing
from napari_defocus.cli._options import add_out
from napari_defocus.cli.metric import write_metric
from napari_defocus.metric.local_metric import PACKAGED
from napari_defocus.metric.nets import save_nets


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_out(parser, "folder for the metric and its nets")
    parser.add_argument(
        "--preset",
        choices=tuple(PACKAGED),
        default="default",
        help="which metric: the default one, or that of the paper as written",
    )


def run(options: argparse.Namespace) -> int:
    """Make a metric of the package, and the nets it is of, from package pictures."""
    from napari_defocus.metric.default_recipe import PRESETS, train_default

    metric_file = options.out / PACKAGED[options.preset].name
    nets_file = metric_file.with_suffix(".nets.safetensors")
    for path in (metric_file, nets_file):
        refuse_existing(path, options.overwrite)
    with interruptible() as should_stop:
        made = train_default(
            config=PRESETS[options.preset], on_event=print_event, should_stop=should_stop
        )
    metric, nets = made or (None, None)
    if nets is not None:
        save_nets(nets, nets_file, overwrite=options.overwrite)
        print(nets_file)
    return write_metric(metric, metric_file, options.overwrite)
