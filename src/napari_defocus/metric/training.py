"""Train several patch ConvNets; stop early, stop on request, go on later.

The module itself imports no torch; `train` does.
"""

from dataclasses import replace

import numpy as np

from napari_defocus.core.errors import DefocusError
from napari_defocus.core.progress import OnEvent, ShouldStop, ignore_event, never_stop
from napari_defocus.metric.nets import TrainedNets, TrainingConfig, load_base
from napari_defocus.metric.patches import PatchSet, require_both_classes, split_patch_set
from napari_defocus.metric.whitening import whitening_matrix, window_covariance

# Patches of either side that are stored with the nets.
STORED_PATCHES = 1000


def train(
    patch_set: PatchSet,
    config: TrainingConfig | None = None,
    *,
    resume: TrainedNets | None = None,
    on_event: OnEvent = ignore_event,
    should_stop: ShouldStop = never_stop,
) -> TrainedNets | None:
    """Train nets to classify patches as blurred or sharp.

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
        Called after each epoch: values ``train_loss``, ``loss``, ``accuracy``.
    should_stop : callable
        Called before each batch; the epoch under way is dropped, the best so far stays.

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
    config = replace(config, learning_rate=config.rate)
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
    if earlier_nets is None and not config.whiten:
        whitening = np.eye(config.kernel_size**2, dtype=np.float32)
    elif earlier_nets is None:
        covariance = window_covariance(training.patches, config.kernel_size, config.seed)
        whitening = whitening_matrix(covariance).astype(np.float32)
    else:
        whitening = earlier_nets.whitening
    nets = list(resume.nets) if resume else []
    starts = [net.best for net in base.nets] if base else []
    from napari_defocus.metric.network import NetTraining

    run = NetTraining(training, validation, whitening, starts, config, on_event, should_stop)
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
        training=_stored(training, config.seed),
        validation=_stored(validation, config.seed),
        base=base.training if base else None,
    )


def _stored(side: PatchSet, seed: int) -> PatchSet:
    """Draw the patches that are stored with the nets, in the precision of their file."""
    stored = side.sample(STORED_PATCHES, seed)
    return replace(stored, patches=stored.patches.astype(np.float16).astype(np.float32))


def _check_patch_size(patch_set: PatchSet, base: TrainedNets | None) -> None:
    if base is not None and base.training.config.size != patch_set.config.size:
        raise DefocusError(
            f"the base nets see patches of {base.training.config.size} pixels, these have "
            f"{patch_set.config.size}; cut them alike, or start from no base ('none')"
        )


def _check(patch_set: PatchSet, config: TrainingConfig) -> None:
    # What two more layers of 3 x 3 and two halvings need behind the first layer.
    least = config.kernel_size + 13
    if patch_set.config.size < least:
        raise DefocusError(
            f"patches of {patch_set.config.size} pixels are too small for kernels of "
            f"{config.kernel_size}: cut them with at least {least}"
        )
    require_both_classes(patch_set)
