"""Run the command line in a process of its own, for its time and its peak memory."""

import json
import subprocess
import sys
from collections.abc import Callable
from typing import NamedTuple

# What getrusage reports begins with the peak of the parent: where there is /proc, that is read.
SCRIPT = """
import json, sys, time
from pathlib import Path
from napari_defocus.cli.main import main
start = time.monotonic()
status = main(sys.argv[1:])
seconds = time.monotonic() - start
report = Path("/proc/self/status")
if report.exists():
    peak = int(report.read_text().partition("VmHWM:")[2].split()[0]) / 2**20
else:
    import resource
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**30
print(json.dumps([status, seconds, peak]))
"""


class Timed(NamedTuple):
    """Exit status, seconds and peak memory in GiB of a command."""

    status: int
    seconds: float
    peak_gib: float


def run_timed(
    *arguments: str, meanwhile: Callable[[], None] = lambda: None, pause_s: float = 5.0
) -> Timed:
    """Run the command line with these arguments, and `meanwhile` every so many seconds."""
    command = [sys.executable, "-c", SCRIPT, *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        while True:
            try:
                output, errors = process.communicate(timeout=pause_s)
                break
            except subprocess.TimeoutExpired:
                meanwhile()
    meanwhile()
    timed = Timed(*json.loads(output.splitlines()[-1])) if not process.returncode else None
    if timed is None or timed.status:
        raise SystemExit(errors)
    return timed
