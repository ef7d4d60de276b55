import os

import pytest

from napari_defocus.core.errors import DefocusError
from napari_defocus.io.arrivals import Arrivals, changes


@pytest.fixture
def arrivals(tmp_path):
    return Arrivals(tmp_path / "in", settle=2)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def names(paths):
    return [path.name for path in paths]


def test_a_file_is_given_once_when_it_stood_still(folder, arrivals):
    (folder / "a.tif").write_bytes(b"half")
    assert arrivals.finished(0) == []
    assert arrivals.finished(1.9) == []
    (folder / "a.tif").write_bytes(b"all of it")
    assert arrivals.finished(2.1) == []
    assert arrivals.waiting
    assert names(arrivals.finished(4.2)) == ["a.tif"]
    assert arrivals.finished(10) == []
    assert not arrivals.waiting


def test_a_change_of_the_same_size_counts(folder, arrivals):
    (folder / "a.tif").write_bytes(b"1234")
    arrivals.finished(0)
    os.utime(folder / "a.tif", (1, 1))
    assert arrivals.finished(3) == []
    assert names(arrivals.finished(5)) == ["a.tif"]
    os.utime(folder / "a.tif", (2, 2))
    assert arrivals.finished(6) == []
    assert names(arrivals.finished(8)) == ["a.tif"]


def test_what_is_no_finished_image_is_passed_over(folder, arrivals):
    for name in ("notes.txt", ".hidden.tif", "a.mask.tif", "a.blur.tif"):
        (folder / name).write_bytes(b"x")
    (folder / "empty.tif").touch()
    (folder / "folder.tif").mkdir()
    arrivals.finished(0)
    assert arrivals.finished(9) == []


def test_a_folder_that_vanishes_and_comes_back(folder, arrivals):
    (folder / "a.tif").write_bytes(b"x")
    arrivals.finished(0)
    assert names(arrivals.finished(2)) == ["a.tif"]
    folder.rename(folder.with_name("away"))
    assert arrivals.finished(3) == []
    assert not arrivals.there
    folder.with_name("away").rename(folder)
    (folder / "b.tif").write_bytes(b"x")
    arrivals.finished(4)
    assert arrivals.there
    assert names(arrivals.finished(6)) == ["b.tif"]


def test_again(folder, arrivals):
    (folder / "a.tif").write_bytes(b"x")
    arrivals.finished(0)
    (path,) = arrivals.finished(2)
    arrivals.again(path)
    assert arrivals.finished(3) == []
    assert arrivals.finished(5) == [path]


def test_changes_go_on_while_the_folder_is_gone(folder, monkeypatch):
    monkeypatch.setattr("napari_defocus.io.arrivals.PAUSE_S", 0.05)
    seen = []
    for _ in changes(folder, lambda: len(seen) > 3):
        seen.append(folder.is_dir())
        if len(seen) == 1:
            folder.rmdir()
    assert seen == [True, False, False, False]


def test_without_watchfiles_the_extra_is_named(folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "watchfiles", None)
    with pytest.raises(DefocusError, match=r"napari-defocus\[watch\]"):
        next(changes(folder, lambda: False))


def test_a_zarr_counts_as_finished_when_its_last_chunk_is(folder, arrivals):
    (folder / "a.ome.zarr" / "0").mkdir(parents=True)
    (folder / "a.ome.zarr" / "zarr.json").write_text("{}")
    arrivals.finished(0)
    (folder / "a.ome.zarr" / "0" / "c").write_bytes(b"chunk")
    assert arrivals.finished(2) == []
    assert arrivals.waiting
    assert names(arrivals.finished(4)) == ["a.ome.zarr"]
    (folder / "a.ome.zarr" / "0" / "d").write_bytes(b"late")
    assert arrivals.finished(5) == []
    assert names(arrivals.finished(7)) == ["a.ome.zarr"]


def test_subfolders(folder):
    for place in ("a.tif", "w1/a.tif", "w1/deep/b.tif", ".hidden/c.tif", "out/d.tif"):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes(b"x")
    (folder / "w1" / "round").symlink_to(folder, target_is_directory=True)
    (folder / "w1" / "a.blur.ome.zarr").mkdir()
    (folder / "w1" / "a.blur.ome.zarr" / "zarr.json").write_text("{}")
    arrivals = Arrivals(folder, settle=1, subfolders=True, without=folder / "out")
    arrivals.finished(0)
    found = arrivals.finished(1)
    assert found == [folder / name for name in ("a.tif", "w1/a.tif", "w1/deep/b.tif")]
    arrivals.again(found[1])
    assert arrivals.finished(2) == []
    assert arrivals.finished(3) == [found[1]]
