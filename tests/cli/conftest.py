import signal

import pytest

from napari_defocus.cli.main import main
from napari_defocus.io.raster import write_png
from tests.cli.helpers import TINY


@pytest.fixture
def run(capsys):
    """Run a command; its exit status and the lines it prints to stdout and stderr."""

    def run(*arguments):
        status = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return status, out.splitlines(), err.splitlines()

    return run


@pytest.fixture
def keyboard():
    """Python's own handling of Ctrl+C, which a run in the background lacks."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def annotated(scenes, tmp_path_factory):
    """Images and their labels, in turn: six rendered scenes as files."""
    folder = tmp_path_factory.mktemp("annotated")
    paths = []
    for index, (_, image, labels) in enumerate(scenes[:6]):
        paths += [folder / f"{index}.png", folder / f"{index}.labels.png"]
        write_png(paths[-2], image)
        write_png(paths[-1], labels)
    return paths


@pytest.fixture(scope="session")
def made(annotated, scenes, tmp_path_factory):
    """What patches, train, metric and detect write, each from what came before."""
    folder = tmp_path_factory.mktemp("made")
    steps = [
        ["patches", *annotated, "--out", folder / "set.safetensors"],
        ["train", folder / "set.safetensors", "--out", folder / "nets.safetensors", *TINY],
        ["metric", folder / "nets.safetensors", "--out", folder / "metric.safetensors"],
        ["detect", folder / "new.png", "--out", folder, "--metric", folder / "metric.safetensors"],
    ]
    write_png(folder / "new.png", scenes[6][1])
    for step in steps:
        assert main([str(argument) for argument in step]) == 0
    return folder
