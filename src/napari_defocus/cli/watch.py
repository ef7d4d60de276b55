"""The command `watch`: images judged as a microscope writes them, the report kept up to date."""

import argparse
import math
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from napari_defocus.cli._console import EXIT_BAD_INPUT, interruptible, report_error
from napari_defocus.cli._options import Given, config_from, each_series
from napari_defocus.cli.detect import (
    Request,
    add_output_options,
    detect_input,
    identity_whole,
    request_from,
    stem_of,
)
from napari_defocus.cli.report import add_report_settings
from napari_defocus.core.errors import DefocusError, check_range, explained
from napari_defocus.core.progress import ShouldStop, Stopped
from napari_defocus.io.arrivals import Arrivals, changes
from napari_defocus.report.fields import NOTHING, Field, Results, Thresholds
from napari_defocus.report.page import write_report

REPORT = "report.html"
# The report is written anew after so many seconds, or so many times as long as it takes.
REPORT_S, REPORT_TIMES = 10.0, 10.0
# A file that cannot be read may be held by the program that writes it.
TRIES = 3
COMMAND_S = 60.0


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where images are written")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="PATH",
        help=f"folder for the results, {REPORT} and fields.csv; what is in it is gone on with",
    )
    parser.add_argument(
        "--subfolders",
        action="store_true",
        help="judge images in subfolders, too; their results are named FOLDER_IMAGE",
    )
    parser.add_argument(
        "--settle",
        type=float,
        default=2.0,
        metavar="S",
        help="seconds a file, or all in a Zarr, must stand still until it counts as finished",
    )
    parser.add_argument(
        "--idle", type=float, metavar="S", help="end after so many seconds without a new image"
    )
    parser.add_argument(
        "--alert",
        type=float,
        metavar="SHARE",
        help="tell of fields of which less than this share of the structure is sharp",
    )
    parser.add_argument(
        "--alert-command",
        metavar="COMMAND",
        help="run at each alert; {image}, {field}, {well} and {share} in it are replaced",
    )
    add_output_options(parser)
    add_report_settings(parser)


def run(options: argparse.Namespace) -> int:
    """Judge images as they come, until Ctrl+C."""
    if not options.folder.is_dir():
        raise DefocusError(
            f"{options.folder} is no folder; name the one that images are written to"
        )
    check_range("settle", options.settle, 0)
    check_range("square", options.square, 1)
    if options.idle is not None:
        check_range("idle", options.idle, 0)
    if options.alert is not None:
        check_range("alert", options.alert, 0, 1)
    elif options.alert_command:
        raise DefocusError("give --alert SHARE beside --alert-command")
    watcher = _Watcher(
        request_from(options, resume=True),
        Arrivals(
            options.folder, options.settle, subfolders=options.subfolders, without=options.out
        ),
        Results(options.out, options.square),
        config_from(options, Thresholds),
        options.alert,
        options.alert_command,
        options.series,
    )
    with explained(options.out):
        options.out.mkdir(parents=True, exist_ok=True)
    watcher.request.record.entries()  # of another version: then not each image has to say so
    with interruptible(expected=True) as should_stop:
        idle_since = time.monotonic()
        for _ in changes(options.folder, should_stop):
            try:
                if watcher.look(should_stop):
                    idle_since = time.monotonic()
            except Stopped:
                break
            if options.idle is not None and time.monotonic() - idle_since > options.idle:
                break
    watcher.report()
    print(f"{watcher.judged} images judged, {len(watcher.bad)} not", file=sys.stderr)
    return EXIT_BAD_INPUT if watcher.bad else 0


@dataclass
class _Watcher:
    """What is done with images as they come."""

    request: Request
    arrivals: Arrivals
    results: Results
    thresholds: Thresholds
    alert: float | None
    command: str | None
    series: int | str | None
    judged: int = 0
    bad: set[Path] = field(default_factory=set)
    _tries: dict[Path, int] = field(default_factory=dict)
    _there: bool = True
    _reported: float = -math.inf
    _took: float = 0.0
    _stale: bool = True

    def look(self, should_stop: ShouldStop) -> bool:
        """Judge what is finished; return whether there was, or will be, something to do."""
        found = self.arrivals.finished(time.monotonic())
        if self.arrivals.there != self._there:
            self._there = self.arrivals.there
            text = "is back" if self._there else "is gone; waiting for it"
            print(f"{self.arrivals.folder} {text}", file=sys.stderr)
        for path in found:
            if should_stop():
                raise Stopped
            self._judge(path)
            self.report_when_due()
        self.report_when_due()
        return bool(found) or self.arrivals.waiting or not self._there

    def _judge(self, path: Path) -> None:
        try:
            for given in each_series(path, self.series):
                outputs = self._detect(given)
                self.judged += bool(outputs)
                self._stale |= bool(outputs)
                self._tell(outputs)
        except DefocusError as error:
            self._tries[path] = self._tries.get(path, 0) + 1
            if self._tries[path] % TRIES:
                self.arrivals.again(path)
            else:
                self.bad.add(path)
                report_error(error, path)
        else:
            self.bad.discard(path)

    def _detect(self, given: Given) -> list[Path]:
        """Detect defocus in an image, unless that is done."""
        path = Path(given.place)
        within = path.relative_to(self.arrivals.folder).parent.parts
        stem = "_".join([*within, stem_of(path)]) + given.ending
        before = self.request.record.entries().get(stem)
        of = (before or {}).get("source", "")
        if of and of != str(path.absolute()):
            raise DefocusError(f"its results would overwrite those of {of}; rename one")
        form = self.request.format or "tif"
        if self.request.record.recorded(stem, identity_whole(given, self.request, form)):
            return []  # at once; what is worked in tiles tells below
        outputs = list(detect_input(given, stem, self.request))
        if self.request.record.entries().get(stem) is before:
            return []
        print(*outputs, sep="\n", flush=True)
        return outputs

    def _tell(self, outputs: list[Path]) -> None:
        """Raise an alert for each field out of focus."""
        if self.alert is None or not outputs:
            return
        masks = [path for path in outputs if path.name.endswith((".mask.tif", ".blur.ome.zarr"))]
        for one in self.results.fields_of(str(masks[0])):
            if self.thresholds.judge(one) != NOTHING and one.sharp < self.alert:
                print(f"alert: {one.title}: {one.sharp:.0%} of the structure is sharp", flush=True)
                self._run_command(one)

    def _run_command(self, one: Field) -> None:
        if not self.command:
            return
        values = {"image": one.source, "field": one.title, "well": one.well or ""}
        values["share"] = f"{one.sharp:.4f}"
        words = shlex.split(self.command)
        for name, value in values.items():
            words = [word.replace(f"{{{name}}}", str(value)) for word in words]
        try:
            subprocess.run(words, check=True, timeout=COMMAND_S, stdin=subprocess.DEVNULL)
        except (OSError, subprocess.SubprocessError) as error:
            report_error(error, "the alert's command")

    def report_when_due(self) -> None:
        """Write the report where it is out of date, but not too often."""
        pause = max(REPORT_S, REPORT_TIMES * self._took)
        if self._stale and time.monotonic() - self._reported > pause:
            self.report()

    def report(self) -> None:
        """Write the report; one that cannot be written costs a line."""
        self._stale = False
        if not any(self.request.out.glob("*.mask.*")) and not any(
            self.request.out.glob("*.blur.ome.zarr")
        ):
            return
        start = time.monotonic()
        try:
            write_report(self.results, self.request.out / REPORT, self.thresholds)
        except DefocusError as error:
            report_error(error)
        self._reported = time.monotonic()
        self._took = self._reported - start
