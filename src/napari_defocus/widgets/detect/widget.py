"""The one-click widget: an image layer in, a blur map and a mask layer out."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Image, Labels, Shapes
from napari.viewer import Viewer
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import (
    QApplication,
    QCheckBox,
    QFormLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_defocus import __version__
from napari_defocus.core.errors import DefocusError
from napari_defocus.dense.detector import load_dense
from napari_defocus.detection.api import detect
from napari_defocus.detection.config import DetectionConfig
from napari_defocus.detection.postprocess import Detection
from napari_defocus.detection.recipes import as_command, as_python
from napari_defocus.measure.regions import region_shares, score_objects
from napari_defocus.widgets._shared import layers
from napari_defocus.widgets._shared.choosers import follow_selection, layer_chooser
from napari_defocus.widgets._shared.controls import Scrolled, row, set_tips, share_tips
from napari_defocus.widgets._shared.dialogs import ask_metric_to_open, ask_to_open
from napari_defocus.widgets._shared.jobs import JobBar
from napari_defocus.widgets._shared.layers import BLUR, CONFIDENCE, MASK, PREVIEW, RADIUS
from napari_defocus.widgets._shared.preferences import preferred
from napari_defocus.widgets._shared.session import session
from napari_defocus.widgets.detect.export_panel import ExportPanel
from napari_defocus.widgets.detect.object_table import ObjectTable, add_features
from napari_defocus.widgets.detect.preview import Preview
from napari_defocus.widgets.detect.settings import (
    DetectionSettings,
    DetectorChooser,
    MetricChooser,
    MoreLayers,
)

DENSE_NETWORKS = "Dense networks (*.safetensors)"


class DetectWidget(QWidget):
    """Choose nothing, press Detect.

    Parameters
    ----------
    viewer : Viewer
        Given by napari.
    """

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self._session = session()
        self._preview = Preview()
        self._watched: Image | None = None
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        # Requests of one pass of the event loop are one; the preview skips those it cannot follow.
        self._timer.setInterval(0)
        self._timer.timeout.connect(self._ask_preview)
        self.image = layer_chooser(viewer, Image)
        follow_selection(viewer, self.image)
        self.contents = QLabel()
        self.detector_chooser = DetectorChooser()
        self.open_detector = QPushButton("Open…")
        self.metric_chooser = MetricChooser()
        self.open_metric = QPushButton("Open…")
        self.more_layers = MoreLayers()
        self.shown_plane = QCheckBox("only the plane on screen")
        self.settings = DetectionSettings()
        self.preview = QCheckBox("live preview of the plane on screen")
        self.region = layer_chooser(viewer, Shapes, Labels, nullable=True)
        self.share = QLabel()
        self.objects = layer_chooser(viewer, Labels, nullable=True)
        self.table = ObjectTable()
        self.jobs = JobBar(
            self._session.jobs, "Detect", "Adds the blur map and the mask of the image as layers."
        )
        self.exports = ExportPanel(
            viewer,
            self.jobs,
            image=lambda: self.image.value,
            region=lambda: self.region.value,
            objects=lambda: self.objects.value,
        )
        self.copy_command = QPushButton("Copy as command")
        self.copy_python = QPushButton("Copy as Python")
        self._set_tips()
        self._lay_out()
        share_tips(self)
        self._connect()
        self._show_metrics()
        self._prefer_metric(preferred("metric"))
        self.detector_chooser.choose(preferred("detector"))
        self._detector_changed()
        self._image_changed()

    def _set_tips(self) -> None:
        set_tips(
            (self.image.native, "The image layer to judge: the one that is selected in the layer "
                                "list, unless you choose another."),
            (self.shown_plane, "Judges the plane on screen alone, not all planes of the stack."),
            (self.open_detector, "Opens the file of another dense network."),
            (self.metric_chooser, "The filters that measure sharpness: the default, or one of "
                                  "your own. The dense network uses them, too."),
            (self.open_metric, "Opens the file of a metric, such as Train saves."),
            (self.preview, "Shows the mask of the plane on screen as you move the sliders; of "
                           "large planes, coarser."),
            (self.region.native, "A shapes or labels layer: the line below tells how much of what "
                                 "it covers is blurred."),
            (self.objects.native, "A labels layer: each of its labels gets a score, in a table "
                                  "below and as features of the layer."),
            (self.copy_command, "Copies the command that does the same without a window, with "
                                "these settings."),
            (self.copy_python, "Copies the lines of Python that do the same, with these settings."),
        )  # fmt: skip

    def _lay_out(self) -> None:
        form = QFormLayout()
        form.addRow("Image", self.image.native)
        form.addRow("", self.contents)
        form.addRow("", self.shown_plane)
        for label, chooser, button in (
            ("Detector", self.detector_chooser, self.open_detector),
            ("Metric", self.metric_chooser, self.open_metric),
        ):
            line = row(chooser, button)
            line.setStretch(0, 1)
            form.addRow(label, line)
        form.addRow(self.more_layers)
        more = QFormLayout()
        more.addRow("Region", self.region.native)
        more.addRow("", self.share)
        more.addRow("Objects", self.objects.native)
        inner = QWidget()
        layout = QVBoxLayout(inner)
        layout.addLayout(form)
        layout.addWidget(self.jobs)
        layout.addWidget(self.preview)
        layout.addWidget(self.settings)
        layout.addLayout(more)
        layout.addWidget(self.table)
        layout.addWidget(self.exports)
        layout.addLayout(row(self.copy_command, self.copy_python))
        layout.addStretch()
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(Scrolled(inner))
        self.share.setWordWrap(True)
        self.share.hide()
        self.contents.setWordWrap(True)

    def _connect(self) -> None:
        self.jobs.clicked.connect(self.detect)
        self.open_detector.clicked.connect(self._choose_detector_file)
        self.open_metric.clicked.connect(self._choose_metric_file)
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
        self.copy_command.clicked.connect(lambda: self._copy(as_command))
        self.copy_python.clicked.connect(lambda: self._copy(as_python))

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

    def _choose_metric_file(self) -> None:
        path = ask_metric_to_open(self)
        if path is not None:
            self.use_metric_file(path)

    def use_metric_file(self, path: Path) -> None:
        """Choose the metric of a file; say so where it cannot be used."""
        try:
            self._session.open_metric(path)
        except DefocusError as error:
            self.jobs.refuse(error)

    def _choose_detector_file(self) -> None:
        path = ask_to_open(self, "Open a dense network", DENSE_NETWORKS)
        if path is not None:
            self.use_detector_file(path)

    def use_detector_file(self, path: Path) -> None:
        """Choose the dense detector of a file; say so where it cannot be used."""
        try:
            load_dense(path)
        except DefocusError as error:
            self.jobs.refuse(error)
            return
        self.detector_chooser.choose(str(path))

    # The main job

    def detect(self) -> None:
        """Detect defocus in the chosen image, in the background."""
        try:
            source = layers.check_image(self.image.value)
            metric = self._session.metric(self.metric_chooser.name)
        except DefocusError as error:
            self.jobs.refuse(error)
            return
        config, more = self.config, self.more_layers.names
        data, axes, index = layers.full_resolution(source), layers.axes_of(source), None
        if layers.leading_shape(source) and self.shown_plane.isChecked():
            index, data = layers.visible_plane(self._viewer, source)
            axes = axes[len(index) :]
        note = {
            "version": __version__,
            "metric": self.metric_chooser.name,
            "metric_digest": metric.digest,
            "settings": asdict(config),
            "plane": index,
        }

        def call(on_event: Any, should_stop: Any) -> Detection:
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
        self.jobs.say(_shares_text("image", region_shares(found.mask, everything)) + missed)
        self._show_region()
        self._show_objects()

    def _found(self) -> Detection | None:
        """Give the detection that lies in the viewer for the chosen image."""
        source = self.image.value
        if source is None:
            return None
        blur, mask = (layers.find_owned(self._viewer, source, role) for role in (BLUR, MASK))
        return Detection(blur.data, mask.data) if blur is not None and mask is not None else None

    def _detected(self) -> Any:
        """Give the planes of the image that `_found` is about."""
        source = self.image.value
        note = layers.owned(layers.find_owned(self._viewer, source, MASK))
        return layers.full_resolution(source)[tuple(note.get("plane") or ())]

    # Regions and objects

    def _show_region(self, _: Any = None) -> None:
        self._tell_share("")
        found, region = self._found(), self.region.value
        if found is None or region is None:
            return
        try:
            inside = layers.region_mask(region, self.image.value, found.mask.shape[-2:])
        except DefocusError as error:
            self._tell_share(f"⚠ {error}")
            return
        self._tell_share(_shares_text("region", region_shares(found.mask, inside)))

    def _tell_share(self, text: str) -> None:
        self.share.setText(text)
        self.share.setVisible(bool(text))

    def _show_objects(self, _: Any = None) -> None:
        self.table.hide()
        found, objects = self._found(), self.objects.value
        if found is None or objects is None:
            return
        try:
            columns = score_objects(found, np.asarray(objects.data), self._detected())
        except DefocusError as error:
            self.jobs.refuse(error)
            return
        add_features(objects, columns)
        self.table.fill(columns)

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
        try:
            source = layers.check_image(self.image.value)
            metric = self._session.metric(self.metric_chooser.name)
        except DefocusError as error:
            self.jobs.refuse(error)
            return
        index = layers.visible_index(self._viewer, source, len(layers.leading_shape(source)))
        data = layers.full_resolution(source)
        self._preview.ask(
            (source.unique_id, index), lambda: np.asarray(data[index]), metric, self.config
        )

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
        self.jobs.say("copied to the clipboard")


def _shares_text(what: str, shares: dict[str, float]) -> str:
    parts = ", ".join(f"{share:.1%} {name}" for name, share in shares.items())
    return f"{what}: {parts}"
