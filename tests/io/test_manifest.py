import json
import multiprocessing
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_defocus.core.errors import DefocusError
from napari_defocus.dense.detector import cached_dense, save_dense
from napari_defocus.detection.config import DetectionConfig
from napari_defocus.detection.detectors import Detector, choose_detector
from napari_defocus.detection.identity import result_identity
from napari_defocus.io.manifest import NAME, RunRecord, checksum
from napari_defocus.metric.local_metric import load_metric

IDENTITY = {"input": "abc", "config": {"gain": 2.0, "iterations": (10, 50)}, "axes": None}


@pytest.fixture
def record(tmp_path):
    return RunRecord(tmp_path)


def write_outputs(folder, stem="image"):
    """A file and a folder, as BigTIFF and OME-Zarr are."""
    file, inside = folder / f"{stem}.mask.tif", folder / f"{stem}.blur.ome.zarr"
    (inside / "0").mkdir(parents=True)
    (inside / "zarr.json").write_text("{}")
    (inside / "0/chunk").write_bytes(b"chunk")
    file.write_bytes(b"pixels")
    return [file, inside]


def test_what_is_finished_and_unchanged_is_known(record, tmp_path):
    outputs = write_outputs(tmp_path)
    assert record.finished("image", IDENTITY) == []
    record.add("image", IDENTITY, outputs)
    assert record.finished("image", IDENTITY) == outputs
    assert RunRecord(tmp_path).finished("image", json.loads(json.dumps(IDENTITY))) == outputs
    assert record.finished("other", IDENTITY) == []


@pytest.mark.parametrize(
    "changed",
    [{"input": "abd"}, {"config": {"gain": 2.5, "iterations": (10, 50)}}, {"more": 1}],
)
def test_of_another_identity_nothing_is_finished(record, tmp_path, changed):
    record.add("image", IDENTITY, write_outputs(tmp_path))
    assert record.finished("image", IDENTITY | changed) == []


@pytest.mark.parametrize("name", ["image.mask.tif", "image.blur.ome.zarr/0/chunk"])
@pytest.mark.parametrize("how", ["lost", "cut", "changed"])
def test_damaged_outputs_are_not_finished(record, tmp_path, name, how):
    record.add("image", IDENTITY, write_outputs(tmp_path))
    path = tmp_path / name
    content = path.read_bytes()
    if how == "lost":
        path.unlink()
    else:
        path.write_bytes(content[:-1] if how == "cut" else content[:-1] + b"!")
    assert record.finished("image", IDENTITY) == []
    path.write_bytes(content)
    assert record.finished("image", IDENTITY)


def test_a_chunk_too_many_is_damage_but_a_file_browsers_leftover_is_none(record, tmp_path):
    outputs = write_outputs(tmp_path)
    record.add("image", IDENTITY, outputs)
    (outputs[1] / ".DS_Store").write_bytes(b"icons")
    assert record.finished("image", IDENTITY) == outputs
    (outputs[1] / "0/chunk2").write_bytes(b"")
    assert record.finished("image", IDENTITY) == []


def test_outputs_of_recorded_runs_are_ours(record, tmp_path):
    outputs = write_outputs(tmp_path)
    assert not any(map(record.mine, outputs))
    record.add("image", IDENTITY, outputs)
    assert all(map(record.mine, outputs))
    assert not record.mine(tmp_path / "other.mask.tif")


def test_an_output_that_was_changed_is_not_ours_to_replace(record, tmp_path):
    outputs = write_outputs(tmp_path)
    record.add("image", IDENTITY, outputs)
    changed = next(path for path in outputs if path.is_file())
    changed.write_bytes(b"corrected by hand")
    with pytest.raises(DefocusError, match=f"{changed.name} was changed since"):
        record.mine(changed)
    changed.unlink()
    assert record.mine(changed)


def test_images_are_recorded_side_by_side_and_anew(record, tmp_path):
    outputs = {stem: write_outputs(tmp_path, stem) for stem in ("a", "b")}
    for stem, paths in outputs.items():
        record.add(stem, IDENTITY, paths)
    record.add("a", {"input": "new"}, outputs["a"][:1])
    assert record.finished("a", {"input": "new"}) == outputs["a"][:1]
    assert record.finished("a", IDENTITY) == []
    assert record.finished("b", IDENTITY) == outputs["b"]


def test_a_last_line_that_is_torn_does_not_count(record, tmp_path):
    for stem in ("a", "b"):
        record.add(stem, IDENTITY, write_outputs(tmp_path, stem))
    content = record.file.read_bytes()
    record.file.write_bytes(content[:-20])  # killed as it wrote
    assert record.finished("a", IDENTITY)
    assert not record.finished("b", IDENTITY)
    again = RunRecord(tmp_path)
    again.add("b", IDENTITY, [tmp_path / "b.mask.tif", tmp_path / "b.blur.ome.zarr"])
    assert record.file.read_bytes() == content
    assert record.finished("b", IDENTITY)


def test_what_others_append_is_seen(record, tmp_path):
    other = RunRecord(tmp_path)
    for stem in ("a", "b", "c"):
        outputs = write_outputs(tmp_path, stem)
        other.add(stem, IDENTITY, outputs)
        assert record.finished(stem, IDENTITY) == outputs
    record.file.unlink()
    assert record.finished("a", IDENTITY) == []
    other.add("a", IDENTITY, [])
    assert not record.mine(tmp_path / "b.mask.tif")


def test_a_record_of_version_1_goes_on_as_lines(record, tmp_path):
    outputs = write_outputs(tmp_path, "old")
    entry = {"identity": IDENTITY, "outputs": {path.name: checksum(path) for path in outputs}}
    text = json.dumps({"version": 1, "results": {"old": entry}}, indent=2) + "\n"
    record.file.write_text(text)
    assert record.finished("old", IDENTITY) == outputs
    assert record.file.read_text() == text
    record.add("new", IDENTITY, write_outputs(tmp_path, "new"))
    assert len(record.file.read_text().splitlines()) == 3
    for reader in (record, RunRecord(tmp_path)):
        assert reader.finished("old", IDENTITY) == outputs
        assert all(map(reader.mine, outputs))
        assert reader.finished("new", IDENTITY)


def test_work_for_an_image_does_not_grow_with_their_number(record, tmp_path, monkeypatch):
    """Of what was recorded nothing is read again, and nothing written again."""
    read = []
    monkeypatch.setattr(json, "loads", lambda text, loads=json.loads: read.append(1) or loads(text))
    for number in range(50):
        before = record.file.stat().st_size if record.file.exists() else 0
        record.add(f"image{number}", IDENTITY, [])
        assert record.file.stat().st_size - before < 300
        assert record.finished(f"image{number}", IDENTITY) == []
    assert len(read) <= 2 * 50


def add_one(folder, stem):
    path = folder / f"{stem}.tif"
    path.write_text(stem)
    RunRecord(folder).add(stem, IDENTITY, [path])


def test_processes_may_write_one_record(record, tmp_path):
    stems = [f"image{i}" for i in range(24)]
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        pool.map(partial(add_one, tmp_path), stems, chunksize=1)
    assert all(record.finished(stem, IDENTITY) for stem in stems)


class TestUnreadable:
    ENTRY = {"identity": IDENTITY, "outputs": {"image.tif": "00"}}  # noqa: RUF012

    @pytest.mark.parametrize(
        "content",
        [
            "",
            "{",
            "[]",
            "null",
            "\xff",
            '{"version": 1}',
            '{"version": 1, "results": []}',
            '{"version": 2, "results": {}}',
            '{"results": {}}',
            '{"version": 1, "results": {"image": 3}}',
            '{"version": 1, "results": {"image": {"identity": {}}}}',
            '{"version": 1, "results": {"image": {"identity": {}, "outputs": ["a"]}}}',
            '{"version": 1, "results": {"image": {"identity": {}, "outputs": {"../a": "0"}}}}',
            "[" * 100_000,
        ],
    )
    def test_is_told_with_what_to_do_and_kept(self, record, tmp_path, content):
        record.file.write_bytes(content.encode("latin-1"))
        outputs = write_outputs(tmp_path)
        for action in (
            lambda: record.finished("image", IDENTITY),
            lambda: record.mine(outputs[0]),
            lambda: record.add("image", IDENTITY, outputs),
        ):
            with pytest.raises(DefocusError) as caught:
                action()
            assert f"{record.file} cannot be read" in str(caught.value)
            assert "move it away" in str(caught.value)
            assert len(str(caught.value)) < 500
        assert record.file.read_bytes() == content.encode("latin-1")

    @given(
        st.recursive(
            st.none() | st.integers() | st.text(),
            lambda parts: st.lists(parts) | st.dictionaries(st.text(), parts),
        )
    )
    def test_any_json_in_it_is_told_or_empty(self, tmp_path_factory, value):
        record = RunRecord(tmp_path_factory.mktemp("record"))
        record.file.write_text(json.dumps({"version": 1, "results": {"image": value}}))
        try:
            found = record.finished("image", IDENTITY)
        except DefocusError:
            found = []
        assert found == []

    def test_of_a_folder_in_its_place(self, record):
        record.file.mkdir()
        with pytest.raises(DefocusError, match="cannot be read"):
            record.finished("image", IDENTITY)


def test_a_record_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DefocusError, match=NAME):
        RunRecord(tmp_path / "file").add("image", IDENTITY, [])


def test_checksums_tell_content_and_names_apart(tmp_path):
    assert checksum(tmp_path / "none") is None
    outputs = write_outputs(tmp_path)
    before = [checksum(path) for path in outputs]
    (outputs[1] / "0/chunk").rename(outputs[1] / "0/other")
    assert checksum(outputs[1]) != before[1]
    (outputs[1] / "0/other").rename(outputs[1] / "0/chunk")
    assert [checksum(path) for path in outputs] == before


class TestIdentity:
    def test_changes_with_image_metric_and_settings(self):
        metric, config = load_metric(), DetectionConfig(detector="metric")
        other = replace(metric, filters=metric.filters[:, ::-1].copy())
        identities = [
            result_identity("abc", Detector(metric), config),
            result_identity("abd", Detector(metric), config),
            result_identity("abc", Detector(other), config),
            result_identity("abc", Detector(metric), replace(config, gain=3.0)),
            result_identity("abc", Detector(metric), replace(config, limit=2.5)),
            result_identity("abc", Detector(metric, "dense"), config),
        ]
        told = {json.dumps(identity) for identity in identities}
        assert len(told) == len(identities)
        assert result_identity("abc", Detector(metric), config) == identities[0]

    def test_changes_with_the_content_of_a_detectors_file(self, tmp_path, random_detector):
        path = tmp_path / "own.safetensors"
        config = DetectionConfig(detector=str(path))
        told = []
        for number in range(2):
            weights = {**random_detector.weights, "judge.bias": np.full(3, number, np.float32)}
            save_dense(replace(random_detector, weights=weights), path)
            told.append(result_identity("abc", choose_detector("default", config), config))
        assert told[0] != told[1]

    def test_names_the_content_of_the_packaged_detector(self):
        config = DetectionConfig(detector="dense")
        identity = result_identity("abc", choose_detector("default", config), config)
        assert identity["detector"] == cached_dense().digest
