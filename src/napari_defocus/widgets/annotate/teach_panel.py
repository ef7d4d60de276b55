"""Teaching a profile: from strokes as they are painted, from planes in focus and from stacks."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Image
from napari.viewer import Viewer
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QWidget

from napari_defocus.core.errors import DefocusError
from napari_defocus.core.progress import OnEvent, ShouldStop
from napari_defocus.profile.evidence import Evidence, from_focused, from_planes, predictor
from napari_defocus.profile.profile import save_profile
from napari_defocus.widgets._shared import layers, ui
from napari_defocus.widgets._shared.dialogs import save_button
from napari_defocus.widgets._shared.jobs import JobBar, plain
from napari_defocus.widgets._shared.latest import Latest
from napari_defocus.widgets._shared.series import series_of
from napari_defocus.widgets._shared.session import TAUGHT, Session
from napari_defocus.widgets._shared.targets import Plane, Target, plane_name, plane_shape
from napari_defocus.widgets.annotate.lessons import Lesson, Lessons, Shown, key_of, teach_from

START = "press New annotation and paint, or a button below"


class TeachPanel(QWidget):
    """Learns in the background whenever it is asked to, and shows the mask that this gives.

    `image` and `axis` return the image layer that is chosen, or None, and the leading axis that
    its planes are along, or -1.
    """

    # What buttons taught has changed.
    changed = Signal()

    def __init__(
        self,
        viewer: Viewer,
        session: Session,
        image: Callable[[], Image | None],
        axis: Callable[[], int],
    ) -> None:
        super().__init__()
        self._viewer, self._session, self._image, self._axis = viewer, session, image, axis
        self._lessons = Lessons()
        self._shown: dict[str, Shown] = {}
        self._targets: list[Target] = []
        self._taught_layer: Any = None
        self.latest = Latest(self)
        self.live = ui.tick_box(
            "learn as you paint",
            "Every stroke teaches at once what is sharp and what is blurred here; the mask that "
            "this gives is shown, and Detect offers the profile.",
            True,
        )
        self.text = ui.wrapped_label()
        self.jobs = JobBar(
            session.jobs,
            "This plane is in focus",
            "Teaches from the plane on screen, which is in focus as a whole: its structure is "
            "compared with blurred copies of it. Nothing needs to be painted.",
        )
        self.from_stack = ui.button(
            "From this stack",
            "Teaches from the stack on screen: its planes are compared with each other.",
            self.teach_from_stack,
        )
        self.forget_button = ui.button(
            "Forget",
            "Forgets what the buttons here taught; what is painted stays.",
            self.forget,
        )
        self.save_button = save_button(
            self, "Save profile…", "Writes what was taught to a small file.", self.save,
            "profile.safetensors", "Save the profile", "Profiles",
        )  # fmt: skip
        buttons = ui.row(self.from_stack, self.forget_button, self.save_button)
        ui.column(self, self.live, self.text, self.jobs, buttons)
        self.jobs.clicked.connect(self.teach_from_plane)
        self.latest.ready.connect(self._learnt)
        self.latest.failed.connect(self.refuse)
        self.live.toggled.connect(self.changed)
        session.jobs.changed.connect(self.enable)
        self.enable()

    def enable(self) -> None:
        """Offer what can be done now."""
        source, free = self._image(), self._session.jobs.current is None
        is_stack = source is not None and bool(layers.leading_shape(source))
        self.from_stack.setEnabled(free and is_stack)
        self.forget_button.setEnabled(bool(self._shown))
        self.save_button.setEnabled(free and TAUGHT in self._session.detector_names)

    # Learning in the background

    def learn(self, targets: Sequence[Target]) -> None:
        """Learn from annotated planes and from what buttons taught, unless switched off."""
        self._targets = list(targets)
        source = self._image()
        if not self.live.isChecked() or source is None or not (targets or self._shown):
            self.latest.stop()
            self.text.setText(START if self.live.isChecked() and source is not None else "")
            self.drop_mask()
            return
        index = layers.visible_index(self._viewer, source)
        screen = Target(source, index, np.broadcast_to(np.uint8(0), plane_shape(source)))
        shown = list(self._shown.values())
        if self.text.text() in ("", START):
            self.text.setText("looking at the plane…")
        self.latest.request(key_of(screen), self._lessons.learn, self._targets, shown, screen)

    def _learnt(self, key: tuple[Any, layers.Index], lesson: Lesson) -> None:
        self.text.setText(lesson.text)
        if lesson.taught is not None:
            self._session.add_profile(TAUGHT, lesson.taught.profile)
        source = self._image()
        if lesson.mask is None or source is None or source.unique_id != key[0]:
            self.drop_mask()
        elif self.live.isChecked():
            self._show_mask(source, lesson.mask, lesson.step)
        self.enable()

    def refuse(self, error: Exception) -> None:
        """Show why nothing is learnt; the profile of before stays."""
        self.latest.stop()
        self.drop_mask()
        self.text.setText(ui.warning(error))

    def _show_mask(self, source: Image, mask: Plane, step: int) -> None:
        before = self._taught_layer
        if before is not None and layers.owned(before).get("source_id") != source.unique_id:
            self.drop_mask()
        active, count = self._viewer.layers.selection.active, len(self._viewer.layers)
        shown = layers.put_preview(self._viewer, mask, source, step, layers.TAUGHT)
        self._taught_layer = shown
        if len(self._viewer.layers) > count:
            # Strokes lie above it, and the brush stays where it was.
            place = self._viewer.layers.index(source) + 1
            self._viewer.layers.move(self._viewer.layers.index(shown), place)
            self._viewer.layers.selection.active = active

    def drop_mask(self) -> None:
        """Remove the mask."""
        layer, self._taught_layer = self._taught_layer, None
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)

    # Teaching without painting

    def teach_from_plane(self) -> None:
        """Teach from the plane on screen, as one in focus, in the background."""
        with self.jobs.refusing():
            source = layers.check_image(self._image())
            index = layers.visible_index(self._viewer, source)
            target = Target(source, index, np.zeros(0, np.uint8))
            self._teach(target.name, source, _look_at_plane, target.read, target.name)

    def teach_from_stack(self) -> None:
        """Teach by comparing the planes of the stack on screen, in the background."""
        with self.jobs.refusing():
            source = layers.check_image(self._image())
            index = layers.visible_index(self._viewer, source)
            if not index:
                raise DefocusError(f"{source.name!r} is one plane; choose a focus stack")
            series = series_of(source, self._axis())
            place = series.without(index)
            name = plane_name(source.name, place)
            self._teach(f"{name}, stack", source, _look_at_stack, series.array(place), name)

    def _teach(self, key: str, source: Image, look: Callable[..., Evidence], *given: Any) -> None:
        size = layers.pixel_size_um(source)
        self.jobs.run(lambda found: self._keep(key, Shown(found, size)), look, *given)

    def _keep(self, key: str, shown: Shown) -> None:
        self._shown[key] = shown
        self.jobs.report(f"taught from: {', '.join(self._shown)}")
        self.live.setChecked(True)
        self.enable()
        self.changed.emit()

    def forget(self) -> None:
        """Forget what buttons taught."""
        self._shown.clear()
        self.jobs.report("")
        self.enable()
        self.changed.emit()

    # Files

    def save(self, path: Path) -> None:
        """Write the profile to a file, scored by sources kept from it, in the background."""
        parts = self._lessons.parts(self._targets, list(self._shown.values()))
        if not parts:
            self.jobs.refuse(DefocusError("nothing is taught yet; paint, or use the buttons here"))
            return
        self.jobs.run(lambda _: self.jobs.report(f"saved to {path}"), plain(_save), parts, path)


# In the background


def _look_at_plane(
    read: Callable[[], Plane], name: str, on_event: OnEvent, should_stop: ShouldStop
) -> Evidence:
    return from_focused(read(), predictor(should_stop=should_stop), name)


def _look_at_stack(stack: Any, name: str, on_event: OnEvent, should_stop: ShouldStop) -> Evidence:
    return from_planes(stack, predictor(should_stop=should_stop), name)


def _save(parts: list[Shown], path: Path) -> Path:
    save_profile(teach_from(parts, held_out=True).profile, path)
    return path
