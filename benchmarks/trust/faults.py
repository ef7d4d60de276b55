"""Put faults into the writing commands: SIGKILL at any moment, a full disk, a read-only folder.

    python -m benchmarks.trust.faults [--moments 100] [--only NAME]

Full disks and read-only folders are small file systems in memory, which only root may mount.
"""

import argparse
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.trust.commands import (
    Command,
    contents,
    hidden,
    kill_at,
    make_commands,
    run_apart,
    without_record,
)
from napari_defocus.io.manifest import NAME as RECORD
from napari_defocus.io.manifest import RunRecord

PAGE = os.sysconf("SC_PAGE_SIZE")
Row = tuple[str, str, str]


@dataclass
class Told:
    """What came of the faults put into a command."""

    killed: int = 0
    ended_before: int = 0
    left_over: int = 0
    faults: list[str] = field(default_factory=list)


def kill_command(command: Command, moments: int, scratch: Path, seed: int = 0) -> Told:
    """Kill a command: at half of the moments by the clock, else before a change of a file."""
    rng = np.random.default_rng(seed)
    whole = scratch / "whole"
    usual = run_apart(command.line(whole), scratch)
    expected = contents(whole)
    if usual.status or not expected:
        raise SystemExit(f"{command.name} ended with {usual.status}: {usual.told}")
    told = Told()
    changes = 0
    for moment in range(moments):
        out = scratch / f"out{moment}"
        if moment % 2 and not (changes and moment // 2 >= 2 * changes):
            # In turn before each change, until there are no more; then by the clock again.
            ended = run_apart(command.line(out), scratch, before=kill_at(out, moment // 2 + 1))
            if ended.status == 0:
                changes = changes or moment // 2
        else:
            after = float(rng.uniform(0, usual.seconds))
            ended = run_apart(command.line(out), scratch, kill_after=after)
        told.killed += ended.status < 0
        told.ended_before += ended.status == 0
        _look(command, out, expected, told, moment, scratch)
        shutil.rmtree(out, ignore_errors=True)
    shutil.rmtree(whole)
    return told


def _look(
    command: Command, out: Path, expected: dict[str, str], told: Told, moment: int, scratch: Path
) -> None:
    """See that all under a final name is whole, and that the command completes when run again."""
    for name, digest in without_record(contents(out)).items():
        if expected.get(name) != digest:
            told.faults.append(f"moment {moment}: {name} is half written")
    if (out / RECORD).exists():
        RunRecord(out).mine(out / "any")
    told.left_over += bool(hidden(out))
    again = run_apart(command.line(out, *command.again), scratch)
    if again.status:
        told.faults.append(f"moment {moment}: run again it ended with {again.status}: {again.told}")
    elif contents(out) != expected:
        told.faults.append(f"moment {moment}: run again it gave other bytes")


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """Mount a file system of `size` bytes in memory on a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    options = ["-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    subprocess.run(["mount", *options], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True, capture_output=True)


def can_mount(scratch: Path) -> bool:
    """Tell whether this process may mount."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    try:
        with small_disk(scratch / "trial", 2**16):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def fill_disk(command: Command, scratch: Path) -> list[str]:
    """Give a command disks too small for its results, beside earlier files, and a read-only one."""
    whole = scratch / "whole"
    run_apart(command.line(whole), scratch)
    needed = sum(p.stat().st_size for p in whole.rglob("*") if p.is_file())
    faults = []
    for share in (0.0, 0.2, 0.5, 0.8):
        disk = scratch / "disk"
        with small_disk(disk, (2 + int(share * needed) // PAGE) * PAGE):
            faults += _fails_well(command, disk, scratch, f"a disk of {share:.0%}")
    disk = scratch / "disk"
    with small_disk(disk, 2**24):
        faults += _fails_well(command, disk, scratch, "a read-only disk", read_only=True)
    shutil.rmtree(whole)
    return faults


def _fails_well(
    command: Command, disk: Path, scratch: Path, what: str, read_only: bool = False
) -> list[str]:
    """Look at the status, the message, and that earlier files are as they were."""
    earlier = {"notes.txt": b"mine"}
    if command.file:
        earlier[command.file] = b"an earlier result"
    for name, content in earlier.items():
        (disk / name).write_bytes(content)
    if read_only:
        remount = ["mount", "-o", "remount,ro", str(disk)]
        subprocess.run(remount, check=True, capture_output=True)
    ended = run_apart(command.line(disk, "--overwrite"), scratch)
    problems = []
    if ended.status != 2:
        problems.append(f"status {ended.status}: {ended.told[-300:]}")
    if "Traceback" in ended.told or "napari-defocus: " not in ended.told:
        problems.append(f"message {ended.told[-500:]!r}")
    for name, content in earlier.items():
        if (disk / name).read_bytes() != content:
            problems.append(f"{name} was changed")
    return [f"{what}: {problem}" for problem in problems]


def kill_rows(moments: int, only: str | None = None) -> Iterator[Row]:
    """Give a row for each command that is killed."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for command in make_commands(scratch / "inputs"):
            if only in (None, command.name):
                told = kill_command(command, moments, scratch)
                _tell(command.name, told.faults)
                text = (
                    f"{told.killed} killed, {told.ended_before} ended before, "
                    f"{len(told.faults)} faults; {told.left_over} left a hidden partial file"
                )
                yield f"SIGKILL, {command.name}", "0 half-written, re-run same bytes", text


def disk_rows(only: str | None = None) -> Iterator[Row]:
    """Give a row for each command that runs out of disk."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        if not can_mount(scratch):
            yield "disk full, read-only", "status 2, earlier files intact", "not run: needs root"
            return
        for command in make_commands(scratch / "inputs"):
            if only in (None, command.name):
                faults = fill_disk(command, scratch)
                _tell(command.name, faults)
                text = f"5 disks, {len(faults)} faults"
                yield f"disk full, read-only: {command.name}", "status 2, files intact", text


def _tell(name: str, faults: list[str]) -> None:
    for fault in faults[:20]:
        print(f"  {name}: {fault}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=100)
    parser.add_argument("--only")
    options = parser.parse_args()
    for rows in (disk_rows(options.only), kill_rows(options.moments, options.only)):
        for row in rows:
            print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
