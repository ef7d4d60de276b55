"""Patch sets: equal-sized windows on super-pixels, with class, source image and position.

Zeng et al., IEEE TIP 28(5), 2019, section on data preparation. The window's size, the super-pixels'
size and the thresholds are not in the texts at hand; they are this package's own choice. So are
`purity` and `coverage`, for annotations of strokes; the paper knows the share of the `area` alone.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from napari_defocus.core.errors import DefocusError, brief
from napari_defocus.core.settings import Allowed, Settings
from napari_defocus.filters.plane import Plane, halve, prepare_plane
from napari_defocus.filters.structure import (
    local_deviation,
    shows_structure,
    strongest_contrast,
)
from napari_defocus.io.cards import as_floats, load_container, read_settings, save_container
from napari_defocus.labels.classes import BLURRED, CLASS_NAMES, SHARP, check_annotation
from napari_defocus.labels.superpixels import centroids, superpixels

KIND = "patch set"
ARRAYS = ("patches", "labels", "noise", "source", "corner")
# Of a super-pixel's side in a halved image, in its pixels.
LEAST_SUPERPIXEL = 4
# Far beyond what shows whether a patch is sharp.
LARGEST_PATCH = 4096
LARGEST_KERNEL = 63
# Of an image, before patches are cut and a metric is applied.
MOST_HALVINGS = 2


@dataclass(frozen=True)
class PatchConfig(Settings):
    """How patches are cut.

    Parameters
    ----------
    size : int
        Side s of the square window, in pixels.
    superpixel : int
        Side of a super-pixel if it were square, in pixels.
    purity : float
        Least share of the annotated area in the window that must be of one class.
    coverage : float
        Least share of the window that must be annotated at all.
    area : float
        Least share of the whole window that must be of one class.
    halvings : int
        How many times the image is halved first. A window covers more of it then; super-pixels
        cover as much as without, but for `LEAST_SUPERPIXEL`. What is painted where nothing shows
        does not count then.
    """

    size: int = 32
    superpixel: int = 12
    purity: float = 0.95
    coverage: float = 0.05
    area: float = 0.0
    halvings: int = 0

    _allowed: ClassVar[Allowed] = {
        "size": (1, LARGEST_PATCH),
        "superpixel": (1, LARGEST_PATCH),
        "purity": (0, 1),
        "coverage": (0, 1),
        "area": (0, 1),
        "halvings": (0, MOST_HALVINGS),
    }


@dataclass(frozen=True)
class Source:
    """An image that patches were cut from: its name and its (Y, X) shape."""

    name: str
    shape: tuple[int, int]


@dataclass(frozen=True)
class PatchSet:
    """Patches with their class and where each came from.

    Parameters
    ----------
    patches : ndarray of float32, (N, s, s)
        Stretched grey values, around [0, 1].
    labels : ndarray of uint8, (N,)
        1 blurred, 2 sharp.
    noise : ndarray of float32, (N,)
        Variance of the noise in each patch.
    source : ndarray of int64, (N,)
        Index into `sources`.
    corner : ndarray of int64, (N, 2)
        (y, x) of the window's first pixel.
    sources : tuple of Source
        The annotated images.
    config : PatchConfig
        How the patches were cut.
    """

    patches: npt.NDArray[np.float32]
    labels: npt.NDArray[np.uint8]
    noise: npt.NDArray[np.float32]
    source: npt.NDArray[np.int64]
    corner: npt.NDArray[np.int64]
    sources: tuple[Source, ...]
    config: PatchConfig

    def __len__(self) -> int:
        return len(self.labels)

    def counts(self) -> dict[str, int]:
        """Count the patches of each class."""
        return {name: int((self.labels == label).sum()) for label, name in CLASS_NAMES.items()}

    def take(self, which: npt.NDArray[Any]) -> "PatchSet":
        """Keep the patches that an index or a bool array picks; the sources stay."""
        return replace(self, **{name: getattr(self, name)[which] for name in ARRAYS})

    def sample(self, most: int, seed: int = 0) -> "PatchSet":
        """Draw at most `most` patches at random; they keep their order."""
        rng = np.random.default_rng(seed)
        return self.take(np.sort(rng.permutation(len(self))[:most]))

    def balanced(self, seed: int = 0) -> "PatchSet":
        """Drop patches of the larger class at random until both classes are equal."""
        rng = np.random.default_rng(seed)
        members = [np.flatnonzero(self.labels == label) for label in CLASS_NAMES]
        least = min(map(len, members))
        drawn = [rng.choice(indices, least, replace=False) for indices in members]
        return self.take(np.sort(np.concatenate(drawn)))


def build_patch_set(
    images: Iterable[tuple[str, npt.NDArray[Any], npt.NDArray[Any]]],
    config: PatchConfig | None = None,
) -> PatchSet:
    """Cut patches from annotated images.

    Parameters
    ----------
    images : iterable of (name, image, annotation)
        An image is (Y, X) or (Y, X, C), see `prepare_plane`; its annotation is (Y, X) with
        0 unlabelled, 1 blurred, 2 sharp.
    config : PatchConfig, optional
        How to cut.

    Returns
    -------
    PatchSet
        Possibly of one class alone: `require_both_classes` checks before training.

    Raises
    ------
    DefocusError
        Where an image or annotation cannot be used.
    """
    config = config or PatchConfig()
    parts = [_cut(name, image, labels, config) for name, image, labels in images]
    if not parts:
        raise DefocusError("no annotated image was given")
    return merge_patch_sets(parts)


def _cut(
    name: str, image: npt.NDArray[Any], annotation: npt.NDArray[Any], config: PatchConfig
) -> PatchSet:
    plane = prepare_plane(image)
    labels = check_annotation(annotation, plane.grey.shape, name)
    labels, superpixel = np.where(plane.holes, 0, labels), config.superpixel
    for _ in range(config.halvings):
        plane, labels = halve(plane), _halve_labels(labels)
        superpixel = max(superpixel // 2, min(LEAST_SUPERPIXEL, config.superpixel))
    if config.halvings:
        labels = np.where(_shown(plane), labels, 0)
    size = config.size
    if min(plane.grey.shape) < size:
        raise DefocusError(
            f"{name}: {plane.grey.shape} is smaller than a patch ({size} x {size} pixels)"
        )
    corner = centroids(superpixels(plane.grey, superpixel)) - size // 2
    corner = np.unique(np.clip(corner, 0, np.array(plane.grey.shape) - size), axis=0)
    windows = _windows(labels, corner, size)
    blurred, sharp = ((windows == label).mean(axis=(1, 2)) for label in (BLURRED, SHARP))
    annotated = blurred + sharp
    larger = np.maximum(blurred, sharp)
    pure = (annotated >= config.coverage) & (larger >= config.purity * annotated) & (annotated > 0)
    pure &= larger >= config.area
    corner = corner[pure]
    return PatchSet(
        patches=_windows(plane.grey, corner, size),
        labels=np.where(sharp > blurred, SHARP, BLURRED)[pure].astype(np.uint8),
        noise=_windows(plane.noise_variance, corner, size).mean(axis=(1, 2)).astype(np.float32),
        source=np.zeros(len(corner), np.int64),
        corner=corner,
        sources=(Source(name, (plane.grey.shape[0], plane.grey.shape[1])),),
        config=config,
    )


def _shown(plane: Plane) -> npt.NDArray[np.bool_]:
    """Return which pixels show structure."""
    deviation = local_deviation(plane.grey, plane.noise)
    return shows_structure(deviation, strongest_contrast([deviation]), plane.grey.shape)


def _halve_labels(labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the class of 2 x 2 pixels, 0 where both are among them; see `halve`."""
    ends = [(0, size % 2) for size in labels.shape]
    rows = np.pad(labels, ends, mode="edge")
    four = [rows[down::2, across::2] for down in (0, 1) for across in (0, 1)]
    there = [np.any([part == label for part in four], axis=0) for label in (BLURRED, SHARP)]
    return np.where(there[0] & there[1], 0, there[0] * BLURRED + there[1] * SHARP)


def _windows(plane: npt.NDArray[Any], corner: npt.NDArray[np.int64], size: int) -> npt.NDArray[Any]:
    windows = np.lib.stride_tricks.sliding_window_view(plane, (size, size))
    return windows[corner[:, 0], corner[:, 1]]


def merge_patch_sets(parts: Sequence[PatchSet]) -> PatchSet:
    """Join patch sets that were cut alike."""
    config = parts[0].config
    for part in parts:
        if part.config != config:
            raise DefocusError(
                f"patch sets were cut with different settings ({config} and {part.config}); "
                "cut them again alike"
            )
    offsets = np.cumsum([0] + [len(part.sources) for part in parts[:-1]])
    parts = [
        replace(part, source=part.source + offset)
        for part, offset in zip(parts, offsets, strict=True)
    ]
    return PatchSet(
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in ARRAYS},
        sources=tuple(source for part in parts for source in part.sources),
        config=config,
    )


def require_both_classes(patch_set: PatchSet, least: int = 8) -> None:
    """Raise DefocusError, with what to paint, where a class has fewer than `least` patches."""
    for label, name in CLASS_NAMES.items():
        count = patch_set.counts()[name]
        if count < least:
            config = patch_set.config
            how = (
                f"so that it fills {config.area:.0%} of a window of {config.size} pixels"
                if config.area
                else "in strokes a few pixels wide"
            )
            raise DefocusError(
                f"only {count} {name} patches, {least} are needed: "
                f"paint more {name} regions (label {label}), {how}"
            )


def split_patch_set(
    patch_set: PatchSet, share: float = 0.25, seed: int = 0
) -> tuple[PatchSet, PatchSet]:
    """Split into training and validation sets that share no image, or no pixel of one image.

    Whole images are held out as long as both sides keep both classes; else, and where there is one
    image alone, an end of each class's region is held out, and training patches that overlap it
    are dropped.
    """
    held_out = _held_out_images(patch_set, share, seed)
    if held_out is None:
        held_out, overlapping = _held_out_regions(patch_set, share)
        return patch_set.take(~held_out & ~overlapping), patch_set.take(held_out)
    return patch_set.take(~held_out), patch_set.take(held_out)


def _held_out_images(patch_set: PatchSet, share: float, seed: int) -> npt.NDArray[np.bool_] | None:
    order = np.random.default_rng(seed).permutation(len(patch_set.sources))
    held_out = np.zeros(len(patch_set), bool)
    for image in order:
        candidate = held_out | (patch_set.source == image)
        if not _has_both(patch_set.labels[~candidate]):
            continue
        held_out = candidate
        enough = all(held_out[patch_set.labels == c].mean() >= share for c in CLASS_NAMES)
        if enough:
            break
    return held_out if _has_both(patch_set.labels[held_out]) else None


def _has_both(labels: npt.NDArray[np.uint8]) -> bool:
    return all(bool((labels == label).any()) for label in CLASS_NAMES)


def _held_out_regions(
    patch_set: PatchSet, share: float
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    held_out = np.zeros(len(patch_set), bool)
    for image in range(len(patch_set.sources)):
        for label in CLASS_NAMES:
            members = np.flatnonzero((patch_set.source == image) & (patch_set.labels == label))
            if len(members) < 2:
                continue
            corner = patch_set.corner[members]
            along = np.ptp(corner, axis=0).argmax()
            last = np.argsort(corner[:, along], kind="stable")
            held_out[members[last[-max(1, round(share * len(members))) :]]] = True
    overlapping = np.zeros(len(patch_set), bool)
    for index in np.flatnonzero(held_out):
        near = np.abs(patch_set.corner - patch_set.corner[index]).max(axis=1)
        same = patch_set.source == patch_set.source[index]
        overlapping |= same & (near < patch_set.config.size)
    return held_out, overlapping


def save_patch_set(patch_set: PatchSet, path: Path, *, overwrite: bool = True) -> None:
    """Write a patch set to one ``.safetensors`` file."""
    tensors, card = pack_patch_set(patch_set)
    save_container(path, KIND, tensors, card, overwrite=overwrite)


def pack_patch_set(patch_set: PatchSet) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """Return the tensors and the card of a patch set, for a file of its own or within another."""
    card = {
        "config": asdict(patch_set.config),
        "counts": patch_set.counts(),
        "sources": [asdict(source) for source in patch_set.sources],
    }
    return {name: getattr(patch_set, name) for name in ARRAYS}, card


def load_patch_set(path: Path) -> PatchSet:
    """Read a patch set; DefocusError where the file is none, or its parts do not fit each other."""
    return unpack_patch_set(path, *load_container(path, KIND))


def unpack_patch_set(
    path: Path, tensors: Mapping[str, npt.NDArray[Any]], card: Mapping[str, Any]
) -> PatchSet:
    """Undo `pack_patch_set`; `path` is named in errors."""
    try:
        patch_set = PatchSet(
            patches=as_floats(tensors["patches"]),
            labels=_classes(tensors["labels"]),
            noise=as_floats(tensors["noise"]),
            source=_integers(tensors["source"]),
            corner=_integers(tensors["corner"]),
            sources=tuple(_read_source(source) for source in card["sources"]),
            config=read_settings(PatchConfig, card["config"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DefocusError(f"{path}: not a whole patch set ({brief(error)})") from error
    if not _parts_fit(patch_set):
        raise DefocusError(f"{path}: the parts of the patch set do not fit each other")
    return patch_set


def _integers(tensor: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    if tensor.dtype.kind not in "iu":
        raise TypeError(f"{tensor.dtype} values where whole numbers belong")
    return tensor.astype(np.int64, copy=False)


def _classes(tensor: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    if not set(np.unique(_integers(tensor)).tolist()) <= set(CLASS_NAMES):
        raise ValueError("labels other than blurred and sharp")
    return tensor.astype(np.uint8, copy=False)


def _read_source(entry: Any) -> Source:
    name, (rows, columns) = entry["name"], entry["shape"]
    if not (isinstance(name, str) and type(rows) is type(columns) is int):
        raise TypeError("an image's name or shape is none")
    return Source(name, (rows, columns))


def _parts_fit(patch_set: PatchSet) -> bool:
    count, config = patch_set.labels.size, patch_set.config
    fits = (
        1 <= config.size <= LARGEST_PATCH
        and patch_set.patches.shape == (count, config.size, config.size)
        and patch_set.labels.shape == patch_set.noise.shape == patch_set.source.shape == (count,)
        and patch_set.corner.shape == (count, 2)
    )
    if not fits or count == 0:
        return fits
    if not 0 <= patch_set.source.min() <= patch_set.source.max() < len(patch_set.sources):
        return False
    shapes = np.array([source.shape for source in patch_set.sources], dtype=object)
    inside = (patch_set.corner >= 0) & (patch_set.corner <= shapes[patch_set.source] - config.size)
    return bool(inside.all()) and float(patch_set.noise.min()) >= 0
