"""Paint what is blurred and what is sharp, see which patches that gives, and collect them."""

from contextlib import suppress
from typing import Any

import numpy as np
from napari.layers import Image, Labels, Layer
from napari.viewer import Viewer

from napari_defocus.core.errors import DefocusError
from napari_defocus.core.progress import OnEvent, ShouldStop
from napari_defocus.labels.classes import BLURRED, SHARP, annotation_from_detection
from napari_defocus.metric.patches import PatchConfig, PatchSet
from napari_defocus.stacks.training_labels import propose_annotation
from napari_defocus.widgets._shared import layers, ui
from napari_defocus.widgets._shared.choosers import follow_selection, layer_chooser
from napari_defocus.widgets._shared.jobs import JobBar, plain
from napari_defocus.widgets._shared.plugin_widget import PluginWidget
from napari_defocus.widgets._shared.targets import (
    ANNOTATION,
    Plane,
    Target,
    add_annotation,
    index_text,
    may_be_annotation,
    plane_of,
    plane_shape,
)
from napari_defocus.widgets.annotate.overlays import MOST_SHOWN, Overlays, cut
from napari_defocus.widgets.annotate.patch_panel import PatchPanel, counts_text
from napari_defocus.widgets.annotate.recovery import Copy, Recovery, put_back

# Wait this long, in milliseconds, after a stroke before the patches follow.
DEBOUNCE = 300


class AnnotateWidget(PluginWidget):
    """Paint label 1 on blurred and 2 on sharp regions of as many images as you like."""

    def __init__(self, viewer: Viewer) -> None:
        super().__init__(viewer)
        self._listened: Layer | None = None
        self._timer = ui.debounced(self, DEBOUNCE, self._refresh)
        self._overlays = Overlays(viewer, self)
        self.image = layer_chooser(
            viewer,
            Image,
            tip="The image to annotate: the one that is selected in the layer list, unless you "
            "choose another.",
        )
        self.annotation = layer_chooser(
            viewer,
            Labels,
            nullable=True,
            results=True,
            keep=may_be_annotation,
            tip="The labels layer that is painted on: 0 unlabelled, 1 blurred, 2 sharp.",
        )
        follow_selection(viewer, self.image)
        self.contents = ui.wrapped_label()
        self.place = ui.wrapped_label()
        self._make_buttons()
        size, superpixel = PatchConfig().size, PatchConfig().superpixel
        self.patch_size = ui.number(8, 256, size, "Side of a patch.", suffix=" pixels")
        self.superpixel = ui.number(
            4,
            256,
            superpixel,
            "Side of a super-pixel if it were square: the smaller, the more patches.",
            suffix=" pixels",
        )
        self.counts = ui.wrapped_label()
        self.jobs = JobBar(
            self._session.jobs, "Add to patch set", "Cuts the patches, for Train to learn from."
        )
        self.patch_set = PatchPanel(self._session, self.jobs)
        self.recovery = Recovery(self.jobs, self._recover)
        self._lay_out()
        self._connect()
        self._image_changed()

    def _make_buttons(self) -> None:
        self.new = ui.button(
            "New annotation",
            "Adds an empty annotation of the plane on screen, ready to paint.",
            self.new_annotation,
        )
        self.from_mask = ui.button(
            "From mask",
            "Turns the mask that Detect made into an annotation to correct.",
            self.annotate_from_mask,
        )
        self.from_stack = ui.button(
            "From stack",
            "Proposes an annotation by comparing this plane with the others of its focus stack.",
            self.annotate_from_stack,
        )
        self.paint_blurred = ui.paint_button(
            "Paint blurred",
            BLURRED,
            "Takes the brush for what is out of focus, label 1.",
            lambda: self.paint(BLURRED),
        )
        self.paint_sharp = ui.paint_button(
            "Paint sharp",
            SHARP,
            "Takes the brush for what is in focus, label 2.",
            lambda: self.paint(SHARP),
        )
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

    def _lay_out(self) -> None:
        chosen = ui.form(("Image", self.image.native), ("", self.contents),
                      ("Annotation", self.annotation.native), ("", self.place))  # fmt: skip
        sizes = ui.form(("Patch", self.patch_size), ("Super-pixel", self.superpixel))
        starts = ui.row(self.new, self.from_mask, self.from_stack)
        brushes = ui.row(self.paint_blurred, self.paint_sharp)
        layout = ui.column(self, self.recovery, chosen, starts, brushes, self.show_patches,
                        self.show_superpixels, sizes, self.counts, self.jobs, self.patch_set,
                        margin=True)  # fmt: skip
        layout.addStretch()

    def _connect(self) -> None:
        self.image.changed.connect(self._image_changed)
        self.annotation.changed.connect(self._annotation_changed)
        self.show_patches.toggled.connect(self._overlays.set_patches_visible)
        self.show_superpixels.toggled.connect(self._refresh_superpixels)
        for control in (self.patch_size, self.superpixel):
            control.valueChanged.connect(self._request)
        self._viewer.dims.events.current_step.connect(self._request)
        self._viewer.layers.selection.events.active.connect(self._follow)
        self._viewer.layers.events.removed.connect(self._removed)
        self._overlays.counted.connect(self._show_counts)
        self._overlays.failed.connect(self._warn)
        self.jobs.clicked.connect(self.add)
        self._session.jobs.changed.connect(self._enable)

    # What is chosen

    @property
    def config(self) -> PatchConfig:
        """How patches are cut."""
        return PatchConfig(size=self.patch_size.value(), superpixel=self.superpixel.value())

    def _index(self, source: Image, labels: Layer | None) -> layers.Index:
        """Return the index of the plane on screen, or the annotation's own."""
        note = layers.owned(labels) if labels is not None else {}
        if note.get("source_id") == source.unique_id and "index" in note:
            return tuple(note["index"])
        return layers.visible_index(self._viewer, source)

    def _target(self) -> Target:
        source, labels = layers.check_image(self.image.value), self.annotation.value
        if labels is None:
            raise DefocusError("no annotation yet: press New annotation, then paint")
        index = self._index(source, labels)
        return Target(source, index, plane_of(labels, source, index))

    def _image_changed(self, _: Any = None) -> None:
        source = self.image.value
        self.contents.setText(layers.describe(source) if source is not None else "no image layer")
        self._overlays.show_on(source)
        if source is not None and self._annotated_id() != source.unique_id:
            self.annotation.value = self._find(source, layers.visible_index(self._viewer, source))
        self._enable()
        self._request()

    def _removed(self, _: Any = None) -> None:
        # Qt may have deleted this widget, as it is closed, before Python has; so below.
        with suppress(RuntimeError):
            # A chooser emits nothing when its last layer goes.
            for chooser in (self.image, self.annotation):
                chooser.reset_choices()
            if self.image.value is None:
                self._image_changed()
            self._enable()
            self._request()

    def _annotation_changed(self, _: Any = None) -> None:
        self._listen(self.annotation.value)
        for layer in self.image.choices:
            if layer.unique_id == self._annotated_id():
                self.image.value = layer
        self._enable()
        self._request()

    def _annotated_id(self) -> Any:
        labels = self.annotation.value
        return layers.owned(labels).get("source_id") if labels is not None else None

    def _follow(self, _: Any = None) -> None:
        # Labels of the user's own are painted on only where the user chose them here.
        active = self._viewer.layers.selection.active
        if active is not None and layers.owned(active).get("role") == ANNOTATION:
            with suppress(RuntimeError):
                self.annotation.value = active

    def _listen(self, labels: Layer | None) -> None:
        # `paint` comes after strokes, `set_data` after undo, redo and new data.
        if self._listened is not None:
            for event in (self._listened.events.paint, self._listened.events.set_data):
                event.disconnect(self._request)
        self._listened = labels
        if labels is not None:
            for event in (labels.events.paint, labels.events.set_data):
                event.connect(self._request)

    def _enable(self) -> None:
        source, free = self.image.value, self._session.jobs.current is None
        self.new.setEnabled(source is not None)
        self.from_mask.setEnabled(free and source is not None)
        is_stack = source is not None and bool(layers.leading_shape(source))
        self.from_stack.setEnabled(free and is_stack)
        for control in (self.paint_blurred, self.paint_sharp):
            control.setEnabled(self.annotation.value is not None)

    # Annotations

    def new_annotation(self) -> None:
        """Choose the annotation of the plane on screen, a new one where there is none."""
        with self.jobs.refusing():
            source = layers.check_image(self.image.value)
            index = layers.visible_index(self._viewer, source)
            labels = self._find(source, index)
            if labels is None:
                self._add_annotation(source, index, np.zeros(plane_shape(source), np.uint8))
            else:
                self._choose(labels)
                self.jobs.report("this plane has an annotation already; it is chosen now")

    def paint(self, label: int) -> None:
        """Take the brush of a class."""
        labels = self.annotation.value
        if labels is None:
            self.jobs.refuse(DefocusError("no annotation yet: press New annotation"))
            return
        self._choose(labels)
        labels.selected_label = label
        labels.mode = "paint"

    def annotate_from_mask(self) -> None:
        """Turn the mask of the plane on screen into a new annotation, in the background."""
        with self.jobs.refusing():
            source = layers.check_image(self.image.value)
            mask, index = self._mask_plane(source)
            self.jobs.run(
                lambda data: self._propose(source, index, data),
                plain(annotation_from_detection),
                mask,
            )

    def _mask_plane(self, source: Image) -> tuple[Plane, layers.Index]:
        mask = layers.find_owned(self._viewer, source, layers.MASK)
        if mask is None:
            raise DefocusError(f"{source.name!r} has no mask yet; run Detect on it first")
        plane = layers.owned(mask).get("plane")
        shown = layers.visible_index(self._viewer, source)
        index = shown if plane is None else tuple(plane)
        return plane_of(mask, source, index), index

    def annotate_from_stack(self) -> None:
        """Propose an annotation of the plane on screen from its stack, in the background."""
        with self.jobs.refusing():
            source = layers.check_image(self.image.value)
            if not layers.leading_shape(source):
                raise DefocusError(f"{source.name!r} is one plane; choose a focus stack")
            index, data = layers.visible_index(self._viewer, source), layers.full_resolution(source)

            def call(on_event: OnEvent, should_stop: ShouldStop) -> Plane:
                stack = data[index[:-1]] if index[:-1] else data
                listeners: Any = {"on_event": on_event, "should_stop": should_stop}
                return propose_annotation(stack, index[-1], **listeners)

            self.jobs.run(lambda found: self._propose(source, index, found), call)

    def _propose(self, source: Image, index: layers.Index, data: Plane) -> None:
        if source not in self._viewer.layers:
            raise DefocusError(f"layer {source.name!r} was deleted; its annotation was dropped")
        if not data.any():
            raise DefocusError("nothing can be told blurred or sharp there; paint by hand")
        self._add_annotation(source, index, data)
        self.jobs.report("correct it with the brush; label 0, or the eraser, takes back")

    def _find(self, source: Image, index: layers.Index) -> Labels | None:
        """Find the annotation of a plane, the newest of several."""
        for layer in reversed(self.annotation.choices):
            note = layers.owned(layer) if layer is not None else {}
            if note.get("source_id") == source.unique_id and tuple(note["index"]) == index:
                return layer
        return None

    def _recover(self, copy: Copy) -> Labels:
        return put_back(copy, self._viewer, self.image.choices, self._add_annotation)

    def _add_annotation(self, source: Image, index: layers.Index, data: Plane) -> Labels:
        labels = add_annotation(self._viewer, source, index, data)
        self._choose(labels)
        self.paint(BLURRED)
        return labels

    def _choose(self, labels: Labels) -> None:
        self.annotation.value = labels
        self._viewer.layers.selection.active = labels

    # Overlays

    def _request(self, _: Any = None) -> None:
        with suppress(RuntimeError):
            self._timer.start()

    def _refresh(self) -> None:
        self._show_place()
        self._refresh_superpixels()
        try:
            target = self._target()
        except DefocusError as error:
            self._warn(error)
            return
        self._overlays.request_patches(target, self.config)
        self.recovery.keep(self.annotation.value, target)

    def _refresh_superpixels(self, _: Any = None) -> None:
        source = self.image.value
        if source is not None and self.show_superpixels.isChecked():
            index = self._index(source, self.annotation.value)
            self._overlays.request_superpixels(index, self.superpixel.value())
        else:
            self._overlays.drop_superpixels()

    def _show_counts(self, patch_set: PatchSet) -> None:
        self.counts.setText(counts_text(patch_set, MOST_SHOWN))

    def _show_place(self) -> None:
        source, labels = self.image.value, self.annotation.value
        needed = source is not None and labels is not None and bool(layers.leading_shape(source))
        self.place.setVisible(needed)
        if not needed:
            return
        index, shown = self._index(source, labels), layers.visible_index(self._viewer, source)
        text = f"of plane {index_text(index)}"
        elsewhere = f"⚠ {text}, while plane {index_text(shown)} is on screen"
        self.place.setText(text if index == shown else elsewhere)

    def _warn(self, error: Exception) -> None:
        self._overlays.drop_patches()
        self.counts.setText(f"⚠ {error or type(error).__name__}")

    # The patch set

    def add(self) -> None:
        """Add the patches of the annotated plane to the patch set, in the background."""
        with self.jobs.refusing():
            target = self._target()
            arguments = (target.read, target.labels, target.name, self.config)
            self.jobs.run(
                lambda found: self.patch_set.add(target.name, found), plain(cut), *arguments
            )
