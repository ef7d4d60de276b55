"""The writing commands, on small rendered inputs: what faults are put into."""

import hashlib
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
import tifffile

from napari_defocus.cli import main as cli
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
    """A command: its arguments but for the output's.

    Its output is `file` within a folder, the folder itself where that is empty. `again` is added
    when it is run again after it was killed.
    """

    name: str
    arguments: tuple[str, ...]
    file: str = ""
    again: tuple[str, ...] = ("--overwrite",)

    def line(self, out: Path, *more: str) -> list[str]:
        """Return the command line."""
        return [*self.arguments, "--out", str(out / self.file), *more]


def make_commands(folder: Path) -> list[Command]:
    """Write inputs into a folder, and return the commands that work on them."""
    for module in PRELOAD:
        import_module(module)
    given = _write_inputs(folder)
    patches, nets = str(folder / "set.safetensors"), str(folder / "nets.safetensors")
    metric = "metric.safetensors"
    by_metric = ("--detector", "metric")
    detect = ("detect", str(folder / "images"), *by_metric)
    tiled = ("detect", str(folder / "images" / "0.png"), *by_metric, "--tile", "64")
    score = ("evaluate", "--maps", str(folder / "maps"), "--truth", str(folder / "masks"))
    resume = ("--resume", "--overwrite")
    commands = [
        Command("patches", ("patches", *given, *CUT), "set.safetensors"),
        Command("train", ("train", patches, *QUICK), "nets.safetensors"),
        Command("metric", ("metric", nets), metric),
        Command("fit", ("fit", *given, *CUT, *QUICK), metric),
        Command("fit --instant", ("fit", *given, *CUT, "--instant"), metric),
        Command("detect", (*detect, "--picture", "--confidence"), again=resume),
        Command("detect --tile", tiled, again=resume),
        Command("detect --format zarr", (*tiled, "--format", "zarr"), again=resume),
        Command("evaluate", score),
        Command("stack", ("stack", str(folder / "stack.tif"), "--axes", "ZYX", "--picture")),
    ]
    # In other processes: torch must not have worked in one that forks.
    lines = [command.line(folder) for command in commands[:2]]
    for line in [*lines, [*detect, "--out", str(folder / "maps")]]:
        ended = run_apart(line, folder)
        if ended.status:
            raise SystemExit(f"{line} ended with {ended.status}: {ended.output}")
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


class Ended(NamedTuple):
    """How a run in a process of its own ended: status, what it printed, and seconds."""

    status: int
    output: str
    seconds: float


def run_apart(
    line: list[str],
    scratch: Path,
    *,
    kill_after: float | None = None,
    before: Callable[[], None] = lambda: None,
) -> Ended:
    """Run a command line in a fork of this process, which may be killed after some seconds."""
    output = scratch / "output.txt"
    output.write_bytes(b"")
    fork = get_context("fork").Process(target=_run_in_fork, args=(line, output, before))
    began = time.perf_counter()
    fork.start()
    with suppress(OSError):  # here too: whoever comes first
        os.setpgid(fork.pid, fork.pid)
    if kill_after is not None:
        time.sleep(kill_after)
        with suppress(OSError):  # it has ended
            os.killpg(fork.pid, signal.SIGKILL)
    fork.join()
    seconds = time.perf_counter() - began
    return Ended(fork.exitcode, output.read_text(errors="replace"), seconds)


def _run_in_fork(line: list[str], output: Path, before: Callable[[], None]) -> NoReturn:
    os.setpgrp()
    handle = os.open(output, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(handle, stream)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    before()
    sys.exit(cli.main(line))


def kill_at(out: Path, count: int) -> Callable[[], None]:
    """Return a hook that kills its own process before its count-th change of a file in a folder."""

    def install() -> None:
        left = [count]

        def watch(event: str, arguments: tuple[object, ...]) -> None:
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

        sys.addaudithook(watch)

    return install


def contents(out: Path) -> dict[str, str]:
    """Return the digest of each thing under its final name: a file, or a folder with all in it."""
    found = {}
    for path in sorted(out.iterdir()) if out.is_dir() else []:
        if not path.name.startswith("."):
            parts = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
            digest = hashlib.sha256()
            for part in parts:
                digest.update(f"{part.relative_to(out)} ".encode() + part.read_bytes())
            found[path.name] = digest.hexdigest()
    return found


def hidden(out: Path) -> list[str]:
    """List what is left of unfinished writes."""
    return [p.name for p in out.iterdir() if p.name.startswith(".")] if out.is_dir() else []
