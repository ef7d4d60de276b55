"""Controls for the settings of a detection, and for the metric."""

from dataclasses import replace

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QCheckBox, QComboBox, QFormLayout, QVBoxLayout, QWidget
from superqt import QCollapsible, QLabeledDoubleSlider, QLabeledSlider

from napari_defocus.detection import SCALES, DetectionConfig


class MetricChooser(QComboBox):
    """Names of metrics; files are shown by their last part."""

    @property
    def name(self) -> str:
        """The chosen name, of a file its whole path."""
        return str(self.currentData())

    def show_names(self, names: tuple[str, ...], chosen: str = "") -> None:
        """List names and choose one; the present choice stays where none is given."""
        chosen = chosen or self.name
        self.blockSignals(True)
        self.clear()
        for name in names:
            self.addItem(name.replace("\\", "/").rsplit("/", 1)[-1], name)
        self.blockSignals(False)
        self.setCurrentIndex(max(self.findData(chosen), 0))
        self.currentIndexChanged.emit(self.currentIndex())


class DetectionSettings(QWidget):
    """Threshold and refinement, the rest folded away; starts with the library's defaults."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        default = DetectionConfig()
        self.caution = _slider(-4, 4, default.caution, "Higher: less is called sharp (log odds).")
        self.gain = _slider(0.2, 5, default.gain, "Steepness of the blur map.")
        self.adapt = _slider(0, 1, default.adapt, "How far the threshold follows a soft image.")
        self.refine = QCheckBox("refine")
        self.refine.setChecked(default.refine)
        self.keep = _slider(0, 1, default.refinement.keep, "Share of the unrefined map.")
        self.iterations = QLabeledSlider(Qt.Orientation.Horizontal)
        self.iterations.setRange(1, 200)
        self.iterations.setValue(max(default.refinement.iterations))
        self.iterations.setToolTip("The last of the three iterations whose maps are mixed.")
        self.smallest = QLabeledSlider(Qt.Orientation.Horizontal)
        self.smallest.setRange(0, 2000)
        self.smallest.setValue(default.mask.smallest)
        self.smallest.setToolTip("Spots of fewer pixels are given to what surrounds them.")
        self.scale = QComboBox()
        self.scale.addItems(SCALES)
        self.scale.setToolTip("The metric's own scale compares images; the paper's does not.")
        self._lay_out()
        for slider in (
            self.caution, self.gain, self.adapt, self.keep, self.iterations, self.smallest,
        ):  # fmt: skip
            slider.valueChanged.connect(self.changed)
        self.refine.toggled.connect(self.changed)
        self.scale.currentTextChanged.connect(self.changed)

    def _lay_out(self) -> None:
        first = QFormLayout()
        first.addRow("Threshold", self.caution)
        first.addRow("", self.refine)
        inner = QWidget()
        rest = QFormLayout(inner)
        rest.setContentsMargins(0, 0, 0, 0)
        for label, control in (
            ("Scale", self.scale),
            ("Adapt", self.adapt),
            ("Steepness", self.gain),
            ("Keep", self.keep),
            ("Iterations", self.iterations),
            ("Smallest spot", self.smallest),
        ):
            rest.addRow(label, control)
        folded = QCollapsible("More settings")
        folded.addWidget(inner)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(first)
        layout.addWidget(folded)

    @property
    def config(self) -> DetectionConfig:
        """The settings; those that were not touched are the library's defaults."""
        default = DetectionConfig()
        last = self.iterations.value()
        iterations = default.refinement.iterations
        if last != iterations[-1]:
            share = last / iterations[-1]
            iterations = (*(max(1, round(i * share)) for i in iterations[:-1]), last)
        return replace(
            default,
            scale=self.scale.currentText(),
            caution=round(self.caution.value(), 3),
            gain=round(self.gain.value(), 3),
            adapt=round(self.adapt.value(), 3),
            refine=self.refine.isChecked(),
            refinement=replace(
                default.refinement, keep=round(self.keep.value(), 3), iterations=iterations
            ),
            mask=replace(default.mask, smallest=self.smallest.value()),
        )


def _slider(low: float, high: float, value: float, tip: str) -> QLabeledDoubleSlider:
    slider = QLabeledDoubleSlider(Qt.Orientation.Horizontal)
    slider.setRange(low, high)
    slider.setValue(value)
    slider.setToolTip(tip)
    return slider
