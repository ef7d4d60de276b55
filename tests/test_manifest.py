"""What npe2 does not check of the manifest."""

import importlib
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import npe2
import pytest

import napari_defocus

PACKAGE = Path(napari_defocus.__file__).parent
WIDGETS = PACKAGE / "widgets"
FILE = PACKAGE / "napari.yaml"
MANIFEST = npe2.PluginManifest.from_file(FILE)
OFFERS = MANIFEST.contributions
COMMANDS = {command.id: command for command in OFFERS.commands}


def resolve(command):
    module, _, name = COMMANDS[command].python_name.partition(":")
    return getattr(importlib.import_module(module), name)


def test_npe2_validates_it_with_its_imports():
    command = [sys.executable, "-m", "npe2", "validate", "--imports", str(FILE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_there_and_has_a_title(command):
    assert callable(resolve(command))
    assert command.startswith("napari-defocus.")
    assert COMMANDS[command].title
    assert COMMANDS[command].python_name.startswith("napari_defocus.")


def test_every_command_is_reached_and_every_reference_exists():
    used = [item.command for item in (*OFFERS.widgets, *OFFERS.sample_data, *OFFERS.readers)]
    menus = [item.command for items in OFFERS.menus.values() for item in items]
    assert set(used) | set(menus) == set(COMMANDS)
    assert len(used) == len(set(used))
    assert len(OFFERS.commands) == len(COMMANDS)


def test_menus_are_those_of_napari():
    constants = pytest.importorskip("napari._app_model.constants")
    for menu in OFFERS.menus:
        assert constants.MenuId(menu) in constants.MenuId.contributables()
    placed = {
        item.command.removeprefix("napari-defocus."): menu.removeprefix("napari/layers/")
        for menu, items in OFFERS.menus.items()
        for item in items
    }
    wanted = {"detect": "classify", "train": "classify", "report": "measure"}
    assert placed == wanted | {"evaluate": "measure", "annotate": "annotate", "stacks": "project"}


@pytest.mark.parametrize("widget", OFFERS.widgets, ids=lambda widget: widget.display_name)
def test_widgets_are_qt_widgets_made_of_a_viewer(widget):
    qt = pytest.importorskip("qtpy.QtWidgets")
    pytest.importorskip("napari")
    made = resolve(widget.command)
    assert issubclass(made, qt.QWidget)
    assert "viewer" in made.__init__.__annotations__
    assert widget.display_name == widget.display_name.strip()


def test_icon_and_categories():
    package, _, resource = MANIFEST.icon.partition(":")
    path = Path(importlib.import_module(package).__file__).parent / resource
    assert ElementTree.parse(path).getroot().tag.endswith("svg")
    assert MANIFEST.categories


def test_preferences_have_defaults_within_their_bounds():
    from napari_defocus.metric.nets import DEVICES

    page = OFFERS.configurations["defaults"].properties
    assert set(page) == {"metric", "detector", "device"}
    assert page["detector"].enum is None  # the path of a file is one, too
    assert tuple(page["device"].enum) == DEVICES
    for entry in page.values():
        assert entry.default in (entry.enum or [entry.default])
        assert entry.description


def test_preferences_are_those_that_the_code_reads():
    pytest.importorskip("napari")
    from napari_defocus.widgets._shared.preferences import DEFAULTS, PLUGIN

    page = OFFERS.configurations["defaults"].properties
    assert {name: entry.default for name, entry in page.items()} == DEFAULTS
    assert MANIFEST.name == PLUGIN


def fresh(code):
    """Run code in an interpreter of its own, and give what it prints last as JSON."""
    environment = {**os.environ, "NAPARI_CONFIG": ""}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("module", ["detect", "evaluate", "annotate", "stacks"])
def test_widget_modules_import_no_torch(module):
    pytest.importorskip("napari")
    code = f"import json, sys, napari_defocus.widgets.{module}; print(json.dumps([*sys.modules]))"
    assert "torch" not in fresh(code)


def test_detect_opens_quickly(qapp):
    pytest.importorskip("napari")
    code = """
import json, time
import napari
viewer = napari.Viewer(show=False)
began = time.perf_counter()
viewer.window.add_plugin_dock_widget("napari-defocus", "Detect")
took = time.perf_counter() - began
viewer.close()
print(json.dumps(took))
"""
    took = min(fresh(code) for _ in range(2))
    print(f"\nDetect opens {took:.2f} s after napari")
    assert took < 3


def test_widgets_hide_nothing_of_qt():
    """An attribute of the name of a virtual method, such as metric, crashes PySide6."""
    pytest.importorskip("napari")
    from qtpy.QtWidgets import QWidget

    virtual = {name for name in dir(QWidget) if not name.startswith("_")}
    for path in WIDGETS.glob("*.py"):
        assigned = re.findall(r"self\.([a-z]\w*)\s*(?::[^=\n]+)?=[^=]", path.read_text("utf-8"))
        assert not virtual & set(assigned), path
