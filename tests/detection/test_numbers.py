"""The numerical contract of docs/trust.md."""

import os
import subprocess
import sys

import numpy as np
import pytest

from benchmarks.trust import golden as trust_golden
from napari_defocus.data.samples import read_sample
from napari_defocus.detection.api import detect
from napari_defocus.detection.config import DetectionConfig
from napari_defocus.metric.fitting import instant_metric
from napari_defocus.metric.local_metric import save_metric
from napari_defocus.metric.nets import TrainingConfig, save_nets
from napari_defocus.metric.training import train

GOLDEN = np.load(trust_golden.FILE, allow_pickle=False)
CASES = {name: (image, config) for name, image, config in trust_golden.cases()}
# Machines differ in the last bits of a sum, and the map is kept in steps of 1.
MOST_STEPS = 2
MASK_DIFFERS = 1e-3
THREADS = 1e-5


def test_there_are_golden_maps_of_all_samples():
    assert set(GOLDEN) == {f"{name}, {part}" for name in CASES for part in ("blur", "mask")}


@pytest.mark.parametrize("name", CASES)
def test_golden_maps(name):
    image, config = CASES[name]
    found = trust_golden.reduced(detect(image, config=config))
    blur, mask = (GOLDEN[f"{name}, {part}"] for part in ("blur", "mask"))
    steps = np.abs(found["blur"].astype(int) - blur)
    # What is nearly even may fall to the other side.
    assert (steps > MOST_STEPS).mean() <= MASK_DIFFERS
    assert (found["mask"] != mask).mean() <= MASK_DIFFERS


@pytest.mark.parametrize("detector", ["metric", "dense"])
def test_the_same_image_gives_the_same_bytes(detector):
    image = read_sample("tilted_plane").image[:200, :200]
    config = DetectionConfig(detector=detector)
    first, second = detect(image, config=config), detect(image.copy(), config=config)
    for name in ("blur", "mask", "confidence"):
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes()


def test_the_same_patches_and_seed_give_the_same_files(patch_set, tmp_path):
    config = TrainingConfig(base="none", nets=1, kernels=4, kernel_size=5, epochs=1, device="cpu")
    contents = []
    for number in "12":
        save_metric(instant_metric(patch_set), tmp_path / f"{number}.metric")
        save_nets(train(patch_set, config), tmp_path / f"{number}.nets")
        contents.append(
            [(tmp_path / f"{number}.{kind}").read_bytes() for kind in ("metric", "nets")]
        )
    assert contents[0] == contents[1]


SCRIPT = """
import sys
import numpy as np
from napari_defocus.detection.api import detect
from napari_defocus.detection.config import DetectionConfig
from napari_defocus.data.samples import read_sample
image = read_sample("tilted_plane").image[:160, :160]
found = {d: detect(image, config=DetectionConfig(detector=d)).blur for d in ("metric", "dense")}
np.savez(sys.argv[1], **found)
"""


def test_the_number_of_threads_counts_for_next_to_nothing(tmp_path):
    maps = []
    for threads in "13":
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        environment = {**os.environ, **dict.fromkeys(names, threads)}
        file = tmp_path / f"{threads}.npz"
        command = [sys.executable, "-c", SCRIPT, str(file)]
        subprocess.run(command, env=environment, check=True)
        maps.append(np.load(file))
    np.testing.assert_array_equal(maps[0]["metric"], maps[1]["metric"])
    np.testing.assert_allclose(maps[0]["dense"], maps[1]["dense"], rtol=0, atol=THREADS)
