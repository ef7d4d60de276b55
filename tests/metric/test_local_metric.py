import json
from dataclasses import replace
from importlib import resources

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save, save_file

from napari_defocus.core.errors import DefocusError
from napari_defocus.io.cards import FORMAT, VERSION, load_container, save_container
from napari_defocus.metric.kernel_pca import kernel_pca
from napari_defocus.metric.local_metric import (
    KIND,
    Calibration,
    LocalMetric,
    Pooling,
    choose_components,
    load_metric,
    save_metric,
)
from napari_defocus.metric.patches import save_patch_set
from tests.metric.test_kernel_pca import random_kernels, random_whitening


def small_metric(seed=0):
    kernels, whitening = random_kernels(seed, 6, 3), random_whitening(seed, 3)
    pca = kernel_pca(kernels, whitening)
    return LocalMetric(
        filters=pca.filters(2),
        explained_variance_ratio=pca.explained_variance_ratio,
        calibration=Calibration(threshold=-3.25, slope=2.1),
        kernels=kernels,
        whitening=whitening,
        pooling=Pooling(sigma=4.5, guide_radius=11),
        record={"method": "test", "sources": 3, "name": "größer"},
    )


def test_components_of_an_instant_metric_are_its_own(metric):
    assert metric.record["method"] == "instant"
    np.testing.assert_array_equal(choose_components(metric, 2).filters, metric.filters)


def test_choose_components():
    metric = small_metric()
    more = choose_components(metric, 5)
    assert more.filters.shape == (5, 3, 3)
    proportions = np.linalg.norm(more.filters[:2]) * metric.filters
    np.testing.assert_allclose(more.filters[:2], proportions, atol=1e-6)
    np.testing.assert_allclose(choose_components(more, 2).filters, metric.filters, atol=1e-6)
    assert more.record == metric.record
    alone = choose_components(metric, 1).filters
    assert np.square(alone).sum() == pytest.approx(1, abs=1e-5)
    with pytest.raises(DefocusError, match="10 components are asked for"):
        choose_components(metric, 10)


def test_a_metric_needs_neither_pooling_nor_record_of_its_own():
    told = small_metric()
    shape = told.filters, told.explained_variance_ratio
    metric = LocalMetric(*shape, told.calibration, told.kernels, told.whitening)
    assert metric.pooling == Pooling()
    assert metric.record == {}


def assert_equal_metrics(one, two):
    for name in ("filters", "explained_variance_ratio", "kernels", "whitening"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name), err_msg=name)
    assert one.calibration == two.calibration
    assert one.pooling == two.pooling
    assert one.record == two.record
    assert one.digest == two.digest


def test_round_trip(tmp_path, metric):
    for original in (small_metric(), metric):
        path = tmp_path / "Mëtric.safetensors"
        save_metric(original, path)
        again = load_metric(path)
        assert_equal_metrics(again, replace(original, record=json_like(original.record)))
        assert again.size == original.filters.shape[1]
        assert_equal_metrics(load_metric(str(path)), again)


def test_the_default_metric_is_in_the_package():
    packaged = resources.files("napari_defocus") / "weights" / "default.safetensors"
    with resources.as_file(packaged) as path:
        of_file = load_metric(path)
    assert_equal_metrics(load_metric(), of_file)
    assert_equal_metrics(load_metric("default"), of_file)


def json_like(value):
    return json.loads(json.dumps(value))


def test_the_digest_tells_metrics_apart():
    metric = small_metric()
    filters = metric.filters.copy()
    filters[1, 2, 2] = np.nextafter(filters[1, 2, 2], np.float32(9))
    others = [
        replace(metric, filters=filters),
        replace(metric, filters=metric.filters[:1]),
        replace(metric, calibration=Calibration(-3.25, 2.2)),
        replace(metric, pooling=replace(metric.pooling, sigma=4.6)),
    ]
    digests = {metric.digest, *(other.digest for other in others)}
    assert len(digests) == 5
    assert all(len(digest) == 12 and digest.isalnum() for digest in digests)
    assert replace(metric, record={}).digest == metric.digest
    assert replace(metric, filters=np.asfortranarray(metric.filters)).digest == metric.digest
    assert replace(metric, filters=metric.filters.astype(">f4")).digest == metric.digest


def test_the_card_can_be_read_with_other_tools(tmp_path):
    path = tmp_path / "metric.safetensors"
    save_metric(small_metric(), path)
    with path.open("rb") as file:
        head = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    card = json.loads(head["__metadata__"]["card"])
    assert (card["format"], card["version"], card["kind"]) == (FORMAT, VERSION, "metric")
    assert card["components"] == 2
    assert card["size"] == 3
    assert card["kernels"] == 6
    # The first eight of nine: a card of thousands of numbers would not be read.
    shares = card["explained_variance_ratio"]
    np.testing.assert_allclose(shares, small_metric().explained_variance_ratio[:8], atol=5e-5)
    assert all(len(str(share)) <= len("0.1234") for share in shares)
    assert card["calibration"] == {"threshold": -3.25, "slope": 2.1}
    np.testing.assert_array_equal(load_file(path)["filters"], small_metric().filters)


def test_an_existing_file_is_kept_where_asked(tmp_path):
    path = tmp_path / "metric.safetensors"
    save_metric(small_metric(0), path)
    with pytest.raises(DefocusError, match="exists already"):
        save_metric(small_metric(1), path, overwrite=False)
    assert load_metric(path).digest == small_metric(0).digest
    save_metric(small_metric(1), path)
    assert load_metric(path).digest == small_metric(1).digest
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_metric_that_does_not_exist(tmp_path):
    with pytest.raises(DefocusError, match="neither a metric file nor the name of one"):
        load_metric(tmp_path / "none.safetensors")
    with pytest.raises(DefocusError, match="default"):
        load_metric("defualt")
    with pytest.raises(DefocusError, match="neither a metric file"):
        load_metric(tmp_path)


def assert_refused(path, *words):
    with pytest.raises(DefocusError) as caught:
        load_metric(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.fixture
def path(tmp_path):
    """Give a metric's own file, sound as yet."""
    path = tmp_path / "metric.safetensors"
    save_metric(small_metric(), path)
    return path


@pytest.mark.parametrize("left", [0, 1, 7, 8, 9, 200, -200, -1])
def test_a_truncated_file(path, left):
    path.write_bytes(path.read_bytes()[:left])
    assert_refused(path, "damaged or no napari-defocus file")


@pytest.mark.parametrize(
    "content", [b"hello\n" * 100, b"\x89PNG\r\n\x1a\n" + bytes(500), b"\xff" * 64, bytes(64)]
)
def test_a_file_of_another_format(path, content):
    path.write_bytes(content)
    assert_refused(path, "damaged or no napari-defocus file")


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {},
        {"format": "pt"},
        {"card": json.dumps({"format": "other", "version": 1, "kind": KIND})},
        {"card": "[1, 2]"},
        {"card": "null"},
    ],
)
def test_a_safetensors_file_of_another_origin(path, metadata):
    save_file({"filters": np.zeros((2, 3, 3), np.float32)}, path, metadata=metadata)
    assert_refused(path, "not made by napari-defocus")


@pytest.mark.parametrize("card", ["", "{", "[" * 100_000, "\x00"])
def test_a_card_that_is_no_json(path, card):
    save_file({"filters": np.zeros((2, 3, 3), np.float32)}, path, metadata={"card": card})
    assert_refused(path, "damaged or no napari-defocus file")


def test_a_patch_set_is_no_metric(path, patch_set):
    save_patch_set(patch_set, path)
    assert_refused(path, "holds a patch set, a metric is needed")
    tensors, card = load_container(path)
    assert "patches" in tensors
    assert card["kind"] == "patch set"


@pytest.mark.parametrize("kind", [None, 5, ["metric"]])
def test_a_strange_kind(path, kind):
    change(path, {}, {"kind": kind})
    assert_refused(path, "a metric is needed")


def change(path, tensors, card, drop=()):
    """Write the file anew with other tensors and another card."""
    old_tensors, old_card = load_container(path)
    tensors, card = {**old_tensors, **tensors}, {**old_card, **card}
    kept = {name: np.array(t, order="C") for name, t in tensors.items() if name not in drop}
    card = {name: value for name, value in card.items() if name not in drop}
    save_file(kept, path, metadata={"card": json.dumps(card)})


def test_a_newer_version_says_upgrade(path):
    change(path, {}, {"version": VERSION + 1})
    assert_refused(path, f"written in format {VERSION + 1}", f"up to {VERSION}", "upgrade")


@pytest.mark.parametrize("version", [0, -1, None, "1", 1.5])
def test_a_version_that_never_was(path, version):
    change(path, {}, {"version": version})
    assert_refused(path, "never was")


@pytest.mark.parametrize(
    "part",
    [
        *("filters", "explained_variance_ratio", "kernels", "whitening"),
        *("calibration", "pooling", "record"),
    ],
)
def test_a_missing_part(path, part):
    change(path, {}, {}, drop=[part])
    assert_refused(path, "not a whole metric", part)


def filled(value, *shape):
    return np.full(shape, value, np.float32)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"filters": filled(np.nan, 2, 3, 3)}, ["no finite numbers"]),
        ({"filters": filled(np.inf, 2, 3, 3)}, ["no finite numbers"]),
        ({"kernels": filled(np.nan, 6, 3, 3)}, ["no finite numbers"]),
        ({"whitening": filled(np.nan, 9, 9)}, ["no finite numbers"]),
        ({"explained_variance_ratio": filled(np.nan, 9)}, ["no finite numbers"]),
        ({"filters": filled(1, 2, 4, 4)}, ["side of 4", "odd"]),
        ({"filters": filled(1, 1, 65, 65)}, ["side of 65", "up to 63"]),
        ({"filters": filled(1, 2, 3, 5)}, ["(2, 3, 5)"]),
        ({"filters": filled(1, 0, 3, 3)}, ["(0, 3, 3)"]),
        ({"filters": filled(1, 9)}, ["(9,)"]),
        ({"filters": np.float32(1)}, ["()"]),
        ({"filters": filled(1, 2, 5, 5)}, ["do not fit"]),
        ({"kernels": filled(1, 6, 9)}, ["do not fit"]),
        ({"kernels": np.float32(1)}, ["do not fit"]),
        ({"kernels": filled(1, 0, 3, 3)}, ["kernels", "do not fit"]),
        ({"whitening": filled(1, 9, 8)}, ["do not fit"]),
        ({"explained_variance_ratio": filled(1, 1)}, ["variances do not fit"]),
        ({"explained_variance_ratio": filled(0.1, 10)}, ["variances do not fit"]),
        ({"explained_variance_ratio": filled(0.1, 9, 1)}, ["variances do not fit"]),
    ],
)
def test_tensors_that_do_not_do(path, tensors, words):
    change(path, tensors, {})
    assert_refused(path, *words)


@pytest.mark.parametrize(("count", "shares"), [(1, 1), (1, 9), (2, 3), (9, 9)])
def test_shares_of_as_many_components_as_filters_up_to_pixels(path, count, shares):
    filters = choose_components(small_metric(), count).filters
    change(path, {"filters": filters, "explained_variance_ratio": filled(0.1, shares)}, {})
    assert load_metric(path).filters.shape == (count, 3, 3)


def test_the_largest_filters(path):
    pixels = 63**2
    tensors = {
        "filters": filled(0, 1, 63, 63),
        "kernels": filled(0, 1, 63, 63),
        "whitening": filled(0, pixels, pixels),
    }
    change(path, tensors, {})
    assert load_metric(path).size == 63


def test_squares_of_filters_sum_to_a_million_at_most(path):
    filters = filled(0, 2, 3, 3)
    filters[1, 1, 1] = 1000
    change(path, {"filters": filters}, {})
    assert load_metric(path).filters.max() == 1000
    filters[1, 1, 1] = np.nextafter(np.float32(1000), np.float32(1001))
    change(path, {"filters": filters}, {})
    assert_refused(path, "far too large")


def test_settings_that_a_file_of_format_1_leaves_out(path):
    """They are what they were when it was written, whatever release reads it."""
    change(path, {}, {"pooling": {}})
    assert load_metric(path).pooling == Pooling(
        power=0.5,
        sigma=6.0,
        guide_radius=20,
        guide_epsilon=1e-3,
        noise_factor=2.0,
        contrast_sigma=1.5,
        contrast_exponent=0.4,
    )


@pytest.mark.parametrize(
    "values",
    [
        *({"power": value} for value in (0, -0.5, 1e300)),
        *({"sigma": value} for value in (0, -6, 1001, 10**400)),
        *({"guide_radius": value} for value in (0, -1, 1001, 2.5)),
        *({"guide_epsilon": value} for value in (0, -1e-3, 1e300)),
        *({"contrast_sigma": value} for value in (0, -1, 1001)),
        *({"noise_factor": value} for value in (-1, 1e300)),
        *({"contrast_exponent": value} for value in (-0.4, 1e300)),
        {"sigma": float("nan")},
        {"sigma": float("inf")},
        {"noise_factor": float("-inf")},
        {"power": "0.5"},
        {"power": None},
        {"power": [0.5]},
        {"colour": 1.0},
    ],
)
def test_pooling_out_of_range(path, values):
    _, card = load_container(path)
    change(path, {}, {"pooling": {**card["pooling"], **values}})
    assert_refused(path)


@pytest.mark.parametrize("halvings", [-1, 3, 0.5, True, "1", float("nan"), [1]])
def test_halvings_out_of_range(path, halvings):
    change(path, {}, {"halvings": halvings})
    assert_refused(path)


def test_a_scale_of_its_own_is_kept_and_named(metric, tmp_path):
    path = tmp_path / "own.safetensors"
    save_metric(replace(metric, halvings=2), path)
    found = load_metric(path)
    assert found.halvings == 2
    assert found.digest != metric.digest


@pytest.mark.parametrize(
    "values",
    [
        {"threshold": float("nan")},
        {"slope": float("inf")},
        {"slope": 10**400},
        {"slope": "steep"},
        {"slope": None},
        {"offset": 1},
    ],
)
def test_a_calibration_that_does_not_do(path, values):
    _, card = load_container(path)
    change(path, {}, {"calibration": {**card["calibration"], **values}})
    assert_refused(path)


@pytest.mark.parametrize("part", ["calibration", "pooling", "record"])
@pytest.mark.parametrize("value", [None, 3, "text", [1, 2]])
def test_parts_of_the_card_of_another_type(path, part, value):
    change(path, {}, {part: value})
    assert_refused(path, "not a whole metric")


def test_other_number_types_are_taken(path):
    metric = small_metric()
    change(path, {"filters": metric.filters.astype(np.float64)}, {})
    again = load_metric(path)
    assert again.filters.dtype == np.float32
    assert again.digest == metric.digest


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A folder, and what is in the file of a sound metric."""
    folder = tmp_path_factory.mktemp("sound")
    save_metric(small_metric(), folder / "metric.safetensors")
    return folder, (folder / "metric.safetensors").read_bytes()


def loads_or_is_refused(path):
    message = None
    try:
        metric = load_metric(path)
    except DefocusError as error:
        message = str(error)
    if message is None:
        assert np.isfinite(metric.filters).all()
        assert metric.size % 2 == 1
    else:
        assert message.startswith(f"{path}: ")
        assert "\n" not in message


edits = st.lists(
    st.tuples(
        st.sampled_from(["put", "insert", "cut"]), st.integers(0, 1500), st.binary(max_size=4)
    ),
    min_size=1,
    max_size=4,
)


@given(edits, st.booleans())
@settings(max_examples=300)
def test_any_bytes_load_or_are_refused(sound, edits, in_head):
    folder, content = sound
    changed = bytearray(content)
    for kind, where, new in edits:
        at = where % (400 if in_head else len(content))
        until = at + {"put": len(new), "insert": 0, "cut": 1 + len(new)}[kind]
        changed[at:until] = b"" if kind == "cut" else new
    path = folder / "changed.safetensors"
    path.write_bytes(changed)
    loads_or_is_refused(path)


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.just(10**400)
    | st.text("abc", max_size=4),
    lambda inside: (
        st.lists(inside, max_size=3) | st.dictionaries(st.text("abc"), inside, max_size=3)
    ),
    max_leaves=4,
)


@given(st.data(), anything)
@settings(max_examples=300)
def test_any_card_loads_or_is_refused(sound, draw, value):
    folder, content = sound
    length = int.from_bytes(content[:8], "little")
    head = json.loads(content[8 : 8 + length])
    card = json.loads(head["__metadata__"]["card"])
    inside = card
    while True:
        key = draw.draw(st.sampled_from(sorted(inside)))
        if not isinstance(inside[key], dict) or draw.draw(st.booleans()):
            break
        inside = inside[key]
    inside[key] = value
    path = folder / "changed.safetensors"
    tensors = {
        name: getattr(small_metric(), name)
        for name in ("filters", "explained_variance_ratio", "kernels", "whitening")
    }
    path.write_bytes(save(tensors, {"card": json.dumps(card)}))
    loads_or_is_refused(path)


def test_containers_of_any_kind(tmp_path):
    path = tmp_path / "any.safetensors"
    tensors = {"x": np.arange(6).reshape(2, 3).T, "empty": np.zeros((0, 4), np.float32)}
    save_container(path, "thing", tensors, {"colour": "grün"})
    again, card = load_container(path)
    assert card == {"format": FORMAT, "version": VERSION, "kind": "thing", "colour": "grün"}
    assert sorted(again) == ["empty", "x"]
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(again[name], tensor)
    load_container(path, "thing")
    with pytest.raises(DefocusError, match="holds a thing, a metric is needed"):
        load_container(path, "metric")
    with pytest.raises(DefocusError, match="no such file"):
        load_container(tmp_path / "none.safetensors")
    with pytest.raises(DefocusError, match="no such file"):
        load_container(tmp_path)
