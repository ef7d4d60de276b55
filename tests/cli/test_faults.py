"""Writing commands that are killed, run out of disk or memory, or lack what they need."""

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.trust import commands as trust_commands
from benchmarks.trust import faults as trust_faults
from benchmarks.trust.commands import Command, contents, hidden, kill_at, run_apart
from napari_defocus.cli import main as cli
from napari_defocus.core.errors import DefocusError
from napari_defocus.io import atomic as files
from napari_defocus.io.atomic import whole_file, write_json
from napari_defocus.io.cards import load_container, save_container
from napari_defocus.io.manifest import NAME as RECORD
from tests.cli.helpers import without_limits

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs fork and SIGKILL")

# In a process of their own: torch must not have worked in one that forks.
QUICK = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from benchmarks.trust import faults as trust_faults
from benchmarks.trust.commands import make_commands
scratch = Path(sys.argv[2])
faults = []
for command in make_commands(scratch / "inputs"):
    if sys.argv[4] == "all" or command.name in sys.argv[4].split(","):
        kills = trust_faults.kill_command(command, int(sys.argv[3]), scratch)
        assert kills.killed > 0, command.name
        faults += kills.faults
        if trust_faults.can_mount(scratch):
            faults += trust_faults.fill_disk(command, scratch)
print(faults)
sys.exit(bool(faults))
"""


def break_commands(scratch, moments, names):
    folder = str(Path(trust_faults.__file__).parents[2])
    command = [sys.executable, "-c", QUICK, folder, str(scratch), str(moments), ",".join(names)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.slow
def test_kills_and_full_disks(tmp_path):
    break_commands(tmp_path, 6, ["patches", "detect --tile"])


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_many_kills_and_full_disks(tmp_path):
    break_commands(tmp_path, 100, ["all"])


def test_the_checks_find_what_they_look_for(tmp_path, monkeypatch):
    """A command that writes carelessly is found out."""

    def careless(line):
        out = Path(line[line.index("--out") + 1])
        out.mkdir(parents=True, exist_ok=True)
        for step in range(100):
            (out / "a.txt").write_text("x" * step)
        (out / "b.txt").write_text("whole")
        return 0

    monkeypatch.setattr(trust_commands.cli, "main", careless)
    command = Command("careless", ())
    kills = trust_faults.kill_command(command, 8, tmp_path)
    assert any("a.txt is half written" in fault for fault in kills.faults)
    if trust_faults.can_mount(tmp_path):
        faults = trust_faults.fill_disk(command, tmp_path)
        assert any("read-only" in fault for fault in faults)


def test_a_kill_falls_before_a_change(tmp_path, monkeypatch):
    def write(line):
        for name in "abc":
            (tmp_path / "out" / name).write_text(name)
        return 0

    (tmp_path / "out").mkdir()
    monkeypatch.setattr(trust_commands.cli, "main", write)
    ended = run_apart([], tmp_path, before=kill_at(tmp_path / "out", 3))
    assert ended.status == -9
    assert sorted(contents(tmp_path / "out")) == ["a", "b"]
    assert run_apart([], tmp_path).status == 0


# One file


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT])
@pytest.mark.parametrize("when", ["write", "flush", "rename"])
def test_a_disk_that_fails_leaves_the_earlier_file(tmp_path, monkeypatch, code, when):
    path = tmp_path / "a.safetensors"
    save_container(path, "thing", {"a": np.zeros(3)}, {})
    before = path.read_bytes()

    def fail(*_, **__):
        raise OSError(code, os.strerror(code))

    target = {"write": (Path, "write_bytes"), "flush": (os, "fsync"), "rename": (Path, "replace")}
    monkeypatch.setattr(*target[when], fail)
    with pytest.raises(DefocusError, match=os.strerror(code)) as caught:
        save_container(path, "thing", {"a": np.ones(3)}, {})
    monkeypatch.undo()
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_what_is_written_is_flushed_before_it_is_named(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(files.os, "fsync", lambda handle: done.append("flushed"))
    replace = Path.replace

    def named(self, target):
        done.append("named")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", named)
    write_json(tmp_path / "a.json", 1)
    assert done == ["flushed", "named"]


@pytest.mark.parametrize("path", [Path(), Path("/"), Path("a\0b")])
def test_what_names_no_file_is_told(path):
    with pytest.raises(DefocusError, match="names no file"), whole_file(path):
        pytest.fail("there is nothing to write to")


def test_an_error_in_between_leaves_nothing(tmp_path):
    def break_off():
        with whole_file(tmp_path / "a") as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        break_off()
    assert list(tmp_path.iterdir()) == []


def test_two_that_write_the_same_file(tmp_path):
    """Whoever comes last has it; it is whole at any time."""
    path = tmp_path / "a.safetensors"
    arrays = [np.full(20_000, number) for number in range(4)]
    errors = []

    def write(array):
        for _ in range(15):
            save_container(path, "thing", {"a": array}, {})

    def read():
        while any(thread.is_alive() for thread in threads):
            if path.exists():
                found = load_container(path)[0]["a"]
                if len(set(found.tolist())) != 1:
                    errors.append(found)

    threads = [threading.Thread(target=write, args=(array,)) for array in arrays]
    for thread in threads:
        thread.start()
    read()
    for thread in threads:
        thread.join()
    assert errors == []
    assert hidden(tmp_path) == []


# A command


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)).save(path)
    return path


def detect(image, out, *more):
    return cli.main(["detect", str(image), "--detector", "metric", "--out", str(out), *more])


def test_a_clock_that_goes_backwards_changes_nothing(image, tmp_path):
    """What is finished is told by content, not by time."""
    out = tmp_path / "out"
    assert detect(image, out) == 0
    before = contents(out)
    for path in out.iterdir():
        os.utime(path, (0, 0))
    assert detect(image, out, "--resume") == 0
    os.utime(out / "photo.mask.tif", (4e9, 4e9))
    assert detect(image, out, "--resume") == 0
    assert contents(out) == before


def test_a_damaged_output_is_told_and_made_anew_where_asked(image, tmp_path, capsys):
    out = tmp_path / "out"
    assert detect(image, out) == 0
    before = contents(out)
    path = out / "photo.blur.tif"
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    assert detect(image, out, "--resume") == 2
    assert "photo.blur.tif was changed since it was written" in capsys.readouterr().err
    assert path.read_bytes() == damaged
    assert detect(image, out, "--resume", "--overwrite") == 0
    after = contents(out)
    assert after.pop(RECORD) != before.pop(RECORD)  # a line was appended
    assert after == before


def run_without(package, *line):
    """Run the command where an import of a package fails, in a process of its own."""
    script = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from napari_defocus.cli.main import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", script, *map(str, line)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_without_torch_both_detectors_work(image, tmp_path):
    for name in ("metric", "dense"):
        ended = run_without("torch", "detect", image, "--detector", name, "--out", tmp_path / name)
        assert ended.returncode == 0, ended.stderr
        assert without_limits(ended.stderr.splitlines()) == []


def test_without_its_runtime_the_dense_detector_says_so_once_and_the_metric_detects(
    image, tmp_path
):
    ended = run_without("onnxruntime", "detect", image, image, "--out", tmp_path / "out")
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == "onnxruntime is not installed: the local metric detects\n"
    line = ("detect", image, "--detector", "dense", "--out", tmp_path / "out2")
    ended = run_without("onnxruntime", *line)
    assert ended.returncode == 2
    assert "needs onnxruntime; pip install onnxruntime" in ended.stderr
    assert not (tmp_path / "out2").exists()


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written(image, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir(mode=0o500)
    assert detect(image, out) == 2
    assert "cannot write" in capsys.readouterr().err
