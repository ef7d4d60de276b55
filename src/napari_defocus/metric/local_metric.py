"""The local metric: filters that measure sharpness, their calibration, and its file."""

import hashlib
import reprlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_defocus.core.errors import DefocusError, brief
from napari_defocus.core.settings import Settings
from napari_defocus.io.cards import Card, as_floats, load_container, read_settings, save_container
from napari_defocus.metric.kernel_pca import KernelPCA, kernel_pca, plain_pca
from napari_defocus.metric.patches import LARGEST_KERNEL, MOST_HALVINGS

Float = npt.NDArray[np.float32]

KIND = "metric"
TENSORS = ("filters", "explained_variance_ratio", "kernels", "whitening")
# Calls by name: metrics that come with the package.
PACKAGED = {
    name: Path(__file__).parents[1] / "weights" / f"{name}.safetensors"
    for name in ("default", "zeng2019")
}
# The method, in a metric's record, of those that are made and applied as the paper says.
LITERAL = "zeng2019"
LARGEST_ENERGY = 1e6
# Beyond these a metric is no metric: powers and exponentials leave the numbers of single precision.
POOLING_RANGES = {
    "power": (0.1, 10),
    "sigma": (0.1, 1000),
    "guide_radius": (1, 1000),
    "guide_epsilon": (1e-12, 1000),
    "noise_factor": (0, 1000),
    "contrast_sigma": (0.1, 1000),
    "contrast_exponent": (0, 10),
}
CALIBRATION_RANGES = {"threshold": (-80, 80), "slope": (-1000, 1000)}


@dataclass(frozen=True)
class Pooling(Settings):
    """How filter responses become the score of a pixel; lengths are in pixels."""

    power: float = 0.5  # of responses before the Gaussian: edges weigh less
    sigma: float = 6.0  # of the Gaussian that pools
    guide_radius: int = 20  # of the guided filter that makes the map follow outlines
    guide_epsilon: float = 1e-3  # its regularisation, in squared grey values
    noise_factor: float = 2.0  # times the noise's variance that is taken off squared responses
    contrast_sigma: float = 1.5  # of the gradient that measures local contrast
    contrast_exponent: float = 0.4  # 0 takes responses as they are, 1 divides by the contrast


@dataclass(frozen=True)
class Calibration:
    """From scores to log odds: even at the `threshold`, and their change by a unit of score."""

    threshold: float
    slope: float


@dataclass(frozen=True)
class LocalMetric:
    """The local sharpness metric, with all that is needed to apply it.

    Parameters
    ----------
    filters : ndarray of float32, (K, size, size)
        K1, K2, ... in order of their shares; all squares sum to 1. Each of zero mean, but
        for a `literal` metric.
    explained_variance_ratio : ndarray of float32, (components,)
        Of all components, falling: shares of the kernels' variance or power, see `KernelPCA`; of an
        instant fit, of its eigenvalues.
    calibration : Calibration
        Scale of its scores.
    kernels : ndarray of float32, (N, size, size)
        What the components were computed from, in whitened space.
    whitening : ndarray of float32, (size^2, size^2)
        The matrix that carries whitened kernels to pixels.
    pooling : Pooling
        How responses are pooled.
    record : mapping
        How it came to be: settings, patches, held-out scores.
    halvings : int or None
        How many times an image is halved before it is filtered, where the calibration is of the
        user's patches alone; it holds at that scale only. None: the finest scale counts at which
        noise lets the default's sharp regions be seen.
    """

    filters: Float
    explained_variance_ratio: Float
    calibration: Calibration
    kernels: Float
    whitening: Float
    pooling: Pooling = field(default_factory=Pooling)
    record: Mapping[str, Any] = field(default_factory=dict)
    halvings: int | None = None

    @property
    def size(self) -> int:
        """Side of the filters in pixels."""
        return int(self.filters.shape[-1])

    @property
    def literal(self) -> bool:
        """Whether it was made, and is applied, as the paper says: see `zeng2019`."""
        return self.record.get("method") == LITERAL

    @property
    def digest(self) -> str:
        """Hash of filters, pooling and calibration, twelve letters."""
        digest = hashlib.sha256(np.ascontiguousarray(self.filters, "<f4").tobytes())
        applied = LITERAL if self.literal else (self.pooling, self.calibration)
        digest.update(repr(applied).encode())
        if self.halvings is not None:
            digest.update(f"halvings {self.halvings}".encode())
        return digest.hexdigest()[:12]


def principal_components(metric: LocalMetric) -> KernelPCA:
    """Return all components of a metric; those of the instant fit are stored as its kernels."""
    if metric.record.get("method") == "instant":
        return KernelPCA(metric.kernels, metric.explained_variance_ratio)
    if metric.literal:
        return plain_pca(metric.kernels)
    return kernel_pca(metric.kernels, metric.whitening)


def choose_components(metric: LocalMetric, count: int) -> LocalMetric:
    """Return the metric of another number of components; its calibration must be fitted anew."""
    return replace(metric, filters=principal_components(metric).filters(count))


def save_metric(metric: LocalMetric, path: Path, *, overwrite: bool = True) -> None:
    """Write a metric to one ``.safetensors`` file with a readable card.

    Raises
    ------
    DefocusError
        Where the file cannot be written.
    """
    card = {
        "components": len(metric.filters),
        "size": metric.size,
        "kernels": len(metric.kernels),
        "explained_variance_ratio": [
            round(float(r), 4) for r in metric.explained_variance_ratio[:8]
        ],
        "pooling": asdict(metric.pooling),
        "calibration": asdict(metric.calibration),
        "halvings": metric.halvings,
        "record": dict(metric.record),
    }
    tensors = {name: getattr(metric, name) for name in TENSORS}
    save_container(path, KIND, tensors, card, overwrite=overwrite)


def load_metric(source: str | Path = "default") -> LocalMetric:
    """Read a metric from a file, or by the name of one that comes with the package.

    Parameters
    ----------
    source : str or Path
        ``"default"``, ``"zeng2019"`` or a path.

    Raises
    ------
    DefocusError
        Where there is no such metric, or the file is no whole metric.
    """
    path = PACKAGED.get(str(source), Path(source))
    if not path.is_file():
        names = ", ".join(PACKAGED)
        raise DefocusError(f"{source}: neither a metric file nor the name of one ({names})")
    tensors, card = load_container(path, KIND)
    metric = _metric_of(path, tensors, card)
    problem = _problem(metric)
    if problem:
        raise DefocusError(f"{path}: {problem}; get or make the metric anew")
    return metric


def _metric_of(path: Path, tensors: dict[str, npt.NDArray[Any]], card: Card) -> LocalMetric:
    try:
        return LocalMetric(
            **{name: as_floats(tensors[name]) for name in TENSORS},
            calibration=read_settings(Calibration, card["calibration"]),
            pooling=read_settings(Pooling, card["pooling"]),
            record=dict(card["record"]),
            halvings=card.get("halvings"),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DefocusError(f"{path}: not a whole metric ({brief(error)})") from error


def _problem(metric: LocalMetric) -> str | None:
    """Return what is wrong with the numbers of a metric, None where nothing is."""
    filters = metric.filters
    if filters.ndim != 3 or 0 in filters.shape or filters.shape[1] != filters.shape[2]:
        return f"its filters have the shape {filters.shape}"
    if metric.halvings is not None and (
        type(metric.halvings) is not int or not 0 <= metric.halvings <= MOST_HALVINGS
    ):
        return f"it asks for {reprlib.repr(metric.halvings)} halvings of an image"
    size = metric.size
    if size % 2 == 0 or size > LARGEST_KERNEL:
        return f"its filters have a side of {size}; an odd one up to {LARGEST_KERNEL} is needed"
    kernels_fit = metric.kernels.shape[1:] == (size, size) and len(metric.kernels)
    if not kernels_fit or metric.whitening.shape != (size**2, size**2):
        return "its kernels and whitening do not fit its filters"
    ratio = metric.explained_variance_ratio
    if ratio.ndim != 1 or not len(filters) <= len(ratio) <= size**2:
        return "its explained variances do not fit its filters"
    for holder, ranges in (
        (metric.pooling, POOLING_RANGES),
        (metric.calibration, CALIBRATION_RANGES),
    ):
        for name, (low, high) in ranges.items():
            if not low <= getattr(holder, name) <= high:
                value = reprlib.repr(getattr(holder, name))
                return f"its {name} is {value}; {low:g} to {high:g} is in order"
    if np.square(filters, dtype=np.float64).sum() > LARGEST_ENERGY:
        return "its filters are far too large: their squares should sum to 1"
    return None
