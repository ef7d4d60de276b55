"""Evidence of what sharp means: blocks of pixels whose class is known, from whatever a user has.

Strokes on images; images that are in focus as a whole, whose structure is compared with blurred
copies of them; images known to be out of focus; and focus stacks, whose planes are compared with
each other. Not in the paper.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_defocus.core.errors import DefocusError, NoDetailError, about
from napari_defocus.core.progress import ShouldStop, never_stop
from napari_defocus.core.tiling import Region, whole
from napari_defocus.dense.detector import DenseDetector, cached_dense
from napari_defocus.dense.plane import DensePlane, predict_image
from napari_defocus.filters.luminance import grey_and_holes
from napari_defocus.filters.noise import estimate_noise
from napari_defocus.filters.resampling import block_mean
from napari_defocus.filters.structure import BLOCK
from napari_defocus.labels.classes import BLURRED, CLASS_NAMES, SHARP, check_annotation
from napari_defocus.profile.limit import EdgeRadii, score_from
from napari_defocus.profile.profile import FEATURES, classifier_inputs

Float = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]
Image = npt.NDArray[Any]
Predict = Callable[[Image], DensePlane]


class Planes(Protocol):
    """The planes of a stack, (Y, X) or (Y, X, C) each."""

    def __len__(self) -> int:
        """Return their number."""

    def __getitem__(self, z: int, /) -> Image:
        """Return one."""


# Blurred copies of an image in focus: the standard deviations of the Gaussians, in pixels.
COPIES = (2.0, 3.0, 4.5, 7.0)
# The structure of an image: this share of its blocks of pixels, those of the steepest edges.
STRUCTURE = 0.15
# Nothing blurred by less than this radius, in pixels: the image is no example of what is in focus.
# In a stack, whose planes show which is the best, the sharpest may be wider.
WIDEST_FOCUSED = 3.0
WIDEST_SHARPEST = 6.0
# Images with more pixels are learnt from in a window of so many a side, that with most structure.
WINDOW = 1280
# Blocks of one source and class, at most; more of the same add little.
MOST = 4000
# Of a stack, where planes are compared: a pixel is as sharp as in its sharpest plane within this
# ratio of radii, and blurred beyond the other one.
AS_SHARP, CLEARLY_WIDER = 1.25, 2.0
# Of more planes so many are compared, spread over the stack.
MOST_COMPARED = 16
# Radii differ by more than the network's own error, in pixels.
LEAST_DIFFERENCE = 1.0


@dataclass(frozen=True, eq=False)
class Evidence:
    """Blocks of pixels whose class is known.

    Parameters
    ----------
    inputs : ndarray of float32, (N, 34)
        See `classifier_inputs`.
    score : ndarray of float32, (N,)
        The network's own log odds of being sharp, see `score_of`.
    sharp : ndarray of bool, (N,)
        The class.
    source : ndarray of int, (N,)
        The stroke or image that each is from.
    names : tuple of str
        Of the sources.
    sharpest : tuple of float
        Blur radius, in pixels, of the sharpest structure of each image.
    """

    inputs: Float
    score: Float
    sharp: Bool
    source: npt.NDArray[np.intp]
    names: tuple[str, ...]
    sharpest: tuple[float, ...] = ()

    @classmethod
    def of(
        cls, plane: DensePlane, chosen: Bool, sharp: bool, name: str, sharpest: float | None = None
    ) -> "Evidence":
        """Take the chosen blocks (Y / 2, X / 2) of a plane, `MOST` of them at most.

        `sharpest` is that of its edges, where it is known.
        """
        places = np.flatnonzero(chosen)
        places = np.random.default_rng(0).permutation(places)[:MOST]
        inputs = classifier_inputs(plane, np.unravel_index(places, chosen.shape))
        count = len(places)
        if sharpest is None:
            sharpest = EdgeRadii.of(plane).sharpest
        score = score_from(*inputs[FEATURES:])
        every = np.full(count, sharp), np.zeros(count, np.intp)
        return cls(np.ascontiguousarray(inputs.T), score, *every, (name,), (sharpest,))

    def thinned(self, most: int) -> "Evidence":
        """Return at most so many blocks of each source, from all of it."""
        every = [np.flatnonzero(self.source == place) for place in range(len(self.names))]
        kept = np.concatenate([blocks[:: -(-len(blocks) // most) or 1] for blocks in every])
        return replace(
            self,
            inputs=self.inputs[kept],
            score=self.score[kept],
            sharp=self.sharp[kept],
            source=self.source[kept],
        )


def joined(parts: Sequence[Evidence]) -> Evidence:
    """Put evidence together; the sources stay apart."""
    starts = np.cumsum([0, *(len(part.names) for part in parts)])
    return Evidence(
        np.concatenate([part.inputs for part in parts]),
        np.concatenate([part.score for part in parts]),
        np.concatenate([part.sharp for part in parts]),
        np.concatenate([part.source + start for part, start in zip(parts, starts, strict=False)]),
        tuple(name for part in parts for name in part.names),
        tuple(width for part in parts for width in part.sharpest),
    )


def predictor(
    network: DenseDetector | None = None, should_stop: ShouldStop = never_stop
) -> Predict:
    """Return what predicts an image for the functions of this module.

    Parameters
    ----------
    network : DenseDetector, optional
        The default one where none is given.
    should_stop : callable
        Called between tiles.

    Returns
    -------
    callable
        Takes an image (Y, X) or (Y, X, C), returns a `DensePlane`.
    """
    network = network or cached_dense()
    return lambda image: predict_image(image, network, should_stop)


def from_strokes(plane: DensePlane, labels: Image, name: str) -> Evidence:
    """Take what was painted on an image, (Y, X): 1 blurred, 2 sharp; each stroke is a source.

    Parameters
    ----------
    plane : DensePlane
        What `predictor` predicts of the image.
    labels : ndarray of integers, (Y, X)
        0 unlabelled, 1 blurred, 2 sharp; of one class or of both.
    name : str
        Of the image, for messages and for the sources.

    Raises
    ------
    DefocusError
        Where the labels are no annotation of the image, or nothing of what they cover shows
        structure.
    """
    labels = check_annotation(labels, plane.seen.shape, name)
    parts, sharpest = [], EdgeRadii.of(plane).sharpest
    painted = labels[::BLOCK, ::BLOCK]
    for label in (BLURRED, SHARP):
        strokes, count = ndimage.label(painted == label, np.ones((3, 3)))
        blocks = strokes * plane.seen[::BLOCK, ::BLOCK]
        for stroke in range(1, count + 1):
            stroke_name = f"{name}, {CLASS_NAMES[label]} stroke {stroke}"
            part = Evidence.of(plane, blocks == stroke, label == SHARP, stroke_name, sharpest)
            if len(part.sharp):
                parts.append(part)
    if not parts:
        raise DefocusError(
            f"{name}: the strokes cover nothing that shows structure; paint over edges or texture"
        )
    return joined(parts)


def from_focused(
    image: Image, predict: Predict, name: str, widest: float = WIDEST_FOCUSED
) -> Evidence:
    """Compare the structure of an image in focus, (Y, X) or (Y, X, C), with blurred copies of it.

    Of a large image, the window with most structure is taken.

    Parameters
    ----------
    image : ndarray, (Y, X) or (Y, X, C)
        In focus as a whole.
    predict : callable
        See `predictor`.
    name : str
        Of the image, for messages and for the sources.
    widest : float
        Its sharpest structure has a blur radius below this, in pixels.

    Raises
    ------
    DefocusError
        Where the image shows nothing, or no structure that is narrow enough to be in focus.
    """
    image = image[_richest_window(image)]
    with about(name):
        plane = predict(image)
    sharpest = EdgeRadii.of(plane).sharpest
    if not sharpest < widest:  # nan where there is nothing
        least = f"no structure narrower than {2 * sharpest:.0f} pixels"
        shown = "no structure" if np.isnan(sharpest) else least
        raise DefocusError(
            f"{name}: it shows {shown}; give an image in focus, with structure narrower than "
            f"{2 * widest:g}"
        )
    structure = _structure(plane)
    parts = [Evidence.of(plane, structure, True, f"{name}, in focus")]
    for sigma in COPIES:
        copy = predict(_blurred(image, sigma))
        part = Evidence.of(copy, structure, False, f"{name}, blurred")
        parts.append(part.thinned(MOST // len(COPIES)))
    together = joined(parts)
    # The copies are one source.
    return Evidence(
        together.inputs,
        together.score,
        together.sharp,
        np.minimum(together.source, 1),
        together.names[:2],
        (sharpest, sharpest),
    )


def from_defocused(image: Image, predict: Predict, name: str) -> Evidence:
    """Take the structure of an image (Y, X) or (Y, X, C) that is out of focus as a whole.

    Parameters as of `from_focused`.
    """
    with about(name):
        plane = predict(image[_richest_window(image)])
    structure = _structure(plane)
    if not structure.any():
        raise DefocusError(f"{name}: it shows no structure; give an image that shows something")
    return Evidence.of(plane, structure, False, f"{name}, out of focus")


def from_planes(planes: Planes, predict: Predict, name: str) -> Evidence:
    """Compare the planes of a focus stack, registered: which pixels are in focus in which.

    Where too little is clearly blurred, the sharpest plane is compared with blurred copies of it.

    Parameters
    ----------
    planes : sequence of ndarray, (Y, X) or (Y, X, C), or StackPlanes
        Of one field, registered.
    predict : callable
        See `predictor`.
    name : str
        Of the stack, for messages and for the sources.

    Raises
    ------
    DefocusError
        Where the planes do not differ.
    """
    window, found = _compared(planes, predict, name)
    medians = [ndimage.median_filter(p.radius[::BLOCK, ::BLOCK], 5) for p in found.values()]
    radii = np.stack(medians)
    edges = np.max([plane.edges for plane in found.values()], axis=0)
    structure = (edges > 0) & (edges >= np.quantile(edges, 1 - STRUCTURE))
    least, most = radii.min(axis=0), radii.max(axis=0)
    differs = structure & (most > CLEARLY_WIDER * least) & (most > least + LEAST_DIFFERENCE)
    if differs.sum() < MOST // 100:
        raise DefocusError(
            f"{name}: its planes do not differ in focus; give a stack that goes through the focus, "
            "or one image in focus"
        )
    parts = []
    for own, (z, plane) in zip(radii, found.items(), strict=True):
        sharp = differs & (own <= AS_SHARP * least) & (least < WIDEST_SHARPEST)
        wide = differs & (own >= CLEARLY_WIDER * least) & (own > least + LEAST_DIFFERENCE)
        for chosen, is_sharp in ((sharp, True), (wide, False)):
            part = Evidence.of(plane, chosen, is_sharp, f"{name}, plane {z}")
            if len(part.sharp):
                parts.append(part.thinned(max(2 * MOST // len(found), MOST // 10)))
    together = joined(parts)
    if min(together.sharp.sum(), (~together.sharp).sum()) >= MOST // 20:
        return together
    sharpest = {z: EdgeRadii.of(plane).sharpest for z, plane in found.items()}
    best = min(sharpest, key=lambda z: (np.isnan(sharpest[z]), sharpest[z]))
    image, name = np.asarray(planes[best])[window], f"{name}, plane {best}"
    focused = from_focused(image, predict, name, WIDEST_SHARPEST)
    return joined([*parts, focused])


def _compared(planes: Planes, predict: Predict, name: str) -> tuple[Region, dict[int, DensePlane]]:
    """Predict `MOST_COMPARED` planes, those that show anything, in the window with most detail."""
    places = np.linspace(0, len(planes) - 1, min(len(planes), MOST_COMPARED)).round().astype(int)
    window = _richest_window(np.asarray(planes[int(places[len(places) // 2])]))
    found = {}
    for z in map(int, places):
        with suppress(NoDetailError):  # beside the specimen, or a frame that was lost
            found[z] = predict(np.asarray(planes[z])[window])
    if len(found) < 2:
        raise DefocusError(
            f"{name}: of its planes {len(found)} show anything; give a stack that goes through "
            "the focus"
        )
    return window, found


def _richest_window(image: Image) -> Region:
    """Return the window of `WINDOW` pixels a side, at most, in which the image varies most."""
    grey, _ = grey_and_holes(image)
    if max(grey.shape) <= WINDOW:
        return whole(grey.shape)
    coarse = block_mean(np.nan_to_num(grey).astype(np.float32), 16)
    sides = [min(size, WINDOW) for size in grey.shape]
    box = [max(side // 16, 1) for side in sides]
    varies = ndimage.uniform_filter(ndimage.gaussian_gradient_magnitude(coarse, 1), box)
    middle = np.unravel_index(np.argmax(varies), varies.shape)
    starts = [
        int(np.clip(16 * at - side // 2, 0, size - side)) // BLOCK * BLOCK
        for at, side, size in zip(middle, sides, grey.shape, strict=True)
    ]
    rows, columns = (slice(at, at + side) for at, side in zip(starts, sides, strict=True))
    return rows, columns


def _structure(plane: DensePlane) -> Bool:
    """Return the blocks of the steepest edges, (Y / 2, X / 2)."""
    steep = plane.edges >= np.quantile(plane.edges, 1 - STRUCTURE)
    return np.asarray(steep & (plane.edges > 0), np.bool_)


def _blurred(image: Image, sigma: float) -> Image:
    """Return a copy blurred by a Gaussian, as noisy as the image."""
    values = np.asarray(image, np.float32)
    grey, _ = grey_and_holes(image)
    low, high = np.percentile(grey, (0.1, 99.9))
    a, b = estimate_noise(np.asarray((grey - low) / max(high - low, 1e-12), np.float32))
    sides = (sigma, sigma, 0)[: values.ndim]
    blurred = ndimage.gaussian_filter(np.nan_to_num(values), sides)
    spread = np.sqrt(a + b / 2) * (high - low)
    noise = np.random.default_rng(0).normal(0, spread, blurred.shape)
    return np.asarray(blurred + noise, np.float32)
