import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from safetensors.numpy import save_file
from skimage import data

from napari_defocus.core.errors import DefocusError
from napari_defocus.filters.plane import halve, prepare_plane
from napari_defocus.io.cards import load_container
from napari_defocus.labels.superpixels import centroids, superpixels
from napari_defocus.metric.local_metric import save_metric
from napari_defocus.metric.patches import (
    KIND,
    PatchConfig,
    PatchSet,
    Source,
    build_patch_set,
    load_patch_set,
    merge_patch_sets,
    require_both_classes,
    save_patch_set,
    split_patch_set,
)

GRAVEL = data.gravel()[:160, :200]
BRICK = data.brick()[:128, :150]
SMALL = PatchConfig(size=16, superpixel=10)


def halves(image):
    """Left half blurred, right half sharp."""
    labels = np.full(image.shape[:2], 1, np.uint8)
    labels[:, image.shape[1] // 2 :] = 2
    return labels


def strokes(image):
    """Some strokes of a few pixels on either side, one patch of both, most unlabelled."""
    labels = np.zeros(image.shape[:2], np.uint8)
    labels[20:24, 10:80] = 1
    labels[60:62, 15:70] = 1
    labels[100, 10:90] = 1
    labels[30:90, 120:123] = 2
    labels[110:130, 140:150] = 2
    labels[120:125, 90:100] = 1
    labels[120:125, 100:110] = 2
    return labels


def expected_classes(image, labels, config):
    """Class by corner, window by window, for every super-pixel whose window has one."""
    plane = prepare_plane(image)
    size, (rows, columns) = config.size, labels.shape
    classes = {}
    for y, x in centroids(superpixels(plane.grey, config.superpixel)):
        y = min(max(y - size // 2, 0), rows - size)
        x = min(max(x - size // 2, 0), columns - size)
        window = labels[y : y + size, x : x + size][~plane.holes[y : y + size, x : x + size]]
        blurred, sharp = (window == 1).sum(), (window == 2).sum()
        annotated = blurred + sharp
        if annotated == 0 or annotated < config.coverage * size**2:
            continue
        if max(blurred, sharp) >= config.purity * annotated:
            classes[y, x] = 2 if sharp > blurred else 1
    return classes


CONFIGS = [
    PatchConfig(),
    SMALL,
    PatchConfig(size=21, superpixel=9, purity=1.0, coverage=0.3),
    PatchConfig(size=16, superpixel=10, purity=0.6, coverage=0.01),
]


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("annotate", [halves, strokes])
def test_classes_by_purity_and_coverage(config, annotate):
    labels = annotate(GRAVEL)
    patch_set = build_patch_set([("gravel", GRAVEL, labels)], config)
    expected = expected_classes(GRAVEL, labels, config)
    found = {tuple(c): k for c, k in zip(patch_set.corner, patch_set.labels, strict=True)}
    assert found == expected
    assert len(found) == len(patch_set)  # no window twice
    assert patch_set.counts() == {
        "blurred": list(expected.values()).count(1),
        "sharp": list(expected.values()).count(2),
    }
    if annotate is halves:
        assert min(patch_set.counts().values()) > 10


@pytest.mark.parametrize("image", [GRAVEL, GRAVEL[..., np.newaxis] * np.uint8([1, 1, 1])])
def test_patches_are_the_image_at_their_corner(image):
    patch_set = build_patch_set([("gravel", image, halves(image))], SMALL)
    plane = prepare_plane(image)
    assert patch_set.patches.dtype == np.float32
    assert patch_set.labels.dtype == np.uint8
    for patch, noise, (y, x) in zip(
        patch_set.patches, patch_set.noise, patch_set.corner, strict=True
    ):
        window = slice(y, y + 16), slice(x, x + 16)
        np.testing.assert_array_equal(patch, plane.grey[window])
        assert noise == pytest.approx(plane.noise_variance[window].mean(), rel=1e-4)


def test_patches_do_not_hold_on_to_the_image():
    patch_set = build_patch_set([("gravel", GRAVEL, halves(GRAVEL))], SMALL)
    assert patch_set.patches.base is None or patch_set.patches.base.size == patch_set.patches.size


def test_a_stroke_must_cover_enough():
    # In a window of 20 x 20 a stroke of 2 pixels covers .1.
    labels = np.zeros(GRAVEL.shape, np.uint8)
    labels[80:82] = 1
    for coverage, some in ((0.1, True), (0.101, False)):
        config = PatchConfig(size=20, superpixel=10, coverage=coverage)
        patch_set = build_patch_set([("gravel", GRAVEL, labels)], config)
        assert (len(patch_set) > 0) == some
        assert (np.abs(patch_set.corner[:, 0] + 10 - 81) <= 10).all()


def test_unlabelled_pixels_count_for_neither_class():
    # Nine tenths unlabelled, the rest of one class: as pure as can be.
    labels = halves(GRAVEL)
    labels[np.arange(160) % 10 != 0] = 0
    labels[:, 80:120] = 0
    config = PatchConfig(size=20, superpixel=10, purity=1.0, coverage=0.1)
    patch_set = build_patch_set([("gravel", GRAVEL, labels)], config)
    assert min(patch_set.counts().values()) > 10
    left = patch_set.corner[:, 1] + 10 < 100
    np.testing.assert_array_equal(patch_set.labels, np.where(left, 1, 2))


@pytest.mark.parametrize("config", CONFIGS)
def test_labels_on_holes_do_not_count(config):
    image = GRAVEL.astype(np.float32)
    image[:, 60:130] = np.nan
    labels = halves(image)
    patch_set = build_patch_set([("gravel", image, labels)], config)
    expected = expected_classes(image, labels, config)
    assert {tuple(c): k for c, k in zip(patch_set.corner, patch_set.labels, strict=True)} == (
        expected
    )
    assert len(patch_set) > 0
    x = patch_set.corner[:, 1]
    assert not ((x >= 60) & (x + config.size <= 130)).any()


def test_an_annotation_on_holes_alone_gives_no_patch():
    image = GRAVEL.astype(np.float32)
    image[:80] = np.nan
    labels = halves(image)
    labels[80:] = 0
    assert len(build_patch_set([("gravel", image, labels)], SMALL)) == 0


def test_the_smallest_image_is_one_patch():
    image = GRAVEL[:16, :16]
    patch_set = build_patch_set([("tiny", image, np.full((16, 16), 2))], SMALL)
    assert patch_set.corner.tolist() == [[0, 0]]
    assert patch_set.labels.tolist() == [2]


@pytest.mark.parametrize(
    ("image", "labels", "words"),
    [
        (GRAVEL[:15], halves(GRAVEL[:15]), ["(15, 200)", "16 x 16"]),
        (GRAVEL, halves(BRICK), ["(128, 150)", "(160, 200)"]),
        (GRAVEL, np.zeros_like(GRAVEL), ["nothing is painted"]),
        (GRAVEL, 5 * halves(GRAVEL), ["label 5"]),
    ],
)
def test_errors_name_the_image(image, labels, words):
    with pytest.raises(DefocusError) as caught:
        build_patch_set([("slide 7", image, labels)], SMALL)
    assert str(caught.value).startswith("slide 7: ")
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("size", 0),
        ("superpixel", 0),
        *(("purity", value) for value in (-0.01, 1.01, np.nan)),
        *(("coverage", value) for value in (-0.01, 1.01, np.nan)),
    ],
)
def test_settings_out_of_range_are_named(name, value):
    with pytest.raises(DefocusError, match=f"^{name} is "):
        replace(SMALL, **{name: value})


@pytest.mark.parametrize(
    "settings",
    [
        {"size": 1},
        {"superpixel": 1},
        {"purity": 0, "coverage": 0},
        {"purity": 1, "coverage": 0},
        {"purity": 0, "coverage": 1},
    ],
)
def test_settings_at_the_ends_of_their_ranges(settings):
    image = GRAVEL[:40, :50]
    labels = np.zeros(image.shape, np.uint8)
    labels[2:30, 3:20], labels[2:30, 20:45] = 1, 2
    config = replace(SMALL, **settings)
    patch_set = build_patch_set([("gravel", image, labels)], config)
    found = {tuple(c): k for c, k in zip(patch_set.corner, patch_set.labels, strict=True)}
    assert found == expected_classes(image, labels, config)
    assert len(found) > 0


def test_a_patch_without_a_label_has_no_class():
    # Not even where no least share of it must be annotated.
    labels = halves(GRAVEL)
    labels[:, 40:160] = 0
    patch_set = build_patch_set([("gravel", GRAVEL, labels)], replace(SMALL, coverage=0))
    x = patch_set.corner[:, 1]
    assert ((x < 40) | (x + 16 > 160)).all()
    assert min(patch_set.counts().values()) > 0


def test_a_patch_as_sharp_as_blurred_counts_as_blurred():
    image = GRAVEL[:16, :16]
    config = replace(SMALL, purity=0.5)
    assert build_patch_set([("tiny", image, halves(image))], config).labels.tolist() == [1]


def test_no_image_is_an_error():
    with pytest.raises(DefocusError, match="no annotated image"):
        build_patch_set([])


def test_merging_keeps_the_sources():
    one = build_patch_set([("gravel", GRAVEL, halves(GRAVEL))], SMALL)
    two = build_patch_set([("brick", BRICK, halves(BRICK))], SMALL)
    both = build_patch_set(
        [("gravel", GRAVEL, halves(GRAVEL)), ("brick", BRICK, halves(BRICK))], SMALL
    )
    merged = merge_patch_sets([merge_patch_sets([one, two]), one])
    assert merged.sources == (
        Source("gravel", (160, 200)),
        Source("brick", (128, 150)),
        Source("gravel", (160, 200)),
    )
    for index, part in enumerate((one, two, one)):
        assert_equal_sets(
            replace(merged.take(merged.source == index), source=part.source, sources=part.sources),
            part,
        )
    assert_equal_sets(both, merge_patch_sets([one, two]))


def assert_equal_sets(one, two):
    for name in ("patches", "labels", "noise", "source", "corner"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name), err_msg=name)
        assert getattr(one, name).dtype == getattr(two, name).dtype
    assert one.sources == two.sources
    assert one.config == two.config


def test_sets_cut_differently_are_not_merged():
    one = build_patch_set([("gravel", GRAVEL, halves(GRAVEL))], SMALL)
    two = build_patch_set([("gravel", GRAVEL, halves(GRAVEL))], replace(SMALL, purity=0.9))
    with pytest.raises(DefocusError, match="different settings"):
        merge_patch_sets([one, two])


def numbered(labels, sources=None, corners=None, size=8):
    """Patches each filled with its own number."""
    count = len(labels)
    source = np.zeros(count, np.int64) if sources is None else np.asarray(sources, np.int64)
    corner = np.zeros((count, 2), np.int64) if corners is None else np.asarray(corners, np.int64)
    number = np.arange(count, dtype=np.float32)
    return PatchSet(
        patches=np.broadcast_to(number[:, None, None], (count, size, size)).copy(),
        labels=np.asarray(labels, np.uint8),
        noise=number / 1000,
        source=source,
        corner=corner.reshape(count, 2),
        sources=tuple(Source(f"image {i}", (100, 100)) for i in range(source.max(initial=0) + 1)),
        config=PatchConfig(size=size),
    )


def numbers(patch_set):
    return patch_set.patches[:, 0, 0].astype(int).tolist()


@given(st.lists(st.sampled_from([1, 2]), max_size=40), st.integers(0, 2**32 - 1))
def test_balanced(labels, seed):
    patch_set = numbered(labels)
    balanced = patch_set.balanced(seed)
    least = min(labels.count(1), labels.count(2))
    assert balanced.counts() == {"blurred": least, "sharp": least}
    kept = numbers(balanced)
    assert kept == sorted(set(kept))
    np.testing.assert_array_equal(balanced.labels, np.array(labels, int)[kept])
    np.testing.assert_allclose(balanced.noise, patch_set.noise[kept])
    assert_equal_sets(balanced, patch_set.balanced(seed))


@given(st.integers(0, 40), st.integers(0, 50))
def test_sample(count, most):
    patch_set = numbered([1] * count)
    kept = numbers(patch_set.sample(most, seed=1))
    assert len(kept) == min(count, most)
    assert kept == sorted(set(kept))


def test_a_seed_that_is_not_told_is_0():
    patch_set = numbered([1] * 30 + [2] * 20)
    mixed = numbered([1, 2] * 25, np.arange(50) // 2)
    draws = [
        lambda **seed: patch_set.sample(10, **seed),
        lambda **seed: patch_set.balanced(**seed),
        lambda **seed: split_patch_set(mixed, **seed)[1],
    ]
    for draw in draws:
        assert numbers(draw()) == numbers(draw(seed=0))
        assert len({tuple(numbers(draw(seed=seed))) for seed in range(5)}) == 5


@pytest.mark.parametrize(
    ("blurred", "sharp", "words"),
    [
        (7, 20, ["only 7 blurred", "8 are needed", "paint more blurred", "(label 1)"]),
        (20, 0, ["only 0 sharp", "8 are needed", "paint more sharp", "(label 2)"]),
    ],
)
def test_a_class_that_lacks_patches_is_named(blurred, sharp, words):
    with pytest.raises(DefocusError) as caught:
        require_both_classes(numbered([1] * blurred + [2] * sharp))
    for word in words:
        assert word in str(caught.value)


def test_both_classes_suffice():
    require_both_classes(numbered([1] * 8 + [2] * 8))
    require_both_classes(numbered([1] * 3 + [2] * 3), least=3)


def overlap(one, two, size=8):
    return bool((np.abs(np.subtract(one, two)) < size).all())


patch = st.tuples(
    st.sampled_from([1, 2]),
    st.integers(0, 3),
    st.tuples(st.integers(0, 24), st.integers(0, 24)),
)


@given(st.lists(patch, min_size=1, max_size=40), st.floats(0.05, 0.95), st.integers(0, 2**32 - 1))
def test_training_and_validation_share_no_pixel(patches, share, seed):
    patch_set = numbered(*zip(*patches, strict=True))
    training, validation = split_patch_set(patch_set, share, seed)
    assert not set(numbers(training)) & set(numbers(validation))
    for source, corner in zip(training.source, training.corner, strict=True):
        for other, other_corner in zip(validation.source, validation.corner, strict=True):
            assert source != other or not overlap(corner, other_corner)
    again = split_patch_set(patch_set, share, seed)
    assert numbers(again[0]) == numbers(training)
    assert numbers(again[1]) == numbers(validation)


@given(st.lists(patch, min_size=4, max_size=40), st.floats(0.05, 0.95), st.integers(0, 2**32 - 1))
def test_training_and_validation_share_no_image_where_images_suffice(patches, share, seed):
    labels, sources, corners = zip(*patches, strict=True)
    patch_set = numbered(labels, sources, corners)
    both = [
        i
        for i in set(sources)
        if {k for k, s in zip(labels, sources, strict=True) if s == i} == {1, 2}
    ]
    assume(len(both) >= 2)
    training, validation = split_patch_set(patch_set, share, seed)
    assert not set(training.source) & set(validation.source)
    assert len(training) + len(validation) == len(patch_set)
    assert min(training.counts().values()) > 0
    assert min(validation.counts().values()) > 0


@pytest.mark.parametrize(("share", "held_out"), [(0.25, 2), (0.5, 4), (0.3, 3), (0.01, 1)])
def test_the_share_of_images_that_is_held_out(share, held_out):
    sources = np.repeat(np.arange(8), 10)
    patch_set = numbered([1, 2] * 40, sources)
    for seed in range(5):
        _, validation = split_patch_set(patch_set, share, seed)
        assert len(set(validation.source)) == held_out
    chosen = {tuple(set(split_patch_set(patch_set, share, s)[1].source)) for s in range(20)}
    assert len(chosen) > 1


@pytest.mark.parametrize("annotate", [halves, strokes])
def test_a_single_image_is_split_in_regions(annotate):
    patch_set = build_patch_set([("gravel", GRAVEL, annotate(GRAVEL))], SMALL)
    training, validation = split_patch_set(patch_set, 0.25)
    for part in (training, validation):
        assert min(part.counts().values()) > 0
    for name, count in patch_set.counts().items():
        assert validation.counts()[name] == pytest.approx(0.25 * count, abs=0.51)
    held_out = np.zeros(GRAVEL.shape, bool)
    for y, x in validation.corner:
        held_out[y : y + 16, x : x + 16] = True
    for y, x in training.corner:
        assert not held_out[y : y + 16, x : x + 16].any()


@pytest.mark.parametrize(("gap", "left"), [(6, 5), (7, 5), (8, 6), (9, 6)])
def test_just_the_patches_that_overlap_are_dropped(gap, left):
    # Eight patches of 8 pixels in a row, from right to left: the two rightmost are held out. At
    # places that overlap, but in another image, lie those of the other class.
    x = gap * np.arange(8)[::-1]
    corners = np.stack([np.zeros(16), np.concatenate([x, x + 30])], 1)
    patch_set = numbered([1] * 8 + [2] * 8, [0] * 8 + [1] * 8, corners)
    training, validation = split_patch_set(patch_set, 0.25)
    assert numbers(validation) == [0, 1, 8, 9]
    assert numbers(training) == [*range(8 - left, 8), *range(16 - left, 16)]


def test_patches_of_the_other_class_that_overlap_are_dropped_too():
    corners = [[0, 0], [0, 20], [0, 40], [5, 44], [5, 70], [5, 90]]
    patch_set = numbered([1, 1, 1, 2, 2, 2], corners=corners)
    training, validation = split_patch_set(patch_set, 0.3)
    assert numbers(validation) == [2, 5]
    assert numbers(training) == [0, 1, 4]


@pytest.mark.parametrize(("members", "held_out"), [(1, 0), (2, 1), (3, 1), (6, 2)])
def test_at_least_one_patch_of_a_region_is_held_out_but_never_the_only_one(members, held_out):
    corners = [[0, 10 * i] for i in range(members)] + [[50, 10 * i] for i in range(members)]
    patch_set = numbered([1] * members + [2] * members, corners=corners)
    training, validation = split_patch_set(patch_set, 0.25)
    assert list(validation.counts().values()) == [held_out, held_out]
    assert len(training) + len(validation) == 2 * members


def test_of_patches_as_far_along_the_last_are_held_out_on_any_machine():
    # Sorting may turn equals about; how it does is up to the processor.
    corners = [[0, 40 * (i % 2)] for i in range(200)] + [[50, 40 * (i % 2)] for i in range(200)]
    patch_set = numbered([1] * 200 + [2] * 200, corners=corners)
    _, validation = split_patch_set(patch_set, 0.25)
    assert numbers(validation) == [*range(101, 200, 2), *range(301, 400, 2)]


def test_images_of_one_class_each_are_split_in_regions():
    # No image can be held out: the rest would lack a class.
    one = build_patch_set([("gravel", GRAVEL, np.full(GRAVEL.shape, 1))], SMALL)
    two = build_patch_set([("brick", BRICK, np.full(BRICK.shape, 2))], SMALL)
    training, validation = split_patch_set(merge_patch_sets([one, two]))
    assert min(training.counts().values()) > 10
    assert min(validation.counts().values()) > 10


def test_round_trip(tmp_path, patch_set):
    path = tmp_path / "new folder" / "patches.safetensors"
    save_patch_set(patch_set, path)
    assert_equal_sets(load_patch_set(path), patch_set)


def test_round_trip_without_a_patch(tmp_path):
    path = tmp_path / "patches.safetensors"
    empty = build_patch_set([("gravel", GRAVEL, halves(GRAVEL))], SMALL).take(np.zeros(0, int))
    save_patch_set(empty, path)
    assert_equal_sets(load_patch_set(path), empty)


def test_the_card_can_be_read_with_other_tools(tmp_path):
    path = tmp_path / "patches.safetensors"
    save_patch_set(numbered([1, 2, 1], [0, 1, 1]), path)
    with path.open("rb") as file:
        head = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    card = json.loads(head["__metadata__"]["card"])
    assert card["counts"] == {"blurred": 2, "sharp": 1}
    assert card["config"]["size"] == 8
    assert card["sources"][1] == {"name": "image 1", "shape": [100, 100]}


def test_settings_that_a_file_of_format_1_leaves_out(tmp_path):
    """They are what they were when it was written, whatever release reads it."""
    again = saved_with(tmp_path, numbered([1, 2], size=32), lambda _: None, put("config", {}))
    assert again().config == PatchConfig(size=32, superpixel=12, purity=0.95, coverage=0.05)


@pytest.mark.parametrize(("side", "good"), [(0, False), (1, True), (4096, True), (4097, False)])
def test_sides_of_patches_of_a_file(tmp_path, side, good):
    empty = numbered([1], size=1).take(np.zeros(0, int))
    tensors = put("patches", np.zeros((0, side, side), np.float32))
    again = saved_with(tmp_path, empty, tensors, in_config(size=side))
    if good:
        assert again().patches.shape == (0, side, side)
    else:
        with pytest.raises(DefocusError, match=f"size is {side}"):
            again()


@pytest.mark.parametrize(
    ("corner", "inside"),
    [([0, 0], True), ([92, 92], True), ([93, 0], False), ([0, 93], False), ([0, -1], False)],
)
def test_even_a_single_patch_lies_within_its_image(tmp_path, corner, inside):
    path = tmp_path / "patches.safetensors"
    save_patch_set(numbered([1], corners=[corner]), path)
    if inside:
        assert load_patch_set(path).corner.tolist() == [corner]
    else:
        with pytest.raises(DefocusError, match="do not fit"):
            load_patch_set(path)


def test_an_existing_file_is_kept_where_asked(tmp_path):
    path = tmp_path / "patches.safetensors"
    path.write_bytes(b"mine")
    with pytest.raises(DefocusError, match="exists already"):
        save_patch_set(numbered([1, 2]), path, overwrite=False)
    assert path.read_bytes() == b"mine"
    save_patch_set(numbered([1, 2]), path)
    assert len(load_patch_set(path)) == 2


def without(key):
    return lambda parts: parts.pop(key)


def put(key, value):
    return lambda parts: parts.update({key: value})


def in_config(**values):
    return lambda card: card["config"].update(values)


@pytest.mark.parametrize(
    "damage",
    [
        *(without(name) for name in ("patches", "labels", "noise", "source", "corner")),
        put("patches", np.zeros((3, 8, 8), np.float32)),
        put("patches", np.zeros((4, 8, 7), np.float32)),
        put("patches", np.zeros((4, 64), np.float32)),
        put("labels", np.array(1, np.uint8)),
        put("labels", np.array([1, 2, 1, 3], np.uint8)),
        put("labels", np.array([1, 2, 1, 0], np.uint8)),
        put("labels", np.array([[1, 2, 1, 2]], np.uint8)),
        put("noise", np.zeros(5, np.float32)),
        put("source", np.array([0, 1, 0, 2])),
        put("source", np.array([0, -1, 0, 1])),
        put("source", np.array([0, 1, 0])),
        put("corner", np.zeros((4, 3), np.int64)),
        put("corner", np.zeros(8, np.int64)),
    ],
)
def test_tensors_that_do_not_fit_are_refused(tmp_path, damage):
    assert_refused(tmp_path, damage, lambda card: None)


@pytest.mark.parametrize(
    "damage",
    [
        without("config"),
        without("sources"),
        put("config", 5),
        put("config", None),
        put("sources", 5),
        put("sources", ["a"]),
        put("sources", [{"name": "a"}]),
        put("sources", [{"name": "a", "shape": None}]),
        put("sources", []),
        put("sources", [{"name": 5, "shape": [100, 100]}] * 2),
        put("sources", [{"name": "a", "shape": [100, 100.0]}] * 2),
        put("sources", [{"name": "a", "shape": ["100", "100"]}] * 2),
        # In 64 bits, this less the side of a patch would be positive.
        put("sources", [{"name": "a", "shape": [-(2**63)] * 2}] * 2),
        in_config(size=9),
        in_config(size="8"),
        in_config(size=None),
        in_config(colour="red"),
    ],
)
def test_a_card_that_does_not_fit_is_refused(tmp_path, damage):
    assert_refused(tmp_path, lambda tensors: None, damage)


def assert_refused(tmp_path, damage_tensors, damage_card):
    patch_set = numbered([1, 2, 1, 2], [0, 1, 0, 1])
    load = saved_with(tmp_path, patch_set, damage_tensors, damage_card)
    with pytest.raises(DefocusError) as caught:
        load()
    assert str(tmp_path / "patches.safetensors") in str(caught.value)
    assert "\n" not in str(caught.value)


def saved_with(tmp_path, patch_set, change_tensors, change_card):
    """Save patches, change tensors and card in the file, and give what loads it."""
    path = tmp_path / "patches.safetensors"
    save_patch_set(patch_set, path)
    tensors, card = load_container(path, KIND)
    change_tensors(tensors)
    change_card(card)
    save_file(tensors, path, metadata={"card": json.dumps(card)})
    return lambda: load_patch_set(path)


def test_a_metric_is_no_patch_set(tmp_path, metric):
    path = tmp_path / "metric.safetensors"
    save_metric(metric, path)
    with pytest.raises(DefocusError, match="holds a metric, a patch set is needed"):
        load_patch_set(path)


def test_patches_of_a_halved_image_are_windows_of_it():
    labels = halves(GRAVEL)
    found = build_patch_set([("a", GRAVEL, labels)], replace(SMALL, halvings=1))
    half = halve(prepare_plane(GRAVEL)).grey
    assert found.sources[0].shape == half.shape
    for patch, (y, x), label in zip(found.patches, found.corner, found.labels, strict=True):
        np.testing.assert_array_equal(patch, half[y : y + 16, x : x + 16])
        assert label == (1 if x + 8 < 50 else 2)
    assert set(found.labels) == {1, 2}


def test_what_is_painted_on_nothing_is_no_patch_of_a_halved_image():
    image, labels = GRAVEL.astype(float), halves(GRAVEL)
    image[:, :150] = 100
    found = build_patch_set([("a", image, labels)], replace(SMALL, halvings=1))
    assert found.corner[:, 1].min() > 20


def test_thin_strokes_are_left_in_a_halved_image():
    labels = np.zeros(GRAVEL.shape, np.uint8)
    labels[31], labels[80], labels[121] = 1, 2, 2
    found = build_patch_set([("a", GRAVEL, labels)], replace(SMALL, halvings=2, coverage=0.01))
    assert set(found.labels) == {1, 2}
    with pytest.raises(DefocusError, match="halvings is 3"):
        build_patch_set([("a", GRAVEL, labels)], replace(SMALL, halvings=3))
