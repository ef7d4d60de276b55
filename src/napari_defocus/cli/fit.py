"""The command `fit`: what a user knows of some images in, a profile or a metric out."""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_defocus.cli._console import Progress, interruptible, print_event, refuse_existing
from napari_defocus.cli._options import (
    add_out,
    add_planes,
    config_from,
    each_series,
    one_series,
)
from napari_defocus.cli.metric import add_components, write_metric
from napari_defocus.cli.patches import (
    add_annotated_images,
    annotated_pairs,
    cut_patches,
    read_annotation,
)
from napari_defocus.cli.train import add_training_settings
from napari_defocus.core.errors import DefocusError, about
from napari_defocus.core.progress import ShouldStop
from napari_defocus.io.open import read_image
from napari_defocus.metric import zeng2019
from napari_defocus.metric.calibration import advice
from napari_defocus.metric.fitting import METHODS, FitConfig, best_scale, fit_metric
from napari_defocus.metric.local_metric import LITERAL
from napari_defocus.metric.nets import TrainingConfig
from napari_defocus.metric.patches import (
    PatchConfig,
    PatchSet,
    merge_patch_sets,
)

if TYPE_CHECKING:
    from napari_defocus.profile.evidence import Evidence
    from napari_defocus.stacks.planes import StackPlanes

PROFILE = "profile"
# Strokes that are named because they do not hold.
MOST_NAMED = 5


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_annotated_images(parser, "*")
    many: dict[str, Any] = {"nargs": "+", "default": []}
    parser.add_argument(
        "--in-focus", **many, type=Path, metavar="IMAGE", help="images in focus as a whole"
    )
    parser.add_argument(
        "--out-of-focus", **many, type=Path, metavar="IMAGE", help="images out of focus as a whole"
    )
    parser.add_argument(
        "--from-stack", **many, metavar="STACK", help="focus stacks, whose planes are compared"
    )
    add_planes(parser)
    add_out(parser, "the profile or metric, a .safetensors file")
    parser.add_argument(
        "--method",
        choices=(PROFILE, *METHODS),
        default=PROFILE,
        help="a profile, which corrects the default detector in seconds, or a local metric, by "
        "ConvNets or in closed form",
    )
    parser.add_argument(
        "--instant", dest="method", action="store_const", const="instant", help=argparse.SUPPRESS
    )
    parser.add_argument(
        "--preset",
        action=_Preset,
        choices=(LITERAL,),
        help="a metric as the paper makes it: the settings of patches and training that are not "
        "given behind this option are its own",
    )
    add_components(parser)
    add_training_settings(parser)


class _Preset(argparse.Action):
    """Set what the paper's method needs; options behind it may change it."""

    def __call__(
        self, _: argparse.ArgumentParser, options: argparse.Namespace, name: Any, __: Any = None
    ) -> None:
        """Put the settings of the preset in place of the defaults."""
        vars(options).update(preset=name, method="nets")
        for preset in (zeng2019.PATCHES, zeng2019.TRAINING):
            default = asdict(type(preset)())
            own = {n: value for n, value in asdict(preset).items() if value != default[n]}
            vars(options).update(own)


def run(options: argparse.Namespace) -> int:
    """Make a profile or a metric of what is known of images."""
    refuse_existing(options.out, options.overwrite)
    if options.preset and options.method != "nets":
        raise DefocusError(
            f"the preset {options.preset} trains nets, and --method is {options.method}; "
            "give one of the two"
        )
    if options.method == PROFILE:
        return _fit_profile(options)
    if options.in_focus or options.out_of_focus:
        raise DefocusError(
            f"--in-focus and --out-of-focus teach a profile; {options.method} needs annotated "
            "images or --from-stack"
        )
    config = FitConfig(
        method=options.method,
        components=options.components,
        training=config_from(options, TrainingConfig),
    )
    cut = _cut_from_stacks if options.from_stack else cut_patches
    patch_set = best_scale(partial(cut, options), config_from(options, PatchConfig), config)
    with interruptible() as should_stop:
        made = fit_metric(patch_set, config, on_event=print_event, should_stop=should_stop)
    status = write_metric(made, options.out, options.overwrite)
    if made is not None and (said := advice(made)):
        print(f"{options.out}: {said}", file=sys.stderr)
    return status


def _fit_profile(options: argparse.Namespace) -> int:
    from napari_defocus.profile.evidence import joined
    from napari_defocus.profile.profile import save_profile
    from napari_defocus.profile.teach import teach

    pixel_sizes: list[float | None] = []
    with interruptible() as should_stop:
        parts = list(_evidence(options, pixel_sizes, should_stop))
    if not parts:
        raise DefocusError(
            "nothing to learn from: give images with their labels, --in-focus, --out-of-focus "
            "or --from-stack"
        )
    record: dict[str, Any] = {
        "taught_from": sorted({name for part in parts for name in part.names})
    }
    record |= {"pixel_size_um": _one_size(pixel_sizes)}
    taught = teach(joined(parts), record)
    save_profile(taught.profile, options.out, overwrite=options.overwrite)
    limit = f"sharp up to {taught.profile.limit:.1f} px"
    print(options.out, f"({limit}; {taught.holds:.1%} of what was given comes out so)")
    for name in taught.disagreeing[:MOST_NAMED]:
        print(
            f"{name}: only {taught.agreement[name]:.0%} comes out as given; check it, or give more",
            file=sys.stderr,
        )
    return 0


def _evidence(
    options: argparse.Namespace, pixel_sizes: list[float | None], should_stop: ShouldStop
) -> Iterator["Evidence"]:
    """Yield what each of the inputs tells, and list their pixel sizes."""
    from napari_defocus.profile import evidence

    predict = evidence.predictor(should_stop=should_stop)
    series = (
        one_series(options) if options.images or options.in_focus or options.out_of_focus else None
    )

    def read(path: Path) -> npt.NDArray[Any]:
        image = read_image(path, series=series)
        if image.axes not in ("YX", "YXS"):
            raise DefocusError(f"{path}: a stack ({image.axes}); give one plane of it")
        pixel_sizes.append(image.grid.pixel_size_um)
        return np.asarray(image.data)

    for path, labels in annotated_pairs(options.images):
        image = read(path)
        painted = read_annotation(labels, options.labels_are_masks, series)
        with about(path):
            found = evidence.from_strokes(predict(image), painted, str(path))
        yield found
    for path in options.in_focus:
        yield evidence.from_focused(read(path), predict, str(path))
    for path in options.out_of_focus:
        yield evidence.from_defocused(read(path), predict, str(path))
    for place in options.from_stack:
        for name, planes in _stacks(place, options, should_stop):
            yield evidence.from_planes(planes, predict, name)


def _one_size(sizes: list[float | None]) -> float | None:
    """Return the pixel size that images share, in micrometres, None where they do not tell it."""
    known = [size for size in sizes if size]
    if known and max(known) > 1.1 * min(known):
        raise DefocusError(
            f"the images have pixels of {min(known):g} to {max(known):g} micrometres; a profile is "
            "of one: teach one for each"
        )
    return known[0] if known else None


def _stacks(
    place: str, options: argparse.Namespace, should_stop: ShouldStop
) -> Iterator[tuple[str, "StackPlanes"]]:
    """Yield the focus stacks of a file or folder, registered where asked for, with their names."""
    from napari_defocus.io.folder import open_stack_source
    from napari_defocus.stacks.planes import stacks_in
    from napari_defocus.stacks.registration import register_planes

    for given in each_series(place, options.series):
        source = open_stack_source(place, options.axes, series=given.series)
        for index, planes in stacks_in(source):
            if options.register:
                transforms = register_planes(planes, on_event=Progress(), should_stop=should_stop)
                planes = planes.registered(transforms)
            name = source.name + given.ending
            yield f"{name} {index}" if index else name, planes


def _cut_from_stacks(options: argparse.Namespace, config: PatchConfig) -> PatchSet:
    """Cut patches from focus stacks whose planes are labelled by comparing them."""
    from napari_defocus.io.folder import open_stack_source
    from napari_defocus.stacks.planes import stacks_in
    from napari_defocus.stacks.training_labels import patches_from_planes

    if options.images:
        raise DefocusError("give images with their labels, or --from-stack, not both")
    parts = []
    config = config_from(options, PatchConfig)
    given = [each for place in options.from_stack for each in each_series(place, options.series)]
    with interruptible() as should_stop:
        for one in given:
            source = open_stack_source(one.place, options.axes, series=one.series)
            stacks = list(stacks_in(source))  # which refuses what has no Z
            z = source.axes.index("Z")
            for index, planes in stacks:
                with about(source.name):
                    part = patches_from_planes(
                        planes,
                        lambda at: source.where((*index[:z], at, *index[z:])),  # noqa: B023
                        config,
                        register=options.register,
                        on_event=Progress(),
                        should_stop=should_stop,
                    )
                parts.append(part)
    return merge_patch_sets(parts)
