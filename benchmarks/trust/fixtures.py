"""Write small files of the current format version, from rendered data, for tests to read for ever.

    python -m benchmarks.trust.fixtures [FOLDER]

Run it once when `VERSION` of `io.cards` or of `io.manifest` changes: FOLDER, by default
``tests/fixtures/format-N``, must not exist. Files of older versions are never written again.
"""

import sys
from pathlib import Path

import numpy as np

from napari_defocus.cli import main as cli
from napari_defocus.dense.detector import DenseDetector, load_dense, save_dense
from napari_defocus.io.cards import VERSION
from napari_defocus.io.raster import write_png
from napari_defocus.labels.classes import BLURRED, SHARP
from napari_defocus.metric.default_recipe import RecipeConfig, render_scenes, textured_annotation
from napari_defocus.metric.fitting import instant_metric
from napari_defocus.metric.local_metric import save_metric
from napari_defocus.metric.nets import TrainingConfig, save_nets
from napari_defocus.metric.patches import PatchConfig, PatchSet, build_patch_set, save_patch_set
from napari_defocus.metric.training import train

FIXTURES = Path(__file__).parents[2] / "tests" / "fixtures"
NETS = TrainingConfig(base="none", nets=1, kernels=2, kernel_size=3, epochs=1, learning_rate=2e-3)
METRIC, NETS_FILE, PATCHES, DENSE = (
    f"{name}.safetensors" for name in ("metric", "nets", "patches", "dense")
)


def few_patches(most: int = 24) -> PatchSet:
    """Cut a few patches of both classes from four rendered scenes."""
    config = RecipeConfig(scenes=4, size=192)
    scenes = [
        (name, scene.image, textured_annotation(scene, config.texture))
        for name, scene in render_scenes(config)
    ]
    patch_set = build_patch_set(scenes, PatchConfig(size=16))
    members = [np.flatnonzero(patch_set.labels == label)[:most] for label in (BLURRED, SHARP)]
    return patch_set.take(np.sort(np.concatenate(members)))


def few_weights() -> DenseDetector:
    """Return the smallest weights of the default dense detector: enough for a file alone."""
    detector = load_dense()
    small = {name: w for name, w in detector.weights.items() if w.size <= 64}
    return DenseDetector(dict(sorted(small.items())[:6]), {"made": "for tests"})


def write_fixtures(folder: Path) -> list[Path]:
    """Write a file of every kind."""
    patch_set = few_patches()
    save_patch_set(patch_set, folder / PATCHES, overwrite=False)
    nets = train(patch_set, NETS)
    assert nets is not None
    save_nets(nets, folder / NETS_FILE, overwrite=False)
    metric = instant_metric(patch_set)
    save_metric(metric, folder / METRIC, overwrite=False)
    save_dense(few_weights(), folder / DENSE, overwrite=False)
    rng = np.random.default_rng(0)
    write_png(folder / "noise.png", rng.integers(0, 256, (40, 40), np.uint8), overwrite=False)
    picture, own = str(folder / "noise.png"), str(folder / METRIC)
    if cli.main(["detect", picture, "--metric", own, "--out", str(folder)]):
        raise SystemExit("detection failed")
    return sorted(folder.iterdir())


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if sys.argv[1:] else FIXTURES / f"format-{VERSION}"
    for path in write_fixtures(folder):
        print(path, path.stat().st_size)
