import numpy as np
import pytest

from napari_defocus.cli.main import main
from napari_defocus.data.results import read_results, reader_of
from napari_defocus.io.tiff_writer import write_tiff
from tests.cli.helpers import picture


@pytest.fixture
def results(tmp_path):
    write_tiff(tmp_path / "a.tif", picture(0), axes="YX", pixel_size_um=0.5)
    options = ["--out", str(tmp_path / "out"), "--detector", "metric"]
    assert main(["detect", str(tmp_path / "a.tif"), *options]) == 0
    return tmp_path / "out"


@pytest.mark.parametrize("name", ["", "napari-defocus.json", "a.mask.tif"])
def test_image_blur_map_and_mask_open_together(results, name):
    path = str(results / name)
    layers = reader_of(path)(path)
    assert [(options["name"], kind) for _, options, kind in layers] == [
        ("a", "image"),
        ("a blur", "image"),
        ("a mask", "labels"),
    ]
    assert np.array_equal(layers[0][0], picture(0))
    assert layers[2][0].dtype == np.uint8
    assert all(options["scale"] == [0.5, 0.5] for _, options, _ in layers)
    assert layers[2][1]["colormap"][2][:3] == (0.9, 0.62, 0.0)


def test_napari_makes_layers_of_them(results):
    layer = pytest.importorskip("napari.layers").Layer
    made = [layer.create(*one) for one in read_results(str(results))]
    assert [type(one).__name__ for one in made] == ["Image", "Image", "Labels"]
    assert np.allclose(made[2].get_color(1)[:3], (0, 0.45, 0.7), atol=0.01)
    assert made[2].get_color(0) is None


def test_an_image_that_moved_is_left_out(results):
    (results.parent / "a.tif").unlink()
    assert [options["name"] for _, options, _ in read_results(str(results))] == ["a blur", "a mask"]


def test_other_folders_and_files_are_left_to_others(tmp_path):
    write_tiff(tmp_path / "photo.tif", picture(0), axes="YX")
    assert reader_of(str(tmp_path)) is None
    assert reader_of([str(tmp_path / "photo.tif")]) is None
