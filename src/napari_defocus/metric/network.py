"""The patch ConvNet: VGG-like, normalised input, CReLU, one fully connected layer, two classes.

Zeng et al., IEEE TIP 28(5), 2019; the number of layers and channels is not in the texts at hand,
and ours. So is the whitening in front of the first layer. This module imports torch.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_defocus.core.devices import choose_device
from napari_defocus.core.errors import DefocusError
from napari_defocus.core.progress import Event, OnEvent, ShouldStop
from napari_defocus.labels.classes import SHARP
from napari_defocus.metric.nets import TrainedNet, TrainingConfig, Weights
from napari_defocus.metric.patches import PatchSet

# First-layer kernels start this small: what the random start leaves in them does not fade by
# itself, and would be most of their variance.
START = 0.2


class CReLU(nn.Module):
    """Both signs of a response, rectified (Shang et al., ICML 2016): doubles the channels."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, Y, X) to (N, 2 C, Y, X)."""
        return torch.cat([functional.relu(x), functional.relu(-x)], dim=1)


class WhitenedConv2d(nn.Module):
    """A convolution whose kernels live in whitened space: ``W k`` is what meets the pixels."""

    whitening: Tensor

    def __init__(self, kernels: int, whitening: Tensor) -> None:
        super().__init__()
        self.register_buffer("whitening", whitening)
        scale = START * whitening.shape[0] ** -0.5
        self.weight = nn.Parameter(scale * torch.randn(kernels, whitening.shape[0]))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 1, Y, X) to (N, kernels, Y - size + 1, X - size + 1)."""
        size = round(self.whitening.shape[0] ** 0.5)
        folded = (self.weight @ self.whitening).reshape(-1, 1, size, size)
        return functional.conv2d(x, folded)


class PatchNet(nn.Module):
    """Classify patches of a side; the kernels of the first layer become the metric."""

    def __init__(self, kernels: int, whitening: Tensor, patch: int) -> None:
        super().__init__()
        self.normalise = nn.BatchNorm2d(1, affine=False)
        self.first = WhitenedConv2d(kernels, whitening)
        self.features = nn.Sequential(
            CReLU(),
            nn.Conv2d(2 * kernels, 8, 3),
            CReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 16, 3),
            CReLU(),
            nn.Conv2d(32, 16, 3),
            CReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
        )
        with torch.no_grad():
            width = self.features(self.first(torch.zeros(1, 1, patch, patch))).shape[1]
        self.classify = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map patches (N, 1, s, s) to logits (N, 2): blurred, sharp."""
        logits: Tensor = self.classify(self.features(self.first(self.normalise(x))))
        return logits


class NetTraining:
    """Training of several nets on the same patches, in turn from `starts`, if any; see `train`."""

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
        self.device = choose_device(config.device)
        self.config = config
        self.on_event = on_event
        self.should_stop = should_stop
        self.whitening = torch.from_numpy(whitening)
        self.starts = starts
        self.patch_size = training.config.size
        self.training = self._tensors(training)
        self.validation = self._tensors(validation)

    def _tensors(self, patch_set: PatchSet) -> tuple[Tensor, Tensor]:
        patches = torch.from_numpy(np.ascontiguousarray(patch_set.patches))[:, None]
        labels = torch.from_numpy((patch_set.labels == SHARP).astype(np.int64))
        return patches.to(self.device), labels.to(self.device)

    def train_net(self, index: int, earlier: TrainedNet | None) -> TrainedNet | None:
        """Train net `index`, from its start or from where `earlier` stopped."""
        net, optimiser = self._start(index)
        history: list[Mapping[str, float]] = []
        best: Weights = {}
        last, moments = best, best
        if earlier is not None:
            history, best = list(earlier.history), earlier.best
            last, moments = earlier.last, earlier.optimiser
            net.load_state_dict(_to_torch(last))
            _load_optimiser(optimiser, moments)
        while not self._ended(history):
            # Its own source of chance for each epoch: going on repeats what would have been.
            chance = torch.Generator().manual_seed(self._seed(index, len(history)))
            train_loss = self._epoch(net, optimiser, chance)
            if train_loss is None:
                break
            loss, accuracy = self._validate(net)
            if not np.isfinite(loss):
                raise DefocusError(
                    f"training net {index + 1} diverged; "
                    f"give a learning rate below {self.config.rate}"
                )
            history.append({"train_loss": train_loss, "loss": loss, "accuracy": accuracy})
            last, moments = _to_numpy(net.state_dict()), _save_optimiser(optimiser)
            if loss <= min(h["loss"] for h in history):
                best = last
            epochs, nets = self.config.epochs, self.config.nets
            steps = index * epochs + len(history), nets * epochs
            self.on_event(Event(f"training net {index + 1} of {nets}", *steps, history[-1]))
        return (
            TrainedNet(best, last, moments, tuple(history), self._ended(history)) if best else None
        )

    def _seed(self, index: int, epoch: int) -> int:
        return int(np.random.SeedSequence([self.config.seed, index, epoch]).generate_state(1)[0])

    def _start(self, index: int) -> tuple[PatchNet, torch.optim.Adam]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed(index, self.config.epochs))
            net = PatchNet(self.config.kernels, self.whitening, self.patch_size)
        if self.starts:
            net.load_state_dict(_to_torch(self.starts[index % len(self.starts)]))
        net.to(self.device)
        return net, torch.optim.Adam(net.parameters(), lr=self.config.rate)

    def _ended(self, history: Sequence[Mapping[str, float]]) -> bool:
        if len(history) >= self.config.epochs:
            return True
        losses = [epoch["loss"] for epoch in history]
        return bool(losses) and len(losses) - 1 - int(np.argmin(losses)) >= self.config.patience

    def _epoch(
        self, net: PatchNet, optimiser: torch.optim.Adam, chance: torch.Generator
    ) -> float | None:
        """Pass over the training patches; return the mean loss, None where it was stopped."""
        net.train()
        patches, labels = self.training
        losses = []
        for batch in torch.split(torch.randperm(len(labels), generator=chance), self.config.batch):
            if self.should_stop():
                return None
            x = patches[batch.to(self.device)]
            x = _turn(x, chance) if self.config.turn else x
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

    def _validate(self, net: PatchNet) -> tuple[float, float]:
        net.eval()
        patches, labels = self.validation
        with torch.no_grad():
            logits = torch.cat([net(part) for part in torch.split(patches, 512)])
        accuracy = (logits.argmax(1) == labels).float().mean()
        return float(functional.cross_entropy(logits, labels)), float(accuracy)


def _turn(patches: Tensor, chance: torch.Generator) -> Tensor:
    """Turn and mirror a batch: blur has no preferred direction."""
    turn = int(torch.randint(8, (1,), generator=chance))
    turned = torch.rot90(patches, turn % 4, (2, 3))
    return turned.flip(3) if turn >= 4 else turned


def _to_numpy(state: Mapping[str, Tensor]) -> dict[str, npt.NDArray[Any]]:
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in state.items()}


def _to_torch(weights: Weights) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.array(array)) for name, array in weights.items()}


def _save_optimiser(optimiser: torch.optim.Adam) -> dict[str, npt.NDArray[Any]]:
    moments = optimiser.state_dict()["state"].items()
    return _to_numpy({f"{i}.{name}": x for i, state in moments for name, x in state.items()})


def _load_optimiser(optimiser: torch.optim.Adam, saved: Weights) -> None:
    state: dict[int, dict[str, Any]] = {}
    for name, tensor in _to_torch(saved).items():
        index, field = name.split(".", 1)
        state.setdefault(int(index), {})[field] = tensor
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
