import math

import numpy as np
import pytest

from napari_defocus.core.errors import DefocusError
from napari_defocus.io.tiff_writer import write_tiff
from napari_defocus.report.fields import Field, Results, Thresholds, field_rows, mark_odd

SHAPE = (20, 30)


def mask_of(blurred, sharp, shape=SHAPE):
    """A mask with so many blurred and sharp pixels."""
    flat = np.zeros(shape, np.uint8).ravel()
    flat[:blurred] = 1
    flat[blurred : blurred + sharp] = 2
    return flat.reshape(shape)


def write(folder, name, mask, axes="YX", **options):
    write_tiff(folder / f"{name}.mask.tif", mask, axes=axes, **options)


def test_shares_are_of_structure(tmp_path):
    write(tmp_path, "plate_B03_s2", mask_of(30, 90), pixel_size_um=0.5)
    (field,) = Results(tmp_path).fields()
    assert field.sharp == pytest.approx(0.75)
    assert field.structure == pytest.approx(120 / 600)
    assert (str(field.well), field.site, field.pixel_size_um) == ("B03", 2, 0.5)


@pytest.mark.parametrize(
    ("blurred", "sharp", "verdict"),
    [
        (40, 60, "in focus"),
        (41, 59, "soft"),
        (80, 20, "soft"),
        (81, 19, "out of focus"),
        (0, 0, "nothing to see"),
        (5, 0, "nothing to see"),  # on less than 1 %
        (0, 6, "in focus"),
    ],
)
def test_verdicts(tmp_path, blurred, sharp, verdict):
    write(tmp_path, "a", mask_of(blurred, sharp))
    (field,) = Results(tmp_path).fields()
    assert Thresholds(least=0.01).judge(field) == verdict


def test_of_a_stack_the_sharpest_plane_counts(tmp_path):
    stack = np.stack(
        [
            mask_of(10, 0),
            mask_of(50, 150),
            mask_of(0, 20),
            mask_of(90, 0),
            mask_of(9, 1),
            mask_of(0, 0),
        ]
    ).reshape(2, 3, *SHAPE)
    write(tmp_path, "a", stack, "TZYX")
    fields = Results(tmp_path).fields()
    assert [field.where for field in fields] == [{"T": 0, "Z": 1}, {"T": 1, "Z": 1}]
    assert [field.sharp for field in fields] == [0.75, pytest.approx(0.1)]


def test_a_slide_is_judged_tile_by_tile(tmp_path):
    mask = np.ones((20, 90), np.uint8)
    mask[:, 40:] = 2
    write(tmp_path, "slide", mask)
    fields = Results(tmp_path, tile=20).fields()
    assert [field.sharp for field in fields] == [0, 0, 1, 1, 1]
    assert fields[3].region == (slice(0, 20), slice(60, 80))
    rows = field_rows(fields, Thresholds())
    assert [(row["column"], row["width"]) for row in rows][-1] == (80, 10)
    assert len(Results(tmp_path, tile=23).fields()) == 1


def test_a_field_whose_sharpest_structure_stands_out_is_soft():
    def field(radius, sharp=1.0):
        plane = slice(0, 9), slice(0, 9)
        return Field("a", "", (), {}, plane, False, sharp, 0.5, None, {"sharpest_px": radius})

    alike = [field(0.2 + 0.01 * k) for k in range(25)]
    judged = [Thresholds().judge(one) for one in mark_odd([*alike, field(1.5), field(1.5, 0.0)])]
    assert judged == ["in focus"] * 25 + ["soft", "out of focus"]
    # where fields differ, and where they are few, none stands out
    assert not any(one.odd for one in mark_odd([field(0.1 * k) for k in range(1, 30)]))
    assert not any(one.odd for one in mark_odd([*alike[:5], field(1.5)]))


def test_rows_have_the_same_columns(tmp_path):
    write(tmp_path, "plane", mask_of(1, 1))
    write(tmp_path, "series", np.stack([mask_of(1, 3), mask_of(0, 0)]), "TYX")
    rows = field_rows(Results(tmp_path).fields(), Thresholds())
    assert len({tuple(row) for row in rows}) == 1
    assert [row["T"] for row in rows] == ["", 0, 1]
    assert math.isnan(rows[2]["sharp_of_structure"])


def test_a_damaged_mask_is_told_and_the_others_count(tmp_path):
    write(tmp_path, "good", mask_of(1, 1))
    (tmp_path / "bad.mask.tif").write_bytes(b"II*\0 cut short")
    results = Results(tmp_path)
    assert [field.name for field in results.fields()] == ["good"]
    (path,) = results.failed
    assert "bad.mask.tif" in path


def test_a_mask_that_changed_is_read_again(tmp_path):
    write(tmp_path, "a", mask_of(1, 1))
    results = Results(tmp_path)
    assert results.fields()[0].sharp == 0.5
    write(tmp_path, "a", mask_of(0, 40), overwrite=True)
    write(tmp_path, "b", mask_of(40, 0))
    assert [field.sharp for field in results.fields()] == [1, 0]


def test_what_is_no_folder_of_results(tmp_path):
    with pytest.raises(DefocusError, match="no folder of results"):
        Results(tmp_path / "missing").fields()
    with pytest.raises(DefocusError, match="without masks"):
        Results(tmp_path).fields()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"in_focus": 1.5}, "in-focus"),
        ({"in_focus": 0.5, "out_of_focus": 0.6}, "out-of-focus"),
        ({"least": float("nan")}, "least"),
    ],
)
def test_thresholds_are_checked(options, named):
    with pytest.raises(DefocusError, match=named):
        Thresholds(**options)
