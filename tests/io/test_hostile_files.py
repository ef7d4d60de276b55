import io
import json
import os
import stat
import struct
import zlib
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import load_file, save_file

from benchmarks.trust import files as trust_files
from benchmarks.trust import mutations as trust_mutations
from benchmarks.trust.fixtures import DENSE, FIXTURES, METRIC, NETS_FILE, PATCHES
from napari_defocus.cli.main import main
from napari_defocus.core.errors import DefocusError, brief
from napari_defocus.dense.detector import load_dense
from napari_defocus.io import cards as container
from napari_defocus.io import manifest as run_record
from napari_defocus.io.cards import load_container, read_settings
from napari_defocus.io.manifest import RunRecord
from napari_defocus.io.open import read_image
from napari_defocus.io.raster import MOST_PIXELS_A_BYTE
from napari_defocus.metric.local_metric import Calibration, Pooling, load_metric
from napari_defocus.metric.nets import TrainingConfig, load_nets, net_shapes
from napari_defocus.metric.network import PatchNet
from napari_defocus.metric.patches import PatchConfig, load_patch_set

LOADERS = {METRIC: load_metric, NETS_FILE: load_nets, PATCHES: load_patch_set, DENSE: load_dense}
VERSIONS = sorted(FIXTURES.glob("format-*"))


@pytest.fixture(params=VERSIONS, ids=lambda folder: folder.name)
def version(request):
    return request.param


# Files of every version


def test_there_are_files_of_every_version():
    assert [folder.name for folder in VERSIONS] == [
        f"format-{number}" for number in range(1, container.VERSION + 1)
    ]
    assert run_record.VERSION == 2


def test_files_of_every_version_are_read(version):
    metric = load_metric(version / METRIC)
    assert metric.filters.shape == (2, 7, 7)
    nets = load_nets(version / NETS_FILE)
    assert nets.complete
    assert nets.kernels.shape == (2, 9)
    patches = load_patch_set(version / PATCHES)
    assert min(patches.counts().values()) >= 8
    assert load_dense(version / DENSE).record == {"made": "for tests"}
    outputs = [version / f"noise.{name}.tif" for name in ("blur", "mask")]
    assert all(RunRecord(version).mine(path) for path in outputs)


def test_what_was_recorded_is_still_whole(version):
    entry = json.loads((version / run_record.NAME).read_text())["results"]["noise"]
    finished = RunRecord(version).finished("noise", entry["identity"])
    assert [path.name for path in finished] == ["noise.blur.tif", "noise.mask.tif"]


# Mutations


@pytest.mark.parametrize("name", trust_files.FORMATS)
def test_mutated_files_load_or_are_refused(name):
    found = trust_files.run(name, 150)
    assert found.faults == {}
    assert found.counts[trust_files.LOADED] > 0
    assert found.counts[trust_files.REFUSED] > 0
    assert found.most_memory < trust_files.MOST_MEMORY


@pytest.mark.slow
@pytest.mark.parametrize("name", trust_files.FORMATS)
def test_many_mutated_files_load_or_are_refused(name):
    assert trust_files.run(name, 20_000).faults == {}


def test_the_fuzzer_finds_what_it_looks_for(monkeypatch):
    """It finds what raises, dies, takes memory, has no good message or never ends."""
    sound = trust_files.FORMATS["metric"]

    def misbehave(path):
        kind = path.read_bytes()[0] % 5
        if path.read_bytes() in sound.seeds():
            return
        if kind == 0:
            raise KeyError("a")
        if kind == 1:
            os.abort()
        if kind == 2:
            np.ones(2**27)
        if kind == 3:
            raise DefocusError("something\nsomewhere")
        while True:
            pass

    form = trust_files.Format(misbehave, sound.names)
    monkeypatch.setitem(trust_files.FORMATS, "metric", form)
    monkeypatch.setattr(trust_files, "mutated", lambda name, number: bytes([number]))
    monkeypatch.setattr(trust_files, "PATIENCE_S", 3.0)
    found = trust_files.run("metric", 5)
    words = ["KeyError", "died", "MemoryError", "no good message", "hangs"]
    assert sorted(found.faults) == [0, 1, 2, 3, 4]
    for number, word in enumerate(words):
        assert word in found.faults[number]


def test_mutations_can_be_made_again_and_differ():
    for name, form in trust_files.FORMATS.items():
        made = [trust_files.mutated(name, number) for number in range(30)]
        assert made == [trust_files.mutated(name, number) for number in range(30)]
        assert len(set(made) - set(form.seeds())) > 20


# Headers that claim too much


def file_of(header, data=b""):
    return trust_mutations.pack(header, data)


def card_of(kind="metric", **more):
    return {"card": json.dumps({"format": "napari-defocus", "version": 1, "kind": kind, **more})}


@pytest.mark.parametrize(
    "content",
    [
        file_of({"a": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}),
        file_of({"a": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4]}}, b"1234"),
        file_of({"a": {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 0]}}),
        file_of({"a": {"dtype": "F64", "shape": [2**61], "data_offsets": [0, 8]}}, b"12345678"),
        file_of({"a": {"dtype": "U8", "shape": [2**63, 2], "data_offsets": [0, 0]}}),
        file_of({"a": {"dtype": "U8", "shape": [-1], "data_offsets": [0, 0]}}),
        struct.pack("<Q", 10**12) + b"{}",
        struct.pack("<Q", 2**64 - 1) + b"{}",
    ],
)
def test_claims_are_refused_before_memory_is_taken(tmp_path, content):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    for load in (*LOADERS.values(), load_container):
        with pytest.raises(DefocusError, match=r"a\.safetensors: damaged"):
            load(path)


def flat(form, rows, columns):
    """Claim rows and columns in the header of a picture of 16 x 16."""
    file = io.BytesIO()
    Image.new("L", (16, 16)).save(file, form)
    content = bytearray(file.getvalue())
    if form == "JPEG":
        struct.pack_into(">HH", content, content.index(b"\xff\xc0") + 5, rows, columns)
    elif form == "BMP":
        struct.pack_into("<ii", content, 18, columns, rows)
    else:
        struct.pack_into(">II", content, 16, columns, rows)
        struct.pack_into(">I", content, 29, zlib.crc32(content[12:29]))
    return bytes(content)


@pytest.mark.parametrize("form", ["JPEG", "BMP", "PNG"])
@pytest.mark.parametrize(("rows", "columns"), [(44_000, 44_000), (65_000, 64_000), (3000, 3000)])
def test_pictures_that_claim_more_than_they_hold(tmp_path, form, rows, columns):
    path = tmp_path / "a.png"
    path.write_bytes(flat(form, rows, columns))
    with pytest.raises(DefocusError, match=r"cannot be in|more than 2 gigapixels|damaged"):
        read_image(path)


def test_a_png_holds_no_more_pixels_a_byte_than_is_said(tmp_path):
    pixels = Image.new("1", (20_000, 20_000))
    pixels.save(tmp_path / "a.png", optimize=True, compress_level=9)
    assert MOST_PIXELS_A_BYTE * (tmp_path / "a.png").stat().st_size > 20_000**2
    assert read_image(tmp_path / "a.png").data.shape == (20_000, 20_000)


def test_patches_of_no_patch_claim_no_side(tmp_path):
    """Empty arrays may claim any side: nothing of that side is ever made."""
    tensors = load_file(FIXTURES / "format-1" / PATCHES)
    _, card = load_container(FIXTURES / "format-1" / PATCHES)
    card["config"]["size"] = 10**6
    empty = {name: tensor[:0] for name, tensor in tensors.items()}
    empty["patches"] = np.zeros((0, 10**6, 10**6), np.float32)
    save_file(empty, tmp_path / "a.safetensors", {"card": json.dumps(card)})
    with pytest.raises(DefocusError, match="size is 1000000"):
        load_patch_set(tmp_path / "a.safetensors")


def test_a_file_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(container, "MOST_BYTES", 1000)
    path = FIXTURES / "format-1" / METRIC
    with pytest.raises(DefocusError, match="larger than"):
        load_metric(path)


def test_a_card_too_large_is_not_parsed(tmp_path):
    path = tmp_path / "a.safetensors"
    metadata = {"card": "[" * (container.MOST_CARD + 1)}
    save_file({"a": np.zeros(1)}, path, metadata)
    with pytest.raises(DefocusError, match="its card is larger than 16 MiB"):
        load_container(path)


def test_out_of_memory_is_told(monkeypatch):
    def no_memory(*_, **__):
        raise MemoryError

    monkeypatch.setattr("safetensors.safe_open", no_memory)
    with pytest.raises(DefocusError, match="does not fit into memory"):
        load_metric(FIXTURES / "format-1" / METRIC)


def test_a_newer_kind_of_setting_is_named(tmp_path):
    tensors = load_file(FIXTURES / "format-1" / PATCHES)
    _, card = load_container(FIXTURES / "format-1" / PATCHES)
    card["config"]["colour"] = True
    save_file(tensors, tmp_path / "a.safetensors", {"card": json.dumps(card)})
    with pytest.raises(DefocusError, match="no setting is called 'colour' here"):
        load_patch_set(tmp_path / "a.safetensors")


# Values


@pytest.mark.parametrize(
    ("values", "good"),
    [
        ({}, True),
        ({"size": 8, "purity": 1}, True),
        ({"purity": 0.5}, True),
        ({"size": 8.0}, False),
        ({"size": True}, False),
        ({"size": "8"}, False),
        ({"purity": "1"}, False),
        ({"purity": float("nan")}, False),
        ({"purity": float("inf")}, False),
        ({"purity": 10**400}, False),
        ({"sise": 8}, False),
        ([("size", 8)], False),
        (None, False),
    ],
)
def test_settings_of_a_card(values, good):
    if good:
        made = read_settings(PatchConfig, values)
        assert made == PatchConfig(**values)
        assert type(made.purity) is float
    else:
        with pytest.raises(TypeError):
            read_settings(PatchConfig, values)


@given(st.text())
def test_errors_stay_short(text):
    told = brief(text)
    assert "\n" not in told
    assert len(told) <= 203
    if len(text) < 200:
        assert told.split() == text.split()


# What numbers of format 1 may be: a release that takes less refuses files that were sound.
LIMITS = {
    "pooling": {
        "power": (0.1, 10),
        "sigma": (0.1, 1000),
        "guide_radius": (1, 1000),
        "guide_epsilon": (1e-12, 1000),
        "noise_factor": (0, 1000),
        "contrast_sigma": (0.1, 1000),
        "contrast_exponent": (0, 10),
    },
    "calibration": {"threshold": (-80, 80), "slope": (-1000, 1000)},
}


def test_every_number_of_a_metric_has_limits():
    for part, kind in (("pooling", Pooling), ("calibration", Calibration)):
        assert LIMITS[part].keys() == {field.name for field in fields(kind)}


@pytest.mark.parametrize("part", LIMITS)
def test_extreme_metrics_are_taken_or_refused(tmp_path, part):
    """The ends of each range detect soundly, beyond they are refused."""
    path = FIXTURES / "format-1" / METRIC
    tensors, card = load_container(path)
    copy = tmp_path / METRIC
    for name, ends in LIMITS[part].items():
        whole = Pooling.__annotations__.get(name) is int
        for end, beyond in zip(ends, (-1, 1), strict=True):
            changed = {**card, part: {**card[part], name: end}}
            save_file(tensors, copy, {"card": json.dumps(changed)})
            trust_files.check_metric(copy)
            outside = end + beyond if whole or end == 0 else end + beyond * abs(end) * 1e-3
            changed = {**card, part: {**card[part], name: outside}}
            save_file(tensors, copy, {"card": json.dumps(changed)})
            with pytest.raises(DefocusError, match=f"its {name} is"):
                load_metric(copy)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_filters_without_measure_are_refused(tmp_path):
    tensors, card = load_container(FIXTURES / "format-1" / METRIC)
    tensors["filters"] = tensors["filters"] * np.float32(1e30)
    save_file(tensors, tmp_path / METRIC, {"card": json.dumps(card)})
    with pytest.raises(DefocusError, match="far too large"):
        load_metric(tmp_path / METRIC)


@pytest.mark.parametrize(("kernels", "size", "patch"), [(2, 3, 16), (16, 7, 32), (4, 5, 33)])
def test_shapes_of_nets_are_those_of_the_network(kernels, size, patch):
    import torch

    net = PatchNet(kernels, torch.eye(size**2), patch)
    shapes = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    expected = net_shapes(TrainingConfig(kernels=kernels, kernel_size=size), patch)
    assert expected == shapes
    learnt = [name for name in expected if name.endswith((".weight", ".bias"))]
    assert learnt == [name for name, _ in net.named_parameters()]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("0/best/first.weight", lambda w: w * np.nan),
        ("0/optimiser/0.exp_avg", lambda w: w[:1]),
        ("0/last/classify.bias", lambda w: w > 0),
        ("whitening", lambda w: w * np.inf),
        ("training/labels", lambda w: w * 0 + 1),
        ("training/corner", lambda w: w + 10**6),
        ("training/corner", lambda w: w - 10**6),
        ("training/labels", lambda w: w.astype(np.int64) + 256),
        ("validation/noise", lambda w: -w - 1),
        ("validation/source", lambda w: w.astype(np.float32)),
    ],
)
def test_nets_that_nobody_trained_are_refused(tmp_path, name, change):
    tensors, card = load_container(FIXTURES / "format-1" / NETS_FILE)
    tensors[name] = np.ascontiguousarray(change(tensors[name]))
    save_file(tensors, tmp_path / NETS_FILE, {"card": json.dumps(card)})
    with pytest.raises(DefocusError, match=NETS_FILE):
        load_nets(tmp_path / NETS_FILE)


# The record of a folder of results


def record_of(folder, version=2, **entry):
    entry = {"identity": {}, "outputs": {}} | entry
    text = json.dumps({"version": 1, "results": {"a": entry}})
    if version == 2:
        text = f'{{"version":2}}\n{json.dumps({"stem": "a", **entry})}\n'
    (folder / run_record.NAME).write_text(text)
    return RunRecord(folder)


@pytest.mark.parametrize("written", [1, 2])
@pytest.mark.parametrize(
    "name",
    ["../secret", "/etc/passwd", "..", ".", "", "a/b", "a\\b", "C:\\b", "C:b", "a\0b", "\\\\h\\s"],
)
def test_a_record_does_not_reach_out_of_its_folder(tmp_path, name, written):
    folder = tmp_path / "results"
    folder.mkdir()
    (tmp_path / "secret").write_text("secret")
    record = record_of(folder, written, outputs={name: "0" * 64})
    for ask in (lambda: record.finished("a", {}), lambda: record.mine(folder / "b")):
        with pytest.raises(DefocusError, match="'a' is damaged"):
            ask()


@pytest.mark.parametrize("written", [1, 2])
@pytest.mark.parametrize(
    "entry",
    [{"outputs": []}, {"outputs": {"a": 5}}, {"outputs": None}, {"identity": 3}],
)
def test_a_damaged_entry_is_told(tmp_path, entry, written):
    with pytest.raises(DefocusError, match="move it away, and results are made anew"):
        record_of(tmp_path, written, **entry).add("b", {}, [])


def test_a_record_too_large_or_deep_is_told(tmp_path, monkeypatch):
    record = record_of(tmp_path)
    record.file.write_text("[" * 200_000)
    with pytest.raises(DefocusError, match="cannot be read"):
        record.mine(tmp_path / "a")
    monkeypatch.setattr(run_record, "MOST_BYTES", 10)
    with pytest.raises(DefocusError, match="larger than"):
        record.mine(tmp_path / "a")


def test_names_of_any_bytes_are_recorded(tmp_path):
    name = os.fsdecode(b"gr\xfcn.tif")
    path = tmp_path / name
    try:
        path.write_bytes(b"1")
    except (OSError, UnicodeError):
        pytest.skip("this file system has names of text alone")
    record = RunRecord(tmp_path)
    record.add(path.stem, {"a": 1}, [path])
    assert record.finished(path.stem, {"a": 1}) == [path]
    for line in record.file.read_text(encoding="utf-8").splitlines():
        json.loads(line)


@pytest.mark.skipif(os.name != "posix", reason="needs fork")
def test_processes_that_record_at_once_lose_nothing(tmp_path):
    children = []
    for number in range(4):
        child = os.fork()
        if child == 0:
            try:
                for index in range(15):
                    RunRecord(tmp_path).add(f"{number}-{index}", {}, [])
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    lines = (tmp_path / run_record.NAME).read_text().splitlines()
    assert len({json.loads(line)["stem"] for line in lines[1:]}) == len(lines) - 1 == 60
    assert sorted(p.name for p in tmp_path.iterdir()) == [run_record.NAME]


# Nothing is executed, nothing else is read


def test_a_pickle_is_no_file_of_ours(tmp_path, capsys):
    import pickle

    class Evil:
        def __reduce__(self):
            return (Path(tmp_path / "executed").touch, ())

    path = tmp_path / "evil.safetensors"
    path.write_bytes(pickle.dumps(Evil()))
    for line in (
        ["info", str(path)],
        ["detect", str(path), "--metric", str(path), "--out", str(tmp_path / "out")],
        ["metric", str(path), "--out", str(tmp_path / "metric.safetensors")],
    ):
        assert main(line) == 2
    assert "damaged or no napari-defocus file" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["evil.safetensors"]


def test_the_package_neither_pickles_nor_evaluates():
    source = Path(container.__file__).parent
    for path in source.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for word in ("import pickle", "allow_pickle=True", "joblib", "weights_only=False", "eval("):
            found = [line for line in text.splitlines() if word in line and ".eval(" not in line]
            assert found == [], f"{path.name}: {found}"


def test_files_can_be_read_by_others(tmp_path):
    """Saving does not narrow who may read a file below what the folder's owner asks for."""
    before = os.umask(0o022)
    try:
        container.save_container(tmp_path / "a.safetensors", "thing", {"a": np.zeros(1)}, {})
    finally:
        os.umask(before)
    if os.name == "posix":
        assert stat.S_IMODE((tmp_path / "a.safetensors").stat().st_mode) == 0o644
