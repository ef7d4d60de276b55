"""Train several patch ConvNets; stop early, stop on request, go on later.

The module itself imports no torch; `train` does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_defocus.core.devices import choose_device
from napari_defocus.core.errors import DefocusError, check_range
from napari_defocus.core.progress import Event, OnEvent, ShouldStop, ignore_event, never_stop
from napari_defocus.labels.classes import SHARP
from napari_defocus.metric.nets import (
    TrainedNet,
    TrainedNets,
    TrainingConfig,
    Weights,
    load_base,
)
from napari_defocus.metric.patches import PatchSet, require_both_classes, split_patch_set
from napari_defocus.metric.whitening import whitening_matrix, window_covariance

if TYPE_CHECKING:
    import torch

    from napari_defocus.metric.network import PatchNet

# Patches of either side that are kept with the nets.
KEPT_PATCHES = 1000


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
        Where a class lacks patches, patches are too small, the device is not there, or a net
        diverges.
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
    base = load_base(config)
    _check_patch_size(patch_set, base)
    earlier_nets = resume or base
    if earlier_nets is None:
        covariance = window_covariance(training.patches, config.kernel_size, config.seed)
        whitening = whitening_matrix(covariance).astype(np.float32)
    else:
        whitening = earlier_nets.whitening
    nets = list(resume.nets) if resume else []
    starts = [net.best for net in base.nets] if base else []
    run = _Run(training, validation, whitening, starts, config, on_event, should_stop)
    for index in range(config.nets):
        earlier = nets[index] if index < len(nets) else None
        if earlier is not None and earlier.done:
            continue
        net = run.train_net(index, earlier)
        nets[index : index + 1] = [net] if net is not None else []
        if net is None or not net.done:
            break
    if not nets:
        return None
    return TrainedNets(
        tuple(nets),
        whitening,
        config,
        training=_kept(training, config.seed),
        validation=_kept(validation, config.seed),
        base=base.training if base else None,
    )


def _kept(side: PatchSet, seed: int) -> PatchSet:
    """Draw the patches that stay with the nets, in the precision of their file."""
    kept = side.sample(KEPT_PATCHES, seed)
    return replace(kept, patches=kept.patches.astype(np.float16).astype(np.float32))


def _check_patch_size(patch_set: PatchSet, base: TrainedNets | None) -> None:
    if base is not None and base.training.config.size != patch_set.config.size:
        raise DefocusError(
            f"the base nets see patches of {base.training.config.size} pixels, these have "
            f"{patch_set.config.size}; cut them alike, or start from no base ('none')"
        )


def _check(patch_set: PatchSet, config: TrainingConfig) -> None:
    check_kernel_size(config.kernel_size)
    check_split(config)
    for name in ("nets", "kernels", "epochs", "patience", "batch"):
        check_range(name, getattr(config, name), 1)
    for name in ("learning_rate", "l1", "decay"):
        check_range(name, getattr(config, name), 0)
    # What two more layers of 3 x 3 and two halvings need behind the first layer.
    least = config.kernel_size + 13
    if patch_set.config.size < least:
        raise DefocusError(
            f"patches of {patch_set.config.size} pixels are too small for kernels of "
            f"{config.kernel_size}: cut them with at least {least}"
        )
    require_both_classes(patch_set)


def check_split(config: TrainingConfig) -> None:
    """Raise where patches cannot be held out by the share or the seed of `config`.

    Raises
    ------
    DefocusError
        Naming the setting.
    """
    check_range("validation", config.validation, 0, 1)
    check_range("seed", config.seed, 0)


def check_kernel_size(size: int) -> None:
    """Raise where kernels of side `size` have no middle, or none but one pixel.

    Raises
    ------
    DefocusError
        Where `size` is even or below 3.
    """
    if size % 2 == 0 or size < 3:
        raise DefocusError(f"the kernel size is {size}; give an odd one of 3 or more")


class _Run:
    """What the nets of one training share."""

    def __init__(
        self,
        training: PatchSet,
        validation: PatchSet,
        whitening: npt.NDArray[np.float32],
        starts: Sequence[Weights],
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
        self.starts = starts
        self.patch_size = training.config.size
        self.training = self._tensors(training)
        self.validation = self._tensors(validation)

    def _tensors(self, patch_set: PatchSet) -> "tuple[torch.Tensor, torch.Tensor]":
        import torch

        patches = torch.from_numpy(np.ascontiguousarray(patch_set.patches))[:, None]
        labels = torch.from_numpy((patch_set.labels == SHARP).astype(np.int64))
        return patches.to(self.device), labels.to(self.device)

    def train_net(self, index: int, earlier: TrainedNet | None) -> TrainedNet | None:
        """Train net `index`, from its start or from where `earlier` stopped."""
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
            if not np.isfinite(loss):
                raise DefocusError(
                    f"training net {index + 1} diverged; "
                    f"give a learning rate below {self.config.learning_rate}"
                )
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

        from napari_defocus.metric.network import PatchNet

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed(index, self.config.epochs))
            net = PatchNet(self.config.kernels, self.whitening, self.patch_size)
        if self.starts:
            net.load_state_dict(_to_torch(self.starts[index % len(self.starts)]))
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
