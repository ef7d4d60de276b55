"""Train the dense detector on rendered scenes. This module imports torch."""

from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from napari_defocus.core.errors import DefocusError
from napari_defocus.core.progress import Event, OnEvent, ShouldStop, ignore_event, never_stop
from napari_defocus.dense.config import DenseConfig
from napari_defocus.dense.detector import RADIUS_OFFSET, DenseDetector
from napari_defocus.dense.inference import standardise
from napari_defocus.dense.network import DenseNet, read_imagenet
from napari_defocus.io.atomic import whole_file
from napari_defocus.metric.local_metric import LocalMetric
from napari_defocus.simulate.optics import Scene
from napari_defocus.simulate.scenes import PictureBook, render_scene

# Radii, in pixels, up to which everyone calls an image sharp, and from which blurred.
SHARP_UP_TO = 0.7
BLURRED_FROM = 1.8
# Logarithms of the radius' error stay within, so that no pixel outweighs all others.
ERROR_RANGE = (-4.0, 2.0)
SCENE_BLOCK = 64
IMAGES, RADII = "images.npy", "radii.npy"


@dataclass(frozen=True)
class RenderedScenes:
    """Scenes in two memory-mapped files.

    Parameters
    ----------
    images : ndarray of uint8, (N, Y, X, 3)
        What the camera saw.
    radii : ndarray of float16, (N, Y, X)
        Disc radius in pixels, NaN where it is not defined.
    """

    images: npt.NDArray[np.uint8]
    radii: npt.NDArray[np.float16]


def render_scenes(
    book: PictureBook,
    folder: Path,
    config: DenseConfig,
    *,
    workers: int = 1,
    on_event: OnEvent = ignore_event,
    should_stop: ShouldStop = never_stop,
) -> None:
    """Render the scenes to ``images.npy`` and ``radii.npy``, on `workers` processes."""
    shape = (config.scenes, config.scene.size, config.scene.size)
    render = partial(_render_one, book, config)
    with (
        whole_file(folder / IMAGES, True) as first,
        whole_file(folder / RADII, True) as second,
        ProcessPoolExecutor(workers) as pool,
    ):
        images = np.lib.format.open_memmap(first, "w+", np.uint8, (*shape, 3))
        radii = np.lib.format.open_memmap(second, "w+", np.float16, shape)
        for index, scene in enumerate(pool.map(render, range(config.scenes), chunksize=8)):
            images[index], radii[index] = scene.image, scene.radius
            if index % SCENE_BLOCK == 0:
                on_event(Event("rendering scenes", index, config.scenes))
                if should_stop():
                    raise DefocusError("stopped while scenes were rendered; nothing is kept")
        images.flush()
        radii.flush()


def _render_one(book: PictureBook, config: DenseConfig, index: int) -> Scene:
    # Each scene has chance of its own: the same whichever process renders it.
    return render_scene(book, config.scene, np.random.default_rng([config.seed, index]))


def read_scenes(folder: Path, config: DenseConfig) -> RenderedScenes:
    """Open what `render_scenes` wrote.

    Raises
    ------
    DefocusError
        Where the number or the size of the scenes is not that of `config`.
    """
    images, radii = (np.load(folder / name, mmap_mode="r") for name in (IMAGES, RADII))
    needed = (config.scenes, config.scene.size, config.scene.size)
    if images.shape != (*needed, 3) or radii.shape != needed:
        raise DefocusError(
            f"{folder} holds scenes of {radii.shape}, {needed} are needed; name another folder"
        )
    return RenderedScenes(images, radii)


def train_dense(
    scenes: RenderedScenes,
    metric: LocalMetric,
    imagenet: Mapping[str, Tensor] | None,
    config: DenseConfig,
    *,
    on_event: OnEvent = ignore_event,
    should_stop: ShouldStop = never_stop,
) -> DenseDetector:
    """Train the dense network.

    Parameters
    ----------
    scenes : RenderedScenes
        To learn from.
    metric : LocalMetric
        Whose filters' responses are input channels.
    imagenet : mapping of str to Tensor, or None
        Weights that the backbone starts from, see `read_imagenet`; None to start from chance.
    config : DenseConfig
        How.
    on_event : callable
        Called every 50 steps, with the losses.
    should_stop : callable
        Called at each step; networks that are done count, or the first as far as it came.

    Returns
    -------
    DenseDetector

    Raises
    ------
    DefocusError
        Where it was stopped before the first step.
    """
    done: list[int] = []
    sums: dict[str, npt.NDArray[Any]] = {}
    for run in range(config.runs):
        if should_stop():
            break
        trained, steps = _train_once(scenes, metric, imagenet, config, run, on_event, should_stop)
        if steps < config.steps and done:
            break  # a network that is half trained would spoil the others
        done.append(steps)
        sums = {name: values + sums.get(name, 0) for name, values in trained.items()}
    if not done or not done[0]:
        raise DefocusError("stopped before the first batch: there is nothing to keep")
    weights = {name: values / np.float32(len(done)) for name, values in sums.items()}
    record = {"config": asdict(config), "steps": done, "imagenet": imagenet is not None}
    return DenseDetector(weights, record | {"metric": metric.digest})


def _train_once(
    scenes: RenderedScenes,
    metric: LocalMetric,
    imagenet: Mapping[str, Tensor] | None,
    config: DenseConfig,
    run: int,
    on_event: OnEvent,
    should_stop: ShouldStop,
) -> tuple[dict[str, npt.NDArray[np.float32]], int]:
    """Train one network; return its averaged weights, and the number of steps."""
    torch.manual_seed(config.seed)
    rng = np.random.default_rng([config.seed, run])
    network, device = _new_network(metric, imagenet, config)
    averaged = {name: value.clone() for name, value in network.state_dict().items()}
    optimiser = _optimiser(network, config)
    losses: list[tuple[float, float]] = []
    for step in range(config.steps):
        if should_stop():
            break
        for group in optimiser.param_groups:
            group["lr"] = group["share"] * _learning_rate(step, config)
        images, radii = random_crops(scenes, config, rng)
        with torch.autocast(device, torch.bfloat16):
            predicted = network(images.to(device, memory_format=torch.channels_last))
        sharp_loss, radius_loss = dense_losses(predicted.float(), radii.to(device))
        loss = sharp_loss + config.radius_weight * radius_loss
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        optimiser.step()
        _average(averaged, network, min(config.memory, step / (step + 50)))
        losses.append((sharp_loss.item(), radius_loss.item()))
        if (step + 1) % 50 == 0:
            means = np.mean(losses[-50:], axis=0)
            values = {"sharp loss": float(means[0]), "radius loss": float(means[1])}
            on_event(Event(f"training network {run + 1}", step + 1, config.steps, values))
    return {name: value.float().cpu().numpy() for name, value in averaged.items()}, len(losses)


def _new_network(
    metric: LocalMetric, imagenet: Mapping[str, Tensor] | None, config: DenseConfig
) -> tuple[DenseNet, str]:
    network = DenseNet(torch.from_numpy(metric.filters.astype(np.float32)))
    if imagenet is not None:
        read_imagenet(imagenet, network.backbone)
    network.backbone.requires_grad_(config.backbone_share > 0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = network.to(device)
    return network.to(memory_format=torch.channels_last), device  # type: ignore[call-overload]


def _optimiser(network: DenseNet, config: DenseConfig) -> torch.optim.AdamW:
    started = list(network.backbone.parameters())
    known = {id(parameter) for parameter in started}
    others = [parameter for parameter in network.parameters() if id(parameter) not in known]
    groups = [
        {"params": started, "share": config.backbone_share},
        {"params": others, "share": 1.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=1e-4)


def _learning_rate(step: int, config: DenseConfig) -> float:
    rise = min(1.0, (step + 1) / config.warm_up)
    fall = 0.5 * (1 + np.cos(np.pi * step / config.steps))
    return float(config.learning_rate * rise * (fall + 0.01))


@torch.no_grad()
def _average(averaged: dict[str, Tensor], network: DenseNet, memory: float) -> None:
    for name, value in network.state_dict().items():
        averaged[name].lerp_(value, 1 - memory)


def random_crops(
    scenes: RenderedScenes, config: DenseConfig, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Cut a batch: images (N, 3, Y, X), standardised by their whole scene, and radii (N, Y, X)."""
    images, radii = [], []
    for _ in range(config.batch):
        index = int(rng.integers(len(scenes.images)))
        y, x = rng.integers(0, scenes.images.shape[1] - config.crop + 1, 2)
        part = (slice(y, y + config.crop), slice(x, x + config.crop))
        whole = scenes.images[index] / np.float32(255)
        image = standardise(whole[part], whole.mean(dtype=float), whole.std(dtype=float))
        radius = scenes.radii[index][part].astype(np.float32)
        if rng.random() < 0.5:
            image, radius = image[:, ::-1], radius[:, ::-1]
        if rng.random() < 0.15:
            image, radius = image.swapaxes(0, 1), radius.T
        images.append(image.transpose(2, 0, 1))
        radii.append(radius)
    return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(radii))


def dense_losses(predicted: Tensor, radii: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the losses of a prediction.

    Parameters
    ----------
    predicted : Tensor, (N, 3, Y / 2, X / 2)
        See `DenseNet`.
    radii : Tensor, (N, Y, X)
        In pixels, NaN where it is not defined.

    Returns
    -------
    sharp_loss, radius_loss : Tensor
        Mean cross-entropy where people agree, and mean negative log likelihood of a Laplace
        distribution of the radius' logarithm where it is known.
    """
    predicted = functional.interpolate(
        predicted, scale_factor=2, mode="bilinear", align_corners=False
    )
    log_odds, log_radius, log_error = predicted.unbind(dim=1)
    known = ~torch.isnan(radii)
    radii = torch.nan_to_num(radii)
    agreed = known & ((radii <= SHARP_UP_TO) | (radii >= BLURRED_FROM))
    entropy = functional.binary_cross_entropy_with_logits(
        log_odds, (radii <= SHARP_UP_TO).float(), reduction="none"
    )
    log_error = log_error.clamp(*ERROR_RANGE)
    miss = (log_radius - (radii + RADIUS_OFFSET).log()).abs()
    likelihood = miss * (-log_error).exp() + log_error
    return _mean(entropy, agreed), _mean(likelihood, known)


def _mean(values: Tensor, where: Tensor) -> Tensor:
    return (values * where).sum() / where.sum().clamp(min=1)
