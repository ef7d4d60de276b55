"""The examples run as they stand."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_defocus.cli.main import main
from napari_defocus.data.samples import FOLDER
from napari_defocus.io.open import open_source, read_image
from napari_defocus.io.raster import write_png
from napari_defocus.io.tiff_writer import write_tiff

EXAMPLES = Path(__file__).parents[1] / "examples"
if not EXAMPLES.exists():
    pytest.skip("no checkout of the repository", allow_module_level=True)


def run(*command, **environment):
    """Run a command with this environment's programs first, and give what it prints."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": path, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture
def photos(tmp_path):
    image = read_image(FOLDER / "photo.jpg").data
    write_png(tmp_path / "photos" / "wall.png", image[40:168, 350:478])
    write_png(tmp_path / "photos" / "person.png", image[330:458, 140:268])
    return tmp_path / "photos"


def test_every_example_is_listed():
    told = (EXAMPLES / "README.md").read_text("utf-8")
    for path in EXAMPLES.iterdir():
        if path.name != "README.md" and path.suffix in (".py", ".sh", ".ipynb"):
            assert f"[{path.name}]({path.name})" in told


def test_detect_folder(photos, tmp_path):
    (photos / "broken.png").write_bytes(b"no image")
    run(sys.executable, EXAMPLES / "detect_folder.py", photos, tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="") as file:
        rows = {row["image"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"wall.png", "person.png"}
    assert float(rows["wall.png"]["blurred"]) > 0.9
    assert float(rows["person.png"]["sharp"]) > 0.5


@pytest.mark.skipif(shutil.which("sh") is None, reason="no shell")
def test_batch(photos, tmp_path):
    (photos / "broken.png").write_bytes(b"no image")
    for _ in range(2):
        told = run("sh", EXAMPLES / "batch.sh", photos, tmp_path / "out")
    assert told[-2:] == ["More than half blurred:", "wall 100 %"]
    assert (tmp_path / "out" / "tables" / "person.geojson").exists()


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_tasks_of_a_job_array_share_the_files(photos, tmp_path):
    for task in range(3):
        names = {"SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_ID": str(task)}
        run("bash", EXAMPLES / "slurm_array.sh", photos, tmp_path / "out", **names)
    masks = sorted(path.name for path in (tmp_path / "out").rglob("*.mask.tif"))
    assert masks == ["person.mask.tif", "wall.mask.tif"]


def test_cluster(tmp_path):
    image = read_image(FOLDER / "photo.jpg").data[:256, :300]
    write_tiff(tmp_path / "slide.tif", image, axes="YXS")
    run(
        *(sys.executable, EXAMPLES / "cluster.py", tmp_path / "slide.tif"),
        *("--out", tmp_path / "out", "--local", 2, "--tile", 128),
    )
    found = open_source(tmp_path / "out" / "slide.blur.ome.zarr").read()
    whole = ["detect", str(tmp_path / "slide.tif"), "--detector", "metric", "--out"]
    assert main([*whole, str(tmp_path / "whole")]) == 0
    expected = read_image(tmp_path / "whole" / "slide.blur.tif").data
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_handover(tmp_path):
    told = run(sys.executable, EXAMPLES / "handover.py", FOLDER / "tilted_plane.tif", tmp_path)
    assert told[-1] == "read back: the same mask"
    with tifffile.TiffFile(tmp_path / "tilted_plane.ome.tif") as file:
        assert file.is_ome
        assert file.series[0].axes == "CYX"
        assert 'PhysicalSizeX="0.65"' in file.ome_metadata
    features = json.loads((tmp_path / "tilted_plane.geojson").read_text("utf-8"))["features"]
    assert {f["properties"]["classification"]["name"] for f in features} == {"blurred", "sharp"}


@pytest.mark.parametrize(("name", "pictures"), [("own_metric", 3), ("plate_report", 2)])
def test_notebook(name, pictures, tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code), "save it without outputs"
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    monkeypatch.setenv("PATH", programs)
    there = {"metadata": {"path": str(tmp_path)}}
    client.NotebookClient(notebook, timeout=120, kernel_name="python3", resources=there).execute()
    shown = [output for cell in code for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in shown) == pictures
