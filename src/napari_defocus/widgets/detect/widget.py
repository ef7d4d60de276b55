"""The one-click widget: an image layer in, a blur map and a mask layer out."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Image, Labels, Shapes
from napari.viewer import Viewer
from qtpy.QtWidgets import QApplication, QWidget

from napari_defocus import __version__
from napari_defocus.core.errors import DefocusError
from napari_defocus.core.progress import OnEvent, ShouldStop
from napari_defocus.detection.api import detect
from napari_defocus.detection.config import DetectionConfig, with_preset
from napari_defocus.detection.detectors import scale_note
from napari_defocus.detection.postprocess import Detection
from napari_defocus.detection.recipes import as_command, as_python
from napari_defocus.measure.regions import region_shares, shares_text
from napari_defocus.widgets._shared import layers, ui
from napari_defocus.widgets._shared.choosers import follow_selection, layer_chooser
from napari_defocus.widgets._shared.dialogs import ask_to_open
from napari_defocus.widgets._shared.jobs import JobBar
from napari_defocus.widgets._shared.layers import BLUR, MASK, PREVIEW
from napari_defocus.widgets._shared.plugin_widget import PluginWidget
from napari_defocus.widgets._shared.preferences import preferred
from napari_defocus.widgets._shared.session import TAUGHT
from napari_defocus.widgets.detect import results
from napari_defocus.widgets.detect.export_panel import ExportPanel
from napari_defocus.widgets.detect.exports import find
from napari_defocus.widgets.detect.limit import Picker, limit_at
from napari_defocus.widgets.detect.object_table import ObjectScores
from napari_defocus.widgets.detect.preview import Preview
from napari_defocus.widgets.detect.settings import DetectionSettings, MoreLayers, detector_chooser
from napari_defocus.widgets.detect.stack_detectors import KeptDetectors

DETECTORS = "Detectors (*.safetensors)"


class DetectWidget(PluginWidget):
    """Choose nothing, press Detect."""

    def __init__(self, viewer: Viewer) -> None:
        super().__init__(viewer)
        self._preview, self._detectors = Preview(), KeptDetectors()
        self.scores = ObjectScores(self)
        self._watched: Image | None = None
        # Requests of one pass of the event loop are one; the preview skips those it cannot follow.
        self._timer = ui.debounced(self, 0, self._ask_preview)
        # The plane and the place in it that were clicked, until the plane is predicted.
        self._pick: tuple[tuple[Any, ...], tuple[float, float]] | None = None
        self._make_choosers()
        self._make_details()
        self._lay_out()
        self._connect()
        self._show_detectors()
        self._prefer(*map(preferred, ("detector", "metric")))
        if TAUGHT in self._session.detector_names:
            self.detector_chooser.choose(TAUGHT)
        self._detector_changed()
        self._image_changed()

    def _make_choosers(self) -> None:
        """Make the controls of what is detected in what, and the job."""
        self.image = layer_chooser(
            self._viewer,
            Image,
            tip="The image layer to detect in: the one that is selected in the layer list, unless "
            "you choose another.",
        )
        follow_selection(self._viewer, self.image)
        self.contents = ui.wrapped_label()
        self.shown_plane = ui.tick_box(
            "only the plane on screen",
            "Detects in the plane on screen alone, not in all planes of the stack.",
        )
        self.detector_chooser = detector_chooser()
        self.open_detector = ui.button(
            "Open…",
            "Opens the file of a profile, a metric or a dense network.",
            lambda: ask_to_open(self, "Open a detector", DETECTORS, self.use_detector_file),
        )
        self.more_layers = MoreLayers()
        self.jobs = JobBar(
            self._session.jobs, "Detect", "Adds the blur map and the mask of the image as layers."
        )

    def _make_details(self) -> None:
        """Make the controls of how is detected, and of what follows."""
        self.preview = ui.tick_box(
            "live preview of the plane on screen",
            "Shows the mask of the plane on screen as you move the sliders; of large planes, "
            "coarser.",
        )
        self.settings = DetectionSettings()
        self.picker = Picker(self._viewer, self.settings.limit.pick)
        self.region = layer_chooser(
            self._viewer,
            Shapes,
            Labels,
            nullable=True,
            tip="A shapes or labels layer: the line below tells how much of what it covers is "
            "blurred.",
        )
        self.share = ui.wrapped_label()
        self.share.hide()
        self.objects = layer_chooser(
            self._viewer,
            Labels,
            nullable=True,
            tip="A labels layer: each of its labels gets a score, in a table below and as features "
            "of the layer.",
        )
        self.exports = ExportPanel(
            self._viewer,
            self.jobs,
            image=lambda: self.image.value,
            region=lambda: self.region.value,
            objects=lambda: self.objects.value,
        )
        self.copy_command = ui.button(
            "Copy as command",
            "Copies the command that does the same without a window, with these settings.",
            lambda: self._copy(as_command),
        )
        self.copy_python = ui.button(
            "Copy as Python",
            "Copies the lines of Python that do the same, with these settings.",
            lambda: self._copy(as_python),
        )

    def _lay_out(self) -> None:
        detector = ui.row(self.detector_chooser, self.open_detector)
        detector.setStretch(0, 1)
        chosen = ui.form(("Image", self.image.native), ("", self.contents), ("", self.shown_plane),
                      ("Detector", detector))  # fmt: skip
        chosen.addRow(self.more_layers)
        more = ui.form(("Region", self.region.native), ("", self.share),
                    ("Objects", self.objects.native))  # fmt: skip
        copies = ui.row(self.copy_command, self.copy_python)
        inner = QWidget()
        layout = ui.column(inner, chosen, self.jobs, self.preview, self.settings, more,
                        self.scores.table,
                        self.exports, copies, margin=True)  # fmt: skip
        layout.addStretch()
        ui.column(self, ui.Scrolled(inner))

    def _connect(self) -> None:
        self.jobs.clicked.connect(self.detect)
        self._session.metrics_changed.connect(self._show_detectors)
        self._session.detectors_changed.connect(self._show_detectors)
        self.image.changed.connect(self._image_changed)
        self.detector_chooser.currentIndexChanged.connect(self._detector_changed)
        self.settings.limit.pick.toggled.connect(self._begin_to_pick)
        self.picker.picked.connect(self._picked)
        self.settings.changed.connect(self._request_preview)
        self.preview.toggled.connect(self._toggle_preview)
        self._viewer.dims.events.current_step.connect(self._request_preview)
        self._preview.ready.connect(self._show_preview)
        self._preview.failed.connect(self.jobs.refuse)
        self.region.changed.connect(self._show_region)
        self.objects.changed.connect(self._show_objects)
        self.scores.failed.connect(self.jobs.refuse)

    # What is chosen

    @property
    def config(self) -> DetectionConfig:
        """The settings as they stand."""
        _, name = self._session.detector(self.detector_chooser.name)
        return replace(self.settings.config, detector=name, device=preferred("device"))

    def _detector_changed(self, _: Any = None) -> None:
        network = self._session.uses_network(self.detector_chooser.name)
        self.more_layers.follow_detector(network)
        self.settings.follow_detector(
            network, literal=self._session.is_literal(self.detector_chooser.name)
        )
        self._request_preview()

    def _image_changed(self, _: Any = None) -> None:
        layer = self.image.value
        if layer != self._watched:
            if self._watched is not None:
                self._drop_preview_layer(self._watched, later=True)
                self._watched.events.data.disconnect(self._data_changed)
            if layer is not None:
                layer.events.data.connect(self._data_changed)
            self._watched = layer
        self.contents.setText(layers.describe(layer) if layer is not None else "no image layer")
        is_stack = layer is not None and bool(layers.leading_shape(layer))
        self.shown_plane.setVisible(is_stack)
        self.settings.limit.follow_image(self._pixel_size)
        self._request_preview()

    def _data_changed(self, _: Any = None) -> None:
        self._preview.forget()
        self._detectors.forget()
        self._image_changed()

    @property
    def _pixel_size(self) -> float | None:
        layer = self.image.value
        return None if layer is None else layers.pixel_size_um(layer)

    def _show_detectors(self, changed: str = "") -> None:
        names, chooser = self._session.detector_names, self.detector_chooser
        # What is new is chosen; a profile that is taught further is not chosen again.
        wanted = chooser.findData(changed) < 0 or changed in self._session.metric_names
        chooser.show_names(names, changed if changed in names and wanted else "")

    def _prefer(self, detector: str, metric: str) -> None:
        # A metric is an older preference: it counts where the detector is left open.
        name = metric if detector == "auto" and metric != "default" else detector
        if name in self._session.detector_names:
            self.detector_chooser.choose(name)
        else:
            self.use_detector_file(Path(name))

    def use_detector_file(self, path: Path) -> None:
        """Choose the detector of a file of any kind; show why where it cannot be used."""
        with self.jobs.refusing():
            self._session.open_detector(path)
            self.detector_chooser.choose(str(path))

    # The main job

    def detect(self) -> None:
        """Detect defocus in the chosen image, in the background."""
        with self.jobs.refusing():
            self._start(layers.check_image(self.image.value))

    def _start(self, source: Image) -> None:
        config, more, name = self.config, self.more_layers.names, self.detector_chooser.name
        detectors = self._detectors.of(source, self._session.detector(name)[0], config)
        detector, axes, index = detectors.chosen, detectors.axes, None
        config = with_preset(config) if detector.literal else config
        data = layers.full_resolution(source)
        if layers.leading_shape(source) and self.shown_plane.isChecked():
            index = layers.visible_index(self._viewer, source)
            data, axes = detectors.read(index), axes[len(index) :]
        note = {
            "version": __version__,
            "detector": name,
            "detector_digest": detector.digest,
            "settings": asdict(config),
            "plane": index,
        }
        pixel_size = self._pixel_size
        told = tuple(filter(None, [scale_note(detector, pixel_size)]))

        def call(on_event: OnEvent, should_stop: ShouldStop) -> Detection:
            listeners: Any = {"on_event": on_event, "should_stop": should_stop}
            own = detectors.at(index, should_stop) if index else detector
            found = detect(data, own, config, axes=axes, pixel_size=pixel_size, **listeners)
            return replace(found, note=found.note or detectors.note)

        self.jobs.run(lambda found: self._show(found, source, more, note, told), call)

    def _show(
        self,
        found: Detection,
        source: Image,
        more: tuple[str, ...],
        note: dict[str, Any],
        warnings: tuple[str, ...],
    ) -> None:
        if source not in self._viewer.layers:
            raise DefocusError(f"layer {source.name!r} was deleted; its result was dropped")
        self._drop_preview_layer(source)
        if found.limit is not None:
            note |= {"limit_px": found.limit.tolist(), "taught": found.note}
        if results.painting_is_kept(self._viewer, source):
            warnings = (*warnings, results.KEPT)
        shares = region_shares(found.mask, np.ones(found.mask.shape[-2:], bool))
        lines = shares_text(shares), found.note, *(f"⚠ {line}" for line in warnings)
        told = "\n".join(filter(None, lines))
        results.do_all(
            [
                *results.put_layers(self._viewer, found, source, more, note),
                lambda: setattr(self._viewer.layers.selection, "active", source),
                lambda: self.settings.limit.show_used(found),
                lambda: self.jobs.report(told),
                self._show_region,
                self._show_objects,
            ]
        )

    def _found(self) -> Detection | None:
        """Return the detection that lies in the viewer for the chosen image."""
        source = self.image.value
        if source is None:
            return None
        blur, mask = (layers.find_owned(self._viewer, source, role) for role in (BLUR, MASK))
        return Detection(blur.data, mask.data) if blur is not None and mask is not None else None

    # Regions and objects

    def _show_region(self, _: Any = None) -> None:
        text, found, region = "", self._found(), self.region.value
        if found is not None and region is not None:
            try:
                inside = layers.region_mask(region, self.image.value, found.mask.shape[-2:])
                text = f"region: {shares_text(region_shares(found.mask, inside), 'region')}"
            except DefocusError as error:
                text = f"⚠ {error}"
        self.share.setText(text)
        self.share.setVisible(bool(text))

    def _show_objects(self, _: Any = None) -> None:
        self.scores.clear()
        self.jobs.forget_refusal()
        objects = self.objects.value
        if self._found() is not None and objects is not None:
            with self.jobs.refusing():
                self.scores.score(objects, find(self._viewer, self.image.value))

    # The preview

    def _toggle_preview(self, on: bool) -> None:
        if on:
            self._request_preview()
        else:
            self._timer.stop()
            self._preview.stop()
            if self.image.value is not None:
                self._drop_preview_layer(self.image.value)

    def _request_preview(self, _: Any = None) -> None:
        if self.preview.isChecked():
            self._timer.start()

    def _ask_preview(self) -> None:
        with self.jobs.refusing():
            source = layers.check_image(self.image.value)
            given, _ = self._session.detector(self.detector_chooser.name)
            index, config = layers.visible_index(self._viewer, source), self.config
            detectors = self._detectors.of(source, given, config)
            self._preview.request((source.unique_id, index), index, detectors, config)

    def _show_preview(self, answer: tuple[Any, Detection, int]) -> None:
        key, found, step = answer
        source = self.image.value
        if not self.preview.isChecked() or source is None or source.unique_id != key[0]:
            return
        layers.put_preview(self._viewer, found.mask, source, step)
        if self._viewer.layers.selection.active != source:
            self._viewer.layers.selection.active = source
        self.settings.limit.show_used(found)
        self._settle_pick()

    # The limit by a click

    def _begin_to_pick(self, on: bool) -> None:
        if on and self.image.value is not None:
            # A brush would paint; and what the click does should be seen.
            self._viewer.layers.selection.active = self.image.value
            self.preview.setChecked(True)
            self.jobs.report("click on something that is in focus")

    def _picked(self, position: tuple[float, ...]) -> None:
        source = self.image.value
        if source is not None:
            leading = len(layers.leading_shape(source))
            place = source.world_to_data(position)[leading : leading + 2]
            index = layers.visible_index(self._viewer, source)
            self._pick = (source.unique_id, index), (float(place[0]), float(place[1]))
            self._settle_pick()

    def _settle_pick(self) -> None:
        prediction = None if self._pick is None else self._preview.prediction(self._pick[0])
        if self._pick is None or prediction is None:
            return
        (_, place), self._pick = self._pick, None
        with self.jobs.refusing():
            limit = limit_at(prediction, place)
            self.settings.limit.set_pixels(limit)
            self.jobs.report(f"limit set to {limit:.1f} px by what was clicked")

    def _drop_preview_layer(self, source: Image, *, later: bool = False) -> None:
        layer = layers.find_owned(self._viewer, source, PREVIEW)
        if layer is not None and later:
            layers.remove_later(self._viewer, lambda: [layer])
        elif layer is not None:
            self._viewer.layers.remove(layer)

    # As text

    def _copy(self, write: Any) -> None:
        name = self.detector_chooser.name
        if not self._session.is_named(name):
            error = f"{name!r} is in memory alone; save it, open its file as Detector, and copy"
            self.jobs.refuse(DefocusError(error))
            return
        source = self.image.value
        path = (source.source.path if source is not None else None) or "IMAGE"
        text = write(path, "default", self.config, self.more_layers.names)
        QApplication.clipboard().setText(text)
        self.jobs.report("copied to the clipboard")
