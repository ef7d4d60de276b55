"""A detection written down: as a command and as Python, only what differs from the defaults."""

import shlex
from dataclasses import fields, is_dataclass
from typing import Any

from napari_defocus.detection.config import ZENG2019, DetectionConfig, with_preset
from napari_defocus.profile.limit import AUTO


def as_command(image: str, metric: str, config: DetectionConfig, more: tuple[str, ...] = ()) -> str:
    """Write a detection as a command line.

    `image` and `metric` are paths, or the name of a metric; `more` are the outputs beside blur map
    and mask, such as ``confidence`` and ``radius``.
    """
    words = ["napari-defocus", "detect", image, "--out", "results"]
    if metric != "default":
        words += ["--metric", metric]
    words += [f"--{name}" for name in more]
    return shlex.join(words + as_arguments(config))


def as_arguments(config: DetectionConfig) -> list[str]:
    """Write settings as options of ``napari-defocus detect``."""
    words: list[str] = []
    for name, value in _changed(config).items():
        if name == "refine":
            words.append("--no-refine")
        elif not is_dataclass(value):
            words += _option(name, value)
    base = DetectionConfig()
    if config.detector == ZENG2019.detector:
        config, base = with_preset(config), ZENG2019
    for name, value in _changed(config.refinement, base.refinement).items():
        if name == "growing":
            words.append("--growing" if value else "--no-growing")
            continue
        words += _option("refine-threshold" if name == "threshold" else name, value)
    for name, value in _changed(config.mask, base.mask).items():
        words += _option(name if name == "smallest" else f"mask-{name}", value)
    return words


def as_python(image: str, metric: str, config: DetectionConfig, more: tuple[str, ...] = ()) -> str:
    """Write a detection as a few lines of Python; arguments as in `as_command`."""
    return "\n".join(
        [
            "from pathlib import Path",
            "",
            f"from napari_defocus import {', '.join([*_classes(config), 'detect'])}",
            "from napari_defocus.io import read_image",
            "",
            f"image = read_image(Path({image!r}))",
            f"config = {_expression(config)}",
            f"found = detect(image.data, {metric!r}, config, axes=image.axes{_pixel_size(config)})",
            ", ".join(f"found.{name}" for name in ("blur", "mask", *more)),
        ]
    )


def _pixel_size(config: DetectionConfig) -> str:
    in_micrometres = isinstance(config.limit, str) and config.limit != AUTO
    return ", pixel_size=image.grid.pixel_size_um" if in_micrometres else ""


def _classes(config: Any) -> list[str]:
    """Return the names of the settings' classes that an expression needs, sorted."""
    parts = [_classes(value) for value in _changed(config).values() if is_dataclass(value)]
    return sorted({type(config).__name__, *(name for names in parts for name in names)})


def _changed(config: Any, base: Any = None) -> dict[str, Any]:
    """Return the settings that differ from another config of the kind, by default the default."""
    base = base or type(config)()
    values = {field.name: getattr(config, field.name) for field in fields(config)}
    return {name: value for name, value in values.items() if value != getattr(base, name)}


def _option(name: str, value: Any) -> list[str]:
    values = value if isinstance(value, tuple) else ("mean" if value is None else value,)
    return ["--" + name.replace("_", "-"), *map(str, values)]


def _expression(value: Any) -> str:
    if not is_dataclass(value):
        return repr(value)
    inner = ", ".join(f"{name}={_expression(part)}" for name, part in _changed(value).items())
    return f"{type(value).__name__}({inner})"
