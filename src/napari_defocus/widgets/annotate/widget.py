"""Paint what is blurred and what is sharp, and see at once what that teaches."""

from contextlib import suppress
from typing import Any

import numpy as np
from napari.layers import Image, Labels, Layer
from napari.viewer import Viewer

from napari_defocus.core.errors import DefocusError
from napari_defocus.core.progress import OnEvent, ShouldStop
from napari_defocus.labels.classes import BLURRED, SHARP, annotation_from_detection
from napari_defocus.stacks.training_labels import propose_annotation
from napari_defocus.widgets._shared import layers, ui
from napari_defocus.widgets._shared.choosers import follow_selection, layer_chooser
from napari_defocus.widgets._shared.jobs import plain
from napari_defocus.widgets._shared.plugin_widget import PluginWidget
from napari_defocus.widgets._shared.series import AxisChooser, series_of
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
from napari_defocus.widgets.annotate.patches import Patches
from napari_defocus.widgets.annotate.recovery import Copy, Recovery, put_back
from napari_defocus.widgets.annotate.teach_panel import TeachPanel

# Wait this long, in milliseconds, after a stroke before patches and copies follow.
DEBOUNCE = 300


class AnnotateWidget(PluginWidget):
    """Paint label 1 on blurred and 2 on sharp regions of as many images as you like."""

    def __init__(self, viewer: Viewer) -> None:
        super().__init__(viewer)
        self._listened: Layer | None = None
        self._timer = ui.debounced(self, DEBOUNCE, self._refresh)
        # Strokes that come in one pass of the event loop are learnt from together.
        self._learning = ui.debounced(self, 0, self._learn)
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
        self.axis = AxisChooser()
        self.place = ui.wrapped_label()
        self._make_buttons()
        self.teach = TeachPanel(
            viewer, self._session, lambda: self.image.value, self.axis.currentIndex
        )
        self.jobs = self.teach.jobs
        self.patches = Patches(viewer, self._session, self._target, self._place)
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
            "Propose",
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

    def _lay_out(self) -> None:
        self._form = ui.form(
            ("Image", self.image.native),
            ("", self.contents),
            ("Planes along", self.axis),
            ("Annotation", self.annotation.native),
            ("", self.place),
        )
        starts = ui.row(self.new, self.from_mask, self.from_stack)
        brushes = ui.row(self.paint_blurred, self.paint_sharp)
        parts = self.recovery, self._form, starts, brushes, self.teach, self.patches
        layout = ui.column(self, *parts, margin=True)
        layout.addStretch()

    def _connect(self) -> None:
        self.image.changed.connect(self._image_changed)
        self.axis.changed.connect(self.jobs.forget_refusal)
        self.annotation.changed.connect(self._annotation_changed)
        self.teach.changed.connect(self._request)
        self._viewer.dims.events.current_step.connect(self._request)
        self._viewer.layers.selection.events.active.connect(self._follow)
        self._viewer.layers.events.removed.connect(self._removed)
        self._session.jobs.changed.connect(self._enable)

    # What is chosen

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

    def _targets(self) -> list[Target]:
        """Return all annotated planes, that which is chosen first."""
        found: dict[Any, Target] = {}

        def add(source: Image, labels: Labels, index: layers.Index) -> None:
            with suppress(DefocusError):  # of the chosen one it is told
                target = Target(source, index, plane_of(labels, source, index))
                found.setdefault((source.unique_id, index), target)

        source, labels = self.image.value, self.annotation.value
        if source is not None and labels is not None:
            add(source, labels, self._index(source, labels))
            if labels.ndim > 2 and isinstance(labels.data, np.ndarray):
                for index in np.argwhere(labels.data.any(axis=(-2, -1))):
                    add(source, labels, tuple(map(int, index)))
        for labels in self.annotation.choices:
            note = layers.owned(labels) if labels is not None else {}
            source = layers.source_of(self._viewer, labels) if note.get("source_id") else None
            if source is not None and "index" in note:
                add(source, labels, tuple(note["index"]))
        return list(found.values())

    def _place(self) -> tuple[Image, layers.Index] | None:
        source = self.image.value
        return None if source is None else (source, self._index(source, self.annotation.value))

    def _image_changed(self, _: Any = None) -> None:
        source = self.image.value
        self.contents.setText(layers.describe(source) if source is not None else "no image layer")
        self.axis.follow(source)
        for part in (self.axis, self._form.labelForField(self.axis)):
            part.setVisible(self.axis.worth_showing)
        self.patches.overlays.show_on(source)
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
        self.teach.enable()
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
            series = series_of(source, self.axis.currentIndex())
            index = layers.visible_index(self._viewer, source)

            def call(on_event: OnEvent, should_stop: ShouldStop) -> Plane:
                stack, plane = series.array(series.without(index)), index[series.axis]
                listeners: Any = {"on_event": on_event, "should_stop": should_stop}
                return propose_annotation(stack, plane, **listeners)

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

    # What follows from it

    def _request(self, _: Any = None) -> None:
        with suppress(RuntimeError):
            self._timer.start()
            self._learning.start()

    def _learn(self) -> None:
        try:
            if self.annotation.value is not None:
                self._target()
        except DefocusError as error:
            self.teach.refuse(error)
            return
        self.teach.learn(self._targets())

    def _refresh(self) -> None:
        self._show_place()
        self.patches.refresh()
        with suppress(DefocusError):
            self.recovery.keep(self.annotation.value, self._target())

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
