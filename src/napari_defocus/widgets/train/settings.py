"""Controls for the settings of a training."""

from dataclasses import replace

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QDoubleSpinBox, QWidget

from napari_defocus.metric.fitting import METHODS, FitConfig
from napari_defocus.metric.nets import DEVICES, NO_BASE, TrainingConfig
from napari_defocus.widgets._shared import ui
from napari_defocus.widgets._shared.preferences import preferred

# Settings that are texts, that are whole numbers, and those of the nets alone.
NAMES = ("base", "device")
NUMBERS = ("nets", "epochs", "kernels", "kernel_size", "seed")
OF_NETS = ("device", "nets", "epochs", "kernels", "learning_rate")


class TrainingSettings(QWidget):
    """Method, base, device, nets and epochs, the rest folded away."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        default = TrainingConfig()
        self.method = ui.choice(
            METHODS, METHODS[0],
            "nets: trains small nets (ConvNets); the principal components of their kernels are the "
            "metric. instant: in closed form, without nets.",
        )  # fmt: skip
        self.base = ui.choice(
            ("default", NO_BASE), default.base,
            "default: what is learnt shifts the default metric. none: it starts from nothing, and "
            "needs more patches.",
        )  # fmt: skip
        self.device = ui.choice(
            DEVICES, preferred("device"),
            "Where nets are trained; auto takes a graphics card where there is one.",
        )  # fmt: skip
        self.nets = ui.number(1, 64, default.nets, "How many nets; their kernels are pooled.")
        self.epochs = ui.number(
            1, 1000, default.epochs,
            "Passes over the patches at most; a net that gets no better ends earlier.",
        )  # fmt: skip
        self.kernels = ui.number(
            1, 256, default.kernels,
            "Kernels, the small filters, of each net; those of a base stay.",
        )  # fmt: skip
        self.kernel_size = ui.number(
            3, 31, default.kernel_size,
            "Side of the kernels in pixels, odd; that of a base stays.", step=2,
        )  # fmt: skip
        self.learning_rate = ui.tipped(
            QDoubleSpinBox(), "Size of the steps of training: smaller where it diverges."
        )
        self.learning_rate.setDecimals(5)
        self.learning_rate.setRange(1e-5, 1)
        self.learning_rate.setSingleStep(1e-4)
        self.learning_rate.setValue(default.rate)
        self.seed = ui.number(0, 2**31 - 1, default.seed, "The same seed gives the same nets.")
        first = [("Method", self.method), ("Base", self.base), ("Device", self.device),
                 ("Nets", self.nets), ("Epochs", self.epochs)]  # fmt: skip
        more = [("Kernels", self.kernels), ("Kernel size", self.kernel_size),
                ("Learning rate", self.learning_rate), ("Seed", self.seed)]  # fmt: skip
        ui.settings_form(self, first, more)
        self.base.currentTextChanged.connect(self._base_changed)
        self.method.currentTextChanged.connect(self._method_changed)
        for control in (self.kernel_size, self.seed):
            control.valueChanged.connect(self.changed)

    def _base_changed(self, base: str) -> None:
        self.learning_rate.setValue(TrainingConfig(base=base).rate)
        self.changed.emit()

    def _method_changed(self, method: str) -> None:
        for name in OF_NETS:
            getattr(self, name).setEnabled(method == "nets")

    @property
    def config(self) -> FitConfig:
        """The settings; those that were not touched are the library's defaults."""
        training = TrainingConfig(
            **{name: getattr(self, name).currentText() for name in NAMES},
            **{name: getattr(self, name).value() for name in NUMBERS},
        )
        rate = round(self.learning_rate.value(), 5)
        if rate != training.rate:
            training = replace(training, learning_rate=rate)
        return FitConfig(method=self.method.currentText(), training=training)
