"""The command `train`: a patch set in, trained ConvNets out."""

import argparse
import sys
from pathlib import Path

from napari_defocus.cli._console import interruptible, print_event, refuse_existing
from napari_defocus.cli._options import add_out, add_setting, config_from
from napari_defocus.core.devices import DEVICES
from napari_defocus.core.errors import DefocusError
from napari_defocus.metric.nets import NO_BASE, TrainingConfig, load_nets, save_nets
from napari_defocus.metric.patches import load_patch_set


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("set", type=Path, metavar="SET", help="a patch set")
    add_out(parser, "the nets, a .safetensors file")
    parser.add_argument(
        "--resume", type=Path, metavar="NETS", help="go on from nets whose training was stopped"
    )
    add_training_settings(parser)


def add_training_settings(parser: argparse.ArgumentParser) -> None:
    """Add the settings of training."""
    group = parser.add_argument_group("training")
    config = TrainingConfig()
    add_setting(group, config, "base", "nets to go on from: a file, 'default' or 'none'")
    add_setting(group, config, "nets", "number of nets")
    add_setting(group, config, "kernels", "kernels of a net's first layer")
    add_setting(group, config, "kernel_size", "side of a kernel, pixels, odd")
    add_setting(group, config, "epochs", "most passes over the patches")
    add_setting(group, config, "patience", "passes without a better validation loss before a stop")
    add_setting(group, config, "batch", "patches in a batch")
    group.add_argument(
        "--learning-rate",
        type=float,
        help=f"of Adam (default: {config.rate}, or {TrainingConfig(base=NO_BASE).rate} with "
        f"--base {NO_BASE})",
    )
    add_setting(group, config, "l1", "weight of the kernels' absolute values in the loss")
    add_setting(group, config, "decay", "weight of the kernels' squares in the loss")
    add_setting(group, config, "validation", "share of the patches held out, by image")
    add_setting(group, config, "seed", "same seed, same machine: same nets")
    add_setting(group, config, "device", "where to train", choices=DEVICES)


def run(options: argparse.Namespace) -> int:
    """Train nets on a patch set; what is trained before an interrupt is written, to go on from."""
    from napari_defocus.metric.training import train

    refuse_existing(options.out, options.overwrite)
    config: TrainingConfig = config_from(options, TrainingConfig)
    resume = load_nets(options.resume) if options.resume else None
    with interruptible() as should_stop:
        nets = train(
            load_patch_set(options.set),
            config,
            resume=resume,
            on_event=print_event,
            should_stop=should_stop,
        )
        if nets is None:
            raise DefocusError("stopped before the first epoch ended: there is nothing to keep")
        save_nets(nets, options.out, overwrite=options.overwrite)
        print(options.out, f"(held-out accuracy {nets.accuracy:.3f})")
        if not nets.complete:
            print(f"not finished; go on with --resume {options.out} --overwrite", file=sys.stderr)
    return 0
