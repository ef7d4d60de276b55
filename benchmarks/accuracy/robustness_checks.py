"""What `robustness.py` measures, but for photos: a function a check, each of one detector."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage, stats

from napari_defocus.detection.api import Detection
from napari_defocus.filters.luminance import LUMINANCE
from napari_defocus.filters.plane import prepare_plane
from napari_defocus.io.folder import IMAGE_SUFFIXES
from napari_defocus.io.open import read_image
from napari_defocus.labels.classes import UNLABELLED
from napari_defocus.metric.default_recipe import PICTURES, RecipeConfig, load_picture, random_crop
from napari_defocus.simulate.optics import GAMMA, Camera, defocus, expose, to_light

Image8 = npt.NDArray[np.uint8]
Detector = Callable[[npt.NDArray[Any]], Detection]

# Gradient at a scale of 2 pixels, pooled over 8, in shares of white a pixel: texture, as in the
# recipe of the default metric.
TEXTURE = RecipeConfig().texture
# Of pairs: scale of pooling; least root mean square of the Laplacian in the sharper plane, in
# shares of the grey range; how many times the other plane's mean square it must have.
PAIR_SIGMA = 4.0
PAIR_TEXTURE = 0.03
PAIR_RATIO = 1.5


@dataclass(frozen=True)
class Target:
    """What a value is to be: ``<``, ``<=`` or ``>=`` the limit, or ``within`` it of 0."""

    kind: str
    limit: float

    def __str__(self) -> str:
        return f"{'±' if self.kind == 'within' else self.kind} {self.limit:g}"

    def met(self, value: float) -> bool:
        if self.kind == ">=":
            return value >= self.limit
        if self.kind == "<":
            return value < self.limit
        return (abs(value) if self.kind == "within" else value) <= self.limit


@dataclass(frozen=True)
class Measured:
    """One figure of one detector; nan where there was nothing to measure."""

    row: str
    value: float
    target: Target | None = None
    detail: str = ""


@dataclass(frozen=True)
class Settings:
    """What is rendered.

    Parameters
    ----------
    pictures : tuple of str
        That are blurred by discs; names that `load_picture` knows.
    reduction : int
        Pictures are reduced so many times, which makes them crisp.
    radii : tuple of float
        Of the discs, in pixels.
    noises : tuple of float
        Standard deviations of the noise on the discs, of 255.
    rendered : int
        Number of wholly sharp, and of wholly blurred images.
    blur : tuple of float
        Range of the disc radius of the wholly blurred, in pixels.
    size : int
        Their side in pixels; small enough for most pictures to be reduced as often.
    seed : int
        Of every choice.
    """

    pictures: tuple[str, ...] = (
        "astronaut",
        "china.jpg",
        "coffee",
        "grass",
        "gravel",
        "immunohistochemistry",
    )
    reduction: int = 2
    radii: tuple[float, ...] = (1, 1.5, 2, 3, 4, 5, 6, 8, 10)
    noises: tuple[float, ...] = (2, 5)
    rendered: int = 16
    blur: tuple[float, float] = (3.0, 8.0)
    size: int = 192
    seed: int = 0


# --- images ------------------------------------------------------------------------------------


def images_in(folder: Path) -> list[Path]:
    """List the images of a folder, none where there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)


def resize(values: npt.NDArray[np.float32], size: Iterable[int]) -> npt.NDArray[np.float32]:
    """Resample (Y, X) or (Y, X, C) to (columns, rows), with the tails that keep it crisp."""
    if values.ndim == 3:
        return np.stack([resize(values[..., c], size) for c in range(values.shape[-1])], axis=-1)
    return np.asarray(Image.fromarray(values).resize(tuple(size), Image.Resampling.LANCZOS))


def eight_bit(values: npt.NDArray[Any]) -> Image8:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def add_noise(image: Image8, rng: np.random.Generator, sigma: float) -> Image8:
    return eight_bit(image + rng.normal(0, sigma, image.shape))


# --- a microscope's focus series ---------------------------------------------------------------


def told_defocus(name: str) -> float | None:
    """Read the defocus in micrometres from a file's name: ``...OffM0p3um``, ``...ON(1)``."""
    match = re.search(r"Off([MP])(\d+)p(\d+)um", name)
    if match:
        return float(f"{match[2]}.{match[3]}") * (-1 if match[1] == "M" else 1)
    return 0.0 if re.search(r"ON(\(\d+\))?(\.\w+)?$", name) else None


def focus_series(detector: Detector, data: Path, _: Settings) -> Iterator[Measured]:
    """Correlate the blur of the frames of a focus series with their defocus."""
    known = [(told_defocus(path.name), path) for path in images_in(data)]
    frames = [
        (defocus, _series_blur(detector(read_image(path).data)))
        for defocus, path in known
        if defocus is not None
    ]
    defocus = np.array([defocus for defocus, _ in frames])
    blur = np.array([value for _, (value, _) in frames])
    quantity = frames[0][1][1] if frames else ""
    for side, chosen in (
        ("negative side", defocus <= 0),
        ("positive side", defocus >= 0),
        ("both sides", np.isfinite(defocus)),
    ):
        levels = np.abs(defocus[chosen])
        # Of fewer than three frames any two orders look alike.
        enough = len(levels) > 2 and np.ptp(levels) > 0 and np.ptp(blur[chosen]) > 0
        rank = stats.spearmanr(levels, blur[chosen]).statistic if enough else np.nan
        row = f"light sheet, {side}: Spearman of |defocus| and blur"
        yield Measured(row, float(rank), Target(">=", 0.9), quantity)


def _series_blur(found: Detection) -> tuple[float, str]:
    """Give the blur of a frame, and how it was taken."""
    assert found.confidence is not None
    decided = found.confidence > 0
    if not decided.any():
        decided = np.ones_like(decided)
    if found.radius is not None:
        return float(np.median(found.radius[decided])), "median radius, confidence > 0"
    return float(found.blur[decided].mean(dtype=np.float64)), "mean blur, confidence > 0"


# --- rendered discs ----------------------------------------------------------------------------


def discs(detector: Detector, _: Path, settings: Settings) -> Iterator[Measured]:
    """Compare the radius that is told with that of the disc a crisp picture was blurred by."""
    pictures = [crisp_light(load_picture(name), settings.reduction) for name in settings.pictures]
    where = [textured(_grey(light ** (1 / GAMMA))) for light in pictures]
    for noise in settings.noises:
        errors = []
        for radius in settings.radii:
            rng = np.random.default_rng(settings.seed)
            told = []
            for light, texture in zip(pictures, where, strict=True):
                found = detector(noisy_disc(light, radius, noise, rng)).radius
                if found is None:
                    return
                told.append(found[texture])
            estimate = np.concatenate(told)
            errors.append(np.abs(estimate - radius) / radius)
            yield Measured(
                f"disc of {radius:g} px, noise of {noise:g}: relative error of the radius",
                float(np.median(errors[-1])),
                Target("<", 0.15),
                f"median {np.median(estimate):.2f} px",
            )
        yield Measured(
            f"discs of all radii, noise of {noise:g}: relative error of the radius",
            float(np.median(np.concatenate(errors))),
            Target("<", 0.15),
        )


def crisp_light(picture: Image8, reduction: int) -> npt.NDArray[np.float32]:
    """Reduce a picture (Y, X[, 3]) in linear light, in [0, 1]."""
    size = [extent // reduction for extent in picture.shape[1::-1]]
    return np.clip(resize(to_light(picture), size), 0, 1)


def noisy_disc(
    light: npt.NDArray[np.float32], radius: float, noise: float, rng: np.random.Generator
) -> Image8:
    """Blur by a disc, record without softness, add Gaussian noise (of 255)."""
    camera = Camera(softness=0, electrons=1e7, read_noise=0)
    return add_noise(expose(defocus(light, radius), camera, rng), rng, noise)


def textured(grey: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Where a picture (Y, X) in [0, 1] has texture to judge by."""
    contrast = ndimage.gaussian_gradient_magnitude(grey, 2)
    return np.asarray(ndimage.gaussian_filter(contrast, 8) >= TEXTURE)


def _grey(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return values @ LUMINANCE if values.ndim == 3 else values


# --- pairs of photos focused near and far --------------------------------------------------------


def pairs(detector: Detector, data: Path, _: Settings) -> Iterator[Measured]:
    """Ask which of two registered photos is the sharper at each pixel that shows it clearly."""
    agreed, asked, pixels, worst = 0, 0, 0, (1.0, "")
    for first, second in pair_files(data):
        a, b = (read_image(path).data for path in (first, second))
        first_is_sharper, clear = sharper(a, b)
        blur, other = detector(a).blur[clear], detector(b).blur[clear]
        # Equal blur is no answer.
        agree = np.where(first_is_sharper[clear], blur < other, blur > other)
        agreed, asked = agreed + int(agree.sum()), asked + agree.size
        pixels += clear.size
        if agree.size:
            worst = min(worst, (float(agree.mean()), first.stem.rpartition("_")[0]))
    share = agreed / asked if asked else np.nan
    detail = f"{asked / pixels:.2f} asked, worst {worst[1]}: {worst[0]:.3f}" if asked else ""
    yield Measured(
        "pairs: pixels where the sharper has less blur", share, Target(">=", 0.97), detail
    )


def pair_files(folder: Path) -> list[tuple[Path, Path]]:
    """List the files ``NAME_1`` that have a ``NAME_2`` beside them."""
    files = {path.stem: path for path in images_in(folder)}
    twins = {stem: f"{stem[:-1]}2" for stem in files if stem.endswith("_1")}
    return [(files[stem], files[twin]) for stem, twin in twins.items() if twin in files]


def sharper(
    a: npt.NDArray[Any], b: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Tell where `a` has more detail than `b`, and where there is texture and a clear difference.

    Detail is the squared Laplacian, pooled by a Gaussian.
    """
    first, second = (
        ndimage.gaussian_filter(ndimage.laplace(prepare_plane(x).grey) ** 2, PAIR_SIGMA)
        for x in (a, b)
    )
    high, low = np.maximum(first, second), np.minimum(first, second)
    return first > second, (high >= PAIR_TEXTURE**2) & (high >= PAIR_RATIO * low)


# --- wholly sharp and wholly blurred images ------------------------------------------------------


def rendered_wholes(detector: Detector, _: Path, settings: Settings) -> Iterator[Measured]:
    """Judge rendered images that are sharp, and that are blurred, all over."""
    for label, sharp in (("sharp", True), ("blurred", False)):
        rendered = [render_whole(index, sharp, settings) for index in range(settings.rendered)]
        yield from whole_rows(f"rendered {label}", detector, rendered, sharp)


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
    """Judge fields of cells that are in focus, and out of focus, all over."""
    for label, sharp in (("sharp", True), ("blurred", False)):
        images = [read_image(path).data for path in images_in(data / label)]
        yield from whole_rows(f"BBBC006 {label}", detector, images, sharp)


def whole_rows(
    group: str, detector: Detector, images: Iterable[npt.NDArray[Any]], sharp: bool
) -> Iterator[Measured]:
    """Give mean and worst, over images, of the mean blur of the pixels that are decided."""
    blur, decided = [], []
    for image in images:
        found = detector(image)
        inside = found.mask != UNLABELLED
        decided.append(inside.mean())
        if inside.any():
            blur.append(float(found.blur[inside].mean(dtype=np.float64)))
    target = Target("<=", 0.15) if sharp else Target(">=", 0.85)
    worst = (max if sharp else min)(blur, default=np.nan)
    mean = float(np.mean(blur)) if blur else np.nan
    share = f"{np.mean(decided):.2f} decided" if decided else ""
    row = f"{group}, {len(decided)} images: mean blur"
    yield Measured(row, mean, target, share)
    nothing = len(decided) - len(blur)
    yield Measured(f"{row}, worst", worst, target, f"{nothing} undecided" if nothing else "")
