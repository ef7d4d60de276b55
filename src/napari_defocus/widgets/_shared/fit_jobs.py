"""What Train and Stacks do in the background: a metric of patches, by either method."""

import os
from importlib import import_module

from napari_defocus.core.progress import OnEvent, ShouldStop
from napari_defocus.metric.fitting import FitConfig, instant_metric, metric_from_nets
from napari_defocus.metric.local_metric import LocalMetric
from napari_defocus.metric.nets import TrainedNets
from napari_defocus.metric.patches import PatchSet, merge_patch_sets
from napari_defocus.metric.training import train


def fit_patches(
    patch_sets: list[PatchSet], config: FitConfig, on_event: OnEvent, should_stop: ShouldStop
) -> tuple[LocalMetric, TrainedNets | None] | None:
    """Make a metric by either method, None where it was stopped; gives its nets too."""
    patches = merge_patch_sets(patch_sets)
    if config.method == "instant":
        return instant_metric(patches, config), None
    _leave_a_core()
    nets = train(patches, config.training, on_event=on_event, should_stop=should_stop)
    if nets is None or should_stop():
        return None
    metric = metric_from_nets(nets, config)
    return None if should_stop() else (metric, nets)


def import_torch(on_event: OnEvent, should_stop: ShouldStop) -> None:
    """Load what training needs before it is wanted."""
    for name in ("torch.optim", "napari_defocus.metric.network", "sklearn.linear_model"):
        if not should_stop():
            import_module(name)


def _leave_a_core() -> None:
    """Let torch, on this thread, leave a core to the window."""
    import torch

    torch.set_num_threads(min(torch.get_num_threads(), max(1, (os.cpu_count() or 1) - 1)))


def held_out_text(metric: LocalMetric) -> str:
    """Write how well a metric tells the patches apart that it did not learn from."""
    scores = metric.record["held_out"]
    return (
        f"held out: AUC {scores['auc']:.3f}, accuracy {scores['accuracy']:.1%} "
        f"of {scores['patches']} patches"
    )
