"""What parsers of the command line share: outputs, and the fields of configs as options."""

import argparse
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from napari_defocus.core.errors import DefocusError

ALL_SERIES = "all"


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Show defaults, but not where there is none to show."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        default = action.default
        if default is None or default is argparse.SUPPRESS or isinstance(default, bool):
            return action.help
        if isinstance(default, tuple):  # as it would be given
            return f"{action.help} (default: {' '.join(map(str, default))})"
        return super()._get_help_string(action)


def add_out(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the options that name the place of results."""
    parser.add_argument("--out", type=Path, required=True, metavar="PATH", help=what)
    parser.add_argument("--overwrite", action="store_true", help="replace existing outputs")


def add_series(parser: argparse.ArgumentParser) -> None:
    """Add the option that names an image in files of several."""
    parser.add_argument(
        "--series",
        type=_series,
        metavar="N",
        help="of files with several images: which, from 0, or all, as STEM_seriesN (default: the "
        "first of the largest)",
    )


def _series(text: str) -> int | str:
    if text == ALL_SERIES:
        return text
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0, nor {ALL_SERIES}")
    return int(text)


@dataclass(frozen=True)
class Given:
    """An image: its file, which in it, and what its outputs are called behind the stem."""

    place: str | Path
    series: int | None = None
    ending: str = ""

    def __str__(self) -> str:
        return str(self.place)


def one_series(options: argparse.Namespace) -> int | None:
    """Return the number of the image that is wanted; DefocusError where all are."""
    if options.series == ALL_SERIES:
        raise DefocusError(f"--series {ALL_SERIES} cannot be taken here; give a number")
    return None if options.series is None else int(options.series)


def each_series(place: str | Path, wanted: int | str | None) -> list[Given]:
    """List the images of a file that are wanted."""
    if wanted != ALL_SERIES:
        return [Given(place, None if wanted is None else int(wanted))]
    from napari_defocus.io.open import count_images

    count = 1
    with suppress(DefocusError):  # which comes again when it is opened
        count = count_images(place)
    if count == 1:
        return [Given(place)]
    return [Given(place, number, f"_series{number}") for number in range(count)]


def add_planes(parser: argparse.ArgumentParser) -> None:
    """Add the options for the planes of a focus stack."""
    parser.add_argument(
        "--axes",
        help="a letter for each dimension as stored, where the file does not say, such as ZYX",
    )
    add_series(parser)
    parser.add_argument(
        "--register", action="store_true", help="bring drifting, breathing planes together first"
    )


def add_setting(
    group: Any, config: Any, field: str, text: str, *, told: bool = False, **options: Any
) -> None:
    """Add the option for a field of a config; its default is the config's own.

    With `told`, nothing is set where the option is not given.
    """
    default = getattr(config, field)
    kind = {} if isinstance(default, bool) else {"type": options.pop("type", type(default))}
    if told:
        shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
        text, default = f"{text} (default: {shown})", argparse.SUPPRESS
    group.add_argument(
        "--" + options.pop("flag", field).replace("_", "-"),
        dest=options.pop("dest", field),
        default=default,
        help=text,
        **kind,
        **options,
    )


def config_from(options: argparse.Namespace, kind: type[Any], **given: Any) -> Any:
    """Return a config filled from the options that bear its fields' names, and from `given`."""
    found = {f.name: getattr(options, f.name) for f in fields(kind) if hasattr(options, f.name)}
    return kind(**{**found, **given})
