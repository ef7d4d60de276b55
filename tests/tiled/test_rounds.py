"""Detection in tiles says what detection in one piece says."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage import data

from napari_defocus.core.errors import DefocusError
from napari_defocus.core.progress import Stopped
from napari_defocus.dense import inference as dense
from napari_defocus.detection.api import DetectionConfig, detect
from napari_defocus.detection.config import ZENG2019
from napari_defocus.detection.detectors import choose_detector
from napari_defocus.detection.fill import CELL
from napari_defocus.detection.inference import predict_plane
from napari_defocus.detection.postprocess import Limits
from napari_defocus.detection.refinement import RefinementConfig
from napari_defocus.detection.threshold import MaskConfig
from napari_defocus.io.base import array_source
from napari_defocus.metric.local_metric import load_metric
from napari_defocus.tiled import rounds as tiled_detection
from napari_defocus.tiled.checkpoint import TileKey, TileStore
from napari_defocus.tiled.executors import Tasks
from napari_defocus.tiled.rounds import TiledJob, detect_in_tiles, tile_step

METRIC = DetectionConfig(detector="metric")
BY_IMAGE = DetectionConfig(scale="image", refinement=RefinementConfig(threshold=None))


def by(config):
    """Return the detector that settings name."""
    return choose_detector(load_metric(), config)


class ArrayMap:
    """A map in memory."""

    def __init__(self, array):
        self.array = array

    def write(self, plane, rows, columns, values):
        self.array[plane][rows, columns] = values

    def read(self, plane, rows, columns):
        return self.array[plane][rows, columns].copy()


def make_job(image, side, config, folder, axes=None, names=("blur", "mask", "confidence")):
    source = array_source(image, axes)
    shape = source.shape[:-1] if source.axes.endswith("S") else source.shape
    kinds = {name: np.uint8 if name == "mask" else np.float32 for name in names}
    maps = {name: ArrayMap(np.zeros(shape, kind)) for name, kind in kinds.items()}
    return TiledJob(source, maps, by(config), config, side, TileStore(folder))


def in_tiles(*arguments, **named):
    job = make_job(*arguments, **named)
    detect_in_tiles(job, Tasks("synchronous"))
    return {name: kept.array for name, kept in job.maps.items()}


def picture():
    """Sharp above, blurred below, smooth in the middle."""
    image = np.tile(data.camera(), (1, 2))[:400, :700].astype(np.float32)
    image[200:] = ndimage.gaussian_filter(image[200:], 5)
    image[150:280, 250:500] = 20
    return image


IMAGE = picture()
NOISY = IMAGE + np.random.default_rng(0).normal(0, 25, IMAGE.shape).astype(np.float32)
HOLED = NOISY.copy()
HOLED[60:350, 100:440] = np.nan
COLOURS = np.stack([IMAGE, NOISY, IMAGE[::-1]], axis=-1)
IMAGES = {"clean": IMAGE, "noisy": NOISY, "with a hole": HOLED, "colours": COLOURS}


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    name=st.sampled_from(sorted(IMAGES)),
    side=st.integers(4, 40).map(lambda cells: CELL * cells),
    top=st.integers(0, 60),
    config=st.sampled_from([METRIC, BY_IMAGE, ZENG2019]),
)
def test_tiled_is_untiled_for_any_tile(tmp_path_factory, name, side, top, config):
    image = IMAGES[name][top:]
    found = in_tiles(image, side, config, tmp_path_factory.mktemp("store"))
    whole = detect(image, load_metric(), config)
    for what, values in found.items():
        np.testing.assert_allclose(values, getattr(whole, what), rtol=0, atol=1e-6)
    assert len(np.unique(found["mask"])) > 1


@pytest.mark.parametrize("limit", ["auto", 3.5])
def test_tiled_is_untiled_with_the_network(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(dense, "TILE", 256)
    config = DetectionConfig(detector="dense", limit=limit)
    names = ("blur", "mask", "confidence", "radius", "radius_error")
    job = make_job(COLOURS, 256, config, tmp_path, names=names)
    detect_in_tiles(job, Tasks("synchronous"))
    whole = detect(COLOURS, load_metric(), config)
    for name, kept in job.maps.items():
        np.testing.assert_allclose(kept.array, getattr(whole, name), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(job.maps["mask"].array, whole.mask)
    assert job.limits().limit == whole.limit
    assert job.limits().sharpest == whole.sharpest


def test_each_plane_in_tiles_has_the_limit_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(dense, "TILE", 128)
    stack = np.stack(
        [IMAGE[:130, :200], ndimage.gaussian_filter(IMAGE[:130, :200], 2), IMAGE[:130, :200] * 0]
    )
    job = make_job(stack, 128, DetectionConfig(), tmp_path, axes="ZYX")
    detect_in_tiles(job, Tasks("synchronous"))
    whole = detect(stack, axes="ZYX")
    found = job.limits()
    np.testing.assert_array_equal(found.limit, whole.limit)
    np.testing.assert_array_equal(found.sharpest, whole.sharpest)
    assert str(found) == str(Limits.of(whole))
    assert found.as_record()["sharpest_px"][2] is None


def test_the_metric_has_no_limit_in_tiles_either(tmp_path):
    job = make_job(IMAGE[:130, :200], 64, METRIC, tmp_path)
    detect_in_tiles(job, Tasks("synchronous"))
    assert job.limits() is None


def test_spots_are_cleaned_alike_across_tiles(tmp_path):
    config = replace(METRIC, refine=False, mask=MaskConfig(smallest=400, threshold=0.5))
    found = in_tiles(NOISY, 64, config, tmp_path)
    plain = detect(
        NOISY, load_metric(), replace(config, mask=MaskConfig(smallest=0, threshold=0.5))
    )
    whole = detect(NOISY, load_metric(), config)
    np.testing.assert_array_equal(found["mask"], whole.mask)
    assert (whole.mask != plain.mask).sum() > 50  # there was something to clean


def test_stacks_are_judged_plane_by_plane(tmp_path):
    stack = np.stack([IMAGE[:130, :200], NOISY[:130, 200:400]])
    found = in_tiles(stack.transpose(1, 0, 2), 64, METRIC, tmp_path, axes="YZX")
    whole = detect(stack, load_metric(), METRIC, axes="ZYX")
    np.testing.assert_allclose(found["blur"], whole.blur, rtol=0, atol=1e-6)


@pytest.mark.parametrize("side", [16, 48, 112])
def test_regions_are_judged_as_the_whole(side):
    from napari_defocus.core.tiling import plan_tiles
    from napari_defocus.detection.inference import predict_region
    from napari_defocus.filters.noise import measure_plane

    image = HOLED[:, :160]
    whole = predict_plane(image, by(METRIC), METRIC)
    statistics = measure_plane(image)
    for tile in plan_tiles(image.shape, side)[:12]:
        part = predict_region(
            lambda rows, columns: image[rows, columns],
            tile.region,
            image.shape,
            statistics,
            by(METRIC),
            METRIC,
        )
        np.testing.assert_allclose(part.score, whole.score[tile.region], rtol=0, atol=1e-5)
        np.testing.assert_array_equal(part.valid, whole.valid[tile.region])


def test_a_run_that_was_stopped_goes_on(tmp_path):
    job = make_job(NOISY, 128, METRIC, tmp_path)
    tiles = len(job.tiles())
    asked = iter(range(1000))

    def stop():
        return next(asked) > 40

    with pytest.raises(Stopped):
        detect_in_tiles(job, Tasks("synchronous"), should_stop=stop)
    kept = [job.store.has("predict", TileKey((), tile)) for tile in job.tiles()].count(True)
    assert kept > 0
    worked = detect_in_tiles(job, Tasks("synchronous"))
    assert worked["predict"] == tiles - kept
    assert worked["finish"] == tiles
    assert set(detect_in_tiles(job, Tasks("synchronous")).values()) == {0}
    whole = detect(NOISY, load_metric(), METRIC)
    np.testing.assert_array_equal(job.maps["mask"].array, whole.mask)


def test_threads_give_the_same_bytes(tmp_path):
    one = in_tiles(NOISY, 96, METRIC, tmp_path / "one")
    job = make_job(NOISY, 96, METRIC, tmp_path / "many")
    detect_in_tiles(job, Tasks("threads", 4))
    for name, values in one.items():
        np.testing.assert_array_equal(values, job.maps[name].array)


def test_events_count_all_tiles(tmp_path):
    events = []
    job = make_job(IMAGE, 208, METRIC, tmp_path)
    detect_in_tiles(job, Tasks("synchronous"), on_event=events.append)
    predicting = [event for event in events if event.stage == "predicting tiles"]
    assert [event.done for event in predicting] == list(range(1, len(job.tiles()) + 1))
    assert {event.total for event in predicting} == {len(job.tiles())}


@pytest.mark.parametrize("value", [3.0, np.nan])
def test_a_plane_that_shows_nothing_is_undecided_in_a_stack_and_refused_alone(tmp_path, value):
    stack = np.stack([IMAGE[:130, :200], np.full((130, 200), value)])
    found = in_tiles(stack, 64, METRIC, tmp_path / "stack", axes="ZYX")
    whole = detect(stack, load_metric(), METRIC, axes="ZYX")
    for what, values in found.items():
        np.testing.assert_allclose(values, getattr(whole, what), rtol=0, atol=1e-6)
    assert not found["mask"][1].any()
    assert (found["blur"][1] == 0.5).all()
    with pytest.raises(DefocusError, match="nothing to detect"):
        in_tiles(stack[1], 64, METRIC, tmp_path / "plane")


def test_a_plane_that_cannot_be_judged_is_named(tmp_path):
    stack = np.zeros((2, 5, 70))
    stack[:, ::2] = 1
    with pytest.raises(DefocusError, match=r"Z=\d: .*smaller than the metric's filters"):
        in_tiles(stack, 64, METRIC, tmp_path, axes="ZYX")
    with pytest.raises(DefocusError, match=r"Z=\d: .*smaller than the metric's filters"):
        detect(stack, load_metric(), METRIC, axes="ZYX")


def test_spots_too_large_for_tiles_are_refused(tmp_path):
    config = replace(METRIC, mask=MaskConfig(smallest=tiled_detection.MOST_SMALLEST + 1))
    with pytest.raises(DefocusError, match="smallest is 1001"):
        in_tiles(IMAGE, 64, config, tmp_path)


def test_tiles_of_the_network_are_those_it_judges():
    assert tile_step(by(METRIC)) == CELL
    assert tile_step(by(DetectionConfig(detector="dense"))) % dense.TILE == 0
