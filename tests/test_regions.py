import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_defocus.detection import Detection
from napari_defocus.errors import DefocusError
from napari_defocus.regions import region_shares, score_objects

SHAPES = st.tuples(st.integers(1, 6), st.integers(1, 6))


@given(st.data(), SHAPES, st.booleans())
def test_shares_against_a_literal_count(draw, shape, stack):
    full = (2, *shape) if stack else shape
    mask = draw.draw(arrays(np.uint8, full, elements=st.integers(0, 2)))
    region = draw.draw(arrays(np.bool_, shape).filter(np.any))
    counts = {"undecided": 0, "blurred": 0, "sharp": 0}
    for index in np.ndindex(full):
        if region[index[-2:]]:
            counts[("undecided", "blurred", "sharp")[mask[index]]] += 1
    shares = region_shares(mask, region)
    assert list(shares) == ["blurred", "sharp", "undecided"]
    assert sum(shares.values()) == pytest.approx(1)
    for name, count in counts.items():
        assert shares[name] == pytest.approx(count / sum(counts.values()))


@given(st.data(), st.one_of(SHAPES, st.tuples(st.just(2), st.integers(1, 5), st.integers(1, 5))))
def test_objects_against_literal_loops(draw, shape):
    mask = draw.draw(arrays(np.uint8, shape, elements=st.integers(0, 2)))
    blur = draw.draw(arrays(np.float32, shape, elements=st.floats(0, 1, width=32)))
    values = st.sampled_from([0, 0, 1, 2, 40, 2**20])
    objects = draw.draw(arrays(np.int64, shape, elements=values).filter(np.any))
    found = score_objects(Detection(blur, mask), objects)
    assert list(found) == ["index", "area", "mean_blur", "blurred", "undecided"]
    assert found["index"].tolist() == sorted(set(objects.ravel().tolist()) - {0})
    for row, label in enumerate(found["index"]):
        pixels = [index for index in np.ndindex(shape) if objects[index] == label]
        assert found["area"][row] == len(pixels)
        mean = sum(float(blur[index]) for index in pixels) / len(pixels)
        assert found["mean_blur"][row] == pytest.approx(mean, abs=1e-6)
        for name, value in (("blurred", 1), ("undecided", 0)):
            share = sum(int(mask[index]) == value for index in pixels) / len(pixels)
            assert found[name][row] == pytest.approx(share)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32, np.uint64])
def test_objects_of_any_integer_type(kind):
    objects = np.zeros((4, 5), kind)
    objects[1:3, 1:4] = 9
    found = score_objects(Detection(np.full((4, 5), 0.25, np.float32), objects // 9), objects)
    assert found["index"].tolist() == [9]
    assert found["area"].tolist() == [6]
    assert found["mean_blur"].tolist() == [0.25]
    assert found["blurred"].tolist() == [1]


def test_objects_that_cannot_be_scored():
    found = Detection(np.zeros((4, 5), np.float32), np.ones((4, 5), np.uint8))
    with pytest.raises(DefocusError, match=r"\(5, 4\).*\(4, 5\)"):
        score_objects(found, np.ones((5, 4), int))
    with pytest.raises(DefocusError, match="no object"):
        score_objects(found, np.zeros((4, 5), int))
