import numpy as np
import pytest
from PIL import Image

from napari_defocus.core.errors import DefocusError
from napari_defocus.labels.classes import COLOURS
from napari_defocus.plot.colours import OPACITY
from napari_defocus.plot.overview import save_overview

SHAPE = (60, 80)
# Left half blurred, right half sharp, the top row of blocks undecided.
MASK = np.repeat([[1, 2]], 40, axis=1).repeat(60, axis=0).astype(np.uint8)
MASK[:10] = 0
BLUR = np.where(MASK == 1, 1, 0).astype(np.float32)
GREY = np.random.default_rng(0).integers(60, 200, SHAPE).astype(np.uint8)
WHITE = np.full((*SHAPE, 3), 255, np.uint8)


def drawn(path, image=GREY, blur=BLUR, mask=MASK, **options):
    save_overview(path, image, blur, mask, **options)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))


def share_of(picture, colour, tolerance=2):
    return (np.abs(picture.astype(int) - colour) <= tolerance).all(axis=-1).mean()


def tint(label, grey=255):
    """What a pixel of the mask panel shows, 0 to 255."""
    return (1 - OPACITY) * grey + OPACITY * 255 * np.array(COLOURS[label])


@pytest.mark.parametrize("shape", [(60, 80), (80, 60), (40, 40), (300, 500)])
def test_picture_has_a_sensible_size(tmp_path, shape):
    image = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    picture = drawn(
        tmp_path / "a.png", image, np.zeros(shape, np.float32), np.ones(shape, np.uint8)
    )
    height, width, _ = picture.shape
    assert width == 1500
    assert height == pytest.approx(500 * shape[0] / shape[1] + 90, abs=2)


@pytest.mark.parametrize("shape", [(3000, 8), (8, 3000), (2, 9000), (4100, 4300)])
def test_the_picture_of_any_shape_is_bounded_and_shows_all_classes(tmp_path, shape):
    image = np.full((*shape, 3), 255, np.uint8)
    mask = np.where(np.indices(shape)[np.argmax(shape)] < max(shape) // 2, 1, 2).astype(np.uint8)
    picture = drawn(tmp_path / "a.png", image, np.zeros(shape, np.float32), mask)
    height, width, _ = picture.shape
    assert width == 1500
    assert 500 / 3 + 80 <= height <= 1600
    for label in (1, 2):
        assert share_of(picture[:, 1000:], tint(label)) > 0.1


def test_three_panels_show_image_map_and_mask(tmp_path):
    picture = drawn(tmp_path / "a.png", WHITE)
    thirds = np.array_split(picture, 3, axis=1)
    # Of a white image every panel but the mask's is without colour.
    colourful = [(np.ptp(third.astype(int), axis=-1) > 20).mean() for third in thirds]
    assert colourful[0] < 0.02
    assert colourful[1] < 0.02
    assert colourful[2] > 0.4
    # The map is black where it is 0.
    assert share_of(thirds[1], (0, 0, 0)) > 0.2


def test_mask_is_tinted_by_class(tmp_path):
    third = np.array_split(drawn(tmp_path / "a.png", WHITE), 3, axis=1)[2]
    left, right = np.array_split(third, 2, axis=1)
    for label, there, elsewhere in ((1, left, right), (2, right, left)):
        assert share_of(there, tint(label)) > 0.4
        assert share_of(elsewhere, tint(label)) < 0.1


def test_undecided_pixels_show_the_image(tmp_path):
    picture = drawn(tmp_path / "a.png", WHITE, mask=np.zeros(SHAPE, np.uint8))
    third = np.array_split(picture, 3, axis=1)[2]
    for label in COLOURS:
        assert share_of(third, tint(label)) == 0


def test_legend_tells_the_shares(tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    told = []
    legend = Axes.legend

    def spy(axes, *given, handles, **options):
        told.extend(handle.get_label() for handle in handles)
        return legend(axes, *given, handles=handles, **options)

    monkeypatch.setattr(Axes, "legend", spy)
    mask = np.zeros((10, 10), np.uint8)
    mask[:3] = 1
    mask[3:9] = 2
    drawn(tmp_path / "a.png", GREY[:10, :10], np.zeros((10, 10), np.float32), mask)
    assert told == ["blurred 30%", "sharp 60%"]


@pytest.mark.parametrize(
    "change",
    [
        lambda grey: grey.astype(np.uint16) * 200 + 500,
        lambda grey: grey / np.float32(255),
        lambda grey: grey[..., np.newaxis],
        lambda grey: np.stack([grey] * 3, axis=-1).astype(np.uint16) * 200,
    ],
    ids=["uint16", "float", "one channel", "RGB of uint16"],
)
def test_any_kind_of_grey_is_shown_alike(tmp_path, change):
    expected = drawn(tmp_path / "a.png", GREY).astype(int)
    found = drawn(tmp_path / "b.png", change(GREY)).astype(int)
    assert np.abs(found - expected).max() <= 2


def test_colours_of_8_bits_are_shown_as_they_are(tmp_path):
    image = np.full((*SHAPE, 3), (10, 200, 90), np.uint8)
    panel = np.array_split(drawn(tmp_path / "a.png", image), 3, axis=1)[0]
    assert share_of(panel, (10, 200, 90)) > 0.5
    alpha = np.dstack([image, np.full(SHAPE, 255, np.uint8)])
    np.testing.assert_array_equal(
        drawn(tmp_path / "b.png", alpha), drawn(tmp_path / "c.png", image)
    )


def test_holes_are_shown_too(tmp_path):
    image = GREY.astype(np.float32)
    image[:20] = np.nan
    assert drawn(tmp_path / "a.png", image).shape[1] == 1500


def test_image_is_left_alone(tmp_path):
    image, blur, mask = GREY.copy(), BLUR.copy(), MASK.copy()
    drawn(tmp_path / "a.png", image, blur, mask)
    for now, before in ((image, GREY), (blur, BLUR), (mask, MASK)):
        np.testing.assert_array_equal(now, before)


def test_existing_picture_is_kept_unless_told_otherwise(tmp_path):
    path = tmp_path / "a.png"
    path.write_text("mine")
    with pytest.raises(DefocusError, match="exists already"):
        save_overview(path, GREY, BLUR, MASK, overwrite=False)
    assert path.read_text() == "mine"
    assert drawn(path, overwrite=True).size
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_picture_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "a.png"
    with pytest.raises(DefocusError, match="cannot write"):
        save_overview(path, GREY, BLUR, MASK)


def test_drawing_opens_no_window_and_keeps_the_callers_figures(tmp_path):
    from matplotlib import pyplot

    before = pyplot.get_fignums()
    drawn(tmp_path / "a.png")
    assert pyplot.get_fignums() == before
