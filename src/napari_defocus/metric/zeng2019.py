"""The preset ``zeng2019``: the paper's method as written, to be compared with what we made of it.

Zeng et al., IEEE TIP 28(5), 2019, as its review by S.-H. Tsang tells it. Super-pixel windows,
classed by the share of their whole area; ConvNets on batch-normalised windows, by cross-entropy
alone; the components of largest explained variance ratio of their raw kernels, see `plain_pca`; the
response to them. What follows, the scale from 0 to 1, the refinement by tanh alone and the adaptive
threshold, is `config.ZENG2019` of detection. What the review leaves open is set in the fields
below, each with a comment.
"""

from dataclasses import asdict

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_defocus.labels.classes import SHARP
from napari_defocus.metric.kernel_pca import plain_pca
from napari_defocus.metric.local_metric import LITERAL, Calibration, LocalMetric
from napari_defocus.metric.nets import NO_BASE, TrainedNets, TrainingConfig
from napari_defocus.metric.patches import PatchConfig, PatchSet

Float = npt.NDArray[np.float32]

PATCHES = PatchConfig(
    size=32,  # s is not published; ours
    superpixel=12,  # nor is the number of super-pixels; ours
    area=0.75,  # nor the threshold of the ratio of areas; ours
    purity=0.0,  # the paper knows no such share
    coverage=0.0,  # nor this one
)
TRAINING = TrainingConfig(
    base=NO_BASE,
    whiten=False,
    turn=False,
    l1=0.0,
    decay=0.0,
    nets=4,  # "ConvNets": how many is not published; ours, as what follows
    kernels=16,
    kernel_size=7,  # the paper's example
    epochs=20,
    patience=4,
    batch=64,
    learning_rate=2e-3,
    validation=0.25,
)


def metric_from_nets(nets: TrainedNets, components: int = 2) -> LocalMetric:
    """Make K1 and K2 of the raw kernels of trained nets.

    Parameters
    ----------
    nets : TrainedNets
        Trained on windows that were not whitened.
    components : int
        K, 2 in the paper.
    """
    size = nets.config.kernel_size
    kernels = nets.kernels.reshape(-1, size, size)
    pca = plain_pca(kernels)
    filters, held_out = pca.filters(components), nets.validation
    record = {
        "method": LITERAL,
        "training": asdict(nets.config),
        "complete": nets.complete,
        "epochs": [len(net.history) for net in nets.nets],
        "net_accuracy": round(nets.accuracy, 4),
        "patch_config": asdict(held_out.config),
        "sources": len(held_out.sources),
        "held_out": _held_out(held_out, filters),
    }
    return LocalMetric(
        filters=filters,
        explained_variance_ratio=pca.explained_variance_ratio,
        calibration=Calibration(threshold=0.0, slope=1.0),  # there is none; not used
        kernels=kernels,
        whitening=np.eye(size**2, dtype=np.float32),
        record=record,
    )


def response(grey: Float, filters: Float) -> Float:
    """Return L, (Y, X), of a grey image I: L1 = K1 * I, L = |K2 * L1|, before it becomes [0, 1].

    The formula is not in the texts at hand, only its symbols I, K1, K2, L1 and L. Filtering by one
    after the other, the magnitude of the outcome and the mirrored border are our reading.
    """
    found = grey
    for kernel in filters:
        found = ndimage.correlate(found, kernel, mode="reflect")
    return np.abs(found)


def halo(filters: Float) -> int:
    """Return the distance, in pixels, beyond which nothing counts for `response`."""
    return len(filters) * (int(filters.shape[-1]) // 2)


def _held_out(patch_set: PatchSet, filters: Float) -> dict[str, float]:
    """Score the mean response of patches, cut at its median: the paper's way has no calibration."""
    from sklearn.metrics import roc_auc_score

    scores = np.array([response(patch, filters).mean() for patch in patch_set.patches])
    sharp = patch_set.labels == SHARP
    accuracy = ((scores > np.median(scores)) == sharp).mean()
    return {
        "patches": len(patch_set),
        "accuracy": round(float(accuracy), 4),
        "auc": round(float(roc_auc_score(sharp, scores)), 4),
    }
