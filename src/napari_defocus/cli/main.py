"""The command line: the same engine and the same defaults as the library and the widgets."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from napari_defocus import __version__
from napari_defocus.cli._console import EXIT_INTERRUPTED, PROGRAM, notices_in_a_line, report_error
from napari_defocus.cli._options import HelpFormatter
from napari_defocus.core.errors import DefocusError
from napari_defocus.core.progress import Stopped

# The module of this package that bears a command's name, with _ for -, has its `add_options` and
# its `run`.
COMMANDS = {
    "detect": "Write the blur map and the mask of images.",
    "patches": "Cut patches from annotated images.",
    "train": "Train ConvNets on a patch set.",
    "metric": "Make a metric of trained nets, by kernel PCA.",
    "stack": "Fuse focus stacks, and map what is in focus where.",
    "fit": "Make a metric of annotated images: patches, train, metric.",
    "evaluate": "Score blur maps against hand-made masks.",
    "watch": "Judge images as they are written, with alerts and a report.",
    "report": "Write a page that says which fields are in focus.",
    "export": "Write masks as polygons, and tables of their shares.",
    "info": "Show what is in a metric, nets or patch set file.",
    "train-default": "Make the default metric anew.",
    "train-dense": "Train the dense detector on scenes.",
    "demo": "Detect defocus in the bundled samples.",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, that of the process by default; return the exit status.

    0, or 2 where an input could not be used, or 130 where it was interrupted.
    """
    try:
        try:
            options = build_parser().parse_args(arguments)
            with notices_in_a_line():
                return int(options.run(options))
        finally:
            print(end="", flush=True)
    except DefocusError as error:
        return report_error(error)
    except (KeyboardInterrupt, Stopped):
        print(f"{PROGRAM}: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of the output, such as head, has left. Python would flush once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="Which part of an image is in focus: blur maps and masks."
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    subparsers = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=_CommandParser
    )
    for name, text in COMMANDS.items():
        subparsers.add_parser(name, help=text, description=text, formatter_class=HelpFormatter)
    return parser


class _CommandParser(argparse.ArgumentParser):
    """The parser of a command, whose module is imported when it is used."""

    def parse_known_args(self, *arguments: Any, **options: Any) -> Any:
        """Add the command's options, and parse."""
        if self.get_default("run") is None:
            name = self.prog.rpartition(" ")[2].replace("-", "_")
            module = import_module(f"napari_defocus.cli.{name}")
            module.add_options(self)
            self.set_defaults(run=module.run)
        return super().parse_known_args(*arguments, **options)
