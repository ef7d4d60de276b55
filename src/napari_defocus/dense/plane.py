"""The dense network's prediction of a plane, and where the plane shows structure."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_defocus.core.errors import NoDetailError
from napari_defocus.core.progress import ShouldStop, never_stop
from napari_defocus.core.tiling import Region, whole
from napari_defocus.dense.detector import DenseDetector
from napari_defocus.dense.inference import HALO, STRIDE, DensePrediction, predict_dense
from napari_defocus.filters.noise import PlaneStatistics, measure_plane
from napari_defocus.filters.plane import Plane, PlaneColours, prepare_part
from napari_defocus.filters.structure import BLOCK, edge_energy, local_deviation, shows_structure

if TYPE_CHECKING:
    import torch

Float = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]

# What a region needs around it, in pixels: what the network sees, and structure is found by there.
MARGIN = HALO + STRIDE


@dataclass(frozen=True, eq=False)
class DensePlane:
    """The prediction for a plane, or for a part of one that begins with a block of pixels.

    Parameters
    ----------
    found : DensePrediction
        Of the network.
    seen : ndarray of bool, (Y, X)
        Where there is structure, sharp or blurred, to go by.
    edges : ndarray of float32, (Y / 2, X / 2)
        Squared gradients of what is seen, as weights of edges.
    """

    found: DensePrediction
    seen: Bool
    edges: Float

    @property
    def radius(self) -> Float:
        """Blur radius, (Y, X), in pixels."""
        return self.found.radius


def predict_part(
    image: npt.NDArray[Any],
    plane: Plane,
    inside: Region,
    statistics: PlaneStatistics,
    network: DenseDetector,
    should_stop: ShouldStop = never_stop,
    *,
    device: "torch.device | None" = None,
    features: bool = False,
    errors: bool = False,
) -> DensePlane:
    """Predict what lies `inside` an image (Y, X) or (Y, X, C), from which `plane` was prepared.

    The image reaches `MARGIN` pixels beyond, or to the border of the whole.
    `statistics` are those of the whole plane; for the rest see `predict_dense`.
    """
    deviation = local_deviation(plane.grey, plane.noise)
    seen = shows_structure(deviation, statistics.contrast, plane.grey.shape) & ~plane.holes
    found = predict_dense(
        PlaneColours(image, plane),
        network,
        should_stop,
        region=inside,
        colours_are=statistics.colours,
        seen=seen,
        device=device,
        features=features,
        errors=errors,
    )
    seen = seen[inside]
    blocks = slice(inside[0].start // BLOCK, None), slice(inside[1].start // BLOCK, None)
    seen_blocks = seen[::BLOCK, ::BLOCK]
    rows, columns = seen_blocks.shape
    edges = edge_energy(plane.grey, plane.noise)[blocks][:rows, :columns] * seen_blocks
    return DensePlane(found, seen, edges)


def predict_image(
    image: npt.NDArray[Any], network: DenseDetector, should_stop: ShouldStop = never_stop
) -> DensePlane:
    """Predict a whole image (Y, X) or (Y, X, C) in memory, with features.

    Raises
    ------
    NoDetailError
        Where it is constant.
    """
    statistics = measure_plane(image, colours=True)
    if statistics.constant:
        raise NoDetailError("the image is constant: there is nothing to learn from")
    plane = prepare_part(image, statistics)
    every = whole(image.shape)
    return predict_part(image, plane, every, statistics, network, should_stop, features=True)
