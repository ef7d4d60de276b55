"""Training in a child process: the same as `train`, for programs that must not import torch."""

import json
import tempfile
from dataclasses import asdict
from pathlib import Path

from napari_defocus.core.child import run_child, serve
from napari_defocus.core.progress import OnEvent, ShouldStop, ignore_event, never_stop
from napari_defocus.metric.nets import TrainedNets, TrainingConfig, load_nets, save_nets
from napari_defocus.metric.patches import PatchSet, load_patch_set, save_patch_set
from napari_defocus.metric.training import train

# Files in the folder that both processes see.
CONFIG = "config.json"
PATCHES = "patches.safetensors"
RESUME = "resume.safetensors"
NETS = "nets.safetensors"


def train_in_child(
    patch_set: PatchSet,
    config: TrainingConfig | None = None,
    *,
    resume: TrainedNets | None = None,
    on_event: OnEvent = ignore_event,
    should_stop: ShouldStop = never_stop,
) -> TrainedNets | None:
    """Train nets in a child process; see `train`.

    Stopped, it ends within half a second: with the nets that `train` would return if these come in
    time, else with None.
    """
    with tempfile.TemporaryDirectory(prefix="napari-defocus-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        save_patch_set(patch_set, folder / PATCHES)
        (folder / CONFIG).write_text(json.dumps(asdict(config or TrainingConfig())))
        if resume is not None:
            save_nets(resume, folder / RESUME)
        found = run_child(__name__, folder, on_event, should_stop)
        return load_nets(folder / NETS) if found else None


def _work(folder: Path, on_event: OnEvent, should_stop: ShouldStop) -> bool:
    patch_set = load_patch_set(folder / PATCHES)
    config = TrainingConfig(**json.loads((folder / CONFIG).read_text()))
    resume = load_nets(folder / RESUME) if (folder / RESUME).exists() else None
    nets = train(patch_set, config, resume=resume, on_event=on_event, should_stop=should_stop)
    if nets is not None:
        save_nets(nets, folder / NETS)
    return nets is not None


if __name__ == "__main__":
    serve(_work)
