"""What Train and Stacks do in the background: a metric of patches, by either method."""

from importlib import import_module
from typing import Any

from napari_defocus.core.progress import Event, OnEvent, ShouldStop
from napari_defocus.metric._train_process import train_in_child
from napari_defocus.metric.calibration import advice
from napari_defocus.metric.fitting import FitConfig, instant_metric, metric_from_nets
from napari_defocus.metric.local_metric import LocalMetric
from napari_defocus.metric.nets import TrainedNets
from napari_defocus.metric.patches import PatchSet, merge_patch_sets
from napari_defocus.widgets._shared.jobs import JobBar
from napari_defocus.widgets._shared.session import TRAINED, Session

Fitted = tuple[LocalMetric, TrainedNets | None]


def fit_patches(
    patch_sets: list[PatchSet], config: FitConfig, on_event: OnEvent, should_stop: ShouldStop
) -> Fitted | None:
    """Make a metric by either method, with its nets; return None where it was stopped."""
    patches = merge_patch_sets(patch_sets)
    if config.method == "instant":
        return instant_metric(patches, config), None
    # Nets are trained in another process: torch does not come into that of the window.
    on_event(Event("starting the training", 0, 0))
    listeners: Any = {"on_event": on_event, "should_stop": should_stop}
    nets = train_in_child(patches, config.training, **listeners)
    if nets is None or should_stop():
        return None
    metric = metric_from_nets(nets, config)
    return None if should_stop() else (metric, nets)


def import_early() -> None:
    """Import what calibration needs before it is wanted: that holds the window up for a moment."""
    import_module("sklearn.linear_model")


def offer_trained(session: Session, jobs: JobBar, outcome: Fitted) -> None:
    """Offer a trained metric in Detect, and report how well it does."""
    metric, session.nets = outcome
    session.add_metric(TRAINED, metric)
    jobs.report(f"{held_out_text(metric)}; offered in Detect as {TRAINED!r}")


def held_out_text(metric: LocalMetric) -> str:
    """Describe how well a metric tells the patches apart that it did not learn from."""
    scores = metric.record["held_out"]
    text = (
        f"held out: AUC {scores['auc']:.3f}, accuracy {scores['accuracy']:.1%} "
        f"of {scores['patches']} patches"
    )
    said = advice(metric)
    return f"{text}; {said}" if said else text
