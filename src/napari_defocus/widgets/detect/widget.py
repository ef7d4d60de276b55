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
from napari_defocus.dense.detector import load_dense
from napari_defocus.detection.api import detect
from napari_defocus.detection.config import DetectionConfig
from napari_defocus.detection.postprocess import Detection
from napari_defocus.detection.recipes import as_command, as_python
from napari_defocus.measure.regions import region_shares, score_objects
from napari_defocus.metric.local_metric import LocalMetric
from napari_defocus.widgets._shared import layers, ui
from napari_defocus.widgets._shared.choosers import MetricChooser, follow_selection, layer_chooser
from napari_defocus.widgets._shared.dialogs import ask_metric_to_open, ask_to_open
from napari_defocus.widgets._shared.jobs import JobBar
from napari_defocus.widgets._shared.layers import BLUR, CONFIDENCE, MASK, PREVIEW, RADIUS
from napari_defocus.widgets._shared.plugin_widget import PluginWidget
from napari_defocus.widgets._shared.preferences import preferred
from napari_defocus.widgets._shared.tables import fill_table, read_only_table
from napari_defocus.widgets.detect import object_table
from napari_defocus.widgets.detect.export_panel import ExportPanel
from napari_defocus.widgets.detect.preview import Preview
from napari_defocus.widgets.detect.settings import DetectionSettings, DetectorChooser, MoreLayers

NETWORKS = "Dense networks (*.safetensors)"


class DetectWidget(PluginWidget):
    """Choose nothing, press Detect."""

    def __init__(self, viewer: Viewer) -> None:
        super().__init__(viewer)
        self._preview = Preview()
        self._watched: Image | None = None
        # Requests of one pass of the event loop are one; the preview skips those it cannot follow.
        self._timer = ui.debounced(self, 0, self._ask_preview)
        self._make_choosers()
        self._make_details()
        self._lay_out()
        self._connect()
        self._show_metrics()
        self._prefer_metric(preferred("metric"))
        self.detector_chooser.choose(preferred("detector"))
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
        self.detector_chooser = DetectorChooser()
        self.open_detector = ui.button(
            "Open…",
            "Opens the file of another dense network.",
            lambda: ask_to_open(self, "Open a dense network", NETWORKS, self.use_detector_file),
        )
        self.metric_chooser = ui.tipped(
            MetricChooser(),
            "The filters that measure sharpness: the default, or one of your own. The dense "
            "network uses them, too.",
        )
        self.open_metric = ui.button(
            "Open…",
            "Opens the file of a metric, such as Train saves.",
            lambda: ask_metric_to_open(self, self.use_metric_file),
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
        self.table = read_only_table(object_table.HEIGHT, object_table.TIP)
        self.table.verticalHeader().hide()
        self.table.hide()
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
        metric = ui.row(self.metric_chooser, self.open_metric)
        for line in (detector, metric):
            line.setStretch(0, 1)
        chosen = ui.form(("Image", self.image.native), ("", self.contents), ("", self.shown_plane),
                      ("Detector", detector), ("Metric", metric))  # fmt: skip
        chosen.addRow(self.more_layers)
        more = ui.form(("Region", self.region.native), ("", self.share),
                    ("Objects", self.objects.native))  # fmt: skip
        copies = ui.row(self.copy_command, self.copy_python)
        inner = QWidget()
        layout = ui.column(inner, chosen, self.jobs, self.preview, self.settings, more, self.table,
                        self.exports, copies, margin=True)  # fmt: skip
        layout.addStretch()
        ui.column(self, ui.Scrolled(inner))

    def _connect(self) -> None:
        self.jobs.clicked.connect(self.detect)
        self._session.metrics_changed.connect(self._show_metrics)
        self.image.changed.connect(self._image_changed)
        self.detector_chooser.currentIndexChanged.connect(self._detector_changed)
        self.metric_chooser.currentIndexChanged.connect(self._request_preview)
        self.settings.changed.connect(self._request_preview)
        self.preview.toggled.connect(self._toggle_preview)
        self._viewer.dims.events.current_step.connect(self._request_preview)
        self._preview.ready.connect(self._show_preview)
        self._preview.failed.connect(self.jobs.refuse)
        self.region.changed.connect(self._show_region)
        self.objects.changed.connect(self._show_objects)

    # What is chosen

    @property
    def config(self) -> DetectionConfig:
        """The settings as they stand."""
        config = replace(self.settings.config, detector=self.detector_chooser.name)
        return replace(config, device=preferred("device"))

    def _detector_changed(self, _: Any = None) -> None:
        name = self.detector_chooser.name
        self.more_layers.follow_detector(name)
        self.settings.follow_detector(name)
        self._request_preview()

    def _image_changed(self, _: Any = None) -> None:
        layer = self.image.value
        if layer != self._watched:
            if self._watched is not None:
                self._drop_preview_layer(self._watched)
                self._watched.events.data.disconnect(self._data_changed)
            if layer is not None:
                layer.events.data.connect(self._data_changed)
            self._watched = layer
        self.contents.setText(layers.describe(layer) if layer is not None else "no image layer")
        is_stack = layer is not None and bool(layers.leading_shape(layer))
        self.shown_plane.setVisible(is_stack)
        self._request_preview()

    def _data_changed(self, _: Any = None) -> None:
        self._preview.forget()
        self._image_changed()

    def _show_metrics(self, chosen: str = "") -> None:
        self.metric_chooser.show_names(self._session.metric_names, chosen)

    def _prefer_metric(self, name: str) -> None:
        if name in self._session.metric_names:
            self._show_metrics(name)
        else:
            self.use_metric_file(Path(name))

    def use_metric_file(self, path: Path) -> None:
        """Choose the metric of a file; show why where it cannot be used."""
        with self.jobs.refusing():
            self._session.open_metric(path)

    def use_detector_file(self, path: Path) -> None:
        """Choose the dense detector of a file; show why where it cannot be used."""
        with self.jobs.refusing():
            load_dense(path)
            self.detector_chooser.choose(str(path))

    # The main job

    def _chosen(self) -> tuple[Image, LocalMetric]:
        image = layers.check_image(self.image.value)
        return image, self._session.metric(self.metric_chooser.name)

    def detect(self) -> None:
        """Detect defocus in the chosen image, in the background."""
        with self.jobs.refusing():
            self._start(*self._chosen())

    def _start(self, source: Image, metric: LocalMetric) -> None:
        config, more = self.config, self.more_layers.names
        data, axes, index = layers.full_resolution(source), layers.axes_of(source), None
        if layers.leading_shape(source) and self.shown_plane.isChecked():
            index = layers.visible_index(self._viewer, source)
            data, axes = np.asarray(data[index]), axes[len(index) :]
        note = {
            "version": __version__,
            "metric": self.metric_chooser.name,
            "metric_digest": metric.digest,
            "settings": asdict(config),
            "plane": index,
        }

        def call(on_event: OnEvent, should_stop: ShouldStop) -> Detection:
            return detect(
                data, metric, config, axes=axes, on_event=on_event, should_stop=should_stop
            )

        self.jobs.run(lambda found: self._show(found, source, more, note), call)

    def _show(
        self, found: Detection, source: Image, more: tuple[str, ...], note: dict[str, Any]
    ) -> None:
        if source not in self._viewer.layers:
            raise DefocusError(f"layer {source.name!r} was deleted; its result was dropped")
        self._drop_preview_layer(source)
        layers.put_image(self._viewer, found.blur, source, BLUR, **note)
        for name, role in (("confidence", CONFIDENCE), ("radius", RADIUS)):
            values = getattr(found, name)
            if name in more and values is not None:
                layers.put_image(self._viewer, values, source, role, **note)
        layers.put_labels(self._viewer, found.mask, source, MASK, **note)
        self._viewer.layers.selection.active = source
        everything = np.ones(found.mask.shape[-2:], bool)
        missed = "; the metric tells no blur radius" * ("radius" in more and found.radius is None)
        self.jobs.report(_shares_text("image", region_shares(found.mask, everything)) + missed)
        self._show_region()
        self._show_objects()

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
                text = _shares_text("region", region_shares(found.mask, inside))
            except DefocusError as error:
                text = f"⚠ {error}"
        self.share.setText(text)
        self.share.setVisible(bool(text))

    def _show_objects(self, _: Any = None) -> None:
        self.table.hide()
        found, objects, source = self._found(), self.objects.value, self.image.value
        if found is None or objects is None:
            return
        plane = layers.owned(layers.find_owned(self._viewer, source, MASK)).get("plane")
        with self.jobs.refusing():
            image = layers.full_resolution(source)[tuple(plane or ())]
            columns = score_objects(found, np.asarray(objects.data), image)
            object_table.add_features(objects, columns)
            fill_table(self.table, columns)
            self.table.show()

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
            source, metric = self._chosen()
            index = layers.visible_index(self._viewer, source)
            data = layers.full_resolution(source)
            key = (source.unique_id, index)
            self._preview.request(key, lambda: np.asarray(data[index]), metric, self.config)

    def _show_preview(self, answer: tuple[Any, Detection, int]) -> None:
        key, found, step = answer
        source = self.image.value
        if not self.preview.isChecked() or source is None or source.unique_id != key[0]:
            return
        layers.put_preview(self._viewer, found.mask, source, step)
        if self._viewer.layers.selection.active != source:
            self._viewer.layers.selection.active = source

    def _drop_preview_layer(self, source: Image) -> None:
        layer = layers.find_owned(self._viewer, source, PREVIEW)
        if layer is not None:
            self._viewer.layers.remove(layer)

    # As text

    def _copy(self, write: Any) -> None:
        source = self.image.value
        path = (source.source.path if source is not None else None) or "IMAGE"
        text = write(path, self.metric_chooser.name, self.config, self.more_layers.names)
        QApplication.clipboard().setText(text)
        self.jobs.report("copied to the clipboard")


def _shares_text(what: str, shares: dict[str, float]) -> str:
    parts = ", ".join(f"{share:.1%} {name}" for name, share in shares.items())
    return f"{what}: {parts}"
