import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_defocus.filters.spread import (
    CELL,
    DIAGONAL,
    LEAST,
    LEVELS,
    OWN,
    OWN_UNSEEN,
    STEEPNESS,
    STEPS,
    spread,
)

# Beyond it no pixel changes another: steps on each level, and the outlines' windows.
REACH = sum(STEPS * CELL * 2**level for level in range(LEVELS)) + 4 * CELL * 2 ** (LEVELS - 1)


def pictures(shape=(64, 96), seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 3, shape).astype(np.float32)
    colours = rng.uniform(size=(*shape, 3)).astype(np.float32)
    return values, colours, rng.random(shape) < 0.7


def literal_walk(values, grey, seen):
    """The walk over cells of one level, cell by cell, in double precision."""
    sides = [size // CELL for size in values.shape]
    weight = np.where(seen, OWN, OWN_UNSEEN)
    cells = [(y * CELL, x * CELL) for y in range(sides[0]) for x in range(sides[1])]
    held, own, colour = {}, {}, {}
    for y, x in cells:
        part = slice(y, y + CELL), slice(x, x + CELL)
        own[y, x] = weight[part].sum()
        held[y, x] = (weight[part] * values[part]).sum()
        colour[y, x] = grey[part].mean()
    found = {cell: held[cell] / own[cell] for cell in cells}
    for _ in range(STEPS):
        before = dict(found)
        for y, x in cells:
            above, below = held[y, x], own[y, x]
            for down in (-CELL, 0, CELL):
                for across in (-CELL, 0, CELL):
                    other = y + down, x + across
                    if other == (y, x) or other not in before:
                        continue
                    apart = (colour[y, x] - colour[other]) ** 2
                    shared = np.exp(-STEEPNESS * apart) + LEAST
                    shared *= DIAGONAL if down and across else 1
                    above += shared * before[other]
                    below += shared
            found[y, x] = above / below
    return np.array([found[cell] for cell in cells]).reshape(sides)


def test_it_is_the_walk_of_its_formula(monkeypatch):
    monkeypatch.setattr("napari_defocus.filters.spread.LEVELS", 1)
    values, _, seen = pictures((24, 32))
    # Constant in each cell, so that the outlines' line through a cell passes through its value.
    grey = np.random.default_rng(1).uniform(0, 0.2, (6, 8)).astype(np.float32)
    grey = grey.repeat(CELL, 0).repeat(CELL, 1)
    monkeypatch.setattr(
        "napari_defocus.filters.spread.guided_coefficients",
        lambda found, *_: (np.zeros_like(found), found),
    )
    monkeypatch.setattr(
        "napari_defocus.filters.spread.enlarge", lambda cells, n: cells.repeat(n, 0).repeat(n, 1)
    )
    found = spread(values, np.repeat(grey[..., None], 3, 2), seen)
    expected = literal_walk(values, grey, seen)
    np.testing.assert_allclose(found[::CELL, ::CELL], expected, atol=1e-4)


@given(constant=st.floats(-20, 20), shape=st.tuples(st.integers(1, 70), st.integers(1, 70)))
@settings(max_examples=30, deadline=None)
def test_a_constant_stays(constant, shape):
    _, colours, seen = pictures(shape)
    found = spread(np.full(shape, constant, np.float32), colours, seen)
    assert found.shape == shape
    np.testing.assert_allclose(found, constant, atol=1e-3 * max(1, abs(constant)))


def test_it_is_linear():
    values, colours, seen = pictures()
    more = pictures(seed=1)[0]
    together = spread(2 * values - 3 * more, colours, seen)
    apart = 2 * spread(values, colours, seen) - 3 * spread(more, colours, seen)
    np.testing.assert_allclose(together, apart, atol=2e-3)


def test_a_part_with_its_surroundings_is_the_same():
    step = CELL * 2 ** (LEVELS - 1)
    start, side = -(-REACH // step) * step, 48
    values, colours, seen = pictures((start + side + REACH, start + side + REACH))
    whole = spread(values, colours, seen)
    cut = slice(step, None), slice(step, None)
    part = spread(values[cut], colours[cut], seen[cut])
    inside = slice(start, start + side)
    moved = slice(start - step, start - step + side)
    np.testing.assert_array_equal(part[moved, moved], whole[inside, inside])


@pytest.mark.parametrize("grey", [True, False])
def test_a_smooth_inside_takes_the_class_of_its_edge_and_outlines_stop_it(grey):
    colours = np.full((160, 160, 3), 0.2, np.float32)
    thing = slice(40, 120), slice(40, 120)
    colours[thing] = 0.7 if grey else (0.7, 0.1, 0.05)
    # At the edge of the thing log odds of 4, inside it and around it -1 for want of texture.
    values, seen = np.full((160, 160), -1, np.float32), np.zeros((160, 160), bool)
    seen[32:128, 32:128] = True
    seen[56:104, 56:104] = False
    values[40:120, 40:120][seen[40:120, 40:120]] = 4
    found = spread(values, colours, seen)
    assert found[50:110, 50:110].min() > 2
    assert np.median(found[60:100, 60:100]) > 2
    assert found[:28].max() < -0.5
    assert found[80, 36] < 0 < found[80, 44]


def test_in_grey_the_colours_are_one():
    values, colours, seen = pictures()
    grey = np.repeat(colours[..., :1], 3, 2)
    almost = grey.copy()
    almost[0, 0, 0] += 1e-6
    np.testing.assert_allclose(spread(values, grey, seen), spread(values, almost, seen), atol=1e-3)
