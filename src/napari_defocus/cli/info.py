"""The command `info`: a file in, its card out."""

import argparse
import json
from pathlib import Path

from napari_defocus.io.cards import load_container
from napari_defocus.metric.local_metric import PACKAGED, load_metric


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("file", metavar="FILE", help="a file, or a metric's name")


def run(options: argparse.Namespace) -> int:
    """Print the card of a file."""
    path = PACKAGED.get(options.file, Path(options.file))
    tensors, card = load_container(path)
    if card["kind"] == "metric":
        card["digest"] = load_metric(path).digest
    card["tensors"] = {name: list(tensor.shape) for name, tensor in sorted(tensors.items())}
    print(json.dumps(card, indent=2))
    return 0
