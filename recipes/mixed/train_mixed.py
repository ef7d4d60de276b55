"""Train the dense network on rendered views, microscope images, annotated photos and focus stacks.

    python train_mixed.py PICTURES WEIGHTS OUT --seconds 240 [--runs no_szu pseudo all]

PICTURES is the folder that `prepare_pictures.py` wrote, WEIGHTS the dense detector to start from.
OUT gets RUN.npz (weights in half precision) for each run, and log.json.

Worker processes render views while the device trains; every run ends in time. Each batch holds
some crops of each kind (`GROUPS`); annotated photos are used at several scales. AdamW, one cycle
over each run's time, moving average of the weights.
"""

import argparse
import json
import multiprocessing
import threading
import time
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from render_views import Sources, View, render_view
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional

from napari_defocus.dense.detector import RADIUS_OFFSET, load_dense
from napari_defocus.dense.inference import LEAST_CONTRAST
from napari_defocus.dense.network import DenseNet
from napari_defocus.dense.on_device import build_network
from napari_defocus.dense.training import ERROR_RANGE

SIZE, CROP = 384, 320
# The part of a microscope image that its blur width is measured on.
WINDOW = 320
# Scales at which annotated photos are used, and how often.
SCALES = {0.65: 0.1, 0.85: 0.15, 1.0: 0.4, 1.2: 0.2, 1.45: 0.15}
# Crops of a batch, and the weight of a kind's loss.
GROUPS = {
    "szu": (14, 1.0),
    "scene": (16, 1.0),
    "micro": (12, 0.8),
    "stack": (4, 0.4),
    "pseudo": (6, 0.3),
}
# Share of a run after which the averaged weights label photos without masks (pseudo labels), where
# they are this certain.
TEACH_FROM, CERTAIN = 0.4, 0.93
# Steps that do not count for the clock.
WARM_UP = 3


@dataclass
class Run:
    """One training: its kinds of crops, its share of the time, and its seed."""

    name: str
    share: float
    groups: tuple[str, ...]
    seed: int
    after: str = ""
    rate: float = 5e-4


# The later runs begin where the one without annotated photos ended.
RUNS = {
    "no_szu": Run("no_szu", 0.27, ("scene", "micro", "stack"), 3),
    "pseudo": Run("pseudo", 0.40, ("szu", "scene", "micro", "stack", "pseudo"), 2, "no_szu"),
    "all": Run("all", 0.33, ("szu", "scene", "micro", "stack"), 1, "no_szu"),
}


class Store:
    """Images of one size on the device, with label and radius, filled from the front."""

    def __init__(self, count: int, rows: int, columns: int, device: str) -> None:
        self.images = torch.zeros(count, rows, columns, 3, dtype=torch.uint8, device=device)
        self.label = torch.full((count, rows, columns), -1, dtype=torch.int8, device=device)
        self.radius = torch.full(
            (count, rows, columns), float("nan"), dtype=torch.float16, device=device
        )
        self.tone = torch.zeros(count, 2, device=device)
        self.size = torch.tensor([[rows, columns]] * count, device=device)
        self.count, self.capacity = 0, count

    def add(self, image: np.ndarray, label: np.ndarray, radius: np.ndarray | None = None) -> None:
        """Add an image; a smaller one is extended by mirroring, without labels there."""
        place, (rows, columns) = self.count, self.images.shape[1:3]
        short = ((0, rows - image.shape[0]), (0, columns - image.shape[1]))
        given = torch.from_numpy(np.array(image)).to(self.images.device)
        values = given.float() / 255
        self.tone[place, 0], self.tone[place, 1] = values.mean(), values.std()
        if any(after for _, after in short):
            given = torch.from_numpy(np.pad(image, (*short, (0, 0)), mode="symmetric"))
        self.images[place] = given.to(self.images.device)
        self.label[place, : label.shape[0], : label.shape[1]] = torch.from_numpy(label).to(
            self.label.device
        )
        if radius is not None:
            self.radius[place] = torch.from_numpy(radius).to(self.radius.device)
        self.size[place] = torch.tensor([max(image.shape[0], CROP), max(image.shape[1], CROP)])
        self.count += 1

    def crops(self, indices: Tensor, crop: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return random crops: images (N, 3, Y, X) in [0, 1], labels and radii (N, Y, X)."""
        room = (self.size[indices] - crop).clamp(min=0)
        start = (torch.rand(len(indices), 2, device=room.device) * (room + 1)).long()
        along = torch.arange(crop, device=room.device)
        y, x = start[:, :1, None] + along[None, :, None], start[:, 1:, None] + along[None, None, :]
        n = indices[:, None, None]
        image = self.images[n, y, x].permute(0, 3, 1, 2).float() / 255
        return image, self.label[n, y, x], self.radius[n, y, x].float()


class Exact(nn.Module):
    """A module that computes in single precision, under autocast too."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, image: Tensor) -> Tensor:
        with torch.autocast(image.device.type, enabled=False):
            return self.inner(image.float())


def trainable(network: DenseNet) -> DenseNet:
    """Copy a network; the copy's metric stays in single precision."""
    made = deepcopy(network)
    made.response = Exact(made.response)
    return made


def weights_of(network: DenseNet) -> dict[str, np.ndarray]:
    """Return the weights by the names of `DenseNet`."""
    return {
        name.replace(".inner.", "."): value.detach().float().cpu().numpy()
        for name, value in network.state_dict().items()
    }


# Data


def start_rendering(
    pool,
    stores: dict[str, Store],
    pictures: Path,
    most: int,
    stop: threading.Event,
    lock: threading.Lock,
) -> None:
    """Fill the stores of rendered views from a pool, in a thread; two views of five are `micro`."""

    def fill() -> None:
        index, waiting = 0, []
        while not stop.is_set() and (
            waiting or any(store.count < store.capacity for store in stores.values())
        ):
            while len(waiting) < most:
                kind = "micro" if index % 5 in (1, 3) else "scene"
                waiting.append((kind, pool.apply_async(_render, (pictures, kind, index))))
                index += 1
            done = [w for w in waiting if w[1].ready()]
            waiting = [w for w in waiting if not w[1].ready()]
            for kind, result in done:
                if not result.successful():
                    continue  # one view less
                view: View = result.get()
                if stores[kind].count < stores[kind].capacity:
                    with lock:
                        stores[kind].add(view.image, view.label, view.radius)
            time.sleep(0.02)

    threading.Thread(target=fill, daemon=True).start()


def _render(pictures: Path, kind: str, index: int) -> View:
    return render_view(Sources(pictures), kind, SIZE, (int(kind == "micro"), index))


def read_annotated(folder: Path, device: str) -> dict[float, Store]:
    """Read the annotated photos at each scale."""
    paths = sorted((folder / "images").iterdir())
    longest = 512
    stores = {}
    for scale in SCALES:
        side = max(int(longest * scale) + 2, CROP)
        stores[scale] = Store(len(paths), side, side, device)
    for path in paths:
        picture = Image.open(path).convert("RGB")
        mask = (
            Image.open(folder / "masks" / f"{path.stem}.png")
            .convert("L")
            .resize(picture.size, Image.Resampling.NEAREST)
        )
        for scale, store in stores.items():
            size = tuple(round(scale * extent) for extent in picture.size)
            image = np.asarray(
                picture.resize(
                    size, Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.LANCZOS
                )
            )
            blurred = np.asarray(mask.resize(size, Image.Resampling.BILINEAR))
            label = np.where(blurred > 170, 0, np.where(blurred < 85, 1, -1)).astype(np.int8)
            store.add(image, label)
    return stores


def read_stacks(folder: Path, device: str) -> Store:
    paths = sorted(folder.glob("*.jpg"))
    store = Store(len(paths), 800, 800, device)
    for path in paths:
        labels = np.asarray(Image.open(path.with_suffix(".png")))
        store.add(
            np.asarray(Image.open(path).convert("RGB")), np.array([-1, 0, 1], np.int8)[labels]
        )
    return store


def read_photos(folder: Path, device: str) -> Store:
    paths = sorted(folder.glob("*.webp"))
    store = Store(len(paths), 640, 640, device)
    for path in paths:
        image = np.asarray(Image.open(path).convert("RGB"))
        store.add(image, np.full(image.shape[:2], -1, np.int8))
    return store


@torch.no_grad()
def measure_widths(folder: Path, network: DenseNet, table, device: str) -> None:
    """Write the blur width of each microscope image in focus, as predicted, to ``widths.json``.

    It is the lower quartile of the predicted radius over the structure of the image's middle.
    """
    widths = {}
    for path in sorted((folder / "micro").iterdir()):
        image = np.asarray(Image.open(path).convert("RGB"), np.float32) / 255
        y, x = (max(extent - WINDOW, 0) // 2 for extent in image.shape[:2])
        image = image[y : y + WINDOW, x : x + WINDOW]
        gradient = np.hypot(*np.gradient(ndimage.gaussian_filter(image.mean(axis=2), 1.2)))
        given = (image - image.mean()) / (image.std() + LEAST_CONTRAST)
        given = np.pad(
            given, ((0, -given.shape[0] % 32), (0, -given.shape[1] % 32), (0, 0)), mode="symmetric"
        )
        predicted = network(torch.from_numpy(given.transpose(2, 0, 1)[None].copy()).to(device))
        level = (
            functional.interpolate(predicted, scale_factor=2, mode="bilinear")[0, 1].cpu().numpy()
        )
        radius = np.exp(level[: image.shape[0], : image.shape[1]]) - RADIUS_OFFSET
        quartile = np.quantile(radius[gradient >= np.quantile(gradient, 0.85)], 0.25)
        widths[path.name] = round(
            float(np.interp(quartile, [0, *table["told"]], [0, *table["true"]])), 3
        )
    (folder / "widths.json").write_text(json.dumps(widths))


# Training


def standardised(image: Tensor, tone: Tensor) -> Tensor:
    mean, spread = (tone[:, k, None, None, None] for k in (0, 1))
    return (image - mean) / (spread + LEAST_CONTRAST)


def changed(image: Tensor, real: bool) -> Tensor:
    """Vary images (N, 3, Y, X) in [0, 1]: noise; of real ones, also colours, and some grey."""
    count, device = len(image), image.device

    def some(share: float) -> Tensor:
        return (torch.rand(count, 1, 1, 1, device=device) < share).float()

    if real:
        gains = 1 + 0.08 * torch.randn(count, 3, 1, 1, device=device) * some(0.5)
        image = image * gains
        grey = image.mean(dim=1, keepdim=True)
        share = some(0.15)
        image = share * grey + (1 - share) * image
    sigma = torch.exp(torch.empty(count, 1, 1, 1, device=device).uniform_(0, 3.0)) / 255
    noise = torch.randn_like(image) * sigma * some(0.3 if real else 0.1)
    return image + noise


def turned(parts: tuple[Tensor, ...], upright: bool) -> tuple[Tensor, ...]:
    """Mirror all parts of a batch alike; transpose those that have no upright."""
    if torch.rand(()) < 0.5:
        parts = tuple(part.flip(-1) for part in parts)
    if not upright and torch.rand(()) < 0.5:
        parts = tuple(part.flip(-2) for part in parts)
    if not upright and torch.rand(()) < 0.5:
        parts = tuple(part.transpose(-1, -2) for part in parts)
    return parts


def class_losses(odds: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy over labelled pixels, and 1 - soft IoU.

    The latter is a weighted mean of both classes, over images that have both.
    """
    known, sharp = (label >= 0).float(), (label == 1).float()
    entropy = functional.binary_cross_entropy_with_logits(odds, sharp, reduction="none")
    entropy = (entropy * known).sum() / known.sum().clamp(min=1)
    p = odds.sigmoid() * known
    blurred = known - sharp
    q = known - p
    losses = []
    for predicted, true in ((p, sharp), (q, blurred)):
        both = (predicted * true).sum(dim=(1, 2))
        either = predicted.sum(dim=(1, 2)) + true.sum(dim=(1, 2)) - both
        losses.append(1 - both / either.clamp(min=1))
    mixed = ((sharp.sum(dim=(1, 2)) > 500) & (blurred.sum(dim=(1, 2)) > 500)).float()
    overlap = ((0.6 * losses[0] + 0.4 * losses[1]) * mixed).sum() / mixed.sum().clamp(min=1)
    return entropy, overlap


def radius_loss(level: Tensor, log_error: Tensor, radius: Tensor) -> Tensor:
    """Return the negative Laplace log-likelihood of the radius' logarithm, where it is known."""
    known = torch.isfinite(radius)
    log_error = log_error.clamp(*ERROR_RANGE)
    miss = (level - (torch.nan_to_num(radius) + RADIUS_OFFSET).log()).abs()
    likelihood = (miss * (-log_error).exp() + log_error) * known
    return likelihood.sum() / known.sum().clamp(min=1)


class Mix:
    """Draws batches of all kinds."""

    def __init__(
        self, rendered: dict[str, Store], szu: dict[float, Store], stacks: Store, photos: Store
    ) -> None:
        self.rendered, self.szu, self.stacks, self.photos = rendered, szu, stacks, photos
        self.device = str(stacks.images.device)
        self.rng = np.random.default_rng(0)

    def draw(self, kind: str, count: int, crop: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return images in [0, 1], their tone (mean, spread), labels and radii."""
        if kind == "szu":
            scale = float(self.rng.choice(list(SCALES), p=list(SCALES.values())))
            store = self.szu[scale]
        else:
            store = {"stack": self.stacks, "pseudo": self.photos, **self.rendered}[kind]
        indices = torch.randint(store.count, (count,), device=self.device)
        parts = turned(store.crops(indices, crop), upright=kind in ("szu", "pseudo", "scene"))
        return parts[0], store.tone[indices], parts[1], parts[2]


def quickest_layout(start: DenseNet, options) -> torch.memory_format:
    """Time steps with channels last and with channels first; return the quicker layout."""
    times = {}
    for layout in (torch.channels_last, torch.contiguous_format):
        model = trainable(start).to(options.device).to(memory_format=layout)
        model.requires_grad_(True)
        count = max(1, round(49 * options.batch_share))
        image = torch.randn(count, 3, options.crop, options.crop, device=options.device).to(
            memory_format=layout
        )
        for _ in range(3):
            began = time.time()
            with torch.autocast(options.device, torch.bfloat16, enabled=options.device == "cuda"):
                predicted = model(image)
            predicted.float().square().mean().backward()
            predicted.sum().item()
            times[layout] = time.time() - began
        print(layout, round(times[layout], 4), flush=True)
    return min(times, key=times.get)


def save(model: DenseNet, path: Path) -> None:
    np.savez(path, **{name: value.astype(np.float16) for name, value in weights_of(model).items()})


def train(run: Run, begin: DenseNet, mix: Mix, seconds: float, options, lock, report) -> DenseNet:
    """Train for a number of seconds; return the network of averaged weights."""
    torch.manual_seed(run.seed)
    mix.rng = np.random.default_rng(run.seed)
    device, fast = options.device, options.device == "cuda"
    model = deepcopy(begin).to(device).to(memory_format=options.layout)
    model.requires_grad_(True)
    mean = deepcopy(model).requires_grad_(False)
    backbone = list(model.backbone.parameters())
    others = [p for name, p in model.named_parameters() if not name.startswith("backbone.")]
    optimiser = torch.optim.AdamW(
        [{"params": backbone, "share": 0.5}, {"params": others, "share": 1.0}],
        lr=run.rate,
        weight_decay=1e-3,
        fused=fast,
    )
    began, step, sums, saved = time.time(), 0, {}, False
    while (passed := (time.time() - began) / seconds) < 1 and step < options.steps:
        if step == WARM_UP:  # the first steps of each shape take a device seconds
            seconds, began = seconds - (time.time() - began), time.time()
            passed = 0.0
        rate = run.rate * min(1, (step + 1) / 60) * (0.5 * (1 + np.cos(np.pi * passed)) + 0.005)
        for group in optimiser.param_groups:
            group["lr"] = group["share"] * rate
        counts = {k: max(1, round(GROUPS[k][0] * options.batch_share)) for k in run.groups}
        with lock:
            drawn = {k: mix.draw(k, count, options.crop) for k, count in counts.items()}
        if "pseudo" in drawn:
            image, tone, _, radius = drawn["pseudo"]
            with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=fast):
                predicted = mean(standardised(image, tone))[:, :1]
            p = functional.interpolate(predicted.float(), scale_factor=2, mode="bilinear")[
                :, 0
            ].sigmoid()
            label = torch.where(p > CERTAIN, 1, torch.where(p < 1 - CERTAIN, 0, -1))
            drawn["pseudo"] = image, tone, label.to(torch.int8), radius
        images = [
            standardised(changed(image, k in ("szu", "stack", "pseudo")), tone)
            for k, (image, tone, _, _) in drawn.items()
        ]
        batch = torch.cat(images).contiguous(memory_format=options.layout)
        with torch.autocast(device, torch.bfloat16, enabled=fast):
            predicted = model(batch)
        predicted = predicted.float()
        full = functional.interpolate(
            predicted, scale_factor=2, mode="bilinear", align_corners=False
        )
        loss, place = torch.zeros((), device=device), 0
        for k, (_, _, label, radius) in drawn.items():
            part = slice(place, place + counts[k])
            place += counts[k]
            entropy, overlap = class_losses(full[part, 0], label)
            share = {"szu": 1.0, "scene": 0.5}.get(k, 0.0)
            counted = (
                k != "pseudo" or passed > TEACH_FROM
            )  # drawn all the same: batches keep their shape
            loss = loss + GROUPS[k][1] * counted * (entropy + share * overlap)
            sums[k] = sums.get(k, 0) + torch.stack([entropy, overlap]).detach()
            if k in ("scene", "micro"):
                likelihood = radius_loss(full[part, 1], full[part, 2], radius)
                loss = loss + 0.2 * likelihood
                name = f"{k} radius"
                sums[name] = sums.get(name, 0) + likelihood.detach()[None]
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        optimiser.step()
        memory = min(0.997, step / (step + 20))
        with torch.no_grad():
            torch._foreach_lerp_(list(mean.parameters()), list(model.parameters()), 1 - memory)
        step += 1
        if step % options.every == 0:
            means = {
                k: [round(v, 4) for v in (s / options.every).tolist()] for k, s in sums.items()
            }
            sums = {}
            report(
                {
                    "run": run.name,
                    "step": step,
                    "share": round(passed, 3),
                    "seconds": round(time.time() - began, 1),
                    "views": [s.count for s in mix.rendered.values()],
                    "losses": means,
                }
            )
        if not saved and passed > 0.65:
            save(mean, options.out / f"{run.name}.npz")  # should the rest be cut off
            saved = True
    report({"run": run.name, "steps": step})
    return mean


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pictures", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--runs", nargs="+", default=list(RUNS))
    parser.add_argument("--seconds", type=float, default=450)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=14)
    parser.add_argument("--views", type=int, default=14000)
    parser.add_argument("--steps", type=int, default=10**9, help="at most, in each run")
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument("--crop", type=int, default=CROP)
    parser.add_argument("--batch-share", type=float, default=1.0)
    parser.add_argument("--first-views", type=int, default=600)
    options = parser.parse_args()
    began = time.time()
    # Forked before the device is touched: these processes never do.
    pool = multiprocessing.get_context("fork").Pool(options.workers)
    options.out.mkdir(parents=True, exist_ok=True)
    log = []

    def report(entry) -> None:
        log.append(entry)
        print(f"[{time.time() - began:5.0f}s]", json.dumps(entry), flush=True)
        (options.out / "log.json").write_text(json.dumps(log))

    device = options.device
    torch.backends.cudnn.allow_tf32 = False
    lock, stop = threading.Lock(), threading.Event()
    rendered = {
        "scene": Store(options.views, SIZE, SIZE, device),
        "micro": Store(options.views * 2 // 3, SIZE, SIZE, device),
    }
    detector = load_dense(options.weights)
    start = deepcopy(build_network(detector, torch.device(device))).to(device)
    if not (options.pictures / "widths.json").exists():
        measure_widths(options.pictures, start, detector.record["radius"], device)
    start_rendering(pool, rendered, options.pictures, 4 * options.workers, stop, lock)
    options.layout = quickest_layout(start, options)
    report({"layout": str(options.layout)})
    szu = read_annotated(options.pictures / "szu", device)
    mix = Mix(
        rendered,
        szu,
        read_stacks(options.pictures / "stacks", device),
        read_photos(options.pictures / "photos", device),
    )
    report(
        {"read": {"szu": szu[1.0].count, "stacks": mix.stacks.count, "photos": mix.photos.count}}
    )
    while min(s.count for s in rendered.values()) < options.first_views // 2:
        time.sleep(0.2)
    report({"views": [s.count for s in rendered.values()]})
    runs = [RUNS[name] for name in options.runs]
    total, made = sum(run.share for run in runs), {}
    for run in runs:
        left = began + options.seconds - time.time()
        seconds = left * run.share / total
        total -= run.share
        begin = made[run.after] if run.after in made else trainable(start)
        mean = train(run, begin, mix, seconds - 3, options, lock, report)
        save(mean, options.out / f"{run.name}.npz")
        made[run.name] = mean
    stop.set()
    pool.terminate()
    report({"done": True})


if __name__ == "__main__":
    main()
