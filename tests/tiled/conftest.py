import pytest

from napari_defocus.io.open import open_source
from tests.tiled.test_api import FORMATS, IMAGE, contents, run_tiles, write_image


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    return write_image(tmp_path_factory.mktemp("image") / "image.zarr", IMAGE)


@pytest.fixture(scope="module")
def expected(image, tmp_path_factory):
    """The bytes of each form, worked one tile after the other and undisturbed."""
    found = {}
    for form in FORMATS:
        folder = tmp_path_factory.mktemp(form)
        run_tiles(open_source(image), folder / "image", form=form)
        found[form] = contents(folder)
    return found
