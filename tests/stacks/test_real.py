"""Real focus stacks: ``stack_pcb``, ``stack_switch`` and ``stack_algae`` of NAPARI_DEFOCUS_DATA."""

import numpy as np
import pytest
from scipy import stats

from benchmarks.timed import run_timed
from napari_defocus.io.open import read_image
from tests.detection.test_real_data import folder


def run(out, *arguments):
    return run_timed("stack", *map(str, arguments), "--out", str(out))


def detail(image):
    """Mean squared difference of neighbours, of grey values."""
    grey = image.astype(np.float32).mean(axis=-1)
    return np.square(np.diff(grey, axis=0)).mean() + np.square(np.diff(grey, axis=1)).mean()


@pytest.mark.slow
def test_a_board_is_far_at_the_top_and_near_at_the_bottom(tmp_path):
    data = folder("stack_pcb")
    run(tmp_path, data, "--register")
    depth_map = read_image(tmp_path / "stack_pcb.altitude.tif").data
    rows = np.median(depth_map, axis=1)
    assert stats.spearmanr(rows, np.arange(len(rows))).statistic <= -0.95
    fused = read_image(tmp_path / "stack_pcb.fused.tif").data
    planes = [read_image(path).data for path in sorted(data.glob("*.jpg"))]
    assert detail(fused) > 1.2 * max(detail(plane) for plane in planes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"), [("stack_algae", []), ("stack_switch", ["--register"])]
)
def test_large_stacks_fit_into_two_gibibytes(name, options, tmp_path):
    assert run(tmp_path, folder(name), *options).peak_gib < 2.0
    for ending in ("altitude", "fused", "provenance"):
        assert (tmp_path / f"{name}.{ending}.tif").exists()
