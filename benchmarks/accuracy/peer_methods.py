"""What is scored: our detectors, the peers that are installed, and the classical operators."""

import importlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from napari_defocus.detection.api import DetectionConfig, detect
from napari_defocus.evaluate.baselines import BASELINES, Baseline
from napari_defocus.filters.plane import prepare_plane

Array = npt.NDArray[Any]


class Answer(NamedTuple):
    """A sharpness map (Y, X) in [0, 1], and the mask (0 undecided, 1 blurred, 2 sharp), if any."""

    sharpness: Array
    mask: npt.NDArray[np.uint8] | None = None


@dataclass(frozen=True, eq=False)
class Method:
    """Something that maps the sharpness of an image (Y, X) or (Y, X, C).

    Its kind is ours, package or operator; `run` is None where it cannot run here, for the reason
    that the remark gives.
    """

    name: str
    kind: str
    run: Callable[[Array], Answer] | None
    remark: str = ""


@dataclass(frozen=True)
class Package:
    """A peer that installs from PyPI, the module to import, and a function of module and image.

    It is slow where a small photo takes more than half a second.
    """

    name: str
    module: str
    run: Callable[[Any, Array], Answer]
    slow: bool
    remark: str


def our_detector(name: str) -> Method:
    config = DetectionConfig(detector=name)

    def run(image: Array) -> Answer:
        found = detect(image, config=config)
        return Answer(found.sharpness, found.mask)

    return Method(f"napari-defocus, {name}", "ours", run)


def operator(name: str, function: Baseline) -> Method:
    return Method(name, "operator", lambda image: Answer(unit(function(prepare_plane(image).grey))))


def unit(values: Array) -> npt.NDArray[np.float64]:
    """Scale a map to [0, 1] by its own range; a constant map becomes 0."""
    raised = np.asarray(values, np.float64) - values.min()
    return np.asarray(raised / max(raised.max(), np.finfo(np.float64).tiny))


def eight_bit_grey(image: Array) -> npt.NDArray[np.uint8]:
    """Convert an image as most programs read it: 8 bit, grey of ITU-R BT.601."""
    if image.dtype != np.uint8:
        image = np.rint(255 * np.clip(prepare_plane(image).grey, 0, 1)).astype(np.uint8)
    return np.asarray(Image.fromarray(image).convert("L"))


def blur_detector(module: Any, image: Array) -> Answer:
    settings = {"downsampling_factor": 4, "num_scales": 4, "scale_start": 2}
    return Answer(module.detectBlur(eight_bit_grey(image), show_progress=False, **settings))


def focus_response(module: Any, image: Array) -> Answer:
    # the steps of its detect_focus_regions, which takes a file; settings are its defaults
    fused, _ = module.fuse_rdf_sum(eight_bit_grey(image), [(1, 3)], power=2, normalize="p99")
    density, _ = module.kde_on_fused(fused, top_percent=25.0, bandwidth_px=10.0)
    return Answer(density)


PACKAGES = (
    Package(
        "blur-detector",
        "blur_detector",
        blur_detector,
        slow=True,
        remark="after HiFST; settings of its page's example",
    ),
    Package(
        "focus-response",
        "focus_response",
        focus_response,
        slow=False,
        remark="ring difference filter, density of the strongest quarter; default settings",
    ),
)


def load_package(package: Package, skip_slow: bool = False) -> Method:
    """Return a package's method, without a `run` where it is missing or cannot run."""
    if skip_slow and package.slow:
        return Method(package.name, "package", None, "slow: left out by --skip-slow")
    try:
        name = f"{package.name} {metadata.version(package.name)}"
    except metadata.PackageNotFoundError:
        remark = f"not installed: `pip install {package.name}`"
        return Method(package.name, "package", None, remark)
    try:
        module = importlib.import_module(package.module)
    except Exception as error:  # of its own code or of what it imports
        return Method(name, "package", None, f"cannot be imported: {one_line(error)}")
    return Method(name, "package", partial(package.run, module), package.remark)


def one_line(error: Exception) -> str:
    """Return an error in one line that a table can hold."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 160 else text[:157] + "..."


def methods(detectors: Iterable[str], skip_slow: bool) -> Iterator[Method]:
    """Yield our detectors, the packages, and the operators."""
    yield from (our_detector(name) for name in detectors)
    yield from (load_package(package, skip_slow) for package in PACKAGES)
    yield from (operator(name, function) for name, function in BASELINES.items())
