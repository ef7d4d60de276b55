"""What is scored: our detectors, the peers that are installed, and the classical operators."""

import importlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from napari_defocus.detection.api import DetectionConfig, detect
from napari_defocus.evaluate.baselines import BASELINES, Baseline
from napari_defocus.filters.plane import prepare_plane


class UnusableError(Exception):
    """A peer cannot run here; the message says what is missing."""


@dataclass(frozen=True, eq=False)
class Answer:
    """What a method says of a photo.

    Parameters
    ----------
    sharpness : ndarray, (Y, X)
        In [0, 1], 1 = sharp.
    mask : ndarray of uint8, (Y, X), optional
        0 undecided, 1 blurred, 2 sharp.
    """

    sharpness: npt.NDArray[Any]
    mask: npt.NDArray[np.uint8] | None = None


Run = Callable[[npt.NDArray[Any]], Answer]


@dataclass(frozen=True, eq=False)
class Method:
    """Something that maps the sharpness of an image (Y, X) or (Y, X, C).

    Parameters
    ----------
    name, kind : str
        As the table shows them; the kind is ours, package or operator.
    run : callable or None
        None where it cannot run here, for the reason that the remark gives.
    remark : str
        What else there is to know.
    """

    name: str
    kind: str
    run: Run | None
    remark: str = ""


@dataclass(frozen=True)
class Package:
    """A peer that installs from PyPI.

    Parameters
    ----------
    name, module : str
        Of the distribution, and of what is imported.
    adapt : callable
        Makes a `Run` of the imported module; raises `UnusableError` where it cannot.
    slow : bool
        Whether a small photo takes more than half a second.
    remark : str
        What of it is scored.
    """

    name: str
    module: str
    adapt: Callable[[Any], Run]
    slow: bool
    remark: str


def our_detector(name: str) -> Method:
    config = DetectionConfig(detector=name)

    def run(image: npt.NDArray[Any]) -> Answer:
        found = detect(image, config=config)
        return Answer(found.sharpness, found.mask)

    return Method(f"napari-defocus, {name}", "ours", run)


def operator(name: str, function: Baseline) -> Method:
    return Method(name, "operator", lambda image: Answer(unit(function(prepare_plane(image).grey))))


def unit(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Scale a map to [0, 1] by its own range; a constant map becomes 0."""
    raised = np.asarray(values, np.float64) - values.min()
    return np.asarray(raised / max(raised.max(), np.finfo(np.float64).tiny))


def eight_bit(image: npt.NDArray[Any], mode: str) -> npt.NDArray[np.uint8]:
    """Give an image as most programs read it: mode L (grey, of ITU-R BT.601) or RGB."""
    if image.dtype != np.uint8:
        image = np.rint(255 * np.clip(prepare_plane(image).grey, 0, 1)).astype(np.uint8)
    return np.asarray(Image.fromarray(image).convert(mode))


def adapt_blur_detector(module: Any) -> Run:
    def run(image: npt.NDArray[Any]) -> Answer:
        settings = {"downsampling_factor": 4, "num_scales": 4, "scale_start": 2}
        return Answer(module.detectBlur(eight_bit(image, "L"), show_progress=False, **settings))

    return run


def adapt_focus_response(module: Any) -> Run:
    def run(image: npt.NDArray[Any]) -> Answer:
        # the steps of its detect_focus_regions, which takes a file; settings are its defaults
        fused, _ = module.fuse_rdf_sum(eight_bit(image, "L"), [(1, 3)], power=2, normalize="p99")
        density, _ = module.kde_on_fused(fused, top_percent=25.0, bandwidth_px=10.0)
        return Answer(density)

    return run


def adapt_polarini(module: Any) -> Run:
    depth = importlib.import_module(f"{module.__name__}.depth_estimation")
    weights = depth.DepthEstimationConfig().local_model_path
    if not weights.exists():
        raise UnusableError(
            "installed, but the weights of its depth network are not: its command "
            "polarini-focusini fetches them at its first run"
        )

    def run(image: npt.NDArray[Any]) -> Answer:
        colours = np.ascontiguousarray(eight_bit(image, "RGB")[..., ::-1])
        sharp = module.detect_infocus_mask(colours, ignore_cuda=True)
        return Answer(sharp.astype(np.float64), np.where(sharp, 2, 1).astype(np.uint8))

    return run


PACKAGES = (
    Package(
        "blur-detector",
        "blur_detector",
        adapt_blur_detector,
        slow=True,
        remark="after HiFST; settings of its page's example",
    ),
    Package(
        "focus-response",
        "focus_response",
        adapt_focus_response,
        slow=False,
        remark="ring difference filter, density of the strongest quarter; default settings",
    ),
    Package(
        "polarini-focusini",
        "polarini_focusini",
        adapt_polarini,
        slow=True,
        remark="a mask only, no levels; monocular depth and difference of Gaussians",
    ),
)


def load_package(package: Package, skip_slow: bool = False) -> Method:
    """Give a package's method, without a `run` where it is missing or cannot run."""
    if skip_slow and package.slow:
        return Method(package.name, "package", None, "slow: left out by --skip-slow")
    try:
        version = metadata.version(package.name)
    except metadata.PackageNotFoundError:
        remark = f"not installed: `pip install {package.name}`"
        return Method(package.name, "package", None, remark)
    name = f"{package.name} {version}"
    try:
        run = package.adapt(importlib.import_module(package.module))
    except UnusableError as error:
        return Method(name, "package", None, str(error))
    except Exception as error:  # of its own code or of what it imports
        return Method(name, "package", None, f"cannot be imported: {said(error)}")
    return Method(name, "package", run, package.remark)


def said(error: Exception) -> str:
    """Give an error in one line that a table can hold."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 160 else text[:157] + "..."


def methods(detectors: Iterable[str], skip_slow: bool) -> Iterator[Method]:
    """Give our detectors, the packages, and the operators."""
    yield from (our_detector(name) for name in detectors)
    yield from (load_package(package, skip_slow) for package in PACKAGES)
    yield from (operator(name, function) for name, function in BASELINES.items())
