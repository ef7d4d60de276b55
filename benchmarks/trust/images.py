"""Random images through detection: any type, shape, stride and value, in any kind of array.

Each gives maps that hold what they promise, or the package's own error. A case is made again by its
number.
"""

import warnings
from collections.abc import Iterator
from typing import Any

import dask.array
import numpy as np

from benchmarks.trust.outcomes import DETECTED, REFUSED, Outcomes, attempt, print_faults
from napari_defocus.detection.api import Detection, detect
from napari_defocus.detection.config import DetectionConfig
from napari_defocus.detection.refinement import RefinementConfig
from napari_defocus.detection.threshold import MaskConfig

Array = Any
TYPES = ("?", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8")
# Types that no image has.
STRANGE = ("c8", "c16", "M8[s]", "U3", "O", "V4", "g")
SPECIAL = (np.nan, np.inf, -np.inf, 0.0, -0.0, 1e30, -1e30, 1e-40, 65504.0, 1.7e308, -1.7e308)
SIDES = (7, 8, 13, 24, 40, 57, 80, 130)
SMALL = (0, 1, 2, 3, 5)
AXES = ("YX", "YXS", "ZYX", "TZYX", "CYX", "XY", "SYX", "YXZ", "ZYXS", "QYX", "XTYS", "ZYXSC")
NO_AXES = ("YY", "", "Y", "yx", "YX?")


def make(number: int) -> tuple[Array, str | None, DetectionConfig]:
    """Make an image, its axes if they are given, and settings."""
    rng = np.random.default_rng([7, number])
    axes = None if rng.random() < 0.5 else str(rng.choice(AXES))
    if rng.random() < 0.02:
        axes = str(rng.choice(NO_AXES))
    image = _values(_shape(axes, rng), rng)
    return _stored(image, rng), axes, _settings(rng)


def _shape(axes: str | None, rng: np.random.Generator) -> tuple[int, ...]:
    rows, columns = (int(rng.choice(SMALL if rng.random() < 0.05 else SIDES)) for _ in "YX")
    if axes is None:
        kind = rng.random()
        if kind < 0.6:
            return rows, columns
        if kind < 0.95:
            return rows, columns, int(rng.choice([3, 4] if kind < 0.85 else [0, 1, 2, 5]))
        return tuple(int(n) for n in rng.integers(0, 6, rng.integers(0, 6)))
    sides = {"Y": rows, "X": columns, "S": int(rng.choice([1, 2, 3, 4]))}
    shape = [
        sides.get(letter, int(rng.integers(0 if rng.random() < 0.1 else 1, 4))) for letter in axes
    ]
    if rng.random() < 0.02:
        shape = shape[:-1]
    return tuple(shape)


def _values(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    if rng.random() < 0.02:
        return np.zeros(shape, str(rng.choice(STRANGE)))
    dtype = np.dtype(str(rng.choice(TYPES)))
    kind = rng.random()
    values = rng.random(shape)
    if kind < 0.03:
        values = np.full(shape, rng.random())
    elif kind < 0.2:
        values = np.cumsum(values, axis=-1) if values.ndim else values
    if dtype.kind == "f":
        scale = float(rng.choice([1, 255, 1e-6, 1e4, {2: 1, 4: 1e30, 8: 1e300}[dtype.itemsize]]))
        image = np.array(values * scale, dtype)
        if rng.random() < 0.4 and image.size:
            share = float(rng.choice([0.001, 0.1, 0.9, 1.0]))
            with np.errstate(over="ignore"):
                image[rng.random(shape) < share] = rng.choice(SPECIAL)
        return image
    if dtype.kind == "b":
        return np.array(values < rng.random())
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    if rng.random() < 0.5:
        low, high = 0, min(high, 4095)
    return np.array(low + values * (float(high) - float(low)) * (1 - 1e-9)).astype(dtype)


def _stored(image: Array, rng: np.random.Generator) -> Array:
    """Return the same values in another kind of array or memory layout."""
    kind = rng.integers(9)
    if kind == 0 and image.dtype.kind in "iuf":
        return image.astype(image.dtype.newbyteorder(">"))
    if kind == 1 and image.ndim:
        return np.asfortranarray(image)
    if kind == 2 and image.ndim:
        return np.repeat(image, 2, axis=0)[::2]
    if kind == 3 and image.ndim:
        return image[::-1]
    if kind == 4:
        image = image.copy()
        image.flags.writeable = False
        return image
    if kind == 5 and image.ndim and image.dtype.kind in "iufb":
        chunks = tuple(max(1, int(rng.integers(1, n + 2))) for n in image.shape)
        return dask.array.from_array(image, chunks=chunks)
    if kind == 6 and image.ndim and image.shape[0]:
        return np.broadcast_to(image[:1], image.shape)
    if kind == 7:
        return image.tolist() if image.size < 400 else np.array(image, ndmin=image.ndim)
    return image


def _settings(rng: np.random.Generator) -> DetectionConfig:
    if rng.random() < 0.5:
        return DetectionConfig(detector="metric" if rng.random() < 0.9 else "dense")
    refinement = RefinementConfig(
        neighbourhood=int(rng.choice([1, 3, 5, 9])),
        threshold=None if rng.random() < 0.5 else float(rng.random()),
        keep=float(rng.random()),
    )
    threshold = rng.choice(["otsu", "mean", "number"])
    mask = MaskConfig(
        threshold=float(rng.random()) if threshold == "number" else str(threshold),
        smallest=int(rng.choice([0, 1, 10, 10_000])),
    )
    return DetectionConfig(
        detector="metric",
        scale=str(rng.choice(["calibrated", "image"])),
        adapt=float(rng.random()),
        reach=float(rng.choice([0, 2, 1000])),
        caution=float(rng.choice([-1000, 0, 1, 1000])),
        gain=float(rng.choice([0.01, 2, 1000])),
        refine=bool(rng.random() < 0.8),
        refinement=refinement,
        mask=mask,
    )


def try_image(number: int) -> str:
    """Detect in one image; return `DETECTED`, `REFUSED` or what went wrong."""
    image, axes, config = make(number)
    before = image.tobytes() if isinstance(image, np.ndarray) else None

    def work() -> str:
        found = detect(image, config=config, axes=axes)
        if before is not None and before != image.tobytes():
            return "the image was changed"
        return _broken(found, np.shape(image), axes) or DETECTED

    return attempt(work)


def _broken(found: Detection, shape: tuple[int, ...], axes: str | None) -> str | None:
    """Return what is wrong with a detection, None if nothing is."""
    if axes is None:
        expected = shape[:2]
    else:
        first = [n for n, letter in zip(shape, axes, strict=True) if letter not in "YXS"]
        expected = (*first, shape[axes.index("Y")], shape[axes.index("X")])
    if not found.blur.shape == found.mask.shape == found.confidence.shape == expected:
        return f"shape {found.blur.shape} of an image of {shape} ({axes})"
    if (found.blur.dtype, found.mask.dtype) != (np.float32, np.uint8):
        return f"types {found.blur.dtype} and {found.mask.dtype}"
    for name in ("blur", "confidence"):
        values = getattr(found, name)
        if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
            return f"{name} from {values.min()} to {values.max()}"
    if not np.isin(found.mask, (0, 1, 2)).all():
        return f"mask of {np.unique(found.mask)}"
    return None


def run(count: int) -> Outcomes:
    outcomes = Outcomes()
    with warnings.catch_warnings(action="ignore"):
        for number in range(count):
            outcomes.add(number, try_image(number))
    return outcomes


def rows(count: int) -> Iterator[tuple[str, str, str]]:
    """Yield the row of the table."""
    found = run(count)
    print_faults("image", (f"{number}: {fault}" for number, fault in found.faults.items()))
    detected, refused = found.counts[DETECTED], found.counts[REFUSED]
    text = f"{detected} detected, {refused} refused, {len(found.faults)} faults"
    yield f"{count:,} random images through detect", "0 faults", text
