"""How time and memory of detection in tiles grow with the image, from 1 to 4,096 megapixels.

    python -m benchmarks.speed.large [--megapixels 1 4 16 64] [--picture FILE.png] [--folder FOLDER]

For each size a square OME-Zarr of 16 bits is made, of a pattern that repeats without seams, sharp
here and blurred there; chunks that are alike are links to one file, so that 65,536 x 65,536 pixels
take no room, but each is read and decoded as any other. `napari-defocus detect` then runs in a
process of its own. Printed are its seconds, seconds for each megapixel, also as a share of those at
16 megapixels (4,096 x 4,096), the peak of its memory, and the most that it wrote. Disk that is
needed: about 12 bytes a pixel in FOLDER while it runs. Further options are those of the command.
"""

import argparse
import math
import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import zarr
from matplotlib.figure import Figure
from scipy import ndimage, stats

from benchmarks import tables
from benchmarks.timed import run_timed
from napari_defocus.io.grid import Grid
from napari_defocus.io.ngff_metadata import describe_image, write_group

CHUNK = 1024
# Chunks along each side of the pattern, before it repeats.
PATTERN = 4
REFERENCE = 16
# Of results and of what is stored for resuming, per pixel.
DISK_BYTES = 12
COLUMNS = (
    "megapixels (2^20)",
    "seconds",
    "seconds a megapixel",
    "of 4,096 x 4,096",
    "peak memory, GiB",
    "disk meanwhile, GiB",
)


class Measured(NamedTuple):
    """Of one size in units of 2**20 pixels: time, peak of memory, and most that was on disk."""

    megapixels: float
    seconds: float
    peak_gib: float
    disk_gib: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megapixels", type=float, nargs="+", default=(1, 4, 16, 64))
    parser.add_argument("--picture", type=Path, help="a PNG of the growth, log-log")
    parser.add_argument("--folder", type=Path, help="an existing one where there is room")
    options, settings = parser.parse_known_args()
    print("\n".join(tables.head(COLUMNS)), flush=True)
    found: list[Measured] = []
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        pattern = make_pattern(folder / "pattern.zarr")
        for megapixels in sorted(options.megapixels):
            side = round(math.sqrt(megapixels * 2**20))
            if shutil.disk_usage(folder).free < DISK_BYTES * side**2:
                print(f"{megapixels:g} left out: {DISK_BYTES * side**2 / 2**30:.1f} GiB of disk")
                continue
            found.append(measure(pattern, folder, side, settings))
            print(row(found), flush=True)
            if options.picture:
                draw(found, options.picture)


def make_pattern(path: Path) -> Path:
    """Write the chunks of the pattern, as an array of Zarr 3."""
    side = CHUNK * PATTERN
    dice = np.random.default_rng(0)
    rough = dice.normal(size=(side, side)).astype(np.float32)
    sharp = stats.zscore(ndimage.gaussian_filter(rough, 0.7, mode="wrap"), axis=None)
    sharp += 2 * stats.zscore(ndimage.gaussian_filter(rough, 40, mode="wrap"), axis=None)
    blurred = ndimage.gaussian_filter(sharp, 4, mode="wrap")
    other = dice.normal(size=(side, side)).astype(np.float32)
    blobs = ndimage.gaussian_filter(other, 150, mode="wrap")
    image = np.where(blobs > blobs.mean(), sharp, blurred)
    image += dice.normal(size=image.shape).astype(np.float32) / 50
    write_array(path, side)[...] = np.clip(12000 + 2500 * image, 0, 2**16 - 1).astype(np.uint16)
    return path


def write_array(path: Path, side: int) -> "zarr.Array":
    """Make an empty array."""
    return zarr.create_array(
        path,
        shape=(side, side),
        chunks=(CHUNK, CHUNK),
        dtype=np.uint16,
        config={"write_empty_chunks": True},
    )


def make_image(pattern: Path, path: Path, side: int) -> None:
    """Make an OME-Zarr of `side` x `side` pixels of links to the chunks of the pattern."""
    write_group(path, describe_image([Grid.square("YX", (side, side), 0.5)], path.name))
    write_array(path / "0", side)
    for i in range(-(-side // CHUNK)):
        (path / f"0/c/{i}").mkdir(parents=True)
        for j in range(-(-side // CHUNK)):
            os.link(pattern / f"c/{i % PATTERN}/{j % PATTERN}", path / f"0/c/{i}/{j}")


def measure(pattern: Path, folder: Path, side: int, settings: Sequence[str]) -> Measured:
    """Detect in an image of a size, in a fresh process."""
    source, out = folder / "image.zarr", folder / "out"
    shutil.rmtree(source, ignore_errors=True)
    make_image(pattern, source, side)
    on_disk: list[int] = []
    run = run_timed(
        *("detect", str(source), "--out", str(out), "--detector", "metric", *settings),
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


def row(found: Sequence[Measured]) -> str:
    """Lay the last of the sizes out as a row of the table."""
    megapixels, seconds, peak, disk = found[-1]
    each = {round(one.megapixels): one.seconds / one.megapixels for one in found}
    share = f"{seconds / megapixels / each[REFERENCE]:.2f}" if REFERENCE in each else "-"
    numbers = [f"{seconds:.1f}", f"{seconds / megapixels:.3f}", share, f"{peak:.2f}", f"{disk:.2f}"]
    return tables.row([f"{megapixels:g}", *numbers])


def draw(found: Sequence[Measured], path: Path) -> None:
    """Draw time and memory over size, both axes logarithmic."""
    figure = Figure(figsize=(10, 4.2), dpi=140, layout="constrained")
    size, seconds, peak, _ = np.array(found).T
    time, memory = figure.subplots(1, 2)
    grey = {"color": "0.6", "linestyle": "--"}
    time.loglog(size, seconds[-1] / size[-1] * size, label="in proportion to the pixels", **grey)
    time.loglog(size, seconds, "o-", color="#0072b2", label="measured")
    time.set(ylabel="seconds", title="time")
    memory.loglog(size, peak, "o-", color="#d55e00", label="measured")
    memory.loglog(size, 2 * size / 1024, label="the image itself", **grey)
    memory.set(ylabel="GiB", title="peak memory")
    for axes in (time, memory):
        axes.set_xlabel("megapixels")
        axes.grid(color="0.92", which="both")
        axes.legend(frameon=False, fontsize=9)
    figure.savefig(path)


if __name__ == "__main__":
    main()
