"""Documentation that holds: code blocks run, links resolve.

A block that cannot run says why, in the line before it: ``<!-- not run: the reason -->``.
"""

import glob
import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import napari_defocus
from napari_defocus.cli.main import main
from napari_defocus.data.samples import FOLDER
from napari_defocus.io.open import read_image
from napari_defocus.io.raster import write_png
from napari_defocus.io.tiff_writer import write_tiff
from napari_defocus.labels.classes import annotation_from_mask

ROOT = Path(__file__).parents[1]
if not (ROOT / "mkdocs.yml").exists():
    pytest.skip("no checkout of the repository", allow_module_level=True)

TOP = [ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG", "SECURITY")]
RECIPES = [ROOT / "recipes" / "README.md", ROOT / "recipes" / "mixed" / "README.md"]
PAGES = [*TOP, *RECIPES, *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
REASON = re.compile(r"<!-- not run: (\S.+?) -->\s*\Z")
LINK = re.compile(r"\]\(([^)#\s]*)(#[^)\s]*)?\)")
LANGUAGES = {"python", "sh", "text", "yaml"}


@dataclass(frozen=True)
class Block:
    language: str
    code: str
    line: int
    reason: str | None


def blocks_of(page):
    text = page.read_text("utf-8")
    for fence in FENCE.finditer(text):
        reason = REASON.search(text[: fence.start()])
        line = text[: fence.start()].count("\n") + 1
        yield Block(fence[1], fence[2], line, reason and reason[1])


def name_of(page):
    return page.relative_to(ROOT).as_posix()


def runnable(page):
    return [b for b in blocks_of(page) if b.language in ("python", "sh") and not b.reason]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_blocks_have_a_language_and_reasons_are_used(page):
    blocks = list(blocks_of(page))
    assert {block.language for block in blocks} <= LANGUAGES
    text = page.read_text("utf-8")
    assert text.count("```") == 2 * len(blocks), "a fence that is not closed, or indented"
    marks = re.findall(r"^<!-- not run:", text, re.MULTILINE)
    assert len(marks) == sum(block.reason is not None for block in blocks)


# Code


@pytest.fixture(scope="session")
def desk(tmp_path_factory):
    """The files that the pages speak of, small."""
    desk = tmp_path_factory.mktemp("desk")
    image = read_image(FOLDER / "photo.jpg").data
    labels = annotation_from_mask(read_image(FOLDER / "photo.mask.png").data)
    stack = read_image(FOLDER / "z_stack.tif")
    corners = {"a": np.s_[32:160, 110:238], "b": np.s_[212:340, 310:438]}
    for name, part in corners.items():
        write_png(desk / f"{name}.png", image[part])
        write_png(desk / f"{name}_labels.png", labels[part])
        write_png(desk / "photos" / f"{name}.png", image[part])
        truth = np.where(labels[part] == 1, 255, 0).astype(np.uint8)
        write_png(desk / "masks" / f"{name}.png", truth)
    small = np.ascontiguousarray(stack.data[:, :128, :128])
    for name in ("stack", "STACK"):
        write_tiff(desk / f"{name}.tif", small, axes="ZYX", pixel_size_um=stack.pixel_size_um)
    for z, plane in enumerate(small[::3]):
        write_png(desk / "planes" / f"plane_{z}.png", plane)
    cells = np.kron(np.arange(1, 17).reshape(4, 4), np.ones((32, 32))).astype(np.uint16)
    write_tiff(desk / "cells.tif", cells, axes="YX")
    write_tiff(desk / "slide.tif", image, axes="YXS", pixel_size_um=0.5)
    regions = np.zeros(image.shape[:2], np.uint8)
    regions[100:400, 100:400] = 1
    write_tiff(desk / "regions.tif", regions, axes="YX")
    return desk


@pytest.mark.parametrize("page", [page for page in PAGES if runnable(page)], ids=name_of)
def test_code_blocks_run(page, desk, tmp_path, monkeypatch, capsys):
    shutil.copytree(desk, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    names = {
        "image": read_image(desk / "a.png").data,
        "labels": read_image(desk / "a_labels.png").data,
        "other_image": read_image(desk / "b.png").data,
        "stack": read_image(desk / "stack.tif").data,
    }
    for block in runnable(page):
        try:
            run_block(block, names)
        except (Exception, SystemExit) as error:
            told = capsys.readouterr().err
            pytest.fail(f"{name_of(page)}:{block.line}: {error!r}\n{told}", pytrace=False)


def run_block(block, names):
    if block.language == "python":
        exec(compile(block.code, "<block>", "exec"), names)
        return
    lines = block.code.replace("\\\n", " ").splitlines()
    commands = [shlex.split(line, comments=True) for line in lines]
    commands = [words for words in commands if words]
    if all(words[0] == "napari-defocus" for words in commands):
        for _, *words in commands:  # in this process: imports are done
            found = [sorted(glob.glob(word)) or [word] for word in words]  # noqa: PTH207
            assert main([word for words in found for word in words]) == 0, words
        return
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    done = subprocess.run(
        ["sh", "-eu", "-c", block.code], capture_output=True, text=True, env={"PATH": path}
    )
    assert done.returncode == 0, done.stderr


# Links


def anchors_of(page):
    """The anchors of a page's headings, as mkdocs and GitHub make them."""
    text = FENCE.sub("", page.read_text("utf-8"))
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        plain = re.sub(r"[^\w\s-]", "", heading.lower()).strip()
        yield re.sub(r"\s+", "-", plain)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    for target, anchor in LINK.findall(FENCE.sub("", page.read_text("utf-8"))):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        goal = (page.parent / target).resolve() if target else page
        assert goal.exists(), f"{target} is not there"
        assert goal.is_relative_to(ROOT)
        if anchor and goal.suffix == ".md" and "api" not in goal.parts:
            assert anchor[1:] in set(anchors_of(goal)), f"{target}{anchor}"


def test_pictures_are_shown():
    text = "".join(page.read_text("utf-8") for page in PAGES)
    for path in (ROOT / "docs").rglob("*.png"):
        assert path.name in text, f"{path} is on no page"


# Figures


def test_figures_of_the_method_page_are_drawn_by_their_script(tmp_path):
    script = ROOT / "docs" / "figures" / "draw.py"
    subprocess.run([sys.executable, script, tmp_path], check=True)
    drawn = {path.name: read_image(path).data.shape for path in tmp_path.iterdir()}
    kept = {path.name: read_image(path).data.shape for path in script.parent.glob("*.png")}
    assert drawn == kept


# The Python pages

ROOMS = ("io", "tiled", "measure", "profile", "evaluate", "stacks")


def test_python_pages_document_the_public_names_and_no_others():
    text = "".join(page.read_text("utf-8") for page in (ROOT / "docs" / "api").glob("*.md"))
    documented = re.findall(r"^::: ([\w.]+)$", text, re.MULTILINE)
    public = [f"napari_defocus.{name}" for name in dir(napari_defocus)]
    for room in ROOMS:
        names = dir(importlib.import_module(f"napari_defocus.{room}"))
        public += [f"napari_defocus.{room}.{name}" for name in names]
    assert sorted(documented) == sorted(public)


# What pages name

COMMANDS = ("detect", "fit", "patches", "train", "metric", "info", "evaluate", "stack", "export")
COMMANDS += ("report", "watch", "demo", "train-default", "train-dense")
SCRIPTS = ("benchmarks", "docs", "recipes", "examples")
OTHERS = {"--index-url", "--version", "--array"}  # of pip, of the program itself, of SLURM


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_and_modules_that_pages_name_are_there(page):
    text = page.read_text("utf-8")
    for name in re.findall(r"`((?:tests|benchmarks|docs|src|examples|recipes)/[\w./]+\w)`", text):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"python -m ((?:benchmarks|napari_defocus)[\w.]+)", text):
        assert importlib.util.find_spec(name), name


def test_options_that_pages_name_are_there(capsys):
    for command in COMMANDS:
        with pytest.raises(SystemExit):
            main([command, "--help"])
    known = capsys.readouterr().out
    known += "".join(p.read_text("utf-8") for s in SCRIPTS for p in (ROOT / s).rglob("*.py"))
    for page in PAGES:
        named = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", page.read_text("utf-8")))
        lost = {name for name in named if not re.search(rf"{name}(?![\w-])", known)} - OTHERS
        assert not lost, f"{name_of(page)}: {lost}"
