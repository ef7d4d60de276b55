"""Words of the widgets: every control says on hover what it is for."""

import importlib
import re

import pytest
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractItemView,
    QAbstractSlider,
    QAbstractSpinBox,
    QComboBox,
    QFormLayout,
    QScrollBar,
)

from napari_defocus.widgets._shared.plots import Plot

WIDGETS = {
    "detect": "DetectWidget",
    "annotate": "AnnotateWidget",
    "train": "TrainWidget",
    "kernels": "KernelsWidget",
    "evaluate": "EvaluateWidget",
    "stacks": "StacksWidget",
    "report": "ReportWidget",
}
KINDS = (
    QAbstractButton,
    QAbstractSpinBox,
    QAbstractSlider,
    QAbstractItemView,
    QComboBox,
    Plot,
)
LONGEST = 300


@pytest.fixture(params=WIDGETS)
def widget(request, viewer):
    module = importlib.import_module(f"napari_defocus.widgets.{request.param}.widget")
    widget = getattr(module, WIDGETS[request.param])(viewer)
    viewer.window.add_dock_widget(widget)
    return widget


def inside(control, kinds):
    """Whether a control is a part of another one, which speaks for it."""
    parent = control.parentWidget()
    while parent is not None:
        if isinstance(parent, kinds):
            return True
        parent = parent.parentWidget()
    return False


def tip_of(control, widget):
    """What Qt shows: the tip of a control, or else of what it lies in."""
    while control is not None and control is not widget:
        if control.toolTip():
            return control.toolTip()
        control = control.parentWidget()
    return ""


def named(control):
    text = getattr(control, "text", lambda: "")
    text = text() if callable(text) else text
    return f"{type(control).__name__} {text or control.parentWidget().objectName()}"


def test_every_control_has_a_tip(widget):
    controls = [c for kind in KINDS for c in widget.findChildren(kind) if not inside(c, KINDS)]
    controls = [control for control in controls if not isinstance(control, QScrollBar)]
    assert len(controls) > 4
    bare = [named(control) for control in controls if not tip_of(control, widget)]
    assert not bare


def test_labels_of_a_form_have_the_tip_of_their_control(widget):
    for form in widget.findChildren(QFormLayout):
        for place in range(form.rowCount()):
            label = form.itemAt(place, QFormLayout.ItemRole.LabelRole)
            if label is not None and label.widget().text():
                assert label.widget().toolTip(), label.widget().text()


def test_tips_are_sentences(widget):
    tips = {child.toolTip() for kind in KINDS for child in widget.findChildren(kind)} - {""}
    for tip in tips:
        plain = re.sub("<[^>]*>", "", tip)
        assert plain[-1] == ".", tip
        assert len(plain) < LONGEST or tip.count("<p>") > 1, tip
