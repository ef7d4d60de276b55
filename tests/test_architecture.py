"""The direction of imports, read from the source: also of those inside functions."""

import ast
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import napari_defocus

PACKAGE = Path(napari_defocus.__file__).parent
# A room imports only those before it.
ROOMS = (
    "core",
    "labels",
    "io",
    "filters",
    "simulate",
    "metric",
    "dense",
    "profile",
    "detection",
    "tiled",
    "measure",
    "evaluate",
    "stacks",
    "plot",
    "report",
    "data",
    "cli",
    "widgets",
)
MOST_AT_THE_TOP = 8
MOST_LINES = 400
FILES = {
    ".".join(("napari_defocus", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def imports(source: str, modules: set[str]) -> set[str]:
    """Return those of `modules` that a module's source imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            # A name of a package is a module, or stands in the package itself.
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in modules else str(node.module) for name in inside}
    return found & modules


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Return modules that import one another in a circle, if there are any."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def upward(graph: dict[str, set[str]]) -> list[str]:
    """Return the imports of a room that comes later."""
    order = {name: number for number, name in enumerate(ROOMS)}
    return [
        f"{module} -> {other}"
        for module, others in graph.items()
        for other in sorted(others)
        if order.get(room(other), -1) > order.get(room(module), len(ROOMS))
    ]


GRAPH = {
    name: imports(path.read_text("utf-8"), set(FILES)) - {name} for name, path in FILES.items()
}


def test_no_circle():
    assert circle(GRAPH) == []


def test_no_arrow_upward():
    assert upward(GRAPH) == []


@pytest.mark.parametrize(
    "names",
    [
        [name for name in FILES if name.endswith((".api", ".config", ".planes"))],
        pytest.param(list(FILES), marks=pytest.mark.slow),
    ],
    ids=["some", "all"],
)
def test_each_module_may_be_the_first_to_be_imported(names):
    code = """
import importlib, sys
for name in sys.argv[1:]:
    for loaded in [module for module in sys.modules if module.startswith("napari_defocus")]:
        del sys.modules[loaded]
    importlib.import_module(name)
"""
    subprocess.run([sys.executable, "-c", code, *names], check=True)


def test_every_folder_is_a_room():
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders == set(ROOMS)
    assert len(list(PACKAGE.glob("*.py"))) <= MOST_AT_THE_TOP


@pytest.mark.parametrize("path", FILES.values(), ids=FILES)
def test_modules_are_short(path):
    assert len(path.read_text("utf-8").splitlines()) <= MOST_LINES


def test_tests_mirror_the_rooms():
    tests = Path(__file__).parent
    folders = {path.parent.name for path in tests.glob("*/__init__.py")}
    assert folders - set(ROOMS) <= {"benchmarks"}


def test_files_of_the_architecture_page_exist():
    page = PACKAGE.parents[1] / "docs" / "architecture.md"
    if not page.exists():
        pytest.skip("no checkout of the repository")
    named = re.findall(r"^\|.*\| `([\w/]+\.\w+)` \|$", page.read_text("utf-8"), re.MULTILINE)
    assert len(named) >= 20
    assert [name for name in named if not (PACKAGE / name).exists()] == []


# What these tests see, and what they would miss


def test_imports_inside_functions_are_seen():
    modules = {"p.a", "p.b.c", "p.b"}
    source = "import p.a\ndef f():\n    from p.b import c\n    from p.b import d\n"
    assert imports(source, modules) == modules


def test_a_circle_is_found():
    assert set(circle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})) == {"a", "b", "c"}


def test_an_arrow_upward_is_found():
    graph = {"p.io.x": {"p.dense.y"}, "p.dense.y": {"p.io.x"}}
    assert upward(graph) == ["p.io.x -> p.dense.y"]
