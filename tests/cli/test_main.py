import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from napari_defocus import __version__
from napari_defocus.cli import info
from napari_defocus.cli._console import interruptible
from napari_defocus.cli.main import main
from napari_defocus.core.progress import Stopped
from napari_defocus.metric.local_metric import PACKAGED
from tests.cli.helpers import assert_refused, names, press_ctrl_c


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["polish"],
        ["detect"],
        ["detect", "x"],
        ["detect", "x", "--out", "y", "--scale", "log"],
        ["detect", "x", "--out", "y", "--mask-threshold", "high"],
        ["train", "x", "--out", "y", "--device", "tpu"],
        ["train", "x", "--out", "y", "--epochs", "many"],
        ["evaluate", "--maps", "x", "--out", "y"],
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_version_is_told(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"napari-defocus {__version__}\n"


@pytest.mark.parametrize(
    "command",
    ["detect", "patches", "train", "metric", "fit", "evaluate", "export", "stack", "info",
     "train-default", "train-dense", "demo"],
)  # fmt: skip
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    told = capsys.readouterr().out
    assert f"usage: napari-defocus {command}" in told
    # Defaults as they would be given.
    assert "(default: (" not in told
    assert "True)" not in told


def test_installed_program_answers():
    program = shutil.which("napari-defocus", path=Path(sys.executable).parent)
    assert program, "the package is not installed"
    for option, words in (("--version", __version__), ("--help", "detect")):
        done = subprocess.run([program, option], capture_output=True, text=True, check=True)
        assert words in done.stdout
        assert done.stderr == ""


def test_interrupt_ends_with_its_own_status(monkeypatch, run):
    def interrupted(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(info, "run", interrupted)
    assert run("info", "default") == (130, [], ["napari-defocus: interrupted"])


@pytest.mark.parametrize("command", ["train", "metric", "train --resume"])
def test_wrong_kind_of_file_is_told(run, made, tmp_path, command):
    wrong = PACKAGED["default"]
    command, *resume = command.split()
    given = [made / "set.safetensors", *resume, wrong] if resume else [wrong]
    assert_refused(run(command, *given, "--out", tmp_path / "x"), wrong, "holds a metric")
    assert names(tmp_path) == []


@pytest.mark.parametrize("command", ["patches", "train", "metric", "fit"])
def test_existing_output_is_refused_before_any_work(run, tmp_path, command):
    out = tmp_path / "out"
    out.write_text("mine")
    # Inputs that are not there: they are not even looked at.
    inputs = {"patches": 2, "train": 1, "metric": 1, "fit": 2}[command]
    given = [command, *[tmp_path / "none"] * inputs, "--out"]
    assert_refused(run(*given, out), out, "exists", "--overwrite")
    assert_refused(run(*given, out / "deeper"), "cannot write", f"{out} is no folder")
    assert_refused(run(*given, tmp_path, "--overwrite"), "cannot write", f"{tmp_path}: it is")
    assert out.read_text() == "mine"


@pytest.mark.usefixtures("keyboard")
def test_first_interrupt_asks_and_the_second_ends():
    before = signal.getsignal(signal.SIGINT)
    with suppress(Stopped), interruptible() as should_stop:
        assert not should_stop()
        press_ctrl_c()
        assert should_stop()
        assert signal.getsignal(signal.SIGINT) is before
        with pytest.raises(KeyboardInterrupt):
            press_ctrl_c()
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.usefixtures("keyboard")
def test_handler_is_restored_without_an_interrupt_and_after_an_error():
    before = signal.getsignal(signal.SIGINT)
    with interruptible():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(ZeroDivisionError), interruptible():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["info default", "detect --help", "--help"])
def test_a_reader_that_leaves_early_is_no_error(command, unbuffered):
    program = "import sys; from napari_defocus.cli.main import main; sys.exit(main())"
    with subprocess.Popen(
        [sys.executable, "-c", program, *command.split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_without_an_output_there_is_none():
    program = "import sys; from napari_defocus.cli.main import main; sys.exit(main())"
    command = f'exec "{sys.executable}" -c "{program}" info default >&-'
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_command_imports_no_other(tmp_path):
    """Of a command line that starts on each image, start-up is most of the time."""
    program = (
        "import sys; from napari_defocus.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print(*sys.modules, file=sys.stderr)"
    )

    def modules(*words):
        line = [sys.executable, "-c", program, *words]
        return set(subprocess.run(line, capture_output=True, text=True).stderr.split())

    assert not modules("--help") & {"numpy", "torch"}
    rooms = {f"napari_defocus.cli.{name}" for name in ("stack", "export", "fit", "train")}
    assert not modules("detect", "--help") & {"torch", "matplotlib", "sklearn", "dask", *rooms}
