"""From patches to a local metric: kernel PCA of trained nets, or the instant fit in closed form."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from scipy import linalg

from napari_defocus.core.errors import DefocusError
from napari_defocus.core.progress import OnEvent, ShouldStop, ignore_event, never_stop
from napari_defocus.core.settings import Allowed, Settings
from napari_defocus.labels.classes import BLURRED, SHARP
from napari_defocus.metric import zeng2019
from napari_defocus.metric.calibration import CONTRADICTED, ENOUGH, calibrate, weighted_parts
from napari_defocus.metric.kernel_pca import KernelPCA, fixed_directions, kernel_pca
from napari_defocus.metric.local_metric import Calibration, LocalMetric, Pooling
from napari_defocus.metric.nets import TrainedNets, TrainingConfig, load_base
from napari_defocus.metric.patches import (
    LARGEST_KERNEL,
    MOST_HALVINGS,
    PatchConfig,
    PatchSet,
    require_both_classes,
    split_patch_set,
)
from napari_defocus.metric.training import train
from napari_defocus.metric.whitening import whitening_matrix, window_covariance

METHODS = ("nets", "instant")
# Added to the blurred covariance, as a share of the sharp one's mean variance.
RIDGE = 1e-3
# A coarser scale has to tell classes apart better by more than this.
SAME = 0.02
# Share of the patches that a coarser scale has to keep: else it leaves out what was painted.
LEAST_KEPT = 0.7


@dataclass(frozen=True)
class FitConfig(Settings):
    """How a metric is made from patches.

    Parameters
    ----------
    method : str
        ``nets``: train ConvNets and take the principal components of their kernels.
        ``instant``: the closed form, in milliseconds.
    components : int
        K, the number of filters.
    training : TrainingConfig
        How nets are trained; its seed, kernel size and validation share serve the instant fit too.
    pooling : Pooling
        How responses are pooled.
    """

    method: str = "nets"
    components: int = 2
    training: TrainingConfig = field(default_factory=TrainingConfig)
    pooling: Pooling = field(default_factory=Pooling)

    _allowed: ClassVar[Allowed] = {"method": METHODS, "components": (1, LARGEST_KERNEL**2)}


def fit_metric(
    patch_set: PatchSet,
    config: FitConfig | None = None,
    *,
    on_event: OnEvent = ignore_event,
    should_stop: ShouldStop = never_stop,
) -> LocalMetric | None:
    """Fit a metric to annotated patches, by either method.

    Parameters
    ----------
    patch_set : PatchSet
        With both classes.
    config : FitConfig, optional
        How.
    on_event, should_stop : callable
        See `train`.

    Returns
    -------
    LocalMetric or None
        None where it was stopped before there was a net.

    Raises
    ------
    DefocusError
        Where the patches do not suffice, or a setting is unknown.
    """
    config = config or FitConfig()
    if config.method == "instant":
        return instant_metric(patch_set, config)
    nets = train(patch_set, config.training, on_event=on_event, should_stop=should_stop)
    return None if nets is None else metric_from_nets(nets, config)


def best_scale(
    cut: Callable[[PatchConfig], PatchSet], patches: PatchConfig, config: FitConfig
) -> PatchSet:
    """Cut patches at the scale at which an instant fit tells their classes apart.

    That is the image's own where what was annotated holds at it; else of that and of the halved
    images the one with the largest held-out AUC. The literal preset keeps to the image's own.

    Parameters
    ----------
    cut : callable
        Returns the patches that were annotated, cut as it is told.
    patches : PatchConfig
        How, but for `halvings`.
    config : FitConfig
        How the metric will be made of them.

    Raises
    ------
    DefocusError
        Where there are too few patches.
    """
    best = cut(patches)
    require_both_classes(best)
    if not config.training.whiten:
        return best
    metric = instant_metric(best, config)
    contradicts = metric.halvings is not None or metric.record["holds"] < CONTRADICTED
    if not contradicts or min(best.counts().values()) < ENOUGH:
        return best
    most, least = _told_apart(metric), LEAST_KEPT * len(best)
    for halvings in range(1, MOST_HALVINGS + 1):
        with suppress(DefocusError):  # too few are left, or the image is too small
            halved = cut(replace(patches, halvings=halvings))
            told_apart = _told_apart(instant_metric(halved, config))
            if told_apart > most + SAME and len(halved) >= least:
                best, most = halved, told_apart
    return best


def _told_apart(metric: LocalMetric) -> float:
    held_out = metric.record["held_out"]
    return float(held_out["auc"] + held_out["holds"])


def metric_from_nets(nets: TrainedNets, config: FitConfig | None = None) -> LocalMetric:
    """Kernel PCA of trained nets, calibrated on patches they were trained with.

    Parameters
    ----------
    nets : TrainedNets
        At least one.
    config : FitConfig, optional
        `components` and `pooling` are used.

    Returns
    -------
    LocalMetric
    """
    config = config or FitConfig()
    if not nets.config.whiten:
        return zeng2019.metric_from_nets(nets, config.components)
    size = nets.config.kernel_size
    kernels = nets.kernels.reshape(-1, size, size)
    record = {
        "method": "nets",
        "training": asdict(nets.config),
        "complete": nets.complete,
        "epochs": [len(net.history) for net in nets.nets],
        "net_accuracy": round(nets.accuracy, 4),
    }
    pca = kernel_pca(kernels, nets.whitening)
    metric = _uncalibrated(pca, kernels, nets.whitening, config, record)
    return calibrate(metric, nets.training, nets.validation, nets.base)


def instant_metric(patch_set: PatchSet, config: FitConfig | None = None) -> LocalMetric:
    """Fit filters in closed form: most variance on sharp windows for that on blurred ones.

    Generalised eigenvectors of the two classes' window covariances, as in common spatial patterns
    (H. Ramoser et al., IEEE Trans. Rehab. Eng. 8(4), 2000).

    Parameters
    ----------
    patch_set : PatchSet
        With both classes.
    config : FitConfig, optional
        How.

    Returns
    -------
    LocalMetric
    """
    config = config or FitConfig()
    require_both_classes(patch_set)
    size, seed = config.training.kernel_size, config.training.seed
    if patch_set.config.size < size:
        raise DefocusError(
            f"patches of {patch_set.config.size} pixels are smaller than filters of {size}"
        )
    training, validation = split_patch_set(patch_set.balanced(seed), config.training.validation)
    require_both_classes(training)
    nets = load_base(config.training)
    base = nets.training if nets else None
    sharp, blurred = (
        _class_covariance(training, base, label, config) for label in (SHARP, BLURRED)
    )
    ridge = RIDGE * np.trace(sharp) / len(sharp) * np.eye(len(sharp))
    values, vectors = linalg.eigh(sharp, blurred + ridge)
    values = np.maximum(values[::-1], 0)
    filters = fixed_directions(vectors[:, ::-1], values).T.reshape(-1, size, size)
    filters = filters - filters.mean(axis=(1, 2), keepdims=True)
    norms = np.sqrt(np.square(filters).sum(axis=(1, 2), keepdims=True))
    filters = filters / np.maximum(norms, 1e-12)
    pca = KernelPCA(filters.astype(np.float32), (values / values.sum()).astype(np.float32))
    whitening = whitening_matrix(sharp + blurred).astype(np.float32)
    record = {"method": "instant", "training": asdict(config.training)}
    metric = _uncalibrated(pca, pca.components, whitening, config, record)
    return calibrate(metric, training, validation, base)


def _class_covariance(
    training: PatchSet, base: PatchSet | None, label: int, config: FitConfig
) -> npt.NDArray[np.float64]:
    """Covariance of a class's windows, those of the base mixed in."""
    size, seed = config.training.kernel_size, config.training.seed
    parts = weighted_parts(training, base)
    covariances = [
        window_covariance(part.patches[part.labels == label], size, seed) for part, _ in parts
    ]
    covariance = np.average(covariances, axis=0, weights=[weight for _, weight in parts])
    return _turned(covariance, size)


def _turned(covariance: npt.NDArray[np.float64], size: int) -> npt.NDArray[np.float64]:
    """Average a covariance over the eight turned and mirrored windows."""
    grid = np.arange(size * size).reshape(size, size)
    turns = [np.rot90(g, k).ravel() for k in range(4) for g in (grid, grid[:, ::-1])]
    return np.asarray(np.mean([covariance[np.ix_(turn, turn)] for turn in turns], axis=0))


def _uncalibrated(
    pca: KernelPCA,
    kernels: npt.NDArray[np.float32],
    whitening: npt.NDArray[np.float32],
    config: FitConfig,
    record: Mapping[str, Any],
) -> LocalMetric:
    return LocalMetric(
        filters=pca.filters(config.components),
        explained_variance_ratio=pca.explained_variance_ratio,
        calibration=Calibration(threshold=0.0, slope=1.0),
        kernels=kernels,
        whitening=whitening,
        pooling=config.pooling,
        record=record,
    )
