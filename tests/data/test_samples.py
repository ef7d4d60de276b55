import numpy as np
import pytest
from PIL import Image

from napari_defocus.core.errors import DefocusError
from napari_defocus.data.samples import (
    FOLDER,
    SAMPLES,
    nuclei_series,
    photo,
    read_sample,
    tilted_plane,
    z_stack,
)
from napari_defocus.detection.api import DetectionConfig, detect
from napari_defocus.evaluate.scores import auc
from napari_defocus.io.open import read_image
from napari_defocus.simulate.sample_rendering import (
    PHOTO_RADIUS,
    PIXEL_SIZE_UM,
    PLANES,
    RADIUS_PER_UM,
    SERIES_PLANES,
    SERIES_SIDE,
    SERIES_STEP_UM,
    TILT_X,
    TILT_Y,
    Z_STEP_UM,
    render_samples,
)

SHAPES = {
    "nuclei_series": (SERIES_PLANES, SERIES_SIDE, SERIES_SIDE),
    "photo": (512, 512, 3),
    "tilted_plane": (384, 384, 3),
    "z_stack": (PLANES, 256, 256),
}
SCALES = {
    "nuclei_series": (SERIES_STEP_UM, PIXEL_SIZE_UM, PIXEL_SIZE_UM),
    "photo": (),
    "tilted_plane": (PIXEL_SIZE_UM, PIXEL_SIZE_UM),
    "z_stack": (Z_STEP_UM, PIXEL_SIZE_UM, PIXEL_SIZE_UM),
}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rendered")
    render_samples(folder)
    return folder


def test_samples_are_these():
    assert sorted(SAMPLES) == sorted(SHAPES)


@pytest.mark.parametrize("name", SAMPLES)
def test_sample_is_read(name):
    sample = read_sample(name)
    assert sample.name == name
    assert sample.path.is_file()
    assert sample.image.dtype == (np.uint16 if name == "nuclei_series" else np.uint8)
    assert sample.image.shape == SHAPES[name]
    assert sample.scale == SCALES[name]
    # One truth each, of the plane's shape.
    (truth,) = (found for found in (sample.blurred, sample.height) if found is not None)
    stacks = ("nuclei_series", "z_stack")
    assert truth.shape == sample.image.shape[1:] if name in stacks else sample.image.shape[:2]
    assert np.isfinite(truth).all()


@pytest.mark.parametrize("name", ["nuclei_series", "tilted_plane", "z_stack"])
def test_files_say_the_size_of_a_pixel(name):
    sample = read_sample(name)
    for path in (sample.path, FOLDER / f"{name}.height.tif"):
        assert read_image(path).pixel_size_um == pytest.approx(PIXEL_SIZE_UM, rel=1e-4)
    assert sample.height.dtype == np.float32


def test_mask_of_the_photo_has_both_classes():
    blurred = read_sample("photo").blurred
    assert blurred.dtype == np.bool_
    assert 0.3 < blurred.mean() < 0.7
    assert set(np.unique(read_image(FOLDER / "photo.mask.png").data)) == {0, 255}
    # The person's face is sharp, the wall behind is not.
    assert not blurred[90, 220]
    assert blurred[20, 20]


def test_height_of_the_tilted_plane_is_a_plane():
    height = read_sample("tilted_plane").height
    np.testing.assert_allclose(np.diff(height, axis=1), TILT_X * PIXEL_SIZE_UM, atol=1e-4)
    np.testing.assert_allclose(np.diff(height, axis=0), TILT_Y * PIXEL_SIZE_UM, atol=1e-4)
    most = (TILT_X + TILT_Y) * PIXEL_SIZE_UM * 383 / 2
    assert height.max() == pytest.approx(most, rel=1e-3)
    assert height.min() == pytest.approx(-most, rel=1e-3)
    # From in focus to far more blurred than anybody disputes.
    assert RADIUS_PER_UM * most > 8


def test_surface_of_the_stack_spans_its_planes():
    height = read_sample("z_stack").height
    assert height.min() == pytest.approx(0, abs=1e-4)
    assert height.max() == pytest.approx(Z_STEP_UM * (PLANES - 1), rel=1e-4)


def test_each_plane_of_the_stack_is_crispest_where_the_surface_is():
    sample = read_sample("z_stack")
    planes = sample.image.astype(np.float32)
    detail = np.abs(np.diff(planes, axis=2))[:, :, 1:-1]
    plane = np.rint(sample.height / Z_STEP_UM)[:, 2:-1]
    for index in range(PLANES):
        here = plane == index
        if here.sum() > 500:
            assert abs(int(detail[:, here].mean(axis=1).argmax()) - index) <= 1


def test_unknown_sample_is_told_with_the_choice():
    with pytest.raises(DefocusError, match=r"'moon'.*photo"):
        read_sample("moon")


def test_layers_bear_the_truth():
    sample = read_sample("photo")
    (image, _, kind), (truth, _, truth_kind) = photo()
    assert (kind, truth_kind) == ("image", "labels")
    np.testing.assert_array_equal(image, sample.image)
    np.testing.assert_array_equal(truth, np.where(sample.blurred, 1, 2))
    for layers in (nuclei_series(), tilted_plane(), z_stack()):
        assert [kind for _, _, kind in layers] == ["image", "image"]
        assert layers[1][1]["scale"] == (PIXEL_SIZE_UM, PIXEL_SIZE_UM)
        assert not layers[1][1]["visible"]


# The rendering


def test_rendering_makes_all_files_but_the_readme(rendered):
    files = {path.name for path in FOLDER.iterdir()} - {"README.md"}
    assert {path.name for path in rendered.iterdir()} == files


@pytest.mark.parametrize(
    "name",
    [
        "nuclei_series.tif",
        "nuclei_series.height.tif",
        "photo.mask.png",
        "tilted_plane.tif",
        "tilted_plane.height.tif",
        "z_stack.tif",
        "z_stack.height.tif",
    ],
)
def test_rendering_repeats_the_pixels(rendered, name):
    # Another processor rounds otherwise, which tips single draws of the shot noise.
    packaged, again = (read_image(folder / name) for folder in (FOLDER, rendered))
    assert again.data.dtype == packaged.data.dtype
    assert again.axes == packaged.axes
    difference = np.abs(again.data.astype(float) - packaged.data)
    assert (difference > 0).mean() < 0.01
    assert difference.max() <= (16 if again.data.dtype == np.uint8 else 256)


def test_rendering_nearly_repeats_the_photo(rendered):
    # JPEG encoders differ by release, at most by a few levels.
    packaged, again = (
        np.asarray(Image.open(folder / "photo.jpg")).astype(int) for folder in (FOLDER, rendered)
    )
    assert np.abs(again - packaged).mean() < 0.5
    assert np.abs(again - packaged).max() < 30


# The truth is found


def test_nuclei_are_sharp_in_the_planes_that_hold_them():
    sample = read_sample("nuclei_series")
    mask = detect(sample.image, axes="ZYX").mask
    z = SERIES_STEP_UM * np.arange(SERIES_PLANES)[:, np.newaxis, np.newaxis]
    radius = RADIUS_PER_UM * np.abs(sample.height - z)
    seen = sample.image > 400  # nuclei, not the ground between
    assert (mask[seen & (radius < 2)] == 2).mean() > 0.95
    assert (mask[seen & (radius > 5)] == 1).mean() > 0.95


def test_photo_is_detected():
    sample = read_sample("photo")
    detection = detect(sample.image)
    assert auc(detection.blur, sample.blurred) > 0.95
    assert (detection.mask[sample.blurred] == 1).mean() > 0.9
    assert (detection.mask[~sample.blurred] == 2).mean() > 0.85
    assert PHOTO_RADIUS > 2


@pytest.mark.parametrize(("detector", "most"), [("metric", 0.1), ("dense", 0.3)])
def test_tilted_plane_is_detected_on_both_sides_of_the_focus(detector, most):
    sample = read_sample("tilted_plane")
    blur = detect(sample.image, config=DetectionConfig(detector=detector)).blur
    near, far = np.abs(sample.height) < 2, np.abs(sample.height) > 10
    assert blur[near].mean() < most
    for side in (sample.height > 0, sample.height < 0):
        assert blur[far & side].mean() > 0.9


def test_stack_is_sharp_where_the_surface_is_in_focus():
    sample = read_sample("z_stack")
    blur = detect(sample.image, axes="ZYX").blur
    assert blur.shape == sample.image.shape
    z = Z_STEP_UM * np.arange(PLANES)[:, np.newaxis, np.newaxis]
    distance = np.abs(sample.height - z)
    assert blur[distance < 2].mean() < 0.1
    assert blur[distance > 10].mean() > 0.9
