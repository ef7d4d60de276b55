"""The command `metric`: trained nets in, a metric out."""

import argparse
import sys
from pathlib import Path

from napari_defocus.cli._console import refuse_existing
from napari_defocus.cli._options import add_out, add_setting
from napari_defocus.core.errors import DefocusError
from napari_defocus.metric.fitting import FitConfig, metric_from_nets
from napari_defocus.metric.local_metric import LocalMetric, save_metric
from napari_defocus.metric.nets import load_nets


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("nets", type=Path, metavar="NETS", help="trained nets")
    add_out(parser, "the metric, a .safetensors file")
    add_components(parser)


def add_components(parser: argparse.ArgumentParser) -> None:
    """Add the number of filters."""
    add_setting(parser, FitConfig(), "components", "number of filters, K")


def run(options: argparse.Namespace) -> int:
    """Make a metric of trained nets by kernel PCA."""
    refuse_existing(options.out, options.overwrite)
    config = FitConfig(components=options.components)
    nets = load_nets(options.nets)
    if not nets.complete:
        print(
            f"{options.nets}: the training of these nets was stopped; the metric is of what they "
            "had learnt by then",
            file=sys.stderr,
        )
    made = metric_from_nets(nets, config)
    return write_metric(made, options.out, options.overwrite)


def write_metric(made: LocalMetric | None, path: Path, overwrite: bool) -> int:
    """Write a metric, if training was not stopped before there was one, and print its scores."""
    if made is None:
        raise DefocusError("stopped before the first epoch ended: there is nothing to keep")
    save_metric(made, path, overwrite=overwrite)
    held_out = made.record["held_out"]
    print(path, f"(held-out AUC {held_out['auc']:.3f}, accuracy {held_out['accuracy']:.3f})")
    return 0
