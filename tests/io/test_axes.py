import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_defocus.core.errors import DefocusError
from napari_defocus.io.axes import AXES, check_axes, guess_axes, plane_name, planes_last

orders = st.sets(st.sampled_from("TCZSIQA")).flatmap(
    lambda letters: st.permutations(sorted(letters | {"Y", "X"})).map("".join)
)


class TestCheckAxes:
    @pytest.mark.parametrize(
        ("axes", "shape"),
        [("yx", (5, 6)), ("XYZ", (6, 5, 4)), ("SYX", (3, 5, 6)), ("QTCZYXS", (1,) * 7)],
    )
    def test_any_order_and_case(self, axes, shape):
        assert check_axes(axes, shape) == axes.upper()

    @pytest.mark.parametrize(
        ("axes", "shape", "words"),
        [
            ("YX", (4, 5, 6), "each of its 3 dimensions"),
            ("ZYX", (5, 6), "each of its 2 dimensions"),
            ("1YX", (4, 5, 6), AXES),
            ("ÄYX", (4, 5, 6), AXES),
            ("ZZYX", (4, 4, 5, 6), "Z twice"),
            ("ZTX", (4, 5, 6), "no Y"),
            ("ZTY", (4, 5, 6), "no X"),
            ("YXS", (5, 6, 7), "use C for channels"),
            ("", (), AXES),
        ],
    )
    def test_errors_name_axes_and_shape(self, axes, shape, words):
        with pytest.raises(DefocusError) as caught:
            check_axes(axes, shape)
        assert repr(axes) in str(caught.value)
        assert words in str(caught.value)


class TestGuessAxes:
    def test_planes(self):
        assert guess_axes((5, 6)) == "YX"
        for samples in (1, 3, 4):
            assert guess_axes((5, 6, samples)) == "YXS"
        with pytest.raises(DefocusError, match="two channels, or be grey with alpha"):
            guess_axes((5, 6, 2))

    @pytest.mark.parametrize("shape", [(), (5,), (4, 5, 6), (4, 5, 6, 3)])
    def test_others_must_be_named(self, shape):
        with pytest.raises(DefocusError, match="say so with axes"):
            guess_axes(shape)


@given(orders)
def test_planes_last(axes):
    standard, order = planes_last(axes)
    assert standard.endswith("YXS" if "S" in axes else "YX")
    assert "".join(axes[i] for i in order) == standard
    leading = [letter for letter in axes if letter not in "YXS"]
    assert list(standard[: len(leading)]) == leading
    assert planes_last(standard) == (standard, tuple(range(len(axes))))
    array = np.empty([ord(letter) for letter in axes], np.dtype([]))
    assert array.transpose(order).shape == tuple(ord(letter) for letter in standard)


def test_plane_name():
    assert plane_name("TZYX", (0, 3)) == "T=0, Z=3"
    assert plane_name("CYXS", (1,)) == "C=1"
    assert plane_name("YX", ()) == ""
