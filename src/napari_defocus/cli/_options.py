"""What parsers of the command line share: outputs, and the fields of configs as options."""

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any


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


def add_planes(parser: argparse.ArgumentParser) -> None:
    """Add the options for the planes of a focus stack."""
    parser.add_argument(
        "--axes", help="a letter for each dimension, where the file does not say, such as ZYX"
    )
    parser.add_argument(
        "--register", action="store_true", help="bring drifting, breathing planes together first"
    )


def add_setting(group: Any, config: Any, field: str, text: str, **options: Any) -> None:
    """Add the option for a field of a config; its default is the config's own."""
    default = getattr(config, field)
    kind = {} if isinstance(default, bool) else {"type": options.pop("type", type(default))}
    group.add_argument(
        "--" + options.pop("flag", field).replace("_", "-"),
        dest=field,
        default=default,
        help=text,
        **kind,
        **options,
    )


def config_from(options: argparse.Namespace, kind: type[Any], **given: Any) -> Any:
    """Return a config filled from the options that bear its fields' names, and from `given`."""
    found = {f.name: getattr(options, f.name) for f in fields(kind) if hasattr(options, f.name)}
    return kind(**{**found, **given})
