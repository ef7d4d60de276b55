"""Controls for the settings of a detection, and for the detector."""

from dataclasses import replace
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QWidget
from superqt import QLabeledDoubleSlider, QLabeledSlider

from napari_defocus.detection.config import SCALES, DetectionConfig
from napari_defocus.widgets._shared import ui
from napari_defocus.widgets._shared.choosers import NameChooser
from napari_defocus.widgets.detect.limit import LimitControl

DETECTOR_TITLES = {
    "auto": "Default",
    "metric": "Local metric",
    "dense": "Dense network",
    "stack": "The stack itself",
    "zeng2019": "Zeng et al. 2019",
}


def detector_chooser() -> NameChooser:
    """Make the box of all detectors: the package's, the session's and those of files."""
    chooser = NameChooser(DETECTOR_TITLES)
    chooser.setToolTip(
        "<p><b>Default</b>: the dense network; where onnxruntime is missing, the local metric.</p>"
        "<p><b>Local metric</b>: looks at small patches, with its own threshold.</p>"
        "<p><b>Dense network</b>: sees the surroundings of each pixel, and tells the radius of the "
        "blur.</p>"
        "<p><b>The stack itself</b>: compares the planes of the focus stack with each other, and "
        "judges each by what that teaches.</p>"
        "<p><b>Zeng et al. 2019</b>: the paper's method as written, with its own settings; to "
        "compare with.</p>"
        "<p>Below: the profile that Annotate taught, the metrics of this session, and files.</p>"
    )
    return chooser


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

    def follow_detector(self, network: bool) -> None:
        """Offer what a detector can predict, be it the network or a metric."""
        self.radius.setEnabled(network)

    @property
    def names(self) -> tuple[str, ...]:
        """Which are wanted, of ``confidence`` and ``radius``; named as in `Detection`."""
        boxes = {"confidence": self.confidence, "radius": self.radius}
        return tuple(n for n, box in boxes.items() if box.isChecked() and box.isEnabled())


class DetectionSettings(QWidget):
    """The limit and refinement, the rest folded away; starts with the library's defaults."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        default = DetectionConfig()
        self._has_network, self._literal = True, False
        self.limit = LimitControl()
        self.caution = _slider(
            -4, 4, default.caution,
            "Of the local metric. The higher, the less is called sharp. In log odds: 0 is even, "
            "and 1 more asks for 2.7 times the odds. On the command line: --caution.",
        )  # fmt: skip
        self.gain = _slider(
            0.2,
            5,
            default.gain,
            "Of the local metric: how steeply the blur map goes from sharp to blurred.",
        )
        self.adapt = _slider(
            0, 1, default.adapt,
            "Of the local metric: how far its threshold follows an image that is soft all over; "
            "at 0 it stays, so that images compare.",
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
            3, 200, max(default.refinement.iterations),
            "Steps of the refinement. The maps after a tenth, half and all of them are mixed.",
            QLabeledSlider,
        )  # fmt: skip
        self.smallest = _slider(
            0, 2000, default.mask.smallest,
            "Spots of fewer pixels are given to what surrounds them.", QLabeledSlider,
        )  # fmt: skip
        self.scale = ui.choice(
            SCALES, default.scale,
            "Of the local metric. calibrated: its own scale, by which images compare. image: from "
            "the least to the largest response, by which each image has a sharp part.",
        )  # fmt: skip
        first = [("Sharp up to", self.limit), ("", self.refine)]
        more = [("Keep", self.keep), ("Iterations", self.iterations),
                ("Smallest spot", self.smallest), ("Metric's threshold", self.caution),
                ("Adapt", self.adapt), ("Steepness", self.gain), ("Scale", self.scale)]  # fmt: skip
        ui.settings_form(self, first, more)
        for slider in (self.caution, self.gain, self.adapt, self.keep, self.iterations,
                       self.smallest):  # fmt: skip
            slider.valueChanged.connect(self.changed)
        self.limit.changed.connect(self.changed)
        self.refine.toggled.connect(self.changed)
        self.scale.currentTextChanged.connect(self.changed)

    def follow_detector(self, network: bool, *, literal: bool = False) -> None:
        """Offer what counts for a detector: the network, a metric, or one as the paper has it."""
        self._has_network, self._literal = network, literal
        self.limit.follow_detector(network)
        for control in (self.caution, self.gain, self.adapt, self.scale):
            control.setEnabled(not network and not literal)
        for control in (self.keep, self.iterations, self.smallest):
            control.setEnabled(not literal)

    @property
    def config(self) -> DetectionConfig:
        """The settings; what was not touched, or does not count, is the library's default."""
        default = DetectionConfig()
        if self._literal:
            return replace(default, refine=self.refine.isChecked())
        last = self.iterations.value()
        iterations = default.refinement.iterations
        if last != iterations[-1]:
            share = last / iterations[-1]
            iterations = (*(max(1, round(i * share)) for i in iterations[:-1]), last)
        config = replace(
            default,
            limit=self.limit.limit,
            refine=self.refine.isChecked(),
            refinement=replace(
                default.refinement, keep=round(self.keep.value(), 3), iterations=iterations
            ),
            mask=replace(default.mask, smallest=self.smallest.value()),
        )
        if self._has_network:
            return config
        return replace(
            config,
            scale=self.scale.currentText(),
            caution=round(self.caution.value(), 3),
            gain=round(self.gain.value(), 3),
            adapt=round(self.adapt.value(), 3),
        )


def _slider(
    low: float, high: float, value: float, tip: str, kind: type[QWidget] = QLabeledDoubleSlider
) -> Any:
    slider: Any = ui.tipped(kind(Qt.Orientation.Horizontal), tip)
    slider.setRange(low, high)
    slider.setValue(value)
    return slider
