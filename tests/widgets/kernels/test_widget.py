from dataclasses import replace

import numpy as np
import pytest

from napari_defocus.metric._train_process import train_in_child
from napari_defocus.metric.fitting import FitConfig, instant_metric, metric_from_nets
from napari_defocus.metric.local_metric import (
    PACKAGED,
    load_metric,
    principal_components,
    save_metric,
)
from napari_defocus.metric.nets import TrainingConfig
from napari_defocus.widgets._shared import layers
from napari_defocus.widgets._shared.session import TRAINED, session
from napari_defocus.widgets.kernels.widget import KernelsWidget

WIDGET = KernelsWidget


@pytest.fixture(scope="module")
def nets(patch_set):
    return train_in_child(patch_set, TrainingConfig(nets=1, epochs=1))


def choose(widget, count, qtbot):
    widget.components.setValue(count)
    qtbot.waitUntil(lambda: len(widget.shown.filters) == count, timeout=30_000)


def test_shows_the_default_metric(widget):
    assert widget.metric_chooser.name == "default"
    assert widget.components.value() == 2
    assert "64 kernels of 7 x 7" in widget.text.text()
    kernels, components, ratios = widget.plot.figure.axes
    assert kernels.images
    assert [label.get_text() for label in components.get_xticklabels()][:2] == ["K1", "K2"]
    assert len(ratios.patches) == 16


def test_another_number_of_components_is_offered_as_a_metric(widget, qtbot):
    changed = []
    session().metrics_changed.connect(changed.append)
    choose(widget, 4, qtbot)
    assert changed == ["default, K = 4"]
    made = session().metric("default, K = 4")
    assert made.filters.shape == (4, 7, 7)
    assert made.calibration != session().metric("default").calibration
    assert made.pooling == session().metric("default").pooling
    # It stands in Detect, not here.
    assert widget.metric_chooser.count() == len(PACKAGED)
    assert widget.metric_chooser.name == "default"
    choose(widget, 2, qtbot)
    assert changed[1:] == ["default"]
    assert widget.shown is session().metric("default")


def test_only_the_last_of_quick_steps_counts(widget, qtbot):
    for count in (3, 4, 5):
        widget.components.setValue(count)
    qtbot.waitUntil(lambda: len(widget.shown.filters) == 5, timeout=30_000)
    assert session().metric_names == (*PACKAGED, "default, K = 5")


def test_nets_of_the_session_are_calibrated_anew(widget, nets, qtbot):
    session().nets = nets
    session().add_metric(TRAINED, metric_from_nets(nets))
    assert widget.metric_chooser.name == TRAINED
    choose(widget, 3, qtbot)
    expected = metric_from_nets(nets, FitConfig(components=3))
    assert widget.shown.digest == expected.digest
    assert "⚠" not in widget.text.text()


def test_a_metric_without_its_nets_keeps_its_calibration(widget, nets, qtbot):
    metric = metric_from_nets(nets)
    session().add_metric("other", metric)
    choose(widget, 3, qtbot)
    assert widget.shown.calibration == metric.calibration
    assert "may be off" in widget.text.text()


def test_components_of_an_instant_fit(widget, metric, patch_set, qtbot):
    session().add_metric(TRAINED, metric)
    assert "instant" in widget.text.text()
    choose(widget, 3, qtbot)
    expected = instant_metric(patch_set, FitConfig("instant", components=3))
    np.testing.assert_allclose(widget.shown.filters, expected.filters, atol=1e-6)


@pytest.mark.parametrize("name", ["default", TRAINED])
def test_components_begin_with_the_filters(widget, metric, name):
    session().add_metric(TRAINED, metric)
    metric = session().metric(name)
    filters = principal_components(metric).filters(len(metric.filters))
    np.testing.assert_allclose(filters, metric.filters, atol=1e-5)


def test_a_metric_that_changes_meanwhile_is_shown(widget, metric, qtbot):
    session().add_metric(TRAINED, metric)
    widget.components.setValue(5)
    other = instant_metric_of_three(metric)
    session().add_metric(TRAINED, other)
    assert widget.shown is other
    assert widget.components.value() == 3
    qtbot.wait(400)
    assert session().metric_names == (*PACKAGED, TRAINED)


def instant_metric_of_three(metric):
    return replace(metric, filters=principal_components(metric).filters(3))


def test_components_as_an_image_layer(widget, viewer):
    widget.layer_button.click()
    layer = viewer.layers["default components"]
    assert layer.data.shape == (49, 7, 7)
    low, high = layer.contrast_limits
    assert low == -high
    assert layers.owned(layer)["metric"] == "default"
    widget.layer_button.click()
    assert len(viewer.layers) == 1


def test_saves_what_is_shown(widget, tmp_path, qtbot, monkeypatch):
    choose(widget, 3, qtbot)
    monkeypatch.setattr(
        "napari_defocus.widgets._shared.dialogs.QFileDialog.getSaveFileName",
        lambda *_: (str(tmp_path / "three"), ""),
    )
    widget.save_button.click()
    assert load_metric(tmp_path / "three.safetensors").digest == widget.shown.digest
    widget.save(tmp_path / "three.safetensors" / "below a file")
    assert "⚠" in widget.text.text()


def test_opens_a_metric_file(widget, metric, tmp_path, monkeypatch):
    path = tmp_path / "mine.safetensors"
    save_metric(metric, path)
    answers = [("", ""), (str(path), "")]
    monkeypatch.setattr(
        "napari_defocus.widgets._shared.dialogs.QFileDialog.getOpenFileName",
        lambda *_: answers.pop(0),
    )
    widget.open_button.click()
    assert widget.metric_chooser.name == "default"
    widget.open_button.click()
    assert widget.metric_chooser.name == str(path)
    assert widget.shown.digest == metric.digest


def test_a_truncated_file_is_refused(widget, tmp_path):
    path = tmp_path / "half.safetensors"
    whole = PACKAGED["default"].read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    widget.use_metric_file(path)
    assert "⚠" in widget.text.text()
    assert "half.safetensors" in widget.text.text()
    assert widget.metric_chooser.name == "default"
    assert session().metric_names == tuple(PACKAGED)


def test_what_k1_and_k2_are_is_told(widget):
    assert "K2 is K1 turned by 90°" in widget.text.text()
    widget.metric_chooser.choose("zeng2019")
    assert widget.shown.literal
    assert "turned" not in widget.text.text()
