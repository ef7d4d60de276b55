"""The metric on a torch device: `sharpness` once more, for tensors. This module imports torch."""

import math
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_defocus.core.devices import Device, in_tiles
from napari_defocus.core.progress import ShouldStop, never_stop
from napari_defocus.core.tiling import Region, widen, within
from napari_defocus.filters._torch import (
    block_mean,
    box_mean,
    correlate,
    enlarge,
    gaussian,
    guided,
)
from napari_defocus.filters.contrast import gradient_noise
from napari_defocus.filters.plane import Plane
from napari_defocus.metric.local_metric import LocalMetric, Pooling
from napari_defocus.metric.response import (
    COARSER,
    HALVING_COST,
    LEAST,
    LEAST_CONTRAST,
    SIGNAL_TO_NOISE,
    TRUST_SIGMA,
    alignment,
    block_side,
    halo,
    halo_at_one_scale,
    predict_log_odds,
)

Float = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]

# Side of the tiles where the memory is not enough for a part as it is; they join exactly.
SMALLER = 512


def predict_log_odds_on(
    device: Device,
    plane: Plane,
    metric: LocalMetric,
    region: Region,
    should_stop: ShouldStop = never_stop,
) -> tuple[Float, Bool]:
    """Judge a region of a plane on a device; as `predict_log_odds`, which does it where that fails.

    Returns
    -------
    log_odds : ndarray of float32, (Y, X)
    valid : ndarray of bool, (Y, X)
    """
    if min(plane.grey.shape) < metric.size:
        return predict_log_odds(plane, metric, region=region)  # which says what is wrong

    def here(part: Region) -> Float:
        window = widen(part, halo(metric), plane.grey.shape, alignment(metric))
        grey = device.upload(plane.grey[window])
        return device.download(log_odds_of(grey, plane.noise, metric, within(part, window)))

    def on_cpu() -> Float:
        log_odds, valid = predict_log_odds(plane, metric, should_stop=should_stop, region=region)
        return np.stack([log_odds, valid.astype(np.float32)])

    log_odds, valid = device.work(
        [partial(here, region), partial(in_tiles, here, region, SMALLER)], on_cpu
    )
    return log_odds, valid > 0


def log_odds_of(
    grey: Tensor,
    noise: tuple[float, float],
    metric: LocalMetric,
    region: Region,
    coarser: int = COARSER,
) -> Tensor:
    """Give log odds of being sharp, and 1 where they can be trusted, else 0: (2, Y, X).

    Coarser scales are always asked: to look whether they are needed would wait for the device.

    Parameters
    ----------
    grey : Tensor of float32, (Y, X)
        The image or, around `region`, as much of it as `predict_log_odds` needs.
    noise : tuple of float
        See `Plane`.
    metric : LocalMetric
        The metric.
    region : tuple of slice
        Rows and columns to judge.
    coarser : int
        How many times the image may be halved.
    """
    rows, columns = grey.shape
    near = widen(region, halo_at_one_scale(metric), (rows, columns), block_side(metric.pooling))
    log_odds, trust = _at_one_scale(grey[near], noise, metric)[:, *within(region, near)]
    if not coarser or min((rows + 1) // 2, (columns + 1) // 2) < metric.size:
        return torch.stack([log_odds, (trust > 0).float()])
    halved = (
        slice(region[0].start // 2, -(-region[0].stop // 2)),
        slice(region[1].start // 2, -(-region[1].stop // 2)),
    )
    half = block_mean(grey, 2)
    around = widen(halved, 2, tuple(half.shape))
    coarse = log_odds_of(half, (noise[0] / 4, noise[1] / 4), metric, around, coarser - 1)
    doubled = within(region, (slice(2 * around[0].start, None), slice(2 * around[1].start, None)))
    coarse_log_odds, coarse_valid = (enlarge(found, 2)[doubled] for found in coarse)
    log_odds = trust * log_odds + (1 - trust) * (coarse_log_odds - HALVING_COST)
    return torch.stack([log_odds, ((trust > 0) | (coarse_valid > 0.5)).float()])


def _at_one_scale(grey: Tensor, noise: tuple[float, float], metric: LocalMetric) -> Tensor:
    """Give log odds of being sharp, and from 0 to 1 how far they can be trusted: (2, Y, X)."""
    pooling, calibration = metric.pooling, metric.calibration
    variance = _noise_variance(grey, noise)
    energy = correlate(grey, metric.filters).square().sum(dim=0)
    response = _pool(_without_noise(energy, variance, pooling), grey, pooling)
    sigma = pooling.contrast_sigma
    energy = gaussian(grey, sigma, (1, 0)).square() + gaussian(grey, sigma, (0, 1)).square()
    gradient = _without_noise(energy, variance * gradient_noise(pooling.contrast_sigma), pooling)
    contrast = _pool(gradient, grey, pooling)
    score = (response + LEAST).log() - pooling.contrast_exponent * (contrast + LEAST).log()
    log_odds = calibration.slope * (score - calibration.threshold)
    return torch.stack([log_odds, _trust(gradient, variance, metric)])


def _noise_variance(grey: Tensor, noise: tuple[float, float]) -> Tensor:
    a, b = noise
    return a + b * box_mean(grey, 2).clip(min=0) if b else torch.full_like(grey, a)


def _without_noise(energy: Tensor, variance: Tensor, pooling: Pooling) -> Tensor:
    return (energy - pooling.noise_factor * variance).clip(min=0).sqrt()


def _pool(values: Tensor, guide: Tensor, pooling: Pooling) -> Tensor:
    step = block_side(pooling)
    smooth = gaussian(block_mean(values**pooling.power, step), pooling.sigma / step)
    gain, offset = guided(
        smooth, block_mean(guide, step), round(pooling.guide_radius / step), pooling.guide_epsilon
    )
    rows, columns = guide.shape
    found = enlarge(gain, step)[:rows, :columns] * guide + enlarge(offset, step)[:rows, :columns]
    return found.clip(min=0) ** (1 / pooling.power)


def _trust(gradient: Tensor, variance: Tensor, metric: LocalMetric) -> Tensor:
    pooling = metric.pooling
    step = block_side(pooling)
    contrast = gaussian(block_mean(gradient, step), TRUST_SIGMA * pooling.sigma / step)
    sharp = math.exp(metric.calibration.threshold) * contrast**pooling.contrast_exponent
    low, high = SIGNAL_TO_NOISE
    noise = block_mean(variance, step).sqrt()
    trust = ((sharp / noise - low) / (high - low)).clip(0, 1) * (contrast > LEAST_CONTRAST)
    rows, columns = gradient.shape
    return enlarge(trust, step)[:rows, :columns]
