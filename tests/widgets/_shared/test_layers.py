"""Layer manners: results sit on their source, and nothing of the user's is touched."""

import dask.array as da
import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Labels, Shapes
from skimage import data, draw

from napari_defocus import __version__
from napari_defocus.core.errors import DefocusError
from napari_defocus.detection.api import DetectionConfig, detect
from napari_defocus.widgets._shared import layers
from napari_defocus.widgets.detect.widget import DetectWidget

CAMERA = data.camera()[100:340:2, 60:380:2]  # 120 x 160
COLOURS = data.astronaut()[::4, 0:480:4]  # 128 x 120
Z = np.stack([CAMERA, CAMERA[::-1], CAMERA[:, ::-1]])


def rgba():
    return np.concatenate([COLOURS, np.full((*COLOURS.shape[:2], 1), 255, np.uint8)], axis=-1)


LAYERS = {
    "calibrated": (CAMERA, {"scale": (2, 0.5), "units": ("um", "um"), "axis_labels": ("y", "x")}),
    "turned": (
        CAMERA,
        {
            "scale": (2, 0.5),
            "translate": (5, 7),
            "rotate": 30,
            "shear": [0.4],
            "affine": [[1, 0.1, 3], [0, 1.5, 4], [0, 0, 1]],
        },
    ),
    "RGB": (COLOURS, {"rgb": True, "scale": (0.3, 0.3), "units": ("mm", "mm")}),
    "RGBA": (rgba(), {"rgb": True, "translate": (1, 2)}),
    "z-stack": (Z, {"scale": (3, 0.5, 0.4), "units": ("um",) * 3, "translate": (9, 8, 7)}),
    "RGB stack": (np.stack([COLOURS] * 2), {"rgb": True, "scale": (2, 1, 1), "shear": [0, 0, 0.2]}),
    "dask": (da.from_array(Z, chunks=(1, -1, -1)), {"scale": (3, 0.5, 0.4)}),
    "multiscale": (
        [CAMERA, CAMERA[::2, ::2]],
        {"multiscale": True, "scale": (2, 0.5), "translate": (3, 4)},
    ),
}
each_layer = pytest.mark.parametrize("kind", LAYERS)


def add(viewer, kind, **more):
    pixels, options = LAYERS[kind]
    return viewer.add_image(pixels, **{"name": "cells", **options, **more})


def press(qtbot, widget):
    with qtbot.waitSignal(widget.jobs.ended, timeout=20_000):
        widget.jobs.run_button.click()


def results(viewer, source):
    return [layers.find_owned(viewer, source, role) for role in (layers.BLUR, layers.MASK)]


def assert_same_place(layer, source):
    for name in layers.GEOMETRY:
        ours, theirs = getattr(layer, name), getattr(source, name)
        if name == "affine":
            ours, theirs = np.asarray(ours), np.asarray(theirs)
        if name in ("units", "axis_labels"):
            assert ours == theirs, name
        else:
            np.testing.assert_allclose(ours, theirs, err_msg=name)


@each_layer
def test_results_sit_on_their_source(make_napari_viewer_proxy, qtbot, kind):
    viewer = make_napari_viewer_proxy()
    source = add(viewer, kind)
    widget = DetectWidget(viewer)
    viewer.window.add_dock_widget(widget)
    press(qtbot, widget)
    blur, mask = results(viewer, source)
    assert len(viewer.layers) == 3, widget.jobs.text.text()
    full = layers.full_resolution(source)
    shape = full.shape[:-1] if source.rgb else full.shape
    for layer in (blur, mask):
        assert layer.data.shape == shape
        assert_same_place(layer, source)
    assert (blur.name, mask.name) == ("cells blur map", "cells mask")
    assert blur.data.dtype == np.float32
    assert mask.data.dtype == np.uint8
    np.testing.assert_allclose(blur.contrast_limits, (0, 1))
    np.testing.assert_array_equal(
        blur.data, detect(np.asarray(full), axes=layers.axes_of(source)).blur
    )


@pytest.mark.parametrize("kind", ["z-stack", "RGB stack", "dask"])
def test_a_plane_of_a_stack_gives_a_result_where_that_plane_lies(
    make_napari_viewer_proxy, qtbot, kind
):
    viewer = make_napari_viewer_proxy()
    source = add(viewer, kind)
    widget = DetectWidget(viewer)
    viewer.window.add_dock_widget(widget)
    widget.show()
    widget.shown_plane.setChecked(True)
    viewer.dims.set_current_step(0, 1)
    press(qtbot, widget)
    blur, mask = results(viewer, source)
    plane = np.asarray(layers.full_resolution(source)[1])
    np.testing.assert_array_equal(mask.data, detect(plane).mask)
    assert layers.owned(mask)["plane"] == (1,)
    rows, columns = plane.shape[:2]
    for corner in ((0, 0), (rows - 1, 0), (5, columns - 1)):
        expected = source.data_to_world((1, *corner))[-2:]
        np.testing.assert_allclose(blur.data_to_world(corner), expected)


def test_a_second_run_updates_its_own_layers_and_leaves_the_users_alone(
    make_napari_viewer_proxy, qtbot
):
    viewer = make_napari_viewer_proxy()
    theirs = [
        viewer.add_image(np.full((9, 9), 0.25, np.float32), name="cells blur map"),
        viewer.add_labels(np.full((9, 9), 7, np.uint8), name="cells mask"),
    ]
    before = [layer.data.copy() for layer in theirs]
    source = add(viewer, "calibrated")
    widget = DetectWidget(viewer)
    viewer.window.add_dock_widget(widget)
    widget.image.value = source
    press(qtbot, widget)
    first = results(viewer, source)
    assert len(viewer.layers) == 5
    assert len({layer.name for layer in viewer.layers}) == 5
    first[0].visible = False
    first[0].name = "mine now"
    first[1].editable = False
    widget.settings.limit.slider.setValue(1)
    press(qtbot, widget)
    assert results(viewer, source) == first
    assert len(viewer.layers) == 5
    assert not first[0].visible
    assert first[0].name == "mine now"
    found = detect(CAMERA, config=DetectionConfig(limit=1.0))
    np.testing.assert_array_equal(first[0].data, found.blur)
    np.testing.assert_array_equal(first[1].data, found.mask)
    assert layers.owned(first[1])["settings"]["limit"] == 1
    for layer, pixels in zip(theirs, before, strict=True):
        np.testing.assert_array_equal(layer.data, pixels)


def test_an_image_of_another_size_gets_new_results(make_napari_viewer_proxy, qtbot):
    viewer = make_napari_viewer_proxy()
    source = add(viewer, "calibrated")
    widget = DetectWidget(viewer)
    viewer.window.add_dock_widget(widget)
    press(qtbot, widget)
    source.data = CAMERA[:80]
    assert widget.contents.text() == "80 x 160 pixels"
    press(qtbot, widget)
    assert len(viewer.layers) == 3
    assert {layer.data.shape for layer in results(viewer, source)} == {(80, 160)}


def test_undo_after_a_second_detection_gives_the_first_back(make_napari_viewer_proxy, qtbot):
    viewer = make_napari_viewer_proxy()
    source = add(viewer, "calibrated")
    widget = DetectWidget(viewer)
    viewer.window.add_dock_widget(widget)
    press(qtbot, widget)
    mask = results(viewer, source)[1]
    first = mask.data.copy()
    widget.settings.limit.slider.setValue(0.6)
    press(qtbot, widget)
    second = mask.data.copy()
    assert (second != first).any()
    mask.undo()
    np.testing.assert_array_equal(mask.data, first)
    mask.redo()
    np.testing.assert_array_equal(mask.data, second)


def test_provenance_is_written_into_the_metadata(make_napari_viewer_proxy, qtbot):
    viewer = make_napari_viewer_proxy()
    source = add(viewer, "RGB")
    widget = DetectWidget(viewer)
    viewer.window.add_dock_widget(widget)
    widget.settings.refine.setChecked(False)
    press(qtbot, widget)
    for layer, role in zip(results(viewer, source), (layers.BLUR, layers.MASK), strict=True):
        note = layers.owned(layer)
        assert note["role"] == role
        assert note["version"] == __version__
        assert note["detector"] == "auto"
        assert len(note["detector_digest"]) > 10
        assert note["settings"]["refine"] is False
        assert note["source"] == "cells"
    assert source.metadata == {}


def test_confidence_layer_has_the_manners_of_the_blur_map(make_napari_viewer_proxy, qtbot):
    viewer = make_napari_viewer_proxy()
    source = add(viewer, "calibrated")
    widget = DetectWidget(viewer)
    viewer.window.add_dock_widget(widget)
    widget.more_layers.confidence.click()
    press(qtbot, widget)
    blur, confidence = (
        layers.find_owned(viewer, source, role) for role in (layers.BLUR, layers.CONFIDENCE)
    )
    assert confidence.name == "cells confidence"
    assert confidence.colormap.name == "viridis"
    assert_same_place(confidence, source)
    assert confidence.visible == blur.visible
    note = layers.owned(confidence)
    assert {**note, "role": layers.BLUR} == layers.owned(blur)
    widget.settings.limit.slider.setValue(1)
    press(qtbot, widget)
    assert layers.find_owned(viewer, source, layers.CONFIDENCE) == confidence
    found = detect(CAMERA, config=DetectionConfig(limit=1.0))
    np.testing.assert_array_equal(confidence.data, found.confidence)
    np.testing.assert_allclose(confidence.contrast_limits, (0, 1))
    assert len(viewer.layers) == 4


def test_radius_is_shown_from_0_to_its_greatest(make_napari_viewer_proxy):
    viewer = make_napari_viewer_proxy()
    source = add(viewer, "calibrated")
    radius = CAMERA.astype(np.float32) / 20
    layer = layers.put_image(viewer, radius, source, layers.RADIUS)
    assert layer.name == "cells blur radius"
    assert_same_place(layer, source)
    for factor in (3, 0.5):
        layers.put_image(viewer, factor * radius, source, layers.RADIUS)
        np.testing.assert_allclose(layer.contrast_limits, (0, factor * radius.max()))
    layer.contrast_limits = (1, 4)
    layers.put_image(viewer, radius, source, layers.RADIUS)
    np.testing.assert_allclose(layer.contrast_limits, (1, 4))
    assert len(viewer.layers) == 2


def test_a_radius_of_0_everywhere_can_be_shown(make_napari_viewer_proxy):
    viewer = make_napari_viewer_proxy()
    source = add(viewer, "calibrated")
    layer = layers.put_image(viewer, np.zeros(CAMERA.shape, np.float32), source, layers.RADIUS)
    np.testing.assert_allclose(layer.contrast_limits, (0, 1))


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("calibrated", "120 x 160 pixels"),
        ("RGB", "128 x 120 pixels, RGB"),
        ("RGBA", "128 x 120 pixels, RGBA"),
        ("z-stack", "3 planes of 120 x 160"),
        ("RGB stack", "2 planes of 128 x 120, RGB"),
        ("dask", "3 planes of 120 x 160"),
        ("multiscale", "120 x 160 pixels, finest level of a pyramid"),
    ],
)
def test_describe(kind, text):
    pixels, options = LAYERS[kind]
    assert layers.describe(Image(pixels, **options)) == text


def test_the_visible_index_reads_nothing_else(make_napari_viewer_proxy):
    read = []

    def block(block_id):
        read.append(block_id[0])
        return np.full((1, 20, 30), block_id[0], np.uint8)

    lazy = da.map_blocks(block, chunks=((1,) * 5, (20,), (30,)), dtype=np.uint8, meta=Z[:0])
    viewer = make_napari_viewer_proxy()
    source = viewer.add_image(lazy, scale=(2, 1, 1), contrast_limits=(0, 5))
    viewer.dims.set_current_step(0, 3)
    read.clear()
    index = layers.visible_index(viewer, source)
    assert index == (3,)
    plane = np.asarray(source.data[index])
    assert set(read) == {3}
    assert (plane == 3).all()


@pytest.mark.parametrize("step", [1, 2, 3])
@pytest.mark.parametrize("kind", ["calibrated", "turned", "RGB stack"])
def test_a_reduced_preview_covers_the_image(make_napari_viewer_proxy, kind, step):
    viewer = make_napari_viewer_proxy()
    source = add(viewer, kind)
    shape = layers.full_resolution(source).shape[source.ndim - 2 :][:2]
    reduced = np.zeros(shape, np.uint8)[::step, ::step]
    layer = layers.put_preview(viewer, reduced, source, step)
    assert layers.put_preview(viewer, reduced + 1, source, step) == layer
    assert (layer.data == 1).all()
    centre = (step - 1) / 2
    for pixel in ((0, 0), (4, 9), (11, 2)):
        at = [0] * (source.ndim - 2) + [step * place + centre for place in pixel]
        np.testing.assert_allclose(layer.data_to_world(pixel), source.data_to_world(at)[-2:])


# Regions

SHAPE = (40, 60)


def image_layer(**options):
    return Image(np.zeros(SHAPE), **options)


def same(mask, expected, slack=0):
    assert mask.shape == SHAPE
    assert mask.dtype == bool
    assert np.count_nonzero(mask != expected) <= slack


@pytest.mark.parametrize(
    "options",
    [{}, {"scale": (0.5, 0.5), "translate": (3, -2)}, {"scale": (0.5, 0.25), "rotate": 20}],
    ids=["plain", "scaled", "turned"],
)
def test_region_of_shapes_drawn_in_the_world(options):
    image = image_layer(**options)

    def world(points):
        return np.array([image.data_to_world(point) for point in points])

    rectangle = np.array([(5, 10), (5, 29), (24, 29), (24, 10)])
    expected = np.zeros(SHAPE, bool)
    expected[5:25, 10:30] = True
    shapes = Shapes([world(rectangle)], shape_type="polygon")
    same(layers.region_mask(shapes, image, SHAPE), expected, slack=80)
    triangle = np.array([(5, 5), (35, 10), (20, 50)])
    expected = draw.polygon2mask(SHAPE, triangle)
    shapes = Shapes([world(triangle)], shape_type="polygon")
    same(layers.region_mask(shapes, image, SHAPE), expected, slack=60)


def test_region_of_a_rectangle_and_an_ellipse():
    image = image_layer(scale=(0.5, 0.5), translate=(3, -2))
    corners = np.array([(5, 10), (5, 30), (25, 30), (25, 10)])
    world = corners * 0.5 + (3, -2)
    expected = np.zeros(SHAPE, bool)
    expected[5:26, 10:31] = True
    rectangle = Shapes([world], shape_type="rectangle")
    same(layers.region_mask(rectangle, image, SHAPE), expected, slack=42)
    y, x = np.indices(SHAPE)
    inside = ((y - 15) / 10) ** 2 + ((x - 20) / 10) ** 2 <= 1
    ellipse = Shapes([world], shape_type="ellipse")
    same(layers.region_mask(ellipse, image, SHAPE), inside, slack=20)
    both = Shapes([world, world + np.array((0, 12))], shape_type=["ellipse", "rectangle"])
    assert layers.region_mask(both, image, SHAPE).sum() > inside.sum()


def test_region_of_labels_and_of_a_stack():
    labels = np.zeros(SHAPE, int)
    labels[4:9, 3:7] = 5
    same(layers.region_mask(Labels(labels), image_layer(), SHAPE), labels > 0)
    stack = Image(np.zeros((3, *SHAPE)), scale=(4, 0.5, 0.5))
    flat = Shapes([np.array([(0, 0), (0, 5), (5, 5), (5, 0)])], shape_type="rectangle")
    inside = layers.region_mask(flat, stack, SHAPE)
    assert inside[:10, :10].all()
    assert not inside[12:].any()
    deep = Shapes([[(1, 0, 0), (1, 0, 5), (1, 5, 5), (1, 5, 0)]], shape_type="polygon")
    deep.scale = (4, 1, 1)
    np.testing.assert_array_equal(layers.region_mask(deep, stack, SHAPE), inside)


@pytest.mark.parametrize(
    ("region", "says"),
    [
        (Labels(np.zeros(SHAPE, int), name="roi"), "'roi' covers nothing"),
        (Shapes(name="roi"), "'roi' covers nothing"),
        (Shapes([[(0, 0), (9, 9)]], shape_type="line", name="roi"), "'roi' covers nothing"),
        (Labels(np.ones((5, 5), int), name="roi"), "'roi' are"),
    ],
)
def test_a_region_that_cannot_be_used_is_refused(region, says):
    with pytest.raises(DefocusError, match=says):
        layers.region_mask(region, image_layer(), SHAPE)


def test_layers_are_not_removed_while_others_are(qtbot):
    """Napari drew what was left of them, and the process ended, after `viewer.layers.clear()`."""
    model = ViewerModel()
    image, own = (model.add_image(np.zeros((4, 4))) for _ in range(2))
    model.layers.events.removed.connect(lambda _: layers.remove_later(model, lambda: [own]))
    model.layers.remove(image)
    assert own in model.layers
    qtbot.waitUntil(lambda: own not in model.layers, timeout=2000)
