"""How time and memory of detection in tiles grow with the image, from 1 to 4,096 megapixels.

    python -m benchmarks.speed.large [--megapixels 1 4 16 64] [--picture FILE.png] [--folder FOLDER]

For each size a square OME-Zarr of 16 bits is made, of a pattern that repeats without seams, sharp
here and blurred there; chunks that are alike are links to one file, so that 65,536 x 65,536 pixels
take no room, but each is read and decoded as any other. `napari-defocus detect` then runs in a
process of its own. Printed are its seconds, seconds for each megapixel, also as a share of those at
16 megapixels (4,096 x 4,096), the peak of its memory, and the most that it wrote. Disk that is
needed: about 12 bytes a pixel in FOLDER while it runs.
"""

import argparse
import math
import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import zarr
from matplotlib.figure import Figure
from scipy import ndimage

from benchmarks.timed import run_timed
from napari_defocus.io.atomic import whole_file

CHUNK = 1024
# Chunks along each side of the pattern, before it repeats.
PATTERN = 4
MEGAPIXELS = (1, 4, 16, 64)
REFERENCE = 16
# Of results and of what is stored for resuming, per pixel.
DISK_BYTES = 12
COLUMNS = ("megapixels", "seconds", "s / Mpx", "relative", "peak GiB", "disk GiB")


@dataclass(frozen=True)
class Measured:
    """Of one size in units of 2**20 pixels: time, peak of memory, and most that was on disk."""

    megapixels: float
    seconds: float
    peak_gib: float
    disk_gib: float

    @property
    def seconds_each(self) -> float:
        """Return the seconds for a megapixel."""
        return self.seconds / self.megapixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megapixels", type=float, nargs="+", default=MEGAPIXELS)
    parser.add_argument("--picture", type=Path, help="a PNG of the growth, log-log")
    parser.add_argument("--folder", type=Path, help="where there is room, for the time being")
    parser.add_argument("--detector", default="metric")
    parser.add_argument("--tile", type=int, help="side of a tile; that of the command by default")
    parser.add_argument("--memory", type=float, help="bound of memory, GiB")
    parser.add_argument("--scheduler", help="as of the command")
    options = parser.parse_args()
    settings = ["--detector", options.detector]
    for name in ("tile", "memory", "scheduler"):
        if getattr(options, name) is not None:
            settings += [f"--{name}", str(getattr(options, name))]
    print(" ".join(f"{name:>10}" for name in COLUMNS), flush=True)
    found: list[Measured] = []
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        pattern = make_pattern(Path(folder) / "pattern.zarr")
        for megapixels in sorted(options.megapixels):
            side = round(math.sqrt(megapixels * 2**20))
            if shutil.disk_usage(folder).free < DISK_BYTES * side**2:
                print(f"{megapixels:10g} left out: {DISK_BYTES * side**2 / 2**30:.1f} GiB of disk")
                continue
            found.append(measure(pattern, Path(folder), side, settings))
            print(row(found[-1], found), flush=True)
            if options.picture:
                draw(found, options.picture, options.memory)


def make_pattern(path: Path) -> Path:
    """Write the chunks of the pattern, as an array of Zarr 3."""
    side = CHUNK * PATTERN
    dice = np.random.default_rng(0)
    rough = dice.normal(size=(side, side)).astype(np.float32)
    sharp = _standard(ndimage.gaussian_filter(rough, 0.7, mode="wrap"))
    sharp += 2 * _standard(ndimage.gaussian_filter(rough, 40, mode="wrap"))
    blurred = ndimage.gaussian_filter(sharp, 4, mode="wrap")
    other = dice.normal(size=(side, side)).astype(np.float32)
    blobs = ndimage.gaussian_filter(other, 150, mode="wrap")
    blobs -= blobs.mean()
    image = np.where(blobs > 0, sharp, blurred)
    image += dice.normal(size=image.shape).astype(np.float32) / 50
    write_array(path, side)[...] = np.clip(12000 + 2500 * image, 0, 2**16 - 1).astype(np.uint16)
    return path


def _standard(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.asarray((values - values.mean()) / values.std(), np.float32)


def write_array(path: Path, side: int) -> "zarr.Array":
    """Make an empty array."""
    return zarr.create_array(
        path,
        shape=(side, side),
        chunks=(min(CHUNK, side), min(CHUNK, side)),
        dtype=np.uint16,
        config={"write_empty_chunks": True},
    )


def make_image(pattern: Path, path: Path, side: int) -> None:
    """Make an OME-Zarr of `side` x `side` pixels of links to the chunks of the pattern."""
    group = zarr.create_group(path, zarr_format=3, overwrite=True)
    if side < CHUNK:
        write_array(path / "0", side)[...] = zarr.open_array(pattern, mode="r")[:side, :side]
    else:
        write_array(path / "0", side)
        for i in range(-(-side // CHUNK)):
            (path / f"0/c/{i}").mkdir(parents=True)
            for j in range(-(-side // CHUNK)):
                link(pattern / f"c/{i % PATTERN}/{j % PATTERN}", path / f"0/c/{i}/{j}")
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    scale = {"type": "scale", "scale": [0.5, 0.5]}
    level = {"path": "0", "coordinateTransformations": [scale]}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": [level]}]}


def link(chunk: Path, path: Path) -> None:
    """Let a chunk have one more name, where the file system can; else copy it."""
    try:
        os.link(chunk, path)
    except OSError:
        shutil.copyfile(chunk, path)


def measure(pattern: Path, folder: Path, side: int, settings: Sequence[str]) -> Measured:
    """Detect in an image of a size, in a fresh process."""
    source, out = folder / "image.zarr", folder / "out"
    shutil.rmtree(source, ignore_errors=True)
    make_image(pattern, source, side)
    on_disk: list[int] = []
    run = run_timed(
        *("detect", str(source), "--out", str(out), *settings),
        meanwhile=lambda: on_disk.append(disk_usage(out)),
    )
    shutil.rmtree(out)
    return Measured(side**2 / 2**20, run.seconds, run.peak_gib, max(on_disk) / 2**30)


def disk_usage(folder: Path) -> int:
    """Return the bytes that a folder takes on the disk."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # renamed or removed meanwhile
                total += Path(parent, name).stat().st_blocks * 512
    return total


def row(one: Measured, all_measured: Sequence[Measured]) -> str:
    """Lay one size out in columns."""
    reference = next((m for m in all_measured if round(m.megapixels) == REFERENCE), None)
    share = f"{one.seconds_each / reference.seconds_each:.2f}" if reference else "-"
    cells = [f"{one.megapixels:g}", f"{one.seconds:.1f}", f"{one.seconds_each:.3f}", share]
    cells += [f"{one.peak_gib:.2f}", f"{one.disk_gib:.2f}"]
    return " ".join(f"{cell:>10}" for cell in cells)


def draw(found: Sequence[Measured], path: Path, memory_gib: float | None) -> None:
    """Draw time and memory over size, both axes logarithmic."""
    figure = Figure(figsize=(10, 4.2), dpi=140, layout="constrained")
    size = np.array([one.megapixels for one in found])
    time, memory = figure.subplots(1, 2)
    grey = {"color": "0.6", "linestyle": "--"}
    time.loglog(size, found[-1].seconds_each * size, label="in proportion to the pixels", **grey)
    time.loglog(size, [one.seconds for one in found], "o-", color="#0072b2", label="measured")
    time.set(ylabel="seconds", title="time")
    memory.loglog(size, [one.peak_gib for one in found], "o-", color="#d55e00", label="measured")
    memory.loglog(size, 2 * size / 1024, label="the image itself", **grey)
    if memory_gib is not None:
        memory.axhline(memory_gib, color="0.3", linewidth=1, label="the bound that was set")
    memory.set(ylabel="GiB", title="peak memory")
    for axes in (time, memory):
        axes.set_xlabel("megapixels")
        axes.grid(color="0.92", which="both")
        axes.legend(frameon=False, fontsize=9)
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png")


if __name__ == "__main__":
    main()
