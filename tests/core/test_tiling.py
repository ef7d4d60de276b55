from hypothesis import given
from hypothesis import strategies as st

from napari_defocus.core.tiling import overlap, plan_tiles, whole, widen, within

sides = st.integers(1, 70)
shapes = st.tuples(st.integers(1, 100), st.integers(1, 100))


@given(shapes, sides)
def test_tiles_cover_each_pixel_once(shape, side):
    seen = [[0] * shape[1] for _ in range(shape[0])]
    for tile in plan_tiles(shape, side):
        rows, columns = tile.region
        assert (rows.start, columns.start) == (tile.row * side, tile.column * side)
        for y in range(rows.start, rows.stop):
            for x in range(columns.start, columns.stop):
                seen[y][x] += 1
    assert all(count == 1 for row in seen for count in row)


@given(shapes, sides, st.integers(0, 30), st.integers(1, 9))
def test_a_window_holds_the_margin_or_ends_with_the_plane(shape, side, margin, step):
    for tile in plan_tiles(shape, side):
        window = widen(tile.region, margin, shape, step)
        for inner, outer, size in zip(tile.region, window, shape, strict=True):
            assert outer.start == 0 or outer.start <= inner.start - margin
            assert outer.start % step == 0
            assert outer.stop == size or (
                outer.stop >= inner.stop + margin and outer.stop % step == 0
            )
        assert overlap(tile.region, window) == tile.region
        rows, columns = within(tile.region, window)
        assert rows.stop - rows.start == tile.region[0].stop - tile.region[0].start
        assert columns.start == tile.region[1].start - window[1].start


def test_regions_that_touch_share_nothing():
    one, other = (slice(0, 5), slice(0, 9)), (slice(5, 8), slice(2, 4))
    assert overlap(one, other) is None
    assert overlap(one, whole((3, 4))) == (slice(0, 3), slice(0, 4))
