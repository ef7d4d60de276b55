import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError

from napari_defocus.core.errors import DefocusError
from napari_defocus.core.tiling import plan_tiles, whole
from napari_defocus.tiled import checkpoint as tile_store
from napari_defocus.tiled.checkpoint import TileKey, TileStore

TILES = plan_tiles((100, 130), 48)
KEY = TileKey((1, 2), TILES[4])
KINDS = [np.float32, np.float64, np.bool_, np.int64, np.uint16]


@pytest.fixture
def store(tmp_path):
    return TileStore(tmp_path / "store")


def arrays():
    dice = np.random.default_rng(0)
    return {str(np.dtype(kind)): (dice.random((5, 7)) * 9).astype(kind) for kind in KINDS}


def test_arrays_come_back_as_they_were(store):
    kept = arrays() | {"transposed": np.arange(6.0).reshape(2, 3).T, "one": np.array([3.5])}
    store.put("judge", KEY, kept)
    for name, found in zip(kept, store.get("judge", KEY, *kept), strict=True):
        assert found.dtype == kept[name].dtype
        np.testing.assert_array_equal(found, kept[name])


def test_each_round_plane_and_tile_is_kept_apart(store):
    keys = [
        *[TileKey(plane, tile) for plane in [(), (0,), (1,), (1, 2), (12,)] for tile in TILES],
        *[(), (0,), (1,), (1, 2), (12,)],
    ]
    places = [(name, key) for name in ("one", "two") for key in keys]
    for number, (name, key) in enumerate(places):
        assert not store.has(name, key)
        store.put(name, key, {"number": np.array([number])})
    for number, (name, key) in enumerate(places):
        assert store.has(name, key)
        assert store.get(name, key, "number")[0] == [number]


def test_nothing_may_be_kept_as_a_mark(store):
    store.put("finish", KEY, {})
    assert store.has("finish", KEY)


@settings(max_examples=40)
@given(data=st.data())
def test_a_window_is_put_together_from_its_tiles(data, tmp_path_factory):
    store = TileStore(tmp_path_factory.mktemp("store"))
    plane = np.random.default_rng(0).random((100, 130))
    for tile in TILES:
        store.put("judge", TileKey((3,), tile), {"level": plane[tile.region]})
    window = []
    for size in plane.shape:
        start = data.draw(st.integers(0, size - 1))
        window.append(slice(start, data.draw(st.integers(start + 1, size))))
    found = store.window("judge", (3,), TILES, "level", tuple(window))
    np.testing.assert_array_equal(found, plane[tuple(window)])


def test_a_part_is_read(store):
    store.put("spread", (), {"cells": np.arange(60.0).reshape(6, 10)})
    region = slice(1, 4), slice(2, 9)
    np.testing.assert_array_equal(
        store.part("spread", (), "cells", region), np.arange(60.0).reshape(6, 10)[region]
    )
    np.testing.assert_array_equal(
        store.part("spread", (), "cells", whole((6, 10))), np.arange(60.0).reshape(6, 10)
    )


class TestIdentity:
    IDENTITY = {"input": "abc", "sides": (1, 2), "config": {"gain": 2.0}}  # noqa: RUF012

    def test_is_that_of_the_run_that_began(self, store):
        assert not store.is_of(self.IDENTITY)
        store.begin(self.IDENTITY)
        assert store.is_of(dict(self.IDENTITY))
        assert not store.is_of(self.IDENTITY | {"input": "abd"})

    def test_beginning_clears_what_another_left(self, store):
        store.begin(self.IDENTITY)
        store.put("judge", KEY, arrays())
        store.begin(self.IDENTITY | {"input": "abd"})
        assert not store.has("judge", KEY)
        store.remove()
        assert not store.folder.exists()
        store.remove()  # twice is no error

    def test_is_unknown_where_its_file_is_damaged(self, store):
        store.begin(self.IDENTITY)
        (store.folder / tile_store.IDENTITY).write_text("{")
        assert not store.is_of(self.IDENTITY)


class TestDamage:
    @settings(max_examples=30)
    @given(share=st.floats(0, 0.999))
    def test_a_truncated_file_is_told_with_what_to_do(self, share, tmp_path_factory):
        store = TileStore(tmp_path_factory.mktemp("store") / "store")
        store.put("judge", KEY, arrays())
        (file,) = (store.folder / "judge").iterdir()
        content = file.read_bytes()
        file.write_bytes(content[: int(share * len(content))])
        with pytest.raises(DefocusError) as caught:
            store.get("judge", KEY, "float32")
        assert str(file) in str(caught.value)
        assert f"delete {store.folder} and start again" in str(caught.value)

    @pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"\0" * 100])
    def test_any_other_content_is_told(self, store, content):
        store.put("judge", KEY, arrays())
        (file,) = (store.folder / "judge").iterdir()
        file.write_bytes(content)
        with pytest.raises(DefocusError, match="is missing or damaged"):
            store.get("judge", KEY, "float32")

    def test_what_is_missing_is_told(self, store):
        with pytest.raises(DefocusError, match="is missing or damaged"):
            store.get("judge", KEY, "float32")
        store.put("judge", KEY, arrays())
        with pytest.raises(DefocusError, match="is missing or damaged"):
            store.part("judge", KEY, "other", whole((2, 2)))


class TestWholeOrNot:
    def test_an_interrupted_write_leaves_nothing(self, store, monkeypatch):
        def write_half(arrays, path):
            path.write_bytes(b"half")
            raise KeyboardInterrupt

        monkeypatch.setattr(tile_store, "save_file", write_half)
        with pytest.raises(KeyboardInterrupt):
            store.put("judge", KEY, arrays())
        assert not store.has("judge", KEY)
        assert not list((store.folder / "judge").iterdir())

    @pytest.mark.parametrize(
        "error",
        [
            OSError(28, "No space left on device"),
            SafetensorError("Error while serializing: I/O error: No space left on device"),
        ],
    )
    def test_a_full_disk_is_told_and_keeps_what_was_there(self, store, monkeypatch, error):
        store.put("judge", KEY, {"old": np.array([1.0])})

        def fail(arrays, path):
            path.write_bytes(b"half")
            raise error

        monkeypatch.setattr(tile_store, "save_file", fail)
        with pytest.raises(DefocusError, match=r"cannot write .*No space left on device"):
            store.put("judge", KEY, arrays())
        assert store.get("judge", KEY, "old")[0] == [1.0]
        assert len(list((store.folder / "judge").iterdir())) == 1

    def test_a_file_in_the_place_of_the_folder_is_told(self, tmp_path):
        (tmp_path / "store").write_text("mine")
        with pytest.raises(DefocusError, match="cannot write"):
            TileStore(tmp_path / "store").put("judge", KEY, arrays())
        assert (tmp_path / "store").read_text() == "mine"
