"""A rendered plate of which some fields are out of focus: are they, and they alone, reported?

Run as: python -m benchmarks.report.plate DIR [--fields N] [--out-of-focus N] [--size N]

DIR gets the images, the results and the report. Printed: fields out of focus that are reported as
such, others that are, and what detection and the report take.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from napari_defocus.cli.main import main as command
from napari_defocus.io.raster import write_png
from napari_defocus.report.fields import OUT_OF_FOCUS, SOFT, Results, Thresholds
from napari_defocus.report.page import write_report
from napari_defocus.simulate.config import SceneConfig
from napari_defocus.simulate.fields import render_field
from napari_defocus.simulate.optics import Scene

# Of a plate of 384 wells.
ROWS, COLUMNS = 16, 24
SEED = 20261128


def render_wanted(config: SceneConfig, rng: np.random.Generator, blurred: bool) -> Scene:
    """Render fields until one is as wanted."""
    while True:
        scene = render_field(config, rng)
        if bool(scene.radius.any()) == blurred:
            return scene


def render_plate(folder: Path, fields: int, out: int, size: int) -> set[str]:
    """Write the images, and return the names of those out of focus."""
    rng = np.random.default_rng(SEED)
    blurred = set(rng.choice(fields, out, replace=False).tolist())
    names = set()
    for k in range(fields):
        site, well = divmod(k, ROWS * COLUMNS)
        name = f"plate1_{chr(65 + well // COLUMNS)}{well % COLUMNS + 1:02d}_s{site + 1}"
        scene = render_wanted(SceneConfig(size=size), rng, k in blurred)
        write_png(folder / f"{name}.png", scene.image[..., 0])
        if k in blurred:
            names.add(name)
    return names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--fields", type=int, default=2000)
    parser.add_argument("--out-of-focus", type=int, default=150)
    parser.add_argument("--size", type=int, default=256)
    options = parser.parse_args()
    images, results = options.folder / "images", options.folder / "results"
    truth = render_plate(images, options.fields, options.out_of_focus, options.size)
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
