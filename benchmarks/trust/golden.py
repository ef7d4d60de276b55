"""Write the golden maps: detection of the bundled samples, to compare later versions with.

    python -m benchmarks.trust.golden

Run it when detection is meant to have changed, and give the reason in the commit. The file holds
every fourth row and column, blur in steps of 1/255.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.trust.fixtures import FIXTURES
from napari_defocus.data.samples import SAMPLES, read_sample
from napari_defocus.detection.api import Detection, detect
from napari_defocus.detection.config import DetectionConfig
from napari_defocus.io.atomic import whole_file

FILE = FIXTURES / "golden.npz"
STEP = 4
DETECTORS = ("metric", "dense")
# Planes of a stack that are detected in.
PLANES = (0, 5)


def cases() -> Iterator[tuple[str, np.ndarray, DetectionConfig]]:
    """Yield a name, an image and settings for each golden map."""
    for sample in SAMPLES:
        image = read_sample(sample).image
        is_stack = image.ndim == 3 and image.shape[-1] > 4
        planes = {f"{sample} {z}": image[z] for z in PLANES} if is_stack else {sample: image}
        for name, plane in planes.items():
            for detector in DETECTORS:
                yield f"{name}, {detector}", plane, DetectionConfig(detector=detector)


def reduced(found: Detection) -> dict[str, np.ndarray]:
    """Return what the file holds of a detection."""
    blur = np.round(255 * found.blur[::STEP, ::STEP]).astype(np.uint8)
    return {"blur": blur, "mask": found.mask[::STEP, ::STEP]}


def write_golden(path: Path = FILE) -> None:
    """Write the maps of all cases."""
    maps = {
        f"{name}, {part}": values
        for name, image, config in cases()
        for part, values in reduced(detect(image, config=config)).items()
    }
    with whole_file(path) as temporary:
        np.savez_compressed(temporary, **maps)


if __name__ == "__main__":
    write_golden()
    print(FILE, FILE.stat().st_size)
