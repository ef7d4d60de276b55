"""Controls for the settings of a detection, and for the detector."""

from dataclasses import replace
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QComboBox, QWidget
from superqt import QLabeledDoubleSlider, QLabeledSlider

from napari_defocus.detection.config import SCALES, DetectionConfig
from napari_defocus.widgets._shared import ui
from napari_defocus.widgets._shared.choosers import last_part

DETECTOR_TITLES = {"auto": "Automatic", "metric": "Local metric", "dense": "Dense network"}


class DetectorChooser(QComboBox):
    """The detectors, and the files of dense ones that the user opened."""

    def __init__(self) -> None:
        super().__init__()
        for name, text in DETECTOR_TITLES.items():
            self.addItem(text, name)
        self.setToolTip(
            "<p><b>Automatic</b>: the dense network, but the local metric once you choose one of "
            "your own, and where onnxruntime is missing.</p>"
            "<p><b>Local metric</b>: looks at small patches. Fast, and learns "
            "from what you paint.</p>"
            "<p><b>Dense network</b>: the metric and a network that sees the surroundings of each "
            "pixel, together. Slower; it also tells the radius of the blur.</p>"
        )

    @property
    def name(self) -> str:
        """``auto``, ``metric``, ``dense``, or the path of a dense detector's file."""
        return str(self.currentData())

    def choose(self, name: str) -> None:
        """Choose a detector; a file that is new is listed first."""
        if self.findData(name) < 0:
            self.addItem(last_part(name), name)
        self.setCurrentIndex(self.findData(name))


class MoreLayers(QWidget):
    """Boxes for the results that are wanted beside the blur map and the mask."""

    def __init__(self) -> None:
        super().__init__()
        self.confidence = ui.tick_box(
            "confidence layer",
            "Adds a layer, hidden at first: how certain each pixel is, from 0, undecided, to 1, "
            "certain.",
        )
        self.radius = ui.tick_box(
            "blur radius layer",
            "Adds a layer, hidden at first: how wide the blur is at each pixel, as the radius of a "
            "disc. In pixels, also where the image has a scale in other units. Only the dense "
            "network tells it.",
        )
        ui.column(self, ui.row(self.confidence, self.radius))

    def follow_detector(self, name: str) -> None:
        """Offer what a detector can predict."""
        self.radius.setEnabled(name != "metric")

    @property
    def names(self) -> tuple[str, ...]:
        """Which are wanted, of ``confidence`` and ``radius``; named as in `Detection`."""
        boxes = {"confidence": self.confidence, "radius": self.radius}
        return tuple(n for n, box in boxes.items() if box.isChecked() and box.isEnabled())


class DetectionSettings(QWidget):
    """Threshold and refinement, the rest folded away; starts with the library's defaults."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        default = DetectionConfig()
        self.caution = _slider(
            -4, 4, default.caution,
            "The higher, the less is called sharp. In log odds: 0 is even, and 1 more asks for 2.7 "
            "times the odds. On the command line: --caution.",
        )  # fmt: skip
        self.gain = _slider(
            0.2, 5, default.gain, "How steeply the blur map goes from sharp to blurred."
        )
        self.adapt = _slider(
            0, 1, default.adapt,
            "How far the threshold follows an image that is soft all over; at 0 it stays, so that "
            "images compare.",
        )  # fmt: skip
        self.refine = ui.tick_box(
            "refine",
            "Refines the map step by step: what lies among sharp pixels gets sharper, specks go.",
            default.refine,
        )
        self.keep = _slider(
            0, 1, default.refinement.keep,
            "Share of the map before its refinement that stays in the result.",
        )  # fmt: skip
        self.iterations = _slider(
            1, 200, max(default.refinement.iterations),
            "Steps of the refinement. The maps after a tenth, half and all of them are mixed.",
            QLabeledSlider,
        )  # fmt: skip
        self.smallest = _slider(
            0, 2000, default.mask.smallest,
            "Spots of fewer pixels are given to what surrounds them.", QLabeledSlider,
        )  # fmt: skip
        self.scale = ui.choice(
            SCALES, default.scale,
            "calibrated: the metric's own scale, by which images compare. image: the paper's, by "
            "which each image has a sharp part. The dense network has the first alone.",
        )  # fmt: skip
        first = [("Threshold", self.caution), ("", self.refine)]
        more = [("Scale", self.scale), ("Adapt", self.adapt), ("Steepness", self.gain),
                ("Keep", self.keep), ("Iterations", self.iterations),
                ("Smallest spot", self.smallest)]  # fmt: skip
        ui.settings_form(self, first, more)
        for slider in (self.caution, self.gain, self.adapt, self.keep, self.iterations,
                       self.smallest):  # fmt: skip
            slider.valueChanged.connect(self.changed)
        self.refine.toggled.connect(self.changed)
        self.scale.currentTextChanged.connect(self.changed)

    def follow_detector(self, name: str) -> None:
        """Offer what counts for a detector."""
        self.scale.setEnabled(name in ("auto", "metric"))

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


def _slider(
    low: float, high: float, value: float, tip: str, kind: type[QWidget] = QLabeledDoubleSlider
) -> Any:
    slider: Any = ui.tipped(kind(Qt.Orientation.Horizontal), tip)
    slider.setRange(low, high)
    slider.setValue(value)
    return slider
