import csv
import importlib.util
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.figure import Figure
from PIL import Image
from sklearn.metrics import fbeta_score, jaccard_score, precision_recall_curve, roc_auc_score

from napari_defocus.core.errors import DefocusError
from napari_defocus.evaluate.report import (
    FORMAT_VERSION,
    Report,
    evaluate_folders,
)
from napari_defocus.evaluate.scores import (
    BETA2,
    PROTOCOLS,
    SET_PROTOCOLS,
    TRIVIAL_MAPS,
    Curve,
    auc,
    iou_mask,
    precision_recall,
    score_map,
    score_set,
    trivial_scores,
)
from napari_defocus.plot.curves import save_precision_recall, write_report

SHARED = Path(__file__).parents[3] / "shared"
DATA = SHARED / "data"
SCORER = SHARED / "tools" / "score_maps.py"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no photos in {DATA}")
needs_scorer = pytest.mark.skipif(not SCORER.is_file(), reason=f"no reference scorer at {SCORER}")

# Sharpness and truth of a case small enough to score by hand.
SHARPNESS = np.array([1, 0.75, 0.25, 0.75, 0.5, 0.25, 0])
BLURRED = np.array([0, 0, 0, 1, 1, 1, 1], dtype=bool)
BY_HAND = {
    "Fadaptive": 2.6 / 3.9,  # threshold 1.5 * .5: 3 found, 2 of them of 3
    "Fsharp@.5": 2.6 / 4.9,
    "Fimage": 1.3 / 1.9,
    "Fadaptive blur": 2.6 / 4.2,
    "Fblur@.5": 2.6 / 4.2,
    "IoU blur@.5": 2 / 5,
    "MAE": 2.5 / 7,
    "AUC": 9 / 12,
}


@st.composite
def cases(draw):
    """Give a map with many ties or with none, and a truth of both classes."""
    size = draw(st.integers(2, 40))
    levels = arrays(np.float64, size, elements=st.integers(0, 255).map(lambda level: level / 255))
    floats = arrays(np.float32, size, elements=st.floats(0, 1, width=32)).map(np.float64)
    truth = draw(arrays(np.bool_, size).filter(lambda drawn: 0 < drawn.sum() < drawn.size))
    return draw(levels | floats), truth


def random_case(seed, shape=(12, 15)):
    rng = np.random.default_rng(seed)
    blurred = rng.random(shape) < 0.6
    return np.clip(0.3 * blurred + 0.7 * rng.random(shape), 0, 1).astype(np.float32), blurred


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".tif":
        tifffile.imwrite(path, array)
    else:
        Image.fromarray(array).save(path)


def save_truth(path, blurred):
    save(path, np.where(blurred, 255, 0).astype(np.uint8))


@pytest.fixture
def folders(tmp_path):
    """Two images with float maps and truth."""
    for seed, name in enumerate(("one", "two")):
        blur, blurred = random_case(seed)
        save(tmp_path / "maps" / f"{name}.blur.tif", blur)
        save_truth(tmp_path / "truth" / f"{name}.png", blurred)
    return tmp_path / "maps", tmp_path / "truth"


@pytest.fixture
def reference(monkeypatch, capsys):
    """Run the reference scorer and give its figures by name."""
    spec = importlib.util.spec_from_file_location("score_maps", SCORER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["score_maps.py", *map(str, arguments)])
        module.main()
        return {k: float(v) for k, v in re.findall(r"(\S+)=(\S+)", capsys.readouterr().out)}

    return run


# --- one map ---------------------------------------------------------------------------------


def test_small_case_by_hand():
    scores = score_map(1 - SHARPNESS, BLURRED)
    for name, value in BY_HAND.items():
        assert scores.values[name] == pytest.approx(value, abs=1e-15), name
    assert list(scores.values) == [name for name in PROTOCOLS if name not in SET_PROTOCOLS]
    assert math.isnan(scores.values["IoU(mask)"])


def test_polarity_of_the_map_is_told_by_the_caller():
    blur, sharp = score_map(1 - SHARPNESS, BLURRED), score_map(SHARPNESS, BLURRED, sharpness=True)
    np.testing.assert_equal(dict(blur.values), dict(sharp.values))
    np.testing.assert_array_equal(blur.sharp.precision, sharp.sharp.precision)
    np.testing.assert_array_equal(blur.blurred.recall, sharp.blurred.recall)


def test_the_two_polarities_are_mirror_images():
    values, blurred = random_case(3)
    one, other = score_map(values, blurred), score_map(values, ~blurred, sharpness=True)
    assert one.values["Fadaptive blur"] == other.values["Fadaptive"]
    assert one.values["Fblur@.5"] == other.values["Fsharp@.5"]  # no value is .5 exactly
    assert one.values["AUC"] == other.values["AUC"]
    assert one.values["MAE"] == pytest.approx(other.values["MAE"], abs=1e-15)
    np.testing.assert_array_equal(one.blurred.precision, other.sharp.precision)
    np.testing.assert_array_equal(one.blurred.recall, other.sharp.recall)


def test_one_half_is_sharp():
    scores = score_map(np.array([0.5, 0.5]), np.array([True, False])).values
    assert scores["Fsharp@.5"] == pytest.approx(1.3 / 2.3)
    assert scores["Fblur@.5"] == scores["IoU blur@.5"] == 0


def test_adaptive_threshold_is_capped_at_one():
    # mean .9: 1.5 * .9 would leave nothing to find
    sharpness = np.array([1, 1, 1, 1, 0.5])
    blurred = np.array([False, False, True, True, True])
    scores = score_map(sharpness, blurred, sharpness=True)
    assert scores.values["Fadaptive"] == pytest.approx(1.3 * 2 / (0.6 + 4))


def test_adaptive_threshold_is_reached_by_equal_values():
    scores = score_map(np.array([0.75, 0.25]), np.array([True, False]))
    assert scores.values["Fadaptive blur"] == 1


def test_otsu_parts_two_levels():
    sharpness = np.array([[0.2, 0.2, 0.9], [0.9, 0.9, 0.2]])
    blurred = np.array([[True, True, False], [False, True, False]])
    assert score_map(sharpness, blurred, sharpness=True).values["IoU(otsu)"] == 2 / 4


def test_mask_counts_undecided_as_not_sharp():
    mask = np.array([2, 0, 2, 2, 1, 1, 0], dtype=np.uint8)
    assert iou_mask(mask, BLURRED) == 2 / 4
    assert score_map(1 - SHARPNESS, BLURRED, mask=mask).values["IoU(mask)"] == 2 / 4


def test_curve_by_hand():
    curve = precision_recall(np.array([0, 1 / 255, 1]), np.array([False, True, True]))
    assert curve.precision[[0, 1, 2, 255]].tolist() == [2 / 3, 1, 1, 1]
    assert curve.recall[[0, 1, 2, 255]].tolist() == [1, 1, 0.5, 0.5]
    assert curve.f_max == 1
    assert curve.f[2] == pytest.approx((1 + BETA2) * 0.5 / (BETA2 + 0.5))
    assert curve.precision.shape == curve.recall.shape == curve.f.shape == (256,)


def test_curve_is_zero_where_nothing_reaches_the_level():
    curve = precision_recall(np.array([0.2, 0.4]), np.array([False, True]))
    assert curve.precision[102] == curve.recall[102] == 1
    assert curve.precision[103] == curve.recall[103] == curve.f[103] == 0


def test_beta_squared_of_the_literature():
    assert BETA2 == 0.3


@settings(deadline=None, max_examples=60)
@given(cases())
def test_auc_equals_sklearn(case):
    values, positive = case
    assert auc(values, positive) == pytest.approx(roc_auc_score(positive, values), abs=1e-12)


def test_auc_tells_values_apart_that_one_minus_x_would_tie():
    blur = np.array([1e-30, 1e-20])
    assert score_map(blur, np.array([False, True])).values["AUC"] == 1


@settings(deadline=None, max_examples=60)
@given(cases())
def test_curve_equals_sklearn(case):
    values, positive = case
    levels = np.rint(values * 255).astype(int)
    precision, recall, thresholds = precision_recall_curve(positive, levels)
    curve = precision_recall(values, positive)
    np.testing.assert_allclose(curve.precision[thresholds], precision[:-1], atol=1e-12)
    np.testing.assert_allclose(curve.recall[thresholds], recall[:-1], atol=1e-12)


@settings(deadline=None, max_examples=60)
@given(cases())
def test_binary_scores_equal_sklearn(case):
    blur, blurred = case
    scores = score_map(blur, blurred).values
    sharpness, sharp = 1 - blur, ~blurred

    def f(truth, found):
        return fbeta_score(truth, found, beta=BETA2**0.5, zero_division=0)

    assert scores["Fsharp@.5"] == pytest.approx(f(sharp, sharpness >= 0.5))
    assert scores["Fblur@.5"] == pytest.approx(f(blurred, sharpness < 0.5))
    sharp_threshold, blur_threshold = (min(1.5 * m.mean(), 1) for m in (sharpness, blur))
    assert scores["Fadaptive"] == pytest.approx(f(sharp, sharpness >= sharp_threshold))
    assert scores["Fadaptive blur"] == pytest.approx(f(blurred, blur >= blur_threshold))
    iou = jaccard_score(blurred, sharpness < 0.5, zero_division=0)
    assert scores["IoU blur@.5"] == pytest.approx(iou)
    assert 0 <= scores["IoU(otsu)"] <= 1


# --- degenerate cases ------------------------------------------------------------------------


def test_trivial_maps():
    share = BLURRED.mean()
    rows = {name: scores.values for name, scores in trivial_scores(BLURRED).items()}
    assert list(rows) == list(TRIVIAL_MAPS) == ["all blurred", "all sharp", "constant .5"]
    all_of = {positive: 1.3 * p / (0.3 * p + 1) for positive, p in ((1, share), (0, 1 - share))}
    assert rows["all blurred"]["Fblur@.5"] == pytest.approx(all_of[1])
    assert rows["all blurred"]["Fsharp@.5"] == 0
    assert rows["all sharp"]["Fsharp@.5"] == pytest.approx(all_of[0])
    assert rows["all sharp"]["Fblur@.5"] == 0
    assert rows["all blurred"]["MAE"] == pytest.approx(1 - share)
    assert rows["all sharp"]["MAE"] == pytest.approx(share)
    assert rows["constant .5"]["MAE"] == 0.5
    assert rows["constant .5"]["Fadaptive"] == rows["constant .5"]["Fadaptive blur"] == 0
    for row in rows.values():
        assert row["AUC"] == 0.5
        assert row["IoU(otsu)"] == 0
        assert row["Fimage"] == pytest.approx(all_of[0])


@pytest.mark.parametrize("blurred", [True, False])
def test_truth_of_one_class(blurred):
    values, truth = np.array([0.2, 0.4, 0.6]), np.full(3, blurred)
    scores = score_map(values, truth)
    assert math.isnan(scores.values["AUC"])
    missing = scores.sharp if blurred else scores.blurred
    assert missing.f_max == 0
    assert not missing.recall.any()
    assert scores.values["Fimage"] == (0 if blurred else 1)


@pytest.mark.parametrize("low", [0.0, 0.5, 1 - 2**-52])
def test_otsu_of_a_nearly_constant_map(low):
    # histogram bins narrower than the spacing of floats would fail
    values = np.array([low, low + 2**-53])
    assert score_map(values, np.array([True, False])).values["IoU(otsu)"] == 0


def test_rounding_beyond_one_is_clipped():
    scores = score_map(np.array([1 + 1e-7, -1e-7]), np.array([True, False]))
    assert scores.values["MAE"] == 0


def test_any_shape_is_scored_pixel_by_pixel():
    values, blurred = random_case(5)
    part = np.zeros(values.shape, bool)
    part[2:7, 3:] = True
    np.testing.assert_equal(
        dict(score_map(values[part], blurred[part]).values),
        dict(score_map(values[2:7, 3:], blurred[2:7, 3:]).values),
    )


@pytest.mark.parametrize(
    ("values", "truth", "said"),
    [
        (np.zeros((2, 3)), np.zeros((3, 2), bool), r"map \(2, 3\) and truth \(3, 2\)"),
        (np.array([0.0, np.nan]), np.zeros(2, bool), "not finite"),
        (np.array([0.0, -np.inf]), np.zeros(2, bool), "not finite"),
        (np.array([0, 255], np.uint8), np.zeros(2, bool), "from 0 to 255: scale"),
        (np.array([-0.1, 0.5]), np.zeros(2, bool), "from -0.1 to 0.5"),
        (np.zeros(0), np.zeros(0, bool), "no pixels"),
        (np.zeros(2, complex), np.zeros(2, bool), "complex128"),
        (np.zeros(2), np.zeros(2, np.uint8), "truth is uint8: give a boolean"),
    ],
)
def test_unusable_maps_are_refused(values, truth, said):
    with pytest.raises(DefocusError, match=said):
        score_map(values, truth)


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (np.full(7, 3), "0 undecided, 1 blurred, 2 sharp"),
        (np.full(7, -1), "0 undecided, 1 blurred, 2 sharp"),
        (np.full(7, 1.0), "0 undecided, 1 blurred, 2 sharp"),
        (np.zeros(6, np.uint8), r"mask \(6,\) and truth \(7,\)"),
    ],
)
def test_unusable_masks_are_refused(mask, said):
    with pytest.raises(DefocusError, match=said):
        score_map(1 - SHARPNESS, BLURRED, mask=mask)


# --- sets ------------------------------------------------------------------------------------


def right_and_wrong():
    truth = np.array([False, True])
    return {"right": score_map(np.array([0, 1]), truth), "wrong": score_map([1, 0], truth)}


def test_f_max_is_of_the_mean_curves():
    scores = score_set(right_and_wrong())
    # at level 0 all is found: precision 1/2, recall 1; above, the means of (1, 1) and (0, 0)
    assert scores.mean["Fmax"] == scores.mean["Fmax blur"] == pytest.approx(0.65 / 1.15)
    assert scores.mean["Fimage"] == pytest.approx((1 + 0.65 / 1.15) / 2)
    assert scores.sharp.precision[[0, 1]].tolist() == [0.5, 0.5]
    assert scores.sharp.recall[[0, 1]].tolist() == [1, 0.5]
    assert scores.sharp.f_max == pytest.approx(scores.mean["Fmax"])
    assert list(scores.mean) == list(scores.interval) == list(PROTOCOLS)


def test_f_max_blur_is_of_the_blurred_curves():
    scores = score_set({"only": score_map(1 - SHARPNESS, BLURRED)})
    assert scores.mean["Fmax"] == pytest.approx(BY_HAND["Fimage"])
    assert scores.mean["Fmax blur"] == pytest.approx(scores.blurred.f_max)
    assert scores.mean["Fmax blur"] > scores.mean["Fmax"]


def test_undefined_scores_are_left_out_of_the_mean():
    images = right_and_wrong()
    images["one class"] = score_map(np.array([0, 1]), np.array([True, True]))
    scores = score_set(images)
    assert scores.mean["AUC"] == 0.5
    assert scores.mean["MAE"] == pytest.approx((0 + 1 + 0.5) / 3)
    assert math.isnan(scores.mean["IoU(mask)"])
    assert np.isnan(scores.interval["IoU(mask)"]).all()


def test_intervals():
    scores = score_set(right_and_wrong())
    assert scores.interval["AUC"] == (0, 1)
    only = score_set({"right": right_and_wrong()["right"]})
    assert np.isnan(only.interval["AUC"]).all()


def test_interval_agrees_with_the_standard_error():
    images = {str(seed): score_map(*random_case(seed, (4, 4))) for seed in range(60)}
    scores = score_set(images)
    values = np.array([row.values["MAE"] for row in images.values()])
    low, high = scores.interval["MAE"]
    assert low < scores.mean["MAE"] < high
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / 60**0.5, rel=0.15)
    low, high = scores.interval["Fmax"]
    assert low < scores.mean["Fmax"] < high
    again = score_set(images).interval
    assert all(again[name] == ends for name, ends in scores.interval.items() if ends[0] == ends[0])


def test_an_empty_set_is_refused():
    with pytest.raises(DefocusError, match="no image was scored"):
        score_set({})


# --- folders ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "convert"),
    [
        (".blur.tif", np.float32),
        (".tif", np.float64),
        (".npy", np.float32),
        (".png", lambda blur: np.rint(blur * 255).astype(np.uint8)),
        (".tif", lambda blur: np.rint(blur * 255).astype(np.uint8)),
        (".png", lambda blur: np.rint(blur * 65535).astype(np.uint16)),
        (".tif", lambda blur: np.rint(blur * 65535).astype(np.uint16)),
    ],
)
def test_every_kind_of_map(tmp_path, suffix, convert):
    blur, blurred = random_case(0)
    stored = convert(blur)
    save(tmp_path / "maps" / f"a.b{suffix}", stored)
    save_truth(tmp_path / "truth" / "a.b.png", blurred)
    report = evaluate_folders(tmp_path / "maps", tmp_path / "truth")
    highest = 1 if stored.dtype.kind == "f" else np.iinfo(stored.dtype).max
    expected = score_map(stored / highest, blurred).values
    np.testing.assert_equal(dict(report.methods["maps"].images["a.b"].values), dict(expected))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".bmp", ".PNG"])
@pytest.mark.parametrize("mode", ["L", "RGBA", "1"])
def test_every_kind_of_truth(tmp_path, suffix, mode):
    blur, blurred = random_case(0)
    save(tmp_path / "maps" / "a.npy", blur)
    (tmp_path / "truth").mkdir()
    image = Image.fromarray(np.where(blurred, 255, 0).astype(np.uint8))
    image.convert(mode).save(tmp_path / "truth" / f"a{suffix}")
    (tmp_path / "truth" / "readme.txt").write_text("not a mask")
    (tmp_path / "truth" / ".hidden.png").write_text("not a mask")
    report = evaluate_folders(tmp_path / "maps", tmp_path / "truth")
    assert report.methods["maps"].mean["AUC"] == score_map(blur, blurred).values["AUC"]


def test_truth_is_parted_at_level_128(tmp_path):
    save(tmp_path / "maps" / "a.npy", np.array([[0.0, 1, 1]]))
    save(tmp_path / "truth" / "a.png", np.array([[127, 128, 200]], np.uint8))
    assert evaluate_folders(tmp_path / "maps", tmp_path / "truth").methods["maps"].mean["MAE"] == 0


def test_truth_in_colour_is_parted_by_its_luma(tmp_path):
    colours = [[[127] * 3, [128] * 3, [255, 0, 0], [0, 255, 0]]]
    save(tmp_path / "truth" / "a.png", np.array(colours, np.uint8))
    save(tmp_path / "maps" / "a.npy", np.array([[0.0, 1, 0, 1]]))
    assert evaluate_folders(tmp_path / "maps", tmp_path / "truth").methods["maps"].mean["MAE"] == 0


def test_sixteen_bit_truth(tmp_path):
    save(tmp_path / "maps" / "a.npy", np.array([[0.0, 1]]))
    save(tmp_path / "truth" / "a.png", np.array([[0, 65535]], np.uint16))
    assert evaluate_folders(tmp_path / "maps", tmp_path / "truth").methods["maps"].mean["MAE"] == 0


def test_the_first_kind_of_map_is_taken(tmp_path):
    truth = np.array([[True, False]])
    save_truth(tmp_path / "truth" / "a.png", truth)
    for wrong, suffix in enumerate((".tif", ".png", ".npy", ".blur.tif")):
        values = np.array([[255 - wrong, wrong]], np.uint8)
        if suffix not in (".tif", ".png"):
            values = values / np.float32(255)
        save(tmp_path / "maps" / f"a{suffix}", values)
        mean = evaluate_folders(tmp_path / "maps", tmp_path / "truth").methods["maps"].mean
        assert mean["MAE"] == pytest.approx(wrong / 255), suffix


def test_mask_beside_a_map(folders):
    maps, truth = folders
    _, blurred = random_case(0)
    save(maps / "one.mask.tif", np.where(blurred, 1, 2).astype(np.uint8))
    scores = evaluate_folders(maps, truth).methods["maps"]
    assert scores.images["one"].values["IoU(mask)"] == scores.mean["IoU(mask)"] == 1
    assert math.isnan(scores.images["two"].values["IoU(mask)"])
    assert list(scores.images["one"].values) == list(scores.images["two"].values)


def test_missing_maps_are_listed(folders):
    maps, truth = folders
    (maps / "one.blur.tif").unlink()
    report = evaluate_folders({"mine": maps}, truth)
    assert report.missing == {"mine": ("one",)}
    assert list(report.methods["mine"].images) == ["two"]
    assert list(report.trivial["all sharp"].images) == ["two"]
    assert report.table().splitlines()[-1] == "no map of mine for 1: one"


def test_several_methods_of_either_polarity(folders, tmp_path):
    maps, truth = folders
    blur, _ = random_case(0)
    save(tmp_path / "other" / "one.npy", 1 - blur.astype(float))
    report = evaluate_folders(
        {"mine": maps, "other": tmp_path / "other"}, truth, sharpness=["other"]
    )
    mine, other = (report.methods[name].images["one"].values for name in ("mine", "other"))
    assert other["AUC"] == pytest.approx(mine["AUC"])
    assert report.missing == {"mine": (), "other": ("two",)}
    assert len(report.trivial["constant .5"].images) == 2
    flipped = evaluate_folders({"mine": maps, "other": tmp_path / "other"}, truth, sharpness=True)
    assert flipped.methods["mine"].images["one"].values["AUC"] == pytest.approx(1 - mine["AUC"])
    one_name = evaluate_folders({"mine": maps, "m": maps}, truth, sharpness="mine").methods
    assert one_name["m"].mean["AUC"] == pytest.approx(1 - one_name["mine"].mean["AUC"])


def test_events_and_cancelling(folders):
    events = []
    evaluate_folders(*folders, on_event=events.append)
    assert [(event.done, event.total) for event in events] == [(0, 2), (1, 2), (2, 2)]
    stopped = evaluate_folders(
        *folders, on_event=events.append, should_stop=lambda: len(events) > 3
    )
    assert stopped is None
    assert len(events) == 4


def test_folders_without_what_is_sought(folders, tmp_path):
    maps, truth = folders
    (tmp_path / "empty").mkdir()
    missing = r"elsewhere: cannot read this folder of {} \(No such .*\); give one that exists"
    with pytest.raises(DefocusError, match=missing.format("truth")):
        evaluate_folders(maps, tmp_path / "elsewhere")
    with pytest.raises(DefocusError, match=missing.format("maps")):
        evaluate_folders(tmp_path / "elsewhere", truth)
    with pytest.raises(DefocusError, match=r"empty: no PNG, TIFF or BMP mask in it; give"):
        evaluate_folders(maps, tmp_path / "empty")
    said = r"empty: no map for any of the 2 masks in .*truth; .* one\.blur\.tif or one\.png"
    with pytest.raises(DefocusError, match=said):
        evaluate_folders({"good": maps, "none": tmp_path / "empty"}, truth)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "maps/two.blur.tif",
            np.zeros((3, 4)),
            r": sizes differ, map \(3, 4\) and truth \(12, 15\)",
        ),
        (
            "maps/two.blur.tif",
            np.full((12, 15), 3.0),
            r": .* leave \[0, 1\], from 3 to 3: scale it",
        ),
        ("maps/two.blur.tif", np.full((12, 15), np.nan), r": .* not finite"),
        ("maps/two.blur.tif", b"II*\0 no image", " is damaged"),
        ("maps/two.npy", b"no array", ": is not a whole NumPy array; write it again"),
        ("maps/two.npy", np.array([{}]), ": is not a whole NumPy array; write it again"),
        (
            "maps/two.mask.tif",
            np.full((12, 15), 255, np.uint8),
            ": .* 0 undecided, 1 blurred, 2 sharp",
        ),
        ("truth/two.png", b"no image", " is not a PNG.*; export"),
        ("truth/two.png", np.full((12, 15), 2, np.uint8), ": none of its levels .* 255 = blurred"),
        (
            "truth/two.tif",
            np.zeros((5, 12, 15), np.uint8),
            r": is a stack \(.*\); save the one plane",
        ),
    ],
)
def test_errors_name_the_file_and_the_remedy(folders, name, content, said):
    maps, truth = folders
    path = maps.parent / name
    for other in path.parent.glob("two.*"):
        if not name.endswith(".mask.tif"):  # a mask needs its map
            other.unlink()
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        save(path, content)
    with pytest.raises(DefocusError, match=path.name.replace(".", r"\.") + said) as caught:
        evaluate_folders(maps, truth)
    assert "\n" not in str(caught.value)


def test_two_masks_of_one_image_are_refused(folders):
    maps, truth = folders
    save_truth(truth / "two.bmp", np.ones((12, 15), bool))
    with pytest.raises(DefocusError, match=r"two\.png: two\.bmp is there too; keep one"):
        evaluate_folders(maps, truth)


def test_unknown_methods_are_refused(folders):
    maps, truth = folders
    with pytest.raises(DefocusError, match="no method lpb: choose from lbp"):
        evaluate_folders({"lbp": maps}, truth, sharpness=["lpb"])
    with pytest.raises(DefocusError, match="no folder of maps"):
        evaluate_folders({}, truth)


# --- reports ---------------------------------------------------------------------------------


@pytest.fixture
def report(folders):
    maps, truth = folders
    save_truth(truth / "three.png", np.ones((2, 2), bool))
    save(maps / "three.npy", np.array([[1, 1], [1, 0.5]]))
    return evaluate_folders({"mine, new": maps}, truth)


def test_table(report):
    lines = report.table().splitlines()
    head, images = lines[0], lines[1]
    columns = [head.index(name) for name in ("mine, new", *TRIVIAL_MAPS)]
    assert [images[start] for start in columns] == ["3"] * 4
    rows = dict(zip(PROTOCOLS, lines[2:14], strict=True))
    scores = report.methods["mine, new"]
    mean, (low, high) = scores.mean["MAE"], scores.interval["MAE"]
    assert rows["MAE"].startswith("MAE  ")
    assert rows["MAE"][columns[0] :].startswith(f"{mean:.4f} ±{(high - low) / 2:.3f} ")
    assert rows["MAE"][columns[3] :] == "0.5000"
    assert rows["IoU(mask)"].split() == ["IoU(mask)", "-", "-", "-", "-"]
    assert "95 %" in lines[14]
    assert len(lines) == 15


def test_json_round_trip(report, tmp_path):
    path = tmp_path / "new folder" / "report.json"
    report.write(path)
    read = json.loads(path.read_text(encoding="utf-8"))
    assert list(read) == list(report.as_dict())
    assert read["version"] == FORMAT_VERSION == 1
    assert read["beta2"] == 0.3
    assert read["protocols"] == dict(PROTOCOLS)
    method = read["methods"]["mine, new"]
    scores = report.methods["mine, new"]
    assert method["images"] == 3
    assert method["missing"] == []
    assert method["mean"]["Fmax"] == scores.mean["Fmax"]
    assert method["interval"]["AUC"] == list(scores.interval["AUC"])
    assert method["interval"]["IoU(mask)"] == [None, None]
    assert method["per_image"]["one"]["AUC"] == scores.images["one"].values["AUC"]
    assert method["per_image"]["three"]["AUC"] is None
    assert list(read["trivial"]) == list(TRIVIAL_MAPS)
    assert read["trivial"]["constant .5"]["mean"]["MAE"] == 0.5


def test_csv_round_trip(report, tmp_path):
    path = tmp_path / "scores.csv"
    report.write(path)
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["method"], row["row"], row["image"]) for row in rows] == [
        ("mine, new", "image", "one"),
        ("mine, new", "image", "three"),
        ("mine, new", "image", "two"),
        ("mine, new", "mean", ""),
        ("mine, new", "low", ""),
        ("mine, new", "high", ""),
        *((name, "mean", "") for name in TRIVIAL_MAPS),
    ]
    scores = report.methods["mine, new"]
    assert float(rows[0]["AUC"]) == pytest.approx(scores.images["one"].values["AUC"], abs=1e-6)
    assert rows[0]["Fmax"] == rows[1]["AUC"] == rows[3]["IoU(mask)"] == ""
    for name in PROTOCOLS:
        if name != "IoU(mask)":
            assert float(rows[3][name]) == pytest.approx(scores.mean[name], abs=1e-6)
            ends = [float(rows[place][name]) for place in (4, 5)]
            assert ends == pytest.approx(scores.interval[name], abs=1e-6)


def test_files_are_kept_unless_they_may_be_replaced(report, tmp_path):
    for name in ("report.json", "scores.csv", "curves.png"):
        path = tmp_path / name
        write_report(path, report)
        before = path.read_bytes()
        write_report(path, report)
        with pytest.raises(DefocusError, match="exists already"):
            write_report(path, report, overwrite=False)
        assert path.read_bytes() == before
    assert not list(tmp_path.glob(".partial*"))


def test_unknown_kind_of_file_is_refused(report, tmp_path):
    with pytest.raises(DefocusError, match=r"report\.xls: .* \.csv, \.json or \.png"):
        report.write(tmp_path / "report.xls")
    assert not (tmp_path / "report.xls").exists()


@pytest.fixture
def drawn(monkeypatch):
    """Collect the figures that are saved."""
    figures, save_figure = [], Figure.savefig

    def spy(figure, *arguments, **options):
        figures.append(figure)
        return save_figure(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", spy)
    return figures


def test_plot(drawn, tmp_path):
    good = precision_recall(np.array([1, 0.8, 0.4]), np.array([True, True, False]))
    poor = precision_recall(np.array([1, 0.8, 0.4]), np.array([False, True, True]))
    nothing = Curve(np.zeros(256), np.zeros(256))
    save_precision_recall(tmp_path / "a.png", {"$po_or$": poor, "_good": good, "none": nothing})
    with Image.open(tmp_path / "a.png") as image:
        assert image.format == "PNG"
        assert image.width > image.height > 400
    (figure,) = drawn
    (legend,) = figure.legends
    assert legend.get_title().get_text() == "Fmax"
    assert [text.get_text() for text in legend.get_texts()] == [
        "1.000  _good",
        rf"{poor.f_max:.3f}  \$po_or\$",
        "0.000  none",
    ]
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    recall, precision = lines["1.000  _good"].get_data()
    assert recall.tolist() == good.recall.tolist()
    assert precision.tolist() == good.precision.tolist()
    assert len(lines["0.000  none"].get_xdata()) == 0


def test_lines_of_equal_f(drawn, tmp_path):
    save_precision_recall(tmp_path / "a.png", {})
    lines = drawn[0].axes[0].lines
    assert len(lines) == len(drawn[0].axes[0].texts) == 8
    for level, line in zip(np.arange(2, 10) / 10, lines, strict=True):
        recall, precision = line.get_data()
        f = 1.3 * precision * recall / (0.3 * precision + recall)
        np.testing.assert_allclose(f, level)
        assert precision.max() == pytest.approx(1)
        assert recall.max() == 1


def test_report_plot_has_every_method_and_the_trivial_map(report, drawn, tmp_path):
    write_report(tmp_path / "curves.png", report)
    names = [text.get_text().split("  ")[1] for text in drawn[0].legends[0].get_texts()]
    assert sorted(names) == ["all sharp", "mine, new"]


def test_reports_of_arrays():
    blur, blurred = random_case(0)
    trivial = {name: score_set({"a": row}) for name, row in trivial_scores(blurred).items()}
    report = Report({"map": score_set({"a": score_map(blur, blurred)})}, trivial)
    assert "±0" not in report.table()
    assert report.as_dict()["methods"]["map"]["mean"]["MAE"] == report.methods["map"].mean["MAE"]


def test_importing_is_light():
    heavy = {"torch", "napari", "matplotlib", "skimage", "sklearn"}
    code = f"import sys, napari_defocus.evaluate.report; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# --- against published figures and the reference scorer --------------------------------------


@pytest.mark.slow
@needs_data
def test_hifst_scores_as_published():
    folder = DATA / "cuhk_te1"
    report = evaluate_folders(folder / "hifst_maps", folder / "masks", sharpness=True)
    mean = report.methods["hifst_maps"].mean
    published = {
        "Fblur@.5": 0.803,
        "MAE": 0.2228,
        "Fadaptive": 0.7594,
        "Fmax": 0.7865,
        "AUC": 0.9461,
    }
    assert {name: round(mean[name], 4) for name in published} == published
    assert f"{report.trivial['all blurred'].mean['Fblur@.5']:.3f}" == "0.752"
    assert report.missing == {"hifst_maps": ()}
    assert len(report.methods["hifst_maps"].images) == 100


@needs_data
@needs_scorer
def test_peers_score_as_by_the_reference(reference):
    peers = {folder.name: folder for folder in sorted((DATA / "photos/peer_maps").iterdir())}
    report = evaluate_folders(peers, DATA / "photos/masks", sharpness=True)
    assert len(peers) == 6
    for name, folder in peers.items():
        figures = reference(folder, DATA / "photos/masks", "--invert")
        assert figures.pop("n") == len(report.methods[name].images) == 10
        for protocol, figure in figures.items():
            mean = report.methods[name].mean[protocol]
            assert mean == pytest.approx(figure, abs=5.1e-5, nan_ok=True), (name, protocol)


@needs_scorer
def test_float_maps_and_masks_score_as_by_the_reference(reference, tmp_path):
    for seed in range(3):
        blur, blurred = random_case(seed)
        save(tmp_path / "maps" / f"{seed}.blur.tif", blur)
        mask = np.random.default_rng(seed).integers(0, 3, blur.shape, dtype=np.uint8)
        save(tmp_path / "maps" / f"{seed}.mask.tif", mask)
        save_truth(tmp_path / "truth" / f"{seed}.png", blurred)
    mean = evaluate_folders(tmp_path / "maps", tmp_path / "truth").methods["maps"].mean
    figures = reference(tmp_path / "maps", tmp_path / "truth")
    assert figures.pop("n") == 3
    assert len(figures) == 7
    for protocol, figure in figures.items():
        assert mean[protocol] == pytest.approx(figure, abs=5.1e-5), protocol
