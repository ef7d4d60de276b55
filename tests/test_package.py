import ast
import importlib
import json
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.util import find_spec
from pathlib import Path

import npe2
import numpy as np
import pytest
import yaml
from skimage import data

import napari_defocus
from napari_defocus.io.raster import write_png

PACKAGE = Path(napari_defocus.__file__).parent
ROOT = Path(__file__).parents[1]
MODULES = sorted(PACKAGE.rglob("*.py"))
VIEWER = {"napari", "magicgui", "qtpy", "PyQt5", "PyQt6", "PySide2", "PySide6", "superqt", "vispy"}
MANIFEST = npe2.PluginManifest.from_file(PACKAGE / "napari.yaml")


def python(code, *arguments):
    """Run code in a fresh interpreter, and give what it prints as JSON."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


# Imports


def test_import_is_quick_and_leaves_the_heavy_packages_alone():
    code = """
import json, sys, time
before = time.perf_counter()
import napari_defocus
took = time.perf_counter() - before
print(json.dumps([took, list(sys.modules)]))
"""
    runs = [python(code) for _ in range(3)]
    assert min(took for took, _ in runs) < 0.3
    loaded = {name.split(".")[0] for name in runs[0][1]}
    assert not loaded & (VIEWER | {"torch", "sklearn", "skimage", "matplotlib", "numpy"})


def test_detection_needs_neither_torch_nor_a_viewer(tmp_path):
    write_png(tmp_path / "camera.png", data.camera()[::4, ::4])
    code = """
import contextlib, json, sys
for name in ("torch", "napari", "qtpy", "magicgui"):
    sys.modules[name] = None  # any import of it fails
from pathlib import Path
import napari_defocus
from napari_defocus.cli.main import main
from napari_defocus.io.open import read_image
folder = Path(sys.argv[1])
found = napari_defocus.detect(read_image(folder / "camera.png").data)
with contextlib.redirect_stdout(sys.stderr):
    status = main(["detect", str(folder / "camera.png"), "--out", str(folder / "out"), "--picture"])
shape = list(found.radius.shape)  # of the dense detector alone
print(json.dumps([status, shape, float((found.mask == 2).mean())]))
"""
    status, shape, sharp = python(code, tmp_path)
    assert status == 0
    assert shape == [128, 128]
    assert 0 < sharp < 1
    assert len(list((tmp_path / "out").glob("camera.*"))) == 3


@pytest.mark.parametrize("detector", ["metric", "dense"])
def test_detection_leaves_torch_alone(tmp_path, detector):
    write_png(tmp_path / "camera.png", data.camera()[::4, ::4])
    code = """
import json, sys
from pathlib import Path
from napari_defocus import DetectionConfig, detect
from napari_defocus.io.open import read_image
image = read_image(Path(sys.argv[1]) / "camera.png").data
detect(image, config=DetectionConfig(detector=sys.argv[2]))
print(json.dumps("torch" in sys.modules))
"""
    assert python(code, tmp_path, detector) is False


def imported(path):
    """Names of all modules that a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_only_widgets_import_the_viewer_and_nothing_else_imports_them(path):
    if "widgets" in path.relative_to(PACKAGE).parts:
        pytest.skip("a widget")
    found = set(imported(path))
    assert not {name.split(".")[0] for name in found} & VIEWER
    assert not any(name.startswith("napari_defocus.widgets") for name in found)


# What is public


PUBLIC_ROOMS = ("", ".evaluate", ".io", ".measure", ".profile", ".stacks", ".tiled")
PUBLIC = [
    (room, name)
    for room in PUBLIC_ROOMS
    for name in importlib.import_module("napari_defocus" + room).__all__
]


@pytest.mark.parametrize(("room", "name"), PUBLIC)
def test_public_name_resolves_and_is_described(room, name):
    found = getattr(importlib.import_module("napari_defocus" + room), name)
    if not name.isupper():
        assert found.__name__ == name
        assert found.__doc__
        assert found.__module__.startswith("napari_defocus" + room)


def test_public_names_are_listed():
    for room in PUBLIC_ROOMS:
        module = importlib.import_module("napari_defocus" + room)
        assert set(module.__all__) == set(dir(module)) - {"__version__"}
    with pytest.raises(AttributeError, match="sharpen"):
        _ = napari_defocus.sharpen


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_every_public_function_and_class_has_a_docstring(path):
    module = ast.parse(path.read_text())
    assert ast.get_docstring(module)
    parts = [module, *(node for node in module.body if isinstance(node, ast.ClassDef))]
    for part in parts:
        for node in part.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{node.name} at line {node.lineno}"


# The plugin's manifest


def test_manifest_is_valid():
    assert MANIFEST.name == "napari-defocus"
    MANIFEST.validate_imports()


def test_manifest_offers_every_sample():
    from napari_defocus.data.samples import SAMPLES

    samples = MANIFEST.contributions.sample_data
    assert sorted(sample.key for sample in samples) == sorted(SAMPLES)
    assert all(sample.display_name for sample in samples)


def layers_of(sample):
    commands = {command.id: command.python_name for command in MANIFEST.contributions.commands}
    module, _, function = commands[sample.command].partition(":")
    return getattr(importlib.import_module(module), function)()


@pytest.mark.parametrize("sample", MANIFEST.contributions.sample_data, ids=lambda s: s.key)
def test_sample_commands_return_layer_data(sample):
    layers = layers_of(sample)
    assert layers
    assert len({options["name"] for _, options, _ in layers}) == len(layers)
    for pixels, options, kind in layers:
        assert isinstance(pixels, np.ndarray)
        assert kind in ("image", "labels")
        axes = pixels.ndim - 1 if options.get("rgb") else pixels.ndim
        if options.get("rgb"):
            assert pixels.shape[-1] == 3
        if kind == "labels":
            assert pixels.dtype.kind in "iu"
        assert set(options) <= {"name", "rgb", "scale", "units", "colormap", "visible"}
        for name in ("scale", "units"):
            assert len(options.get(name, range(axes))) == axes
    assert layers[0][1].get("visible", True)


@pytest.mark.parametrize("sample", MANIFEST.contributions.sample_data, ids=lambda s: s.key)
def test_napari_makes_layers_of_the_samples(sample):
    layer = pytest.importorskip("napari.layers").Layer
    for pixels, options, kind in layers_of(sample):
        made = layer.create(pixels, options, kind)
        assert made.name == options["name"]
        assert type(made).__name__.lower() == kind


# What is packed


@pytest.mark.parametrize("name", ["napari.yaml", "sample_data"])
def test_top_level_names_lead_into_the_package(name):
    if not (ROOT / name).exists():
        pytest.skip("no checkout of the repository")
    assert (ROOT / name).resolve() == (ROOT / "src" / "napari_defocus" / name).resolve()


def test_version_is_that_of_the_project():
    project = ROOT / "pyproject.toml"
    if not project.exists():
        pytest.skip("no checkout of the repository")
    version = tomllib.loads(project.read_text())["project"]["version"]
    assert version == napari_defocus.__version__
    for name in ("CITATION.cff", "conda-recipe/recipe.yaml"):
        assert f"version: {version}\n" in (ROOT / name).read_text("utf-8"), name
    assert f"\n## {version}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_recipe_of_conda_asks_for_what_the_project_asks_for():
    if not (ROOT / "conda-recipe").exists():
        pytest.skip("no checkout of the repository")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    other_names = {"dask[array]": "dask-core", "matplotlib": "matplotlib-base", "torch": "pytorch"}
    wanted = {"python " + project["requires-python"]}
    for requirement in project["dependencies"]:
        name, _, version = requirement.partition(";")[0].partition(">=")
        wanted.add(f"{other_names.get(name, name)} >={version}")
    recipe = yaml.safe_load((ROOT / "conda-recipe" / "recipe.yaml").read_text("utf-8"))
    assert set(recipe["requirements"]["run"]) == wanted


def test_workflows_test_what_the_classifiers_say():
    if not (ROOT / ".github").exists():
        pytest.skip("no checkout of the repository")
    flows = {p.stem: yaml.safe_load(p.read_text("utf-8")) for p in ROOT.glob(".github/*/*.yml")}
    assert set(flows) == {"test", "docs", "release", "napari-main"}
    matrix = flows["test"]["jobs"]["test"]["strategy"]["matrix"]
    assert {name.partition("-")[0] for name in matrix["os"]} == {"ubuntu", "macos", "windows"}
    assert {*matrix["qt"], *(one["qt"] for one in matrix["include"])} == {"pyqt6", "pyside6"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    told = [c.rpartition(" ")[2] for c in project["classifiers"] if "Python :: 3." in c]
    assert matrix["python"] == told
    for flow in flows.values():
        for job in flow["jobs"].values():
            for step in job["steps"]:
                targets = re.findall(r"^(?:sudo )?make (.+)$", step.get("run", ""), re.MULTILINE)
                for target in " ".join(targets).split():
                    assert f"\n{target}:" in (ROOT / "Makefile").read_text("utf-8")


METRICS = ["default.safetensors", "default.nets.safetensors", "default.dense.safetensors"]


def needed(about):
    """Names of the packages that a wheel installs without extras."""
    lines = [line for line in about.splitlines() if line.startswith("Requires-Dist: ")]
    return {re.split(r"[^\w-]", line.split()[1])[0] for line in lines if "extra ==" not in line}


# Without the build backend at hand, it must be fetched.
FETCH = find_spec("hatchling") is None


@pytest.mark.parametrize(
    "fetch", [pytest.param(FETCH, marks=[pytest.mark.slow] if FETCH else [], id="build")]
)
def test_wheel_built_from_the_sdist_holds_what_is_needed(fetch, tmp_path):
    if not (ROOT / "pyproject.toml").exists():
        pytest.skip("no checkout of the repository")
    command = [sys.executable, "-m", "build", "--outdir", tmp_path, ROOT]
    command += [] if fetch else ["--no-isolation"]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    (sdist,), (wheel,) = tmp_path.glob("*.tar.gz"), tmp_path.glob("*.whl")
    source = PACKAGE if PACKAGE.is_relative_to(ROOT) else ROOT / "src" / "napari_defocus"
    expected = {
        f"napari_defocus/{path.relative_to(source).as_posix()}"
        for path in source.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
    }
    checked = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", sdist, wheel],
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0 or "No module named twine" in checked.stderr, checked.stdout
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
        entries = archive.read(next(n for n in archive.namelist() if n.endswith("points.txt")))
        about = archive.read(
            next(n for n in archive.namelist() if n.endswith("/METADATA"))
        ).decode()
    assert packed == expected
    assert b"napari_defocus.cli.main:main" in entries
    assert b"napari_defocus:napari.yaml" in entries
    for name in ("napari.yaml", "py.typed", "icon.svg", *(f"weights/{m}" for m in METRICS)):
        assert f"napari_defocus/{name}" in packed
    assert sum(name.startswith("napari_defocus/sample_data/") for name in packed) == 9
    for folder in ("tests", "docs", "examples", "benchmarks"):
        assert not any(folder in Path(name).parts for name in packed)
    for line in ("Requires-Python: >=3.11", "License-Expression: BSD-3-Clause"):
        assert line in about
    assert "napari" not in needed(about)
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {f"src/{name}" for name in expected} <= inside
    assert {"tests/conftest.py", "tests/test_package.py", "LICENSE", "pyproject.toml"} <= inside


# Types

CONSUMER = """
from pathlib import Path
from typing import assert_type

import numpy as np
import numpy.typing as npt

from napari_defocus import (
    Detection,
    DetectionConfig,
    FitConfig,
    LocalMetric,
    PatchSet,
    build_patch_set,
    detect,
    fit_metric,
    save_metric,
)
from napari_defocus.stacks.api import FocusStack, analyse_stack

image = np.zeros((64, 64), np.uint8)
found = detect(image, config=DetectionConfig(detector="metric"))
assert_type(found, Detection)
assert_type(found.mask, npt.NDArray[np.uint8])
patches = build_patch_set([("a", image, image)])
assert_type(patches, PatchSet)
metric = fit_metric(patches, FitConfig(method="instant"))
assert_type(metric, LocalMetric | None)
if metric is not None:
    save_metric(metric, Path("mine.safetensors"))
assert_type(analyse_stack(np.zeros((3, 64, 64))), FocusStack)
detect(image, confg=None)  # type: ignore[call-arg]
"""


@pytest.mark.slow
def test_types_are_seen_by_others(tmp_path):
    (tmp_path / "consumer.py").write_text(CONSUMER)
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--cache-dir",
        tmp_path / "c",
        "consumer.py",
    ]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
