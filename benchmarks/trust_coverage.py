"""Line and branch coverage of the test suite, by module, outside `widgets` and within."""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TARGETS = {"outside widgets": 92, "in widgets": 85}
SHOWN_BELOW = 90


def measure(tests: tuple[str, ...] = ()) -> dict[str, Any]:
    """Run the suite under coverage; gives coverage's own report by file."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "coverage.json"
        options = ["--cov=napari_defocus", "--cov-branch", "--cov-report=", "-q"]
        command = [sys.executable, "-m", "pytest", *options, f"--cov-report=json:{report}", *tests]
        subprocess.run(command, check=True, cwd=Path(__file__).parents[1])
        files: dict[str, Any] = json.loads(report.read_text())["files"]
        return files


def share(summaries: list[dict[str, Any]]) -> tuple[float, float]:
    """Give the shares of lines and of branches that were run."""
    lines = [sum(s[name] for s in summaries) for name in ("covered_lines", "num_statements")]
    branches = [sum(s[name] for s in summaries) for name in ("covered_branches", "num_branches")]
    return tuple(run / of if of else 1.0 for run, of in (lines, branches))  # type: ignore


def rows(files: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Give a row for each of the two parts; modules that lack most are printed."""
    parts: dict[str, list[dict[str, Any]]] = {name: [] for name in TARGETS}
    for path, told in sorted(files.items()):
        parts["in widgets" if "widgets" in Path(path).parts else "outside widgets"].append(
            told["summary"]
        )
        lines, branches = share([told["summary"]])
        if 100 * min(lines, branches) < SHOWN_BELOW:
            print(f"  {path}: lines {lines:.0%}, branches {branches:.0%}", flush=True)
    for name, summaries in parts.items():
        lines, branches = share(summaries)
        text = f"lines {lines:.1%}, branches {branches:.1%}"
        yield f"coverage {name}", f">= {TARGETS[name]} %", text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--report", type=Path, help="coverage's JSON report, if there is one")
    given = parser.parse_args().report
    files = json.loads(given.read_text())["files"] if given else measure()
    for row in rows(files):
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
