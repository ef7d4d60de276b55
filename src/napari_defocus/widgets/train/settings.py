"""Controls for the settings of a training."""

from dataclasses import replace

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QDoubleSpinBox, QWidget

from napari_defocus.metric.fitting import METHODS, FitConfig
from napari_defocus.metric.nets import DEVICES, NO_BASE, TrainingConfig
from napari_defocus.widgets._shared.controls import (
    choice,
    number,
    set_tips,
    settings_form,
    share_tips,
)
from napari_defocus.widgets._shared.preferences import preferred

BASES = ("default", NO_BASE)
# Nets that start at random need larger steps.
FRESH_LEARNING_RATE = 2e-3


class TrainingSettings(QWidget):
    """Method, base, device, nets and epochs, the rest folded away."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        default = TrainingConfig()
        self.method = choice(METHODS, METHODS[0])
        self.base = choice(BASES, default.base)
        self.device = choice(DEVICES, preferred("device"))
        self.nets = number(1, 64, default.nets)
        self.epochs = number(1, 1000, default.epochs)
        self.kernels = number(1, 256, default.kernels)
        self.kernel_size = number(3, 31, default.kernel_size, step=2)
        self.learning_rate = QDoubleSpinBox()
        self.learning_rate.setDecimals(5)
        self.learning_rate.setRange(1e-5, 1)
        self.learning_rate.setSingleStep(1e-4)
        self.learning_rate.setValue(default.learning_rate)
        self.seed = number(0, 2**31 - 1, default.seed)
        self._set_tips()
        self._lay_out()
        share_tips(self)
        self.base.currentTextChanged.connect(self._base_changed)
        self.method.currentTextChanged.connect(self._method_changed)
        for control in (self.kernel_size, self.seed):
            control.valueChanged.connect(self.changed)

    def _set_tips(self) -> None:
        set_tips(
            (self.method, "nets: trains small nets (ConvNets); the principal components of their "
                          "kernels are the metric. instant: in closed form, without nets."),
            (self.base, "default: what is learnt shifts the default metric. none: it starts from "
                        "nothing, and needs more patches."),
            (self.device, "Where nets are trained; auto takes a graphics card where there is one."),
            (self.nets, "How many nets; their kernels are pooled."),
            (self.epochs, "Passes over the patches at most; a net that gets no better ends "
                          "earlier."),
            (self.kernels, "Kernels, the small filters, of each net; those of a base stay."),
            (self.kernel_size, "Side of the kernels in pixels, odd; that of a base stays."),
            (self.learning_rate, "Size of the steps of training: smaller where it diverges."),
            (self.seed, "The same seed gives the same nets."),
        )  # fmt: skip

    def _lay_out(self) -> None:
        first = {
            "Method": self.method,
            "Base": self.base,
            "Device": self.device,
            "Nets": self.nets,
            "Epochs": self.epochs,
        }
        more = {
            "Kernels": self.kernels,
            "Kernel size": self.kernel_size,
            "Learning rate": self.learning_rate,
            "Seed": self.seed,
        }
        settings_form(first, more, self)

    def _base_changed(self, base: str) -> None:
        rate = FRESH_LEARNING_RATE if base == NO_BASE else TrainingConfig().learning_rate
        self.learning_rate.setValue(rate)
        self.changed.emit()

    def _method_changed(self, method: str) -> None:
        for control in (self.device, self.nets, self.epochs, self.kernels, self.learning_rate):
            control.setEnabled(method == "nets")

    @property
    def config(self) -> FitConfig:
        """The settings; those that were not touched are the library's defaults."""
        training = replace(
            TrainingConfig(),
            base=self.base.currentText(),
            device=self.device.currentText(),
            nets=self.nets.value(),
            epochs=self.epochs.value(),
            kernels=self.kernels.value(),
            kernel_size=self.kernel_size.value(),
            learning_rate=round(self.learning_rate.value(), 5),
            seed=self.seed.value(),
        )
        return FitConfig(method=self.method.currentText(), training=training)
