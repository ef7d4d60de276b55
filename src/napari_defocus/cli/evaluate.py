"""The command `evaluate`: maps and masks in, a report out."""

import argparse
from pathlib import Path

from napari_defocus.cli._console import interruptible, refuse_existing, report_error
from napari_defocus.cli._options import add_out, add_series, one_series
from napari_defocus.core.errors import DefocusError
from napari_defocus.evaluate.report import evaluate_folders
from napari_defocus.plot.curves import write_report


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
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
    add_series(parser)
    add_out(parser, "folder for report.json, scores.csv and precision_recall.png")


def run(options: argparse.Namespace) -> int:
    """Score folders of blur maps against masks."""
    files = [options.out / name for name in ("report.json", "scores.csv", "precision_recall.png")]
    for path in files:
        refuse_existing(path, options.overwrite)
    names = [folder.name or str(folder) for folder in options.maps]
    folders = dict(zip(names, options.maps, strict=True))
    if len(folders) < len(options.maps):
        folders = {str(folder): folder for folder in options.maps}
    with interruptible() as should_stop:
        report = evaluate_folders(
            folders,
            options.truth,
            sharpness=options.maps_are == "sharpness",
            series=one_series(options),
            should_stop=should_stop,
        )
    assert report is not None
    for path in files:
        write_report(path, report, overwrite=options.overwrite)
    print(report.table())
    missing = {name for names in report.missing.values() for name in names}
    if missing:
        error = DefocusError(f"{options.truth}: no map for {', '.join(sorted(missing))}")
        return report_error(error)
    return 0
