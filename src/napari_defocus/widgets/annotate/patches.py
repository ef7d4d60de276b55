"""Patches for ConvNets: how they are cut from an annotation, and their set."""

from collections.abc import Callable

from napari.layers import Image
from napari.viewer import Viewer
from qtpy.QtWidgets import QWidget

from napari_defocus.core.errors import DefocusError
from napari_defocus.metric.patches import PatchConfig, PatchSet
from napari_defocus.widgets._shared import layers, ui
from napari_defocus.widgets._shared.jobs import JobBar, plain
from napari_defocus.widgets._shared.session import Session
from napari_defocus.widgets._shared.targets import Target
from napari_defocus.widgets.annotate.overlays import MOST_SHOWN, Overlays, cut
from napari_defocus.widgets.annotate.patch_panel import PatchPanel, counts_text


class Patches(QWidget):
    """Folded away: sizes of patches, overlays, and the patch set; idle while it is folded.

    `target` returns the annotated plane or raises `DefocusError`, and `place` the image and the
    plane that super-pixels are shown of, or None.
    """

    def __init__(
        self,
        viewer: Viewer,
        session: Session,
        target: Callable[[], Target],
        place: Callable[[], tuple[Image, layers.Index] | None],
    ) -> None:
        super().__init__()
        self._target, self._place = target, place
        self.overlays = Overlays(viewer, self)
        size, superpixel = PatchConfig().size, PatchConfig().superpixel
        self.patch_size = ui.number(8, 256, size, "Side of a patch.", suffix=" pixels")
        self.superpixel = ui.number(
            4, 256, superpixel,
            "Side of a super-pixel if it were square: the smaller, the more patches.",
            suffix=" pixels",
        )  # fmt: skip
        self.show_patches = ui.tick_box(
            "show the patches that are taken",
            "Outlines the patches, small windows, that training will see.",
            True,
        )
        self.show_superpixels = ui.tick_box(
            "show super-pixels",
            "Outlines the super-pixels, groups of pixels that look alike; a patch is cut around "
            "the centre of each.",
        )
        self.counts = ui.wrapped_label()
        self.jobs = JobBar(
            session.jobs, "Add to patch set", "Cuts the patches, for Train to learn from."
        )
        self.patch_set = PatchPanel(session, self.jobs)
        inner = QWidget()
        sizes = ui.form(("Patch", self.patch_size), ("Super-pixel", self.superpixel))
        ui.column(inner, self.show_patches, self.show_superpixels, sizes, self.counts, self.jobs,
                  self.patch_set)  # fmt: skip
        self.fold = ui.folded(
            "Patches for training ConvNets",
            "What Train learns a local metric from: small windows of what is painted.",
            inner,
        )
        ui.column(self, self.fold)
        self.fold.toggled.connect(self.refresh)
        self.show_patches.toggled.connect(self.overlays.set_patches_visible)
        self.show_superpixels.toggled.connect(self._refresh_superpixels)
        for control in (self.patch_size, self.superpixel):
            control.valueChanged.connect(self.refresh)
        self.overlays.counted.connect(self._show_counts)
        self.overlays.failed.connect(self._warn)
        self.jobs.clicked.connect(self.add)

    @property
    def config(self) -> PatchConfig:
        """How patches are cut."""
        return PatchConfig(size=self.patch_size.value(), superpixel=self.superpixel.value())

    def refresh(self, _: object = None) -> None:
        """Show the patches and the super-pixels of the annotated plane, unless folded away."""
        self._refresh_superpixels()
        if not self.fold.isExpanded():
            self.overlays.drop_patches()
            return
        try:
            self.overlays.request_patches(self._target(), self.config)
        except DefocusError as error:
            self._warn(error)

    def _refresh_superpixels(self, _: object = None) -> None:
        place = self._place() if self.fold.isExpanded() else None
        if place is not None and self.show_superpixels.isChecked():
            self.overlays.request_superpixels(place[1], self.superpixel.value())
        else:
            self.overlays.drop_superpixels()

    def _show_counts(self, patch_set: PatchSet) -> None:
        self.counts.setText(counts_text(patch_set, MOST_SHOWN))

    def _warn(self, error: Exception) -> None:
        self.overlays.drop_patches()
        self.counts.setText(ui.warning(error))

    def add(self) -> None:
        """Add the patches of the annotated plane to the patch set, in the background."""
        with self.jobs.refusing():
            target = self._target()
            arguments = (target.read, target.labels, target.name, self.config)
            self.jobs.run(
                lambda found: self.patch_set.add(target.name, found), plain(cut), *arguments
            )
