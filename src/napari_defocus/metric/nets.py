"""Trained nets: how they were trained, their weights, their file."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from napari_defocus.core.devices import DEVICES as DEVICES
from napari_defocus.core.errors import ABOVE_0, DefocusError, brief
from napari_defocus.core.settings import Allowed, Settings
from napari_defocus.io.cards import as_floats, load_container, read_settings, save_container
from napari_defocus.metric.patches import LARGEST_KERNEL, PatchSet, pack_patch_set, unpack_patch_set

KIND = "nets"
PACKAGED = {"default": Path(__file__).parents[1] / "weights" / "default.nets.safetensors"}
NO_BASE = "none"
# Learning rates from a base, and from a random start, which needs larger steps.
BASE_RATE, FRESH_RATE = 5e-4, 2e-3
SCORES = ("train_loss", "loss", "accuracy")
SIDES = ("training", "validation", "base")
Weights = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class TrainingConfig(Settings):
    """How nets are trained; the texts at hand have none of these figures but 7 x 7, an example.

    Parameters
    ----------
    base : str
        Nets that training goes on from, a file or ``default``, so that a few strokes shift what
        they learnt and do not replace it; ``none`` for a random start.
    nets : int
        Number of nets.
    kernels : int
        Kernels of a net's first layer.
    kernel_size : int
        Their side, odd.
    epochs : int
        Most passes over the training patches.
    patience : int
        Passes without a better validation loss after which a net is done.
    batch : int
        Patches in a batch.
    learning_rate : float, optional
        Of Adam; where not given, see `rate`.
    l1, decay : float
        Weights of the sum of absolute values and of the sum of squares of the first layer's
        kernels in the loss: kernels that do not help fade away and leave the PCA to those that do.
    validation : float
        Share of the patches held out, by image.
    seed : int
        Same seed, same machine: same nets.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``mps``.
    whiten : bool
        Whether nets see whitened windows; if not, the metric is made as `zeng2019` says.
    turn : bool
        Whether patches are turned and mirrored at random.
    """

    base: str = "default"
    nets: int = 4
    kernels: int = 16
    kernel_size: int = 7
    epochs: int = 20
    patience: int = 4
    batch: int = 64
    learning_rate: float | None = None
    l1: float = 5e-3
    decay: float = 1e-3
    validation: float = 0.25
    seed: int = 0
    device: str = "auto"
    whiten: bool = True
    turn: bool = True

    _allowed: ClassVar[Allowed] = {
        "nets": (1, 1000),
        "kernels": (1, 4096),
        "kernel_size": (1, LARGEST_KERNEL),
        "epochs": (1, 10**6),
        "patience": (1, 10**6),
        "batch": (1, 10**6),
        "learning_rate": (ABOVE_0, math.inf),
        "l1": (0, 10**6),
        "decay": (0, 10**6),
        "validation": (0, 1),
        "seed": (0, 2**63 - 1),
        "device": DEVICES,
    }
    _called: ClassVar[dict[str, str]] = {
        "kernel_size": "the kernel size",
        "learning_rate": "the learning rate",
        "device": "the device",
    }

    def _check(self) -> None:
        if self.kernel_size % 2 == 0 or self.kernel_size < 3:
            raise DefocusError(
                f"the kernel size is {self.kernel_size}; give an odd one of 3 or more"
            )

    @property
    def rate(self) -> float:
        """The learning rate: as given, else that of the base, larger from a random start."""
        if self.learning_rate is not None:
            return self.learning_rate
        return FRESH_RATE if self.base == NO_BASE else BASE_RATE


@dataclass(frozen=True)
class TrainedNet:
    """One net: its best weights, and its last ones with Adam's state to go on from.

    `history` has ``train_loss``, ``loss`` and ``accuracy`` (held out) of each epoch.
    """

    best: Weights
    last: Weights
    optimiser: Weights
    history: tuple[Mapping[str, float], ...]
    done: bool

    @property
    def best_epoch(self) -> int:
        """Index of the epoch with the least held-out loss."""
        return int(np.argmin([epoch["loss"] for epoch in self.history]))


@dataclass(frozen=True)
class TrainedNets:
    """The outcome of training: nets, one or more, and the whitening matrix in front of each.

    Some of the patches of either side, and of the base, are kept to calibrate metrics with.
    """

    nets: tuple[TrainedNet, ...]
    whitening: npt.NDArray[np.float32]
    config: TrainingConfig
    training: PatchSet
    validation: PatchSet
    base: PatchSet | None = None

    @property
    def kernels(self) -> npt.NDArray[np.float32]:
        """All first-layer kernels in whitened space, (N, size^2)."""
        return np.concatenate([net.best["first.weight"] for net in self.nets])

    @property
    def complete(self) -> bool:
        """Whether every net was trained to its end."""
        return len(self.nets) == self.config.nets and all(net.done for net in self.nets)

    @property
    def accuracy(self) -> float:
        """Mean held-out accuracy of the nets at their best epochs, in [0, 1]."""
        return float(np.mean([net.history[net.best_epoch]["accuracy"] for net in self.nets]))


def load_base(config: TrainingConfig) -> TrainedNets | None:
    """Read the nets that a training goes on from; DefocusError where they have another shape."""
    if config.base == NO_BASE:
        return None
    base = load_nets(PACKAGED.get(config.base, Path(config.base)))
    for name in ("kernels", "kernel_size", "whiten"):
        has, wanted = getattr(base.config, name), getattr(config, name)
        if has != wanted:
            raise DefocusError(
                f"the base nets {config.base!r} have {name.replace('_', ' ')} {has}, not {wanted}; "
                f"give that, or start from no base ({NO_BASE!r})"
            )
    return base


def as_base(nets: TrainedNets, most: int) -> TrainedNets:
    """Return what others go on from: the best weights and at most `most` patches a side."""
    best = [replace(net, last=net.best, optimiser={}, done=True) for net in nets.nets]
    training, validation = (side.sample(most) for side in (nets.training, nets.validation))
    return replace(nets, nets=tuple(best), training=training, validation=validation, base=None)


def save_nets(nets: TrainedNets, path: Path, *, overwrite: bool = True) -> None:
    """Write nets to one ``.safetensors`` file."""
    tensors: dict[str, npt.NDArray[Any]] = {"whitening": nets.whitening}
    sets = {}
    for side in SIDES:
        kept = getattr(nets, side)
        if kept is not None:
            packed, sets[side] = pack_patch_set(kept)
            packed["patches"] = packed["patches"].astype(np.float16)
            tensors |= {f"{side}/{name}": array for name, array in packed.items()}
    for index, net in enumerate(nets.nets):
        for part in ("best", "last", "optimiser"):
            for name, array in getattr(net, part).items():
                tensors[f"{index}/{part}/{name}"] = array
    card = {
        "config": asdict(nets.config),
        "complete": nets.complete,
        **sets,
        "nets": [
            {"done": net.done, "history": [dict(h) for h in net.history]} for net in nets.nets
        ],
    }
    save_container(path, KIND, tensors, card, overwrite=overwrite)


def load_nets(path: Path) -> TrainedNets:
    """Read nets; DefocusError where the file holds none, or is not whole."""
    tensors, card = load_container(path, KIND)
    parts: dict[str, dict[str, npt.NDArray[Any]]] = {}
    for name, array in tensors.items():
        part, _, field = name.rpartition("/")
        parts.setdefault(part, {})[field] = array
    try:
        nets = tuple(
            TrainedNet(
                best=_numbers(parts[f"{index}/best"]),
                last=_numbers(parts[f"{index}/last"]),
                optimiser=_numbers(parts.get(f"{index}/optimiser", {})),
                history=tuple(_read_epoch(epoch) for epoch in record["history"]),
                done=record["done"],
            )
            for index, record in enumerate(card["nets"])
        )
        sides = {
            side: unpack_patch_set(path, parts[side], card[side]) for side in SIDES if side in card
        }
        config = read_settings(TrainingConfig, card["config"])
        trained = TrainedNets(nets, as_floats(tensors["whitening"]), config, **sides)
    except DefocusError:
        raise
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DefocusError(f"{path}: not a whole set of nets ({brief(error)})") from error
    if not _fits(trained):
        raise DefocusError(f"{path}: the parts of the nets do not fit each other")
    return trained


def _numbers(weights: Weights) -> Weights:
    """Check that all are finite numbers; their types stay."""
    for array in weights.values():
        as_floats(array)
    return weights


def _read_epoch(epoch: Any) -> Mapping[str, float]:
    for name in SCORES:
        if not (type(epoch[name]) in (int, float) and math.isfinite(epoch[name])):
            raise TypeError(f"the {name} of an epoch is no number")
    if not 0 <= epoch["accuracy"] <= 1:
        raise ValueError("an accuracy is not in [0, 1]")
    return dict(epoch)


def _fits(trained: TrainedNets) -> bool:
    config, first = trained.config, trained.nets[0].best if trained.nets else {}
    pixels = config.kernel_size**2
    if trained.whitening.shape != (pixels, pixels):
        return False
    sides = [trained.training, trained.validation] + ([trained.base] if trained.base else [])
    if any(side.config.size != trained.training.config.size for side in sides):
        return False
    if any(0 in side.counts().values() for side in sides):
        return False
    shapes = net_shapes(config, trained.training.config.size)
    # Adam keeps its step and two moments of each weight that is learnt.
    learnt = [shape for name, shape in shapes.items() if name.endswith((".weight", ".bias"))]
    state: dict[str, tuple[int, ...]] = {}
    for index, shape in enumerate(learnt):
        state |= {f"{index}.exp_avg": shape, f"{index}.exp_avg_sq": shape, f"{index}.step": ()}
    return bool(first) and all(
        _shapes(net.best) == _shapes(net.last) == shapes
        and type(net.done) is bool
        and len(net.history) > 0
        and (_shapes(net.optimiser) == state or (net.done and not net.optimiser))
        for net in trained.nets
    )


def net_shapes(config: TrainingConfig, patch: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a net's weights by name, in the order of the net: see `network`."""
    kernels, pixels = config.kernels, config.kernel_size**2
    side = ((patch - config.kernel_size - 1) // 2 - 4) // 2
    return {
        "normalise.running_mean": (1,),
        "normalise.running_var": (1,),
        "normalise.num_batches_tracked": (),
        "first.weight": (kernels, pixels),
        "first.whitening": (pixels, pixels),
        "features.1.weight": (8, 2 * kernels, 3, 3),
        "features.1.bias": (8,),
        "features.4.weight": (16, 16, 3, 3),
        "features.4.bias": (16,),
        "features.6.weight": (16, 32, 3, 3),
        "features.6.bias": (16,),
        "classify.weight": (2, 32 * side**2),
        "classify.bias": (2,),
    }


def _shapes(weights: Weights) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in weights.items()}
