"""Run the command line in a process of its own, for its time and its peak memory."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

# What getrusage reports begins with the peak of the parent: where there is /proc, that is read.
SCRIPT = """
import json, sys, time
from pathlib import Path
from napari_defocus.cli.main import main
took = []
for _ in range(int(sys.argv[1])):
    start = time.monotonic()
    if status := main(sys.argv[2:]):
        sys.exit(status)
    took.append(time.monotonic() - start)
report = Path("/proc/self/status")
if report.exists():
    peak = int(report.read_text().partition("VmHWM:")[2].split()[0]) / 2**20
else:
    import resource
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**30
print(json.dumps([took[0], took[-1], peak]))
"""


class Timed(NamedTuple):
    """Seconds of a command's first and last run, its peak memory, and seconds of its process."""

    seconds: float
    again: float
    peak_gib: float
    whole: float


def run_timed(
    *arguments: str,
    runs: int = 1,
    meanwhile: Callable[[], None] = lambda: None,
    pause_s: float = 5.0,
) -> Timed:
    """Run the command line with these arguments, and `meanwhile` every so many seconds."""
    command = [sys.executable, "-c", SCRIPT, str(runs), *arguments]
    pipe = subprocess.PIPE
    start = time.monotonic()
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        while True:
            try:
                output, errors = process.communicate(timeout=pause_s)
                break
            except subprocess.TimeoutExpired:
                meanwhile()
    whole = time.monotonic() - start
    meanwhile()
    if process.returncode:
        raise SystemExit(errors)
    return Timed(*json.loads(output.splitlines()[-1]), whole)
