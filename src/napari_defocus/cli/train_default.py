"""The command `train-default`: the default metric, and the nets it is of, made anew."""

import argparse

from napari_defocus.cli._console import interruptible, print_event, refuse_existing
from napari_defocus.cli._options import add_out
from napari_defocus.cli.metric import write_metric
from napari_defocus.metric.local_metric import PACKAGED as PACKAGED_METRICS
from napari_defocus.metric.nets import PACKAGED as PACKAGED_NETS
from napari_defocus.metric.nets import save_nets


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_out(parser, "folder for the metric and its nets")


def run(options: argparse.Namespace) -> int:
    """Make the default metric, and the nets it is of, from package pictures."""
    from napari_defocus.metric import default_recipe

    metric_file, nets_file = (
        options.out / files["default"].name for files in (PACKAGED_METRICS, PACKAGED_NETS)
    )
    for path in (metric_file, nets_file):
        refuse_existing(path, options.overwrite)
    with interruptible() as should_stop:
        made = default_recipe.train_default(on_event=print_event, should_stop=should_stop)
    metric, nets = made or (None, None)
    if nets is not None:
        save_nets(nets, nets_file, overwrite=options.overwrite)
        print(nets_file)
    return write_metric(metric, metric_file, options.overwrite)
