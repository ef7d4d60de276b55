"""Train several patch ConvNets; stop early, stop on request, go on later.

The module itself imports no torch; `train` does.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_defocus.annotation import SHARP
from napari_defocus.container import load_container, save_container
from napari_defocus.errors import DefocusError
from napari_defocus.events import Event, OnEvent, ShouldStop, ignore_event, never_stop
from napari_defocus.patches import PatchSet, require_both_classes, split_patch_set
from napari_defocus.whitening import whitening_matrix, window_covariance

if TYPE_CHECKING:
    import torch

    from napari_defocus.network import PatchNet

KIND = "nets"
DEVICES = ("auto", "cpu", "cuda", "mps")
Weights = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class TrainingConfig:
    """How nets are trained; the paper publishes none of these figures.

    Parameters
    ----------
    nets : int
        Number of nets, each from its own random start.
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
    learning_rate : float
        Of Adam.
    l1, decay : float
        Weights of the sum of absolute values and of the sum of squares of the first layer's
        kernels in the loss: kernels that do not help fade away and leave the PCA to those that do.
    validation : float
        Share of the patches held out, by image.
    seed : int
        Same seed, same machine: same nets.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``mps``.
    """

    nets: int = 4
    kernels: int = 16
    kernel_size: int = 7
    epochs: int = 20
    patience: int = 4
    batch: int = 64
    learning_rate: float = 2e-3
    l1: float = 5e-3
    decay: float = 1e-3
    validation: float = 0.25
    seed: int = 0
    device: str = "auto"


@dataclass(frozen=True)
class TrainedNet:
    """One net: its best weights, and its last ones with the optimiser's state to go on from.

    Parameters
    ----------
    best, last, optimiser : mapping of str to ndarray
        Weights after the best and the last epoch, and Adam's state.
    history : tuple of mapping
        ``train_loss``, ``loss`` and ``accuracy`` (held out) of each epoch.
    done : bool
        Whether training ended by itself.
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
    """The outcome of training.

    Parameters
    ----------
    nets : tuple of TrainedNet
        At least one.
    whitening : ndarray of float32, (size^2, size^2)
        The matrix in front of the first layer, see `whitening`.
    config : TrainingConfig
        How they were trained.
    """

    nets: tuple[TrainedNet, ...]
    whitening: npt.NDArray[np.float32]
    config: TrainingConfig

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


def train(
    patch_set: PatchSet,
    config: TrainingConfig | None = None,
    *,
    resume: TrainedNets | None = None,
    on_event: OnEvent = ignore_event,
    should_stop: ShouldStop = never_stop,
) -> TrainedNets | None:
    """Train nets to tell blurred patches from sharp ones.

    Parameters
    ----------
    patch_set : PatchSet
        With both classes; balanced and split here.
    config : TrainingConfig, optional
        How to train.
    resume : TrainedNets, optional
        An earlier, stopped outcome of the same patch set and settings to go on from; the result
        is the same as if it had never stopped.
    on_event : callable
        Told after each epoch: values ``train_loss``, ``loss``, ``accuracy``.
    should_stop : callable
        Asked before each batch; the epoch under way is dropped, the best so far kept.

    Returns
    -------
    TrainedNets or None
        None where it was stopped before the first epoch ended.

    Raises
    ------
    DefocusError
        Where a class lacks patches, patches are too small, or the device is not there.
    """
    config = config or TrainingConfig()
    _check(patch_set, config)
    if resume is not None and replace(resume.config, device=config.device) != config:
        raise DefocusError(
            f"the nets to go on from were trained with {resume.config}, not with {config}; "
            "give the same settings or start anew"
        )
    training, validation = split_patch_set(patch_set.balanced(config.seed), config.validation)
    require_both_classes(training)
    require_both_classes(validation, least=1)
    if resume is None:
        covariance = window_covariance(training.patches, config.kernel_size, config.seed)
        whitening = whitening_matrix(covariance).astype(np.float32)
    else:
        whitening = resume.whitening
    nets = list(resume.nets) if resume else []
    run = _Run(training, validation, whitening, config, on_event, should_stop)
    for index in range(config.nets):
        earlier = nets[index] if index < len(nets) else None
        if earlier is not None and earlier.done:
            continue
        net = run.train_net(index, earlier)
        nets[index : index + 1] = [net] if net is not None else []
        if net is None or not net.done:
            break
    return TrainedNets(tuple(nets), whitening, config) if nets else None


def _check(patch_set: PatchSet, config: TrainingConfig) -> None:
    if config.kernel_size % 2 == 0 or config.kernel_size < 3:
        raise DefocusError(f"the kernel size is {config.kernel_size}; give an odd one of 3 or more")
    for name in ("nets", "kernels", "epochs", "patience", "batch"):
        if getattr(config, name) < 1:
            raise DefocusError(f"{name} is {getattr(config, name)}; give 1 or more")
    # What two more layers of 3 x 3 and two halvings need behind the first layer.
    least = config.kernel_size + 13
    if patch_set.config.size < least:
        raise DefocusError(
            f"patches of {patch_set.config.size} pixels are too small for kernels of "
            f"{config.kernel_size}: cut them with at least {least}"
        )
    require_both_classes(patch_set)


def choose_device(name: str = "auto") -> "torch.device":
    """Give the torch device of a name; ``auto`` prefers CUDA, then MPS, then the CPU.

    Raises
    ------
    DefocusError
        Where the device is unknown or not there.
    """
    import torch

    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.mps.is_available()}
    if name == "auto":
        return torch.device(next(device for device in ("cuda", "mps", "cpu") if there[device]))
    if not there.get(name, False):
        raise DefocusError(f"device {name!r} is not there; choose one of {', '.join(DEVICES)}")
    return torch.device(name)


class _Run:
    """What the nets of one training share."""

    def __init__(
        self,
        training: PatchSet,
        validation: PatchSet,
        whitening: npt.NDArray[np.float32],
        config: TrainingConfig,
        on_event: OnEvent,
        should_stop: ShouldStop,
    ) -> None:
        import torch

        self.device = choose_device(config.device)
        self.config = config
        self.on_event = on_event
        self.should_stop = should_stop
        self.whitening = torch.from_numpy(whitening)
        self.patch_size = training.config.size
        self.training = self._tensors(training)
        self.validation = self._tensors(validation)

    def _tensors(self, patch_set: PatchSet) -> "tuple[torch.Tensor, torch.Tensor]":
        import torch

        patches = torch.from_numpy(np.ascontiguousarray(patch_set.patches))[:, None]
        labels = torch.from_numpy((patch_set.labels == SHARP).astype(np.int64))
        return patches.to(self.device), labels.to(self.device)

    def train_net(self, index: int, earlier: TrainedNet | None) -> TrainedNet | None:
        """Train net `index`, from its random start or from where `earlier` stopped."""
        import torch

        net, optimiser = self._start(index)
        history: list[Mapping[str, float]] = []
        best: Weights = {}
        if earlier is not None:
            history, best = list(earlier.history), earlier.best
            net.load_state_dict(_to_torch(earlier.last))
            _load_optimiser(optimiser, earlier.optimiser)
        while not self._ended(history):
            epoch = len(history)
            # Its own source of chance for each epoch: going on repeats what would have been.
            chance = torch.Generator().manual_seed(self._seed(index, epoch))
            train_loss = self._epoch(net, optimiser, chance)
            if train_loss is None:
                break
            loss, accuracy = self._validate(net)
            history.append({"train_loss": train_loss, "loss": loss, "accuracy": accuracy})
            if loss <= min(h["loss"] for h in history):
                best = _to_numpy(net.state_dict())
            self._report(index, history)
        if not history:
            return None
        return TrainedNet(
            best=best,
            last=_to_numpy(net.state_dict()),
            optimiser=_save_optimiser(optimiser),
            history=tuple(history),
            done=self._ended(history),
        )

    def _seed(self, index: int, epoch: int) -> int:
        return int(np.random.SeedSequence([self.config.seed, index, epoch]).generate_state(1)[0])

    def _start(self, index: int) -> "tuple[PatchNet, torch.optim.Adam]":
        import torch

        from napari_defocus.network import PatchNet

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed(index, self.config.epochs))
            net = PatchNet(self.config.kernels, self.whitening, self.patch_size)
        net.to(self.device)
        return net, torch.optim.Adam(net.parameters(), lr=self.config.learning_rate)

    def _ended(self, history: list[Mapping[str, float]]) -> bool:
        if len(history) >= self.config.epochs:
            return True
        losses = [epoch["loss"] for epoch in history]
        return bool(losses) and len(losses) - 1 - int(np.argmin(losses)) >= self.config.patience

    def _epoch(
        self, net: "PatchNet", optimiser: "torch.optim.Adam", chance: "torch.Generator"
    ) -> float | None:
        import torch
        from torch.nn import functional

        net.train()
        patches, labels = self.training
        order = torch.randperm(len(labels), generator=chance)
        losses = []
        before = _to_numpy(net.state_dict()), _save_optimiser(optimiser)
        for batch in torch.split(order, self.config.batch):
            if self.should_stop():
                net.load_state_dict(_to_torch(before[0]))
                _load_optimiser(optimiser, before[1])
                return None
            x = _turn(patches[batch.to(self.device)], chance)
            loss = functional.cross_entropy(net(x), labels[batch.to(self.device)])
            kernels = net.first.weight
            penalty = (
                self.config.l1 * kernels.abs().sum() + self.config.decay * kernels.square().sum()
            )
            optimiser.zero_grad()
            (loss + penalty).backward()
            optimiser.step()
            losses.append(loss.detach())
        return float(torch.stack(losses).mean())

    def _validate(self, net: "PatchNet") -> tuple[float, float]:
        import torch
        from torch.nn import functional

        net.eval()
        patches, labels = self.validation
        with torch.no_grad():
            logits = torch.cat([net(part) for part in torch.split(patches, 512)])
        loss = functional.cross_entropy(logits, labels)
        accuracy = (logits.argmax(1) == labels).float().mean()
        return float(loss), float(accuracy)

    def _report(self, index: int, history: list[Mapping[str, float]]) -> None:
        epochs = self.config.epochs
        self.on_event(
            Event(
                stage=f"training net {index + 1} of {self.config.nets}",
                done=index * epochs + len(history),
                total=self.config.nets * epochs,
                values=history[-1],
            )
        )


def _turn(patches: "torch.Tensor", chance: "torch.Generator") -> "torch.Tensor":
    """Turn and mirror a batch: blur has no preferred direction."""
    import torch

    turn = int(torch.randint(8, (1,), generator=chance))
    turned = torch.rot90(patches, turn % 4, (2, 3))
    return turned.flip(3) if turn >= 4 else turned


def _to_numpy(state: "Mapping[str, torch.Tensor]") -> dict[str, npt.NDArray[Any]]:
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in state.items()}


def _to_torch(weights: Weights) -> "dict[str, torch.Tensor]":
    import torch

    return {name: torch.from_numpy(np.array(array)) for name, array in weights.items()}


def _save_optimiser(optimiser: "torch.optim.Adam") -> dict[str, npt.NDArray[Any]]:
    return {
        f"{index}.{name}": tensor.detach().cpu().numpy().copy()
        for index, state in optimiser.state_dict()["state"].items()
        for name, tensor in state.items()
    }


def _load_optimiser(optimiser: "torch.optim.Adam", saved: Weights) -> None:
    state: dict[int, dict[str, Any]] = {}
    for name, tensor in _to_torch(saved).items():
        index, field = name.split(".", 1)
        state.setdefault(int(index), {})[field] = tensor
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})


def save_nets(nets: TrainedNets, path: Path, *, overwrite: bool = True) -> None:
    """Write nets to one ``.safetensors`` file.

    Raises
    ------
    DefocusError
        Where the file cannot be written.
    """
    tensors: dict[str, npt.NDArray[Any]] = {"whitening": nets.whitening}
    for index, net in enumerate(nets.nets):
        for part in ("best", "last", "optimiser"):
            for name, array in getattr(net, part).items():
                tensors[f"{index}/{part}/{name}"] = array
    card = {
        "config": asdict(nets.config),
        "complete": nets.complete,
        "nets": [
            {"done": net.done, "history": [dict(h) for h in net.history]} for net in nets.nets
        ],
    }
    save_container(path, KIND, tensors, card, overwrite=overwrite)


def load_nets(path: Path) -> TrainedNets:
    """Read nets.

    Raises
    ------
    DefocusError
        Where the file holds no nets or is not whole.
    """
    tensors, card = load_container(path, KIND)
    parts: dict[str, dict[str, npt.NDArray[Any]]] = {}
    for name, array in tensors.items():
        if name.count("/") == 2:
            index, part, field = name.split("/")
            parts.setdefault(f"{index}/{part}", {})[field] = array
    try:
        nets = tuple(
            TrainedNet(
                best=parts[f"{index}/best"],
                last=parts[f"{index}/last"],
                optimiser=parts[f"{index}/optimiser"],
                history=tuple(record["history"]),
                done=bool(record["done"]),
            )
            for index, record in enumerate(card["nets"])
        )
        trained = TrainedNets(nets, tensors["whitening"], TrainingConfig(**card["config"]))
        trained.kernels.reshape(-1, trained.config.kernel_size**2)
    except (KeyError, TypeError, ValueError) as error:
        raise DefocusError(f"{path}: not a whole set of nets ({error})") from error
    return trained
