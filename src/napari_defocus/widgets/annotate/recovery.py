"""Annotations outlive a crash: copies while one paints, offered back by the next session.

Each process keeps its copies in a folder of its own among the user's application data, and removes
it when it ends in an orderly way. So a folder whose process is no more holds what would be lost.
"""

import atexit
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import platformdirs
import psutil
from napari.layers import Image, Labels
from napari.viewer import Viewer
from qtpy.QtWidgets import QWidget

from napari_defocus.core.errors import DefocusError, brief
from napari_defocus.io.cards import as_floats, load_container, save_container
from napari_defocus.widgets._shared import layers, ui
from napari_defocus.widgets._shared.jobs import JobBar, plain
from napari_defocus.widgets._shared.latest import Latest
from napari_defocus.widgets._shared.targets import (
    ANNOTATION,
    Target,
    add_painted,
    plane_name,
    plane_shape,
)

KIND = "annotation"
# A stroke is on the disk after so many milliseconds, however long one paints.
PAUSE = 3000


@dataclass(frozen=True, eq=False)
class Copy:
    """An annotated plane (Y, X) of an image layer, as it is copied to a file."""

    labels: npt.NDArray[Any]
    source: str
    index: tuple[int, ...]
    scale: tuple[float, ...] = (1.0, 1.0)
    translate: tuple[float, ...] = (0.0, 0.0)


def save_copy(copy: Copy, path: Path) -> None:
    """Write a copy to one file, whole or not at all."""
    card = {name: getattr(copy, name) for name in ("source", "index", "scale", "translate")}
    save_container(path, KIND, {"labels": copy.labels}, card)


def load_copy(path: Path) -> Copy:
    """Read a copy."""
    tensors, card = load_container(path, KIND)
    try:
        labels, source, index = tensors["labels"], card["source"], card["index"]
        scale, translate = (as_floats(np.asarray(card[name])) for name in ("scale", "translate"))
        if labels.ndim != 2 or labels.dtype.kind not in "iu" or 0 in labels.shape:
            raise ValueError(f"labels of shape {labels.shape} and type {labels.dtype}")
        if not isinstance(source, str) or any(type(i) is not int or i < 0 for i in index):
            raise ValueError("the name of the image, or its plane")
        if scale.shape != (2,) or translate.shape != (2,) or not (scale > 0).all():
            raise ValueError("its place")
    except (KeyError, TypeError, ValueError) as error:
        raise DefocusError(f"{path}: not a whole annotation ({brief(error)})") from error
    return Copy(labels, source, tuple(index), tuple(scale.tolist()), tuple(translate.tolist()))


def all_folders() -> Path:
    """Return the folder in which each process has its own."""
    return Path(platformdirs.user_state_path("napari-defocus", appauthor=False)) / "recovery"


def _name_of(process: psutil.Process) -> str:
    # Numbers of processes come again; with the second of their start they do not.
    return f"{process.pid}-{int(process.create_time())}"


@cache
def own_folder() -> Path:
    """Return the folder of this process; it goes when the process ends in an orderly way."""
    folder = all_folders() / _name_of(psutil.Process())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def left_behind() -> list[Path]:
    """List the copies of processes that ended without removing them, oldest first."""
    found = []
    with suppress(OSError):
        for folder in all_folders().iterdir():
            if not _is_alive(folder.name):
                found += [p for p in folder.glob("*.safetensors") if not p.name.startswith(".")]
        found.sort(key=lambda path: path.stat().st_mtime)
    return found


def _is_alive(name: str) -> bool:
    number = name.partition("-")[0]
    try:
        return _name_of(psutil.Process(int(number))) == name
    except psutil.AccessDenied:
        return True
    except (psutil.Error, ValueError, OverflowError):
        return False


def discard(paths: Iterable[Path]) -> None:
    """Remove copies, and the folders that they leave empty."""
    for path in paths:
        for file in (path, *path.parent.glob(".partial-*")):
            with suppress(OSError):
                file.unlink()
        with suppress(OSError):  # there are others in it
            path.parent.rmdir()


class Recovery(QWidget):
    """Copies what is painted to files, and offers those of a session that crashed.

    `jobs` reads them, `restore` adds one to the viewer and returns its layer. Hidden unless there
    is something to offer or to report.
    """

    def __init__(self, jobs: JobBar, restore: Callable[[Copy], Labels]) -> None:
        super().__init__()
        self._jobs = jobs
        self._restore = restore
        self._offered: list[Path] = []
        self._warns = False
        self._waiting: dict[str, Copy] = {}
        self._kept: dict[str, npt.NDArray[Any]] = {}
        self._writer = Latest(self)
        self._timer = ui.debounced(self, PAUSE, self.write)
        self.text = ui.wrapped_label()
        self.restore_button = ui.button(
            "Restore", "Adds these annotations as layers.", self.restore
        )
        self.discard_button = ui.button(
            "Discard", "Removes these annotations for good.", self.discard
        )
        ui.column(self, self.text, ui.row(self.restore_button, self.discard_button))
        self._writer.ready.connect(self._written)
        self._writer.failed.connect(self._not_written)
        self.offer()

    @property
    def busy(self) -> bool:
        """Whether something is not yet on the disk."""
        return bool(self._waiting) or self._writer.busy

    # Copies of what is painted

    def keep(self, layer: Labels, target: Target) -> None:
        """Take a copy of an annotated plane, to be written before long."""
        name = _file_name(layer, target.index)
        # An empty annotation is worth a copy only where it takes strokes back.
        if np.array_equal(self._kept.get(name, 0 * target.labels), target.labels):
            self._waiting.pop(name, None)
            return
        place = ((float(of[-2]), float(of[-1])) for of in (layer.scale, layer.translate))
        self._waiting[name] = Copy(target.labels, target.source.name, tuple(target.index), *place)
        if not self._timer.isActive():
            self._timer.start()

    def write(self) -> None:
        """Write what is not yet on the disk, in the background."""
        if self._waiting:
            self._writer.request(None, plain(_write), own_folder(), dict(self._waiting))

    def _written(self, _: Any, written: dict[str, Copy]) -> None:
        for name, copy in written.items():
            self._kept[name] = copy.labels
            if self._waiting.get(name) is copy:
                del self._waiting[name]
        if self._warns:
            self.offer()

    def _not_written(self, error: Exception) -> None:
        # The next stroke tries again.
        self.text.setText(f"⚠ no copy for the case of a crash: {error}")
        self._warns = True
        self._show(bool(self._offered))

    # Copies of a session that crashed

    def offer(self) -> None:
        """Show what an earlier session left behind."""
        self._offered, self._warns = left_behind(), False
        count = len(self._offered)
        self.text.setText(
            f"{count} annotation{'s' * (count > 1)} of a session that ended unexpectedly. "
            "Open the images first: annotations are laid on images of the same name."
        )
        self._show(count > 0)

    def _show(self, offers: bool) -> None:
        if not (offers or self._warns):
            self.hide()
        elif self.parentWidget() is not None:  # else it would be a window
            self.show()
        for control in (self.restore_button, self.discard_button):
            control.setEnabled(offers)

    def restore(self) -> None:
        """Read the copies in the background, and add them to the viewer."""
        self._jobs.run(self._restored, plain(_read), tuple(self._offered))

    def _restored(self, found: dict[Path, Copy | DefocusError]) -> None:
        errors = [copy for copy in found.values() if isinstance(copy, DefocusError)]
        for path, copy in found.items():
            if isinstance(copy, Copy):
                # From now on it is this session's, under the name that later strokes write to.
                name = _file_name(self._restore(copy), copy.index)
                with suppress(OSError):
                    own_folder().mkdir(parents=True, exist_ok=True)
                    path.replace(own_folder() / name)
                    self._kept[name] = copy.labels.copy()  # the layer's own are painted on
                discard([path])
        self.offer()
        if errors:
            raise errors[0]

    def discard(self) -> None:
        """Remove the copies."""
        discard(self._offered)
        self.offer()


def _file_name(layer: Labels, index: layers.Index) -> str:
    return "-".join([str(layer.unique_id), *map(str, index)]) + ".safetensors"


# In the background


def _write(folder: Path, copies: dict[str, Copy]) -> dict[str, Copy]:
    with suppress(OSError):  # which saving reports
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, copy in copies.items():
        save_copy(copy, folder / name)
    return copies


def _read(paths: tuple[Path, ...]) -> dict[Path, Copy | DefocusError]:
    found: dict[Path, Copy | DefocusError] = {}
    for path in paths:
        try:
            found[path] = load_copy(path)
        except DefocusError as error:
            found[path] = error
    return found


# The viewer


def put_back(
    copy: Copy,
    viewer: Viewer,
    images: Iterable[Image],
    add: Callable[[Image, layers.Index, npt.NDArray[Any]], Labels],
) -> Labels:
    """Show a copy: on the image of its name by `add`, else as a layer that stands alone."""
    for source in images:
        leading = layers.leading_shape(source)
        inside = len(leading) == len(copy.index) and all(np.array(copy.index) < leading)
        if source.name == copy.source and inside and plane_shape(source) == copy.labels.shape:
            return add(source, copy.index, copy.labels)
    return add_painted(
        viewer,
        copy.labels,
        plane_name(f"{copy.source} {ANNOTATION}", copy.index),
        {layers.KEY: {"role": ANNOTATION, "source": copy.source, "index": copy.index}},
        {"scale": copy.scale, "translate": copy.translate},
    )
