import os
import signal

import numpy as np
from safetensors.numpy import save_file

from napari_defocus.io.raster import write_png
from napari_defocus.metric.local_metric import PACKAGED

# Of a start at random: nets as small as these have no base to go on from.
TINY = ["--base", "none", "--nets", "1", "--kernels", "4", "--epochs", "2"]
TINY += ["--learning-rate", "2e-3", "--device", "cpu"]


def press_ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)


def assert_refused(result, *words):
    """Bad input: status 2 and one line that says what is wrong."""
    status, out, err = result
    assert status == 2
    assert out == []
    assert len(err) == 1, err
    assert err[0].startswith("napari-defocus: ")
    for word in words:
        assert str(word) in err[0]


def without_limits(lines):
    """Leave out what `detect` prints of the sharpness limit of each image."""
    return [line for line in lines if ": sharp up to " not in line]


def names(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def results(*stems, picture=False):
    endings = [".blur.tif", ".mask.tif"] + [".overview.png"] * picture
    written = [stem + ending for stem in stems for ending in endings]
    return sorted([*written, "napari-defocus.json"])


def picture(seed=0, shape=(48, 64)):
    """Blobs: something to judge."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (shape[0] // 4, shape[1] // 4)).astype(np.uint8)
    return np.kron(coarse, np.ones((4, 4), np.uint8))


def bad_metric(kind, folder):
    path = folder / "metric.safetensors"
    whole = PACKAGED["default"].read_bytes()
    if kind == "cut short":
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "foreign":
        save_file({"weight": np.zeros((3, 3), np.float32)}, path)
    elif kind == "image":
        write_png(path, picture())
    elif kind == "folder":
        path.mkdir()
    return path
