"""The checks of `robustness.py`: each measures one detector."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import ge, le, lt
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage, stats

from benchmarks.accuracy.photos import Photo, images_in, read_photos
from napari_defocus.detection.api import Detection
from napari_defocus.evaluate.scores import auc
from napari_defocus.filters.luminance import LUMINANCE
from napari_defocus.filters.plane import prepare_plane
from napari_defocus.io.open import read_image
from napari_defocus.labels.classes import BLURRED, UNLABELLED
from napari_defocus.metric.default_recipe import PICTURES, RecipeConfig, load_picture, random_crop
from napari_defocus.simulate.optics import GAMMA, Camera, defocus, expose, through_jpeg, to_light

Array = npt.NDArray[Any]
Image8 = npt.NDArray[np.uint8]
Float = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Detector = Callable[[Array], Detection]

# Gradient at a scale of 2 pixels, pooled over 8, in shares of white a pixel: texture, as in the
# recipe of the default metric.
TEXTURE = RecipeConfig().texture
# Of pairs: scale of pooling; least root mean square of the Laplacian in the sharper plane, in
# shares of the grey range; how many times the other plane's mean square it must have.
PAIR_SIGMA = 4.0
PAIR_TEXTURE = 0.03
PAIR_RATIO = 1.5
CALIBRATION_BINS = 10
# Of brightness and contrast.
FACTORS = (0.25, 0.5, 2)
CRISP = ("astronaut", "china.jpg", "coffee", "grass", "gravel", "immunohistochemistry")


@dataclass(frozen=True)
class Target:
    """The values that pass: ``<``, ``<=`` or ``>=`` the limit, or ``within`` it of 0."""

    kind: str
    limit: float

    def __str__(self) -> str:
        return f"{'±' if self.kind == 'within' else self.kind} {self.limit:g}"

    def met(self, value: float) -> bool:
        if self.kind == "within":
            return abs(value) <= self.limit
        return bool({"<": lt, "<=": le, ">=": ge}[self.kind](value, self.limit))


@dataclass(frozen=True)
class Measured:
    """One figure of one detector; nan where there was nothing to measure."""

    row: str
    value: float
    target: Target | None = None
    detail: str = ""


@dataclass(frozen=True)
class Settings:
    """What is rendered."""

    # That are blurred by discs: names that `load_picture` knows.
    pictures: tuple[str, ...] = CRISP
    # Pictures are reduced so many times, which makes them crisp.
    reduction: int = 2
    # Of the discs, in pixels, and standard deviations of the noise on them, of 255.
    radii: tuple[float, ...] = (1, 1.5, 2, 3, 4, 5, 6, 8, 10)
    noises: tuple[float, ...] = (2, 5)
    # Number of wholly sharp, and of wholly blurred images, and range of the latters' disc radius.
    rendered: int = 16
    blur: tuple[float, float] = (3.0, 8.0)
    # Their side in pixels: small enough for most pictures to be reduced as often.
    size: int = 192
    seed: int = 0


Check = Callable[[Detector, Path, Settings], Iterator[Measured]]


def resize(values: Float, size: Sequence[int]) -> Float:
    """Resample (Y, X) or (Y, X, C) to (columns, rows), with the tails that keep it crisp."""
    if values.ndim == 3:
        return np.stack([resize(values[..., c], size) for c in range(values.shape[-1])], axis=-1)
    return np.asarray(Image.fromarray(values).resize(tuple(size), Image.Resampling.LANCZOS))


def eight_bit(values: Array) -> Image8:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def add_noise(image: Image8, rng: np.random.Generator, sigma: float) -> Image8:
    return eight_bit(image + rng.normal(0, sigma, image.shape))


# A microscope's focus series


def defocus_in_name(name: str) -> float | None:
    """Read the defocus in micrometres from a file's name: ``...OffM0p3um``, ``...ON(1)``."""
    match = re.search(r"Off([MP])(\d+)p(\d+)um", name)
    if match:
        return float(f"{match[2]}.{match[3]}") * (-1 if match[1] == "M" else 1)
    return 0.0 if re.search(r"ON(\(\d+\))?(\.\w+)?$", name) else None


def focus_series(detector: Detector, data: Path, _: Settings) -> Iterator[Measured]:
    """Correlate the blur of the frames of a focus series with their defocus."""
    levels, values, quantity = [], [], ""
    for path in images_in(data / "lightsheet"):
        level = defocus_in_name(path.name)
        if level is not None:
            value, quantity = _series_blur(detector(read_image(path).data))
            levels.append(level)
            values.append(value)
    defocus, blur = np.array(levels), np.array(values)
    sides = {"negative side": defocus <= 0, "positive side": defocus >= 0}
    for side, chosen in {**sides, "both sides": np.isfinite(defocus)}.items():
        distance = np.abs(defocus[chosen])
        # Of fewer than three frames any two orders look alike.
        enough = len(distance) > 2 and np.ptp(distance) > 0 and np.ptp(blur[chosen]) > 0
        rank = stats.spearmanr(distance, blur[chosen]).statistic if enough else np.nan
        row = f"light sheet, {side}: Spearman of |defocus| and blur"
        yield Measured(row, float(rank), Target(">=", 0.9), quantity)


def _series_blur(found: Detection) -> tuple[float, str]:
    """Return the blur of a frame, and how it was taken."""
    decided = found.confidence > 0
    if not decided.any():
        decided = np.ones_like(decided)
    if found.radius is not None:
        return float(np.median(found.radius[decided])), "median radius, confidence > 0"
    return float(found.blur[decided].mean(dtype=np.float64)), "mean blur, confidence > 0"


# Rendered discs


def discs(detector: Detector, _: Path, settings: Settings) -> Iterator[Measured]:
    """Compare the radius that is detected with that of the disc a crisp picture was blurred by."""
    pictures = [crisp_light(load_picture(name), settings.reduction) for name in settings.pictures]
    where = [textured(light ** (1 / GAMMA)) for light in pictures]
    target = Target("<", 0.15)
    for noise in settings.noises:
        errors = []
        ending = f"noise of {noise:g}: relative error of the radius"
        for radius in settings.radii:
            rng = np.random.default_rng(settings.seed)
            found = [detector(noisy_disc(light, radius, noise, rng)).radius for light in pictures]
            known = [r[t] for r, t in zip(found, where, strict=True) if r is not None]
            if not known:
                return
            estimate = np.concatenate(known)
            errors.append(np.abs(estimate - radius) / radius)
            error, median = float(np.median(errors[-1])), np.median(estimate)
            row = f"disc of {radius:g} px, {ending}"
            yield Measured(row, error, target, f"median {median:.2f} px")
        error = float(np.median(np.concatenate(errors)))
        yield Measured(f"discs of all radii, {ending}", error, target)


def crisp_light(picture: Image8, reduction: int) -> Float:
    """Reduce a picture (Y, X[, 3]) in linear light, in [0, 1]."""
    size = [extent // reduction for extent in picture.shape[1::-1]]
    return np.clip(resize(to_light(picture), size), 0, 1)


def noisy_disc(light: Float, radius: float, noise: float, rng: np.random.Generator) -> Image8:
    """Blur by a disc, record without softness, add Gaussian noise (of 255)."""
    camera = Camera(softness=0, electrons=1e7, read_noise=0)
    return add_noise(expose(defocus(light, radius), camera, rng), rng, noise)


def textured(picture: Float) -> Mask:
    """Return where a picture (Y, X[, 3]) in [0, 1] has texture that shows its blur."""
    grey = picture @ LUMINANCE if picture.ndim == 3 else picture
    contrast = ndimage.gaussian_gradient_magnitude(grey, 2)
    return np.asarray(ndimage.gaussian_filter(contrast, 8) >= TEXTURE)


# Pairs of photos focused near and far


def pairs(detector: Detector, data: Path, _: Settings) -> Iterator[Measured]:
    """Compare the blur of two registered photos where one of them is clearly the sharper."""
    agreed, compared, pixels, worst = 0, 0, 0, (1.0, "")
    for first, second in pair_files(data / "pairs_lytro"):
        a, b = (read_image(path).data for path in (first, second))
        first_is_sharper, clear = sharper(a, b)
        blur, other = detector(a).blur[clear], detector(b).blur[clear]
        # Equal blur is no answer.
        agree = np.where(first_is_sharper[clear], blur < other, blur > other)
        agreed, compared = agreed + int(agree.sum()), compared + agree.size
        pixels += clear.size
        if agree.size:
            worst = min(worst, (float(agree.mean()), first.stem.rpartition("_")[0]))
    share, detail = np.nan, ""
    if compared:
        share = agreed / compared
        detail = f"{compared / pixels:.2f} compared, worst {worst[1]}: {worst[0]:.3f}"
    row = "pairs: pixels where the sharper has less blur"
    yield Measured(row, share, Target(">=", 0.97), detail)


def pair_files(folder: Path) -> list[tuple[Path, Path]]:
    """List the files ``NAME_1`` that have a ``NAME_2`` beside them."""
    files = {path.stem: path for path in images_in(folder)}
    twins = {stem: f"{stem[:-1]}2" for stem in files if stem.endswith("_1")}
    return [(files[stem], files[twin]) for stem, twin in twins.items() if twin in files]


def sharper(a: Array, b: Array) -> tuple[Mask, Mask]:
    """Return where `a` has more detail than `b`, and where texture and difference are clear.

    Detail is the squared Laplacian, pooled by a Gaussian.
    """
    first, second = (
        ndimage.gaussian_filter(ndimage.laplace(prepare_plane(x).grey) ** 2, PAIR_SIGMA)
        for x in (a, b)
    )
    high, low = np.maximum(first, second), np.minimum(first, second)
    return first > second, (high >= PAIR_TEXTURE**2) & (high >= PAIR_RATIO * low)


# Wholly sharp and wholly blurred images


def rendered_wholes(detector: Detector, _: Path, settings: Settings) -> Iterator[Measured]:
    """Measure the blur of rendered images that are sharp, and that are blurred, all over."""
    for kind in ("sharp", "blurred"):
        rendered = (render_whole(i, kind == "sharp", settings) for i in range(settings.rendered))
        yield from whole_rows("rendered", kind, detector, rendered)


def render_whole(index: int, sharp: bool, settings: Settings) -> Image8:
    """Make a crisp picture, or one blurred by a disc of some radius, with light noise."""
    rng = np.random.default_rng([settings.seed, index])
    picture = load_picture(PICTURES[index % len(PICTURES)])
    reduction = (settings.reduction, settings.reduction + 0.5)
    light = to_light(
        random_crop(picture, RecipeConfig(size=settings.size, reduction=reduction), rng)
    )
    radius = 0.0 if sharp else rng.uniform(*settings.blur)
    return expose(defocus(light, radius), Camera(softness=0), rng)


def microscope_wholes(detector: Detector, data: Path, _: Settings) -> Iterator[Measured]:
    """Measure the blur of fields of cells that are in focus, and out of focus, all over."""
    for kind in ("sharp", "blurred"):
        images = [read_image(path).data for path in images_in(data / "bbbc006" / kind)]
        yield from whole_rows("BBBC006", kind, detector, images)


def whole_rows(
    group: str, kind: str, detector: Detector, images: Iterable[Array]
) -> Iterator[Measured]:
    """Measure mean and worst, over images, of the mean blur of the pixels that are decided."""
    blur, decided = [], []
    for image in images:
        found = detector(image)
        inside = found.mask != UNLABELLED
        decided.append(inside.mean())
        if inside.any():
            blur.append(float(found.blur[inside].mean(dtype=np.float64)))
    target, worst = (Target("<=", 0.15), max) if kind == "sharp" else (Target(">=", 0.85), min)
    mean = float(np.mean(blur)) if blur else np.nan
    share = f"{np.mean(decided):.2f} decided" if decided else ""
    row = f"{group} {kind}, {len(decided)} images: mean blur"
    yield Measured(row, mean, target, share)
    nothing = len(decided) - len(blur)
    detail = f"{nothing} undecided" if nothing else ""
    yield Measured(f"{row}, worst", worst(blur, default=np.nan), target, detail)


# Photos with masks


@dataclass(frozen=True)
class Change:
    """Something done to a photo, and how much of the AUC it may cost (or shift)."""

    name: str
    target: Target
    apply: Callable[[Photo, np.random.Generator], Photo]


def photo_changes() -> list[Change]:
    """List what is done to photos."""
    level, scaled = Target("within", 0.005), Target("within", 0.02)
    return [
        *(
            _image_change(f"noise of {sigma}", Target("<", limit), partial(add_noise, sigma=sigma))
            for sigma, limit in ((5, 0.01), (10, 0.02), (20, 0.05))
        ),
        _image_change("JPEG quality 30", Target("<", 0.01), lambda x, _: through_jpeg(x, 30)),
        *(_image_change(f"brightness x {f:g}", level, partial(_brighten, f)) for f in FACTORS),
        *(_image_change(f"contrast x {f:g}", level, partial(_contrast, f)) for f in FACTORS),
        _image_change("as uint16", level, lambda x, _: x.astype(np.uint16) * 257),
        _image_change("as float32", level, lambda x, _: x / np.float32(255)),
        *(Change(f"scaled x {f:g}", scaled, partial(_scale, f)) for f in (0.5, 2)),
    ]


def _image_change(
    name: str, target: Target, change: Callable[[Image8, np.random.Generator], Array]
) -> Change:
    return Change(name, target, lambda photo, rng: replace(photo, image=change(photo.image, rng)))


def _brighten(factor: float, image: Image8, _: np.random.Generator) -> Float:
    return np.asarray(image * np.float32(factor))  # not rounded: nothing clips


def _contrast(factor: float, image: Image8, _: np.random.Generator) -> Float:
    mean = np.float32(image.mean())
    return np.asarray(mean + np.float32(factor) * (image - mean))


def _scale(factor: float, photo: Photo, _: np.random.Generator) -> Photo:
    size = [round(factor * extent) for extent in photo.blurred.shape[::-1]]
    mask = Image.fromarray(photo.blurred.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
    image = eight_bit(resize(photo.image.astype(np.float32), size))
    return Photo(photo.name, image, np.asarray(mask) > 0)


def photo_auc(detector: Detector, data: Path, settings: Settings) -> Iterator[Measured]:
    """Measure the AUC on photos, and what changes of the photos do to it."""
    photos = read_photos(data / "photos")
    base = _mean_auc(detector, photos)
    yield Measured("photos: AUC", base)
    for change in photo_changes():
        changed = [
            change.apply(photo, np.random.default_rng([settings.seed, index]))
            for index, photo in enumerate(photos)
        ]
        value = _mean_auc(detector, changed) - base
        falls = change.target.kind == "<"
        row = f"photos, {change.name}: {'fall' if falls else 'change'} of AUC"
        yield Measured(row, -value if falls else value, change.target)


def _mean_auc(detector: Detector, photos: Iterable[Photo]) -> float:
    # A photo of one class alone has no AUC.
    return float(np.nanmean([auc(detector(p.image).blur, p.blurred) for p in photos]))


def calibration(detector: Detector, data: Path, _: Settings) -> Iterator[Measured]:
    """Measure how far the confidence is from the share of pixels that are right."""
    chances, rights = [], []
    for photo in read_photos(data / "photos"):
        chance, right = told_and_right(detector(photo.image), photo)
        chances.append(chance)
        rights.append(right)
    chance, right = np.concatenate(chances), np.concatenate(rights)
    detail = ""
    if len(right):
        detail = f"right {right.mean():.3f}, predicted {chance.mean(dtype=np.float64):.3f}"
    row = f"photos: calibration error of the confidence, {CALIBRATION_BINS} bins"
    yield Measured(row, calibration_error(chance, right), detail=detail)


def told_and_right(found: Detection, photo: Photo) -> tuple[Array, Mask]:
    """Return, of decided pixels, the chance of being right that was told, and which are right."""
    decided = found.mask > 0
    assert found.confidence is not None
    right = (found.mask[decided] == BLURRED) == photo.blurred[decided]
    return (1 + found.confidence[decided]) / 2, right


def calibration_error(chance: Array, right: Mask) -> float:
    """Return the mean over pixels of the gap, within a bin, of accuracy and predicted chance.

    `chance` (N,) is that of being right, in [.5, 1], and `right` (N,) whether it was.
    """
    if not len(chance):
        return np.nan
    bins = np.clip(((chance - 0.5) * 2 * CALIBRATION_BINS).astype(int), 0, CALIBRATION_BINS - 1)
    gap = np.bincount(bins, right.astype(float) - chance, CALIBRATION_BINS)
    return float(np.abs(gap).sum() / len(chance))
