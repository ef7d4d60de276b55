"""Put faults into the writing commands: SIGKILL at any moment, a full disk, a read-only folder.

Full disks and read-only folders are small file systems in memory, which only root may mount.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.trust.commands import Command, contents, hidden, kill_at, make_commands, run_apart
from benchmarks.trust.outcomes import print_faults
from napari_defocus.io.manifest import NAME as RECORD
from napari_defocus.io.manifest import RunRecord

PAGE = os.sysconf("SC_PAGE_SIZE")
Row = tuple[str, str, str]


@dataclass
class Kills:
    """What came of killing a command."""

    killed: int = 0
    ended_before: int = 0
    left_over: int = 0
    faults: list[str] = field(default_factory=list)


def kill_command(command: Command, moments: int, scratch: Path, seed: int = 0) -> Kills:
    """Kill a command: at half of the moments by the clock, else before a change of a file."""
    rng = np.random.default_rng(seed)
    whole = scratch / "whole"
    usual = run_apart(command.line(whole), scratch)
    expected = contents(whole)
    if usual.status or not expected:
        raise SystemExit(f"{command.name} ended with {usual.status}: {usual.output}")
    kills = Kills()
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
        kills.killed += ended.status < 0
        kills.ended_before += ended.status == 0
        kills.left_over += bool(hidden(out))
        kills.faults += [
            f"moment {moment}: {fault}" for fault in _after_kill(command, out, expected, scratch)
        ]
        shutil.rmtree(out, ignore_errors=True)
    shutil.rmtree(whole)
    return kills


def _after_kill(
    command: Command, out: Path, expected: dict[str, str], scratch: Path
) -> Iterator[str]:
    """Check that all under a final name is whole, and that the command completes when run again."""
    for name, digest in contents(out).items():
        # The record grows from image to image.
        if name != RECORD and expected.get(name) != digest:
            yield f"{name} is half written"
    if (out / RECORD).exists():
        RunRecord(out).mine(out / "any")
    again = run_apart(command.line(out, *command.again), scratch)
    if again.status:
        yield f"run again it ended with {again.status}: {again.output}"
    elif contents(out) != expected:
        yield "run again it gave other bytes"


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
    """Return whether this process may mount."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    try:
        with small_disk(scratch / "trial", 2**16):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def fill_disk(command: Command, scratch: Path) -> list[str]:
    """Run a command on disks too small for it, and a read-only one; list what went wrong."""
    whole, disk = scratch / "whole", scratch / "disk"
    run_apart(command.line(whole), scratch)
    needed = sum(p.stat().st_size for p in whole.rglob("*") if p.is_file())
    shutil.rmtree(whole)
    faults = []
    for share in (0.0, 0.2, 0.5, 0.8):
        with small_disk(disk, (2 + int(share * needed) // PAGE) * PAGE):
            problems = _on_bad_disk(command, disk, scratch)
            faults += [f"a disk of {share:.0%}: {problem}" for problem in problems]
    with small_disk(disk, 2**24):
        problems = _on_bad_disk(command, disk, scratch, read_only=True)
        return faults + [f"a read-only disk: {problem}" for problem in problems]


def _on_bad_disk(
    command: Command, disk: Path, scratch: Path, read_only: bool = False
) -> Iterator[str]:
    """Check the status, the message, and that earlier files are as they were."""
    earlier = {"notes.txt": b"mine"}
    if command.file:
        earlier[command.file] = b"an earlier result"
    for name, content in earlier.items():
        (disk / name).write_bytes(content)
    if read_only:
        remount = ["mount", "-o", "remount,ro", str(disk)]
        subprocess.run(remount, check=True, capture_output=True)
    ended = run_apart(command.line(disk, "--overwrite"), scratch)
    if ended.status != 2:
        yield f"status {ended.status}: {ended.output[-300:]}"
    if "Traceback" in ended.output or "napari-defocus: " not in ended.output:
        yield f"message {ended.output[-500:]!r}"
    for name, content in earlier.items():
        if (disk / name).read_bytes() != content:
            yield f"{name} was changed"


def kill_rows(moments: int) -> Iterator[Row]:
    """Yield a row for each command that is killed."""
    with tempfile.TemporaryDirectory() as folder:
        for command in make_commands(Path(folder, "inputs")):
            kills = kill_command(command, moments, Path(folder))
            print_faults(command.name, kills.faults)
            text = (
                f"{kills.killed} killed, {kills.ended_before} ended before, "
                f"{len(kills.faults)} faults; {kills.left_over} left a hidden partial file"
            )
            yield f"SIGKILL, {command.name}", "0 half-written, re-run same bytes", text


def disk_rows() -> Iterator[Row]:
    """Yield a row for each command that runs out of disk."""
    with tempfile.TemporaryDirectory() as folder:
        if not can_mount(Path(folder)):
            yield "disk full, read-only", "status 2, earlier files intact", "not run: needs root"
            return
        for command in make_commands(Path(folder, "inputs")):
            faults = fill_disk(command, Path(folder))
            print_faults(command.name, faults)
            text = f"5 disks, {len(faults)} faults"
            yield f"disk full, read-only: {command.name}", "status 2, files intact", text
