"""The recipe of the default metric: rendered defocus of pictures that come with packages.

Anyone can make it again: ``napari-defocus train-default --out FOLDER``. No photo that is used for
scoring has a part in it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_defocus.core.progress import Event, OnEvent, ShouldStop, ignore_event, never_stop
from napari_defocus.core.settings import Settings
from napari_defocus.filters.luminance import LUMINANCE
from napari_defocus.metric import zeng2019
from napari_defocus.metric.fitting import FitConfig, metric_from_nets
from napari_defocus.metric.local_metric import LocalMetric
from napari_defocus.metric.nets import NO_BASE, TrainedNets, TrainingConfig, as_base
from napari_defocus.metric.patches import PatchConfig, build_patch_set
from napari_defocus.metric.training import train
from napari_defocus.simulate.optics import Camera, Scene, render_layers

# Pictures in focus all over, or nearly so, once reduced. From scikit-image unless noted.
PICTURES = (
    "astronaut",
    "brick",
    "camera",
    "china.jpg",  # scikit-learn
    "coffee",
    "coins",
    "grass",
    "gravel",
    "immunohistochemistry",
    "rocket",
    "stereo_motorcycle",
)
# Patches of either side that stay with the nets in the package.
BASE_PATCHES = 500


@dataclass(frozen=True)
class RecipeConfig(Settings):
    """How the default metric is made."""

    scenes: int = 48
    size: int = 288  # their side in pixels
    reduction: tuple[float, float] = (1.5, 2.5)  # of pictures, which makes them crisp
    radius: tuple[float, float] = (0.8, 10.0)  # of the disc, uniform in its logarithm
    softness: tuple[float, float] = (0.0, 0.4)  # the camera's own Gaussian blur
    texture: float = 0.02  # least contrast of a labelled region, see `textured_annotation`
    seed: int = 0
    patches: PatchConfig = field(default_factory=PatchConfig)
    fit: FitConfig = field(
        default_factory=lambda: FitConfig(training=TrainingConfig(base=NO_BASE, learning_rate=2e-3))
    )


# What `train-default` can make.
PRESETS = {
    "default": RecipeConfig(),
    "zeng2019": RecipeConfig(patches=zeng2019.PATCHES, fit=FitConfig(training=zeng2019.TRAINING)),
}


def load_picture(name: str) -> npt.NDArray[np.uint8]:
    """Read one of `PICTURES` from its package: (Y, X) or (Y, X, 3) uint8."""
    from skimage import data

    if name.endswith(".jpg"):
        from sklearn.datasets import load_sample_image

        return np.asarray(load_sample_image(name), np.uint8)
    picture = getattr(data, name)()
    return np.asarray(picture[0] if isinstance(picture, tuple) else picture, np.uint8)


def render_scenes(config: RecipeConfig | None = None) -> Iterator[tuple[str, Scene]]:
    """Yield grey scenes of two layers of pictures, one of them out of focus, and their names."""
    config = config or RecipeConfig()
    rng = np.random.default_rng(config.seed)
    pictures = {name: load_picture(name) for name in PICTURES}
    for index in range(config.scenes):
        names = rng.choice(PICTURES, 2, replace=False)
        back, front = (random_crop(pictures[name], config, rng) for name in names)
        radius = float(np.exp(rng.uniform(*np.log(config.radius))))
        scene = render_layers(back, front, radius, _random_camera(config, rng), rng)
        yield f"{index:03d} {names[0]} behind {names[1]}", scene


def _random_camera(config: RecipeConfig, rng: np.random.Generator) -> Camera:
    return Camera(
        softness=rng.uniform(*config.softness),
        electrons=10 ** rng.uniform(3.3, 4.5),
        read_noise=rng.uniform(0, 0.003),
        jpeg_quality=int(rng.integers(70, 96)) if rng.random() < 0.8 else None,
    )


def random_crop(
    picture: npt.NDArray[np.uint8], config: RecipeConfig, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Cut a random square, make it grey, reduce it to `config.size` and perhaps mirror it."""
    from skimage.transform import resize

    least = min(picture.shape[:2])
    side = min(round(config.size * rng.uniform(*config.reduction)), least)
    y, x = (int(rng.integers(0, extent - side + 1)) for extent in picture.shape[:2])
    crop = picture[y : y + side, x : x + side].astype(np.float32)
    crop = crop @ LUMINANCE if crop.ndim == 3 else crop
    crop = resize(crop, (config.size, config.size), anti_aliasing=True)
    crop = crop[:, ::-1] if rng.random() < 0.5 else crop
    return np.asarray(np.clip(np.round(crop), 0, 255), np.uint8)


def textured_annotation(scene: Scene, least: float) -> npt.NDArray[np.uint8]:
    """Return the labels of a scene where there is texture to learn from, 0 elsewhere."""
    contrast = ndimage.gaussian_gradient_magnitude(scene.image / 255, 2)
    labels = scene.annotation
    labels[ndimage.gaussian_filter(contrast, 8) < least] = 0
    return labels


def train_default(
    config: RecipeConfig | None = None,
    *,
    on_event: OnEvent = ignore_event,
    should_stop: ShouldStop = never_stop,
) -> tuple[LocalMetric, TrainedNets] | None:
    """Train the default metric, and nets that others go on from, on nothing but package pictures.

    None where it was stopped before there was a net.
    """
    config = config or RecipeConfig()
    annotated: list[tuple[str, npt.NDArray[Any], npt.NDArray[Any]]] = []
    for index, (name, scene) in enumerate(render_scenes(config), start=1):
        if should_stop():
            return None
        annotated.append((name, scene.image, textured_annotation(scene, config.texture)))
        on_event(Event("rendering scenes", index, config.scenes))
    patch_set = build_patch_set(annotated, config.patches)
    nets = train(patch_set, config.fit.training, on_event=on_event, should_stop=should_stop)
    if nets is None:
        return None
    metric = metric_from_nets(nets, config.fit)
    preset = "" if config.fit.training.whiten else " --preset zeng2019"
    recipe = {"command": f"napari-defocus train-default{preset}", "pictures": list(PICTURES)}
    recipe |= {
        name: value for name, value in vars(config).items() if name not in ("patches", "fit")
    }
    return replace(metric, record={**metric.record, "recipe": recipe}), as_base(nets, BASE_PATCHES)
