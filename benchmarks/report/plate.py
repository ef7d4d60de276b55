"""A rendered plate of which some fields are out of focus: are they, and they alone, reported?

Run as: python -m benchmarks.report.plate DIR [--fields N] [--out-of-focus N] [--size N] [--mixed]

One specimen under one objective: nuclei of one size, glow and noise alike, discs of defocus of 4 to
22 pixels. With --mixed each field is of another specimen, size, objective and camera, as the
network's training draws them, which no plate is. DIR gets the images, the results and the report.
Printed: fields out of focus that are reported as such, others that are, and the time of both steps.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_defocus.cli.main import main as command
from napari_defocus.io.tiff_writer import write_tiff
from napari_defocus.report.fields import OUT_OF_FOCUS, SOFT, Results, Thresholds
from napari_defocus.report.page import write_report
from napari_defocus.simulate.config import SceneConfig
from napari_defocus.simulate.fields import render_field
from napari_defocus.simulate.optics import defocus

Image = npt.NDArray[Any]

# Of a plate of 384 wells.
ROWS, COLUMNS = 16, 24
SEED = 20261128
# Standard deviation of the objective's own blur, and the discs of defocus, in pixels.
OWN_BLUR = 0.9
RADII = (4.0, 22.0)


def render_any(size: int, rng: np.random.Generator, blurred: bool) -> Image:
    """Render fields of any kind until one is as wanted."""
    while True:
        scene = render_field(SceneConfig(size=size), rng)
        if bool(scene.radius.any()) == blurred:
            return scene.image[..., 0]


def render_nuclei(size: int, rng: np.random.Generator, blurred: bool) -> Image:
    """Render a field of mottled nuclei, 12 bits in 16."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32)
    light = np.zeros((size, size), np.float32)
    mottle = ndimage.gaussian_filter(rng.normal(size=(size, size)), 2)
    mottle = 1 + 0.25 * mottle / mottle.std()
    for _ in range(int(rng.integers(3, 30)) * size**2 // 256**2 + 1):
        centre, (a, b) = rng.uniform(0, size, 2), rng.uniform(9, 16, 2)
        angle = rng.uniform(0, np.pi)
        u = (np.cos(angle) * (x - centre[1]) + np.sin(angle) * (y - centre[0])) / a
        v = (np.cos(angle) * (y - centre[0]) - np.sin(angle) * (x - centre[1])) / b
        inside = np.clip((1 - np.hypot(u, v)) * 12 + 0.5, 0, 1)
        light = np.maximum(light, inside * mottle * rng.uniform(0.4, 1))
    seen = ndimage.gaussian_filter(light, OWN_BLUR) + 0.1 * ndimage.gaussian_filter(light, 15)
    if blurred:
        seen = defocus(seen.astype(np.float32), float(np.exp(rng.uniform(*np.log(RADII)))))
    electrons = rng.poisson(600 * seen + 30) + rng.normal(0, 3, seen.shape)
    return np.clip(np.rint(4 * electrons + 100), 0, 4095).astype(np.uint16)


def render_plate(folder: Path, fields: int, out: int, size: int, mixed: bool) -> set[str]:
    """Write the images, and return the names of those out of focus."""
    rng = np.random.default_rng(SEED)
    blurred = set(rng.choice(fields, out, replace=False).tolist())
    names = set()
    for k in range(fields):
        site, well = divmod(k, ROWS * COLUMNS)
        name = f"plate1_{chr(65 + well // COLUMNS)}{well % COLUMNS + 1:02d}_s{site + 1}"
        image = (render_any if mixed else render_nuclei)(size, rng, k in blurred)
        write_tiff(folder / f"{name}.tif", image, axes="YX", pixel_size_um=0.65)
        if k in blurred:
            names.add(name)
    return names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--fields", type=int, default=2000)
    parser.add_argument("--out-of-focus", type=int, default=150)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--mixed", action="store_true")
    options = parser.parse_args()
    images, results = options.folder / "images", options.folder / "results"
    blurred = options.out_of_focus
    truth = render_plate(images, options.fields, blurred, options.size, options.mixed)
    start = time.perf_counter()
    command(["detect", str(images), "--out", str(results), "--resume"])
    detected = time.perf_counter() - start
    start = time.perf_counter()
    write_report(Results(results), options.folder / "report.html")
    reported = time.perf_counter() - start
    judged = {one.name: Thresholds().judge(one) for one in Results(results).fields()}
    for verdicts in ((OUT_OF_FOCUS,), (OUT_OF_FOCUS, SOFT)):
        listed = {name for name, verdict in judged.items() if verdict in verdicts}
        print(
            f"{' or '.join(verdicts)}: {len(listed & truth)} of {len(truth)} listed, "
            f"{len(listed - truth)} others"
        )
    size = (options.folder / "report.html").stat().st_size / 1e6
    print(f"detect {detected:.0f} s, report {reported:.1f} s, {size:.1f} MB")


if __name__ == "__main__":
    main()
