"""The writing commands, on small rendered inputs: what faults are put into."""

import hashlib
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
import tifffile

from napari_defocus.cli import main as cli
from napari_defocus.io.manifest import NAME as RECORD
from napari_defocus.io.raster import write_png
from napari_defocus.metric.default_recipe import RecipeConfig, render_scenes, textured_annotation

CUT = ("--size", "20", "--superpixel", "8")
# Imported once, so that a killed process was at work and not at its imports.
PRELOAD = (
    "dask.array",
    "matplotlib.pyplot",
    "napari_defocus.evaluate.report",
    "napari_defocus.plot.overview",
    "napari_defocus.tiled.executors",
    "napari_defocus.tiled.api",
    "napari_defocus.metric.training",
    "sklearn.linear_model",
    "sklearn.metrics",
    "torch",
    "zarr",
)
QUICK = ("--nets", "2", "--kernels", "4", "--kernel-size", "5", "--epochs", "2", "--base", "none")


@dataclass(frozen=True)
class Command:
    """A command: its arguments before ``--out``, the file of `out` it names, if any, and more.

    Parameters
    ----------
    name : str
        Of the row.
    arguments : tuple of str
        All but the output's.
    file : str
        The output within the folder; empty where it is the folder itself.
    again : tuple of str
        What is added when it is run again after it was killed.
    """

    name: str
    arguments: tuple[str, ...]
    file: str = ""
    again: tuple[str, ...] = ("--overwrite",)

    def line(self, out: Path, *more: str) -> list[str]:
        """Give the command line."""
        return [*self.arguments, "--out", str(out / self.file if self.file else out), *more]


def make_commands(folder: Path) -> list[Command]:
    """Write inputs into a folder, and give the commands that work on them."""
    for module in PRELOAD:
        import_module(module)
    given = _write_inputs(folder)
    images, masks, stack = (str(folder / name) for name in ("images", "masks", "stack.tif"))
    first = str(folder / "images" / "0.png")
    detect = ("detect", images, "--detector", "metric")
    resume = ("--resume", "--overwrite")
    commands = [
        Command("patches", ("patches", *given, *CUT), "set.safetensors"),
        Command("train", ("train", str(folder / "set.safetensors"), *QUICK), "nets.safetensors"),
        Command("metric", ("metric", str(folder / "nets.safetensors")), "metric.safetensors"),
        Command("fit", ("fit", *given, *CUT, *QUICK), "metric.safetensors"),
        Command("fit --instant", ("fit", *given, *CUT, "--instant"), "metric.safetensors"),
        Command("detect", (*detect, "--picture", "--confidence"), again=resume),
        Command("detect --tile", ("detect", first, *detect[2:], "--tile", "64"), again=resume),
        Command(
            "detect --format zarr",
            ("detect", first, *detect[2:], "--tile", "64", "--format", "zarr"),
            again=resume,
        ),
        Command("evaluate", ("evaluate", "--maps", str(folder / "maps"), "--truth", masks)),
        Command("stack", ("stack", stack, "--axes", "ZYX", "--picture")),
    ]
    # In other processes: torch must not have worked in one that forks.
    lines = [command.line(folder) for command in commands[:2]]
    for line in [*lines, [*detect, "--out", str(folder / "maps")]]:
        ended = run_apart(line, folder)
        if ended.status:
            raise SystemExit(f"{line} ended with {ended.status}: {ended.told}")
    return commands


def _write_inputs(folder: Path) -> list[str]:
    config = RecipeConfig(scenes=4, size=128)
    given = []
    for number, (_, scene) in enumerate(render_scenes(config)):
        labels = textured_annotation(scene, config.texture)
        names = [folder / part / f"{number}.png" for part in ("images", "labels", "masks")]
        write_png(names[0], scene.image)
        write_png(names[1], labels.astype(np.uint8))
        write_png(names[2], np.where(labels == 1, 255, 0).astype(np.uint8))
        if len(np.unique(labels)) > 1:
            given += [str(names[0]), str(names[1])]
    planes = [np.roll(scene.image, shift, 0) for shift in range(4)]
    tifffile.imwrite(folder / "stack.tif", np.stack(planes))
    return given


@dataclass(frozen=True)
class Ended:
    """How a run in a process of its own ended: its status, what it told, and its seconds."""

    status: int
    told: str
    seconds: float


def run_apart(
    line: list[str],
    scratch: Path,
    *,
    kill_after: float | None = None,
    before: Callable[[], None] | None = None,
) -> Ended:
    """Run a command line in a fork of this process; it is killed after some seconds, if asked."""
    told = scratch / "told.txt"
    began = time.perf_counter()
    child = os.fork()
    if child == 0:
        _be_the_child(line, told, before)
    if kill_after is not None:
        time.sleep(kill_after)
        os.killpg(child, signal.SIGKILL) if _leads(child) else os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    took = time.perf_counter() - began
    text = told.read_text(errors="replace") if told.exists() else ""
    return Ended(os.waitstatus_to_exitcode(status), text, took)


def _leads(child: int) -> bool:
    try:
        return os.getpgid(child) == child
    except ProcessLookupError:
        return False


def _be_the_child(line: list[str], told: Path, before: Callable[[], None] | None) -> None:
    status = 70
    try:
        os.setpgrp()
        handle = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        if before is not None:
            before()
        status = cli.main(line)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def kill_at(out: Path, count: int) -> Callable[[], None]:
    """Give a hook that kills its own process before its count-th change of a file in a folder."""

    def install() -> None:
        left = [count]

        def hear(event: str, arguments: tuple[object, ...]) -> None:
            if event == "open":
                changes = isinstance(arguments[2], int) and arguments[2] & (
                    os.O_WRONLY | os.O_RDWR | os.O_CREAT
                )
            else:
                changes = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")
            if changes and str(arguments[0]).startswith(str(out)):
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hear)

    return install


def contents(out: Path) -> dict[str, str]:
    """Give the digest of each thing under its final name: a file, or a folder with all in it."""
    found = {}
    for path in sorted(out.iterdir()) if out.is_dir() else []:
        if not path.name.startswith("."):
            parts = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
            told = hashlib.sha256()
            for part in parts:
                told.update(f"{part.relative_to(out)} ".encode() + part.read_bytes())
            found[path.name] = told.hexdigest()
    return found


def hidden(out: Path) -> list[str]:
    """List what is left of unfinished writes."""
    return [p.name for p in out.iterdir() if p.name.startswith(".")] if out.is_dir() else []


def without_record(found: dict[str, str]) -> dict[str, str]:
    """Leave out the record, which grows from image to image."""
    return {name: digest for name, digest in found.items() if name != RECORD}
