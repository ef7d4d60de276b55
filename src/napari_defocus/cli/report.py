"""The command `report`: a folder of results in, a page of what is in focus out."""

import argparse
import sys
from pathlib import Path

from napari_defocus.cli._console import EXIT_BAD_INPUT, refuse_existing, report_error
from napari_defocus.cli._options import add_out, add_setting, config_from
from napari_defocus.core.errors import check_range
from napari_defocus.report.fields import Results, Thresholds
from napari_defocus.report.page import FIELDS, write_report


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("results", type=Path, metavar="RESULTS", help="folder that detect wrote")
    add_out(parser, f"the page to be, such as report.html; {FIELDS} is written beside it")
    parser.add_argument("--title", default="", help="heading of the page")
    add_report_settings(parser)


def add_report_settings(parser: argparse.ArgumentParser) -> None:
    """Add what the verdicts hang on."""
    thresholds = Thresholds()
    group = parser.add_argument_group("verdicts", "Shares are of the structure in a field.")
    add_setting(group, thresholds, "in_focus", "sharp share from which a field is in focus")
    add_setting(group, thresholds, "out_of_focus", "sharp share below which it is out of focus")
    add_setting(group, thresholds, "least", "share of its area that must show structure")
    group.add_argument(
        "--square",
        type=int,
        default=1024,
        metavar="N",
        help="side of the squares that slides and other images of more than four such are cut into",
    )


def run(options: argparse.Namespace) -> int:
    """Write the report of a folder of results, and say what it found."""
    thresholds = config_from(options, Thresholds)
    check_range("square", options.square, 1)
    for path in (options.out, options.out.with_name(FIELDS)):
        refuse_existing(path, options.overwrite)
    results = Results(options.results, options.square)
    found = write_report(
        results, options.out, thresholds, title=options.title, overwrite=options.overwrite
    )
    for path in found.files:
        print(path)
    for error in found.failed.values():
        report_error(error)
    told = ", ".join(f"{count} {verdict}" for verdict, count in found.counts.items())
    print(f"of {sum(found.counts.values())} fields: {told}", file=sys.stderr)
    return EXIT_BAD_INPUT if found.failed else 0
