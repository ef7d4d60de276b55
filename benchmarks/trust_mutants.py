"""Mutation testing: change the source in small ways, and see whether its tests notice.

    python benchmarks/trust_mutants.py [--modules metric,patches] [--most 100] [--seed 0]

Works on a copy. Each mutant is one change of a module's syntax tree: a comparison, an operator, a
number, a text, a truth value, a condition, a result, a dropped keyword. Annotations, docstrings and
messages (f-strings, and texts with a space) are left alone. Of many mutants `--most` are drawn, or
those at `--only`, the numbers that were printed; survivors are printed, to be looked at. Those of
which a person found that they change nothing are in `trust_equivalents.py`, with the reason; they
count for neither side, unless a test kills them after all.
"""

import argparse
import ast
import copy
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from trust_equivalents import EQUIVALENTS

ROOT = Path(__file__).parents[1]
TESTS = {
    "metric": ("tests/test_metric.py", "tests/test_hostile_files.py"),
    "refinement": ("tests/test_refinement.py",),
    "masking": ("tests/test_masking.py",),
    "patches": ("tests/test_patches.py", "tests/test_hostile_files.py"),
}
# Of the tests of hostile files those that count here, and are quick.
WANTED = "not mutat and not fuzzer and not processes and not claim and not png_holds"
SECONDS = 120
COMPARISONS = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.MatMult: ast.Add,
}


@dataclass(frozen=True)
class Mutant:
    """A changed module: its whole source, and what was changed where."""

    source: str
    line: int
    # The line itself: numbers of lines change.
    at: str
    change: str


@dataclass
class Told:
    """What came of the mutants of a module."""

    killed: int = 0
    survivors: list[Mutant] = field(default_factory=list)
    equivalent: list[Mutant] = field(default_factory=list)

    @property
    def total(self) -> int:
        """How many were tried."""
        return self.killed + len(self.survivors) + len(self.equivalent)

    @property
    def share(self) -> float:
        """Share of those that change something which were killed."""
        return self.killed / max(self.killed + len(self.survivors), 1)


def mutants(source: str) -> Iterator[Mutant]:
    """Give all mutants of a module."""
    tree, lines = ast.parse(source), source.splitlines()
    for number, node in enumerate(_nodes(tree)):
        for change in _changes(node):
            changed = copy.deepcopy(tree)
            target = _nodes(changed)[number]
            before = ast.unparse(target)
            change(target)
            ast.fix_missing_locations(changed)
            after = ast.unparse(target)
            at = lines[node.lineno - 1].strip()
            yield Mutant(ast.unparse(changed), node.lineno, at, f"{before!r} -> {after!r}")


def _nodes(tree: ast.AST) -> list[Any]:
    """List what may be changed: no annotations, docstrings, imports, messages or raises."""
    found: list[Any] = []

    def walk(node: ast.AST) -> None:
        if isinstance(node, ast.Import | ast.ImportFrom | ast.Raise | ast.JoinedStr):
            return
        if hasattr(node, "lineno"):
            found.append(node)
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list", "type_params", "op", "ops"):
                continue
            for child in value if isinstance(value, list) else [value]:
                is_text = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
                if isinstance(child, ast.AST) and not is_text:
                    walk(child)

    walk(tree)
    return found


def _changes(node: Any) -> list[Any]:
    made: list[Any] = []

    def put(name: str, value: Any) -> None:
        made.append(lambda target: setattr(target, name, value))

    if isinstance(node, ast.Compare):
        for index, op in enumerate(node.ops):
            ops = list(node.ops)
            ops[index] = COMPARISONS[type(op)]()
            put("ops", ops)
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in OPERATORS:
        put("op", OPERATORS[type(node.op)]())
    elif isinstance(node, ast.BoolOp):
        put("op", ast.Or() if isinstance(node.op, ast.And) else ast.And())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.Invert | ast.USub):
        if isinstance(node.op, ast.Not):
            put("operand", ast.UnaryOp(ast.Not(), node.operand))
        else:
            put("op", ast.UAdd())
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            put("value", not node.value)
        elif isinstance(node.value, int | float):
            put("value", node.value + 1)
        elif isinstance(node.value, str) and node.value and " " not in node.value:
            put("value", node.value + "X")
    elif isinstance(node, ast.If | ast.IfExp | ast.While):
        for value in (True, False):
            put("test", ast.Constant(value))
    elif isinstance(node, ast.Return) and ast.unparse(node) not in ("return", "return None"):
        put("value", ast.Constant(None))
    if isinstance(node, ast.Call):
        for index, keyword in enumerate(node.keywords):
            # What zip does anyway; the linter wants it said.
            if ast.unparse(keyword) != "strict=False":
                put("keywords", [k for i, k in enumerate(node.keywords) if i != index])
    return made


def run(module: str, most: int, seed: int = 0, only: tuple[int, ...] = ()) -> Told:
    """Try mutants of a module on its tests."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for name in ("src", "tests", "benchmarks", "pyproject.toml"):
            if (ROOT / name).is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "widgets")
                shutil.copytree(ROOT / name, place / name, ignore=ignored)
            else:
                shutil.copy(ROOT / name, place / name)
        file = place / "src" / "napari_defocus" / f"{module}.py"
        source = file.read_text(encoding="utf-8")
        if not _passes(place, TESTS[module]):
            raise SystemExit(f"the tests of {module} fail before anything is changed")
        found = list(mutants(source))
        stale = EQUIVALENTS[module].keys() - {(mutant.at, mutant.change) for mutant in found}
        for at, change in sorted(stale):
            print(f"  {module}: no such mutant any more: {change} in {at}", flush=True)
        order = only or np.random.default_rng(seed).permutation(len(found))[:most]
        told = Told()
        for index in sorted(order):
            mutant = found[index]
            file.write_text(mutant.source, encoding="utf-8")
            if not _passes(place, TESTS[module]):
                told.killed += 1
                continue
            reason = EQUIVALENTS[module].get((mutant.at, mutant.change))
            (told.equivalent if reason else told.survivors).append(mutant)
            text = f"{mutant.change[:200]}; {reason}" if reason else mutant.change[:200]
            print(f"  {index}: {module}:{mutant.line} {text}", flush=True)
        return told


def _passes(place: Path, tests: tuple[str, ...]) -> bool:
    """Run tests in a fork, so that what they import beside the package is there already."""
    child = os.fork()
    if child == 0:
        status = 70
        try:
            status = _run_tests(place, tests)
        finally:
            os._exit(status)
    ends = time.monotonic() + SECONDS
    while time.monotonic() < ends:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.05)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return False


def _run_tests(place: Path, tests: tuple[str, ...]) -> int:
    import pytest

    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    os.chdir(place)
    sys.dont_write_bytecode = True
    # In front of the package that is installed.
    sys.path.insert(0, str(place / "src"))
    # Without the plugins of napari and Qt, which take longer to load than most tests to run; and
    # with the same examples every time.
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    options = ["-x", "-q", "-o", "addopts=", "-m", "not slow", "-k", WANTED, "-W", "ignore"]
    plugins = ["-p", "no:cacheprovider", "-p", "pytest_timeout", "-p", "_hypothesis_pytestplugin"]
    return int(pytest.main([*options, *plugins, "--hypothesis-seed=0", *tests]))


def preload() -> None:
    """Import what tests import, but nothing of the package."""
    import dask.array  # noqa: F401
    import hypothesis.extra.numpy  # noqa: F401
    import pytest  # noqa: F401
    import safetensors.numpy  # noqa: F401
    import scipy.ndimage  # noqa: F401
    import skimage.segmentation  # noqa: F401
    import sklearn.linear_model  # noqa: F401
    import tifffile  # noqa: F401
    import torch  # noqa: F401

    # Forks would use it, and not the changed one.
    assert not any(name.startswith("napari_defocus") for name in sys.modules)


def rows(
    modules: tuple[str, ...], most: int, seed: int = 0, only: tuple[int, ...] = ()
) -> Iterator[tuple[str, str, str]]:
    """Give the row of each module."""
    preload()
    for module in modules:
        told = run(module, most, seed, only)
        equal = f", {len(told.equivalent)} equivalent" if told.equivalent else ""
        text = f"{told.killed} of {told.total} killed{equal}: {told.share:.0%}"
        yield f"mutation testing, {module}", ">= 85 % killed", text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--modules", default=",".join(TESTS))
    parser.add_argument("--most", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="numbers of mutants, as they were printed")
    options = parser.parse_args()
    only = tuple(int(number) for number in options.only.split(",") if number)
    for row in rows(tuple(options.modules.split(",")), options.most, options.seed, only):
        print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
