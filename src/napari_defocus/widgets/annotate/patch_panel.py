"""The patch set that is being collected: its list, saved and opened."""

from pathlib import Path

from qtpy.QtWidgets import QLabel, QListWidget, QWidget

from napari_defocus.core.errors import DefocusError
from napari_defocus.labels.classes import CLASS_NAMES
from napari_defocus.metric.patches import (
    PatchSet,
    load_patch_set,
    merge_patch_sets,
    require_both_classes,
    save_patch_set,
)
from napari_defocus.widgets._shared import ui
from napari_defocus.widgets._shared.dialogs import ask_to_open, save_button
from napari_defocus.widgets._shared.jobs import JobBar, plain
from napari_defocus.widgets._shared.session import Session

FILES = "Patch sets (*.safetensors)"


class PatchPanel(QWidget):
    """The images of the session's patch set, with their counts; `jobs` reads and writes files."""

    def __init__(self, session: Session, jobs: JobBar) -> None:
        super().__init__()
        self._session = session
        self._jobs = jobs
        self.list = ui.tipped(
            QListWidget(), "The images and files whose patches Train learns from."
        )
        self.list.setMaximumHeight(110)
        name, title, kind = "patches.safetensors", "Save the patch set", "Patch sets"
        tip = "Writes all patches to a file."
        self.save_button = save_button(self, "Save…", tip, self.save, name, title, kind)
        self.open_button = ui.button(
            "Open…",
            "Adds the patches of a file.",
            lambda: ask_to_open(self, "Open a patch set", FILES, self.open),
        )
        self.remove_button = ui.button(
            "Remove all", "Empties the patch set; annotations stay.", session.clear_patches
        )
        self._buttons = (self.save_button, self.open_button, self.remove_button)
        ui.column(self, QLabel("Patch set"), self.list, ui.row(*self._buttons))
        session.patches_changed.connect(self._show)
        session.jobs.changed.connect(self._enable)
        self._show()

    def _enable(self) -> None:
        for control in self._buttons:
            control.setEnabled(self._session.jobs.current is None)

    def _show(self) -> None:
        self.list.clear()
        for name, patch_set in self._session.patch_sets.items():
            self.list.addItem(f"{name}: {counts(patch_set)}")

    def add(self, name: str, patch_set: PatchSet) -> None:
        """Add the patches of an image or a file, where there are any."""
        if not len(patch_set):
            raise DefocusError(f"{name} gives no patch yet; {shortage(patch_set)}")
        self._session.add_patches(name, patch_set)
        self._jobs.report(f"{name} is in the patch set")

    def save(self, path: Path) -> None:
        """Write the whole patch set to a file, in the background."""
        parts = list(self._session.patch_sets.values())
        if not parts:
            self._jobs.refuse(DefocusError("the patch set is empty; add an annotated image first"))
            return
        path = path if path.suffix else path.with_suffix(".safetensors")
        self._jobs.run(lambda _: self._jobs.report(f"saved to {path}"), plain(_save), parts, path)

    def open(self, path: Path) -> None:
        """Add the patches of a file to the patch set, in the background."""
        self._jobs.run(lambda patches: self.add(path.name, patches), plain(load_patch_set), path)


def _save(parts: list[PatchSet], path: Path) -> Path:
    save_patch_set(merge_patch_sets(parts), path)
    return path


def counts(patch_set: PatchSet) -> str:
    """Describe how many patches of each class there are."""
    return ", ".join(f"{count} {name}" for name, count in patch_set.counts().items())


def counts_text(patch_set: PatchSet, most_shown: int) -> str:
    """Describe the counts, and what lacks."""
    lacking = shortage(patch_set)
    shown = f", {most_shown} of them shown" if len(patch_set) > most_shown else ""
    return f"{counts(patch_set)} patches{shown}" + (f"\n⚠ {lacking}" if lacking else "")


def shortage(patch_set: PatchSet) -> str:
    """Describe what to paint where patches of a class lack; empty where none do."""
    for label, name in CLASS_NAMES.items():
        if not patch_set.counts()[name]:
            return f"no {name} patch yet: paint label {label} on {name} regions"
    try:
        require_both_classes(patch_set)
    except DefocusError as error:
        return str(error)
    return ""
