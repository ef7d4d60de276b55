"""Tiles on a cluster of several worker processes: the same bytes, whatever dies."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from napari_defocus.cli.main import main
from napari_defocus.core.errors import DefocusError
from napari_defocus.core.progress import Event, Stopped
from napari_defocus.io.open import open_source
from napari_defocus.tiled import executors as tasks_module
from napari_defocus.tiled.executors import Tasks, tasks_on
from tests.tiled.test_api import FORMATS, NAMES, SIDE, contents, run_tiles

distributed = pytest.importorskip("distributed")

ASKED = ["--detector", "metric", "--tile", str(SIDE), "--confidence"]
# A scheduler and a worker in one process, until it is ended.
CLUSTER = """
import time
from distributed import LocalCluster
if __name__ == "__main__":
    cluster = LocalCluster(n_workers=1, processes=False, protocol="tcp", dashboard_address=None)
    print(cluster.scheduler_address, flush=True)
    time.sleep(600)
"""


def start_cluster(workers):
    return distributed.LocalCluster(
        n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None
    )


@pytest.fixture(scope="module")
def cluster():
    with start_cluster(2) as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    with distributed.Client(cluster, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
        yield client


def square(number):
    return number * number


def fail_at(bad, number):
    if number == bad:
        raise DefocusError(f"item {number} is bad")
    return number


def leave_mark(folder, number):
    time.sleep(0.05)
    with (folder / str(number)).open("a") as file:
        file.write(f"{os.getpid()}\n")


def begin_and_end(folder, number):
    (folder / f"began {number}").touch()
    time.sleep(0.3)
    (folder / f"ended {number}").touch()


def end_process(number):
    os.kill(os.getpid(), signal.SIGKILL)


def kill_a_worker(client):
    os.kill(min(client.run(os.getpid).values()), signal.SIGKILL)


class TestTasks:
    def test_results_are_in_the_order_of_the_items(self, client):
        assert Tasks(client).run(square, range(30)) == [square(i) for i in range(30)]
        assert Tasks(client).run(square, []) == []

    def test_each_task_is_told_once(self, client):
        events = []
        Tasks(client).run(square, range(9), "squaring", done=3, on_event=events.append)
        assert events == [Event("squaring", i, 12) for i in range(4, 13)]

    def test_errors_are_raised_as_they_are(self, client):
        with pytest.raises(DefocusError) as caught:
            Tasks(client).run(partial(fail_at, 5), range(10))
        assert type(caught.value) is DefocusError
        assert str(caught.value) == "item 5 is bad"
        assert Tasks(client).run(square, [3]) == [9]

    def test_it_stops_when_asked_and_finishes_what_runs(self, client, tmp_path):
        with pytest.raises(Stopped):
            Tasks(client).run(
                partial(begin_and_end, tmp_path),
                range(40),
                should_stop=lambda: any(tmp_path.glob("ended*")),
            )
        began, ended = (len(list(tmp_path.glob(f"{what}*"))) for what in ("began", "ended"))
        assert began == ended < 10
        time.sleep(0.5)
        assert len(list(tmp_path.glob("began*"))) == began

    def test_what_one_machine_does_at_once_is_counted(self, client):
        assert Tasks(client).at_once() == (2, 2)

    def test_a_client_that_was_given_stays_connected(self, client):
        with tasks_on(client) as tasks:
            assert tasks.client is client
        assert client.status == "running"

    def test_a_scheduler_given_by_its_address_is_left(self, cluster):
        with tasks_on(cluster.scheduler_address) as tasks:
            assert tasks.run(square, [2, 3]) == [4, 9]
        assert tasks.client.status == "closed"


@pytest.mark.parametrize("form", FORMATS)
def test_two_workers_write_the_same_bytes(client, image, expected, tmp_path, form):
    run_tiles(open_source(image), tmp_path / "image", Tasks(client), form)
    assert contents(tmp_path) == expected[form]


def test_four_workers_write_the_same_bytes(image, expected, tmp_path):
    with start_cluster(4) as cluster, distributed.Client(cluster, set_as_default=False) as client:
        client.wait_for_workers(4, timeout=120)
        for form in FORMATS:
            (tmp_path / form).mkdir()
            run_tiles(open_source(image), tmp_path / form / "image", Tasks(client), form)
            assert contents(tmp_path / form) == expected[form]


def test_the_command_takes_an_address_and_workers_may_be_elsewhere(
    cluster, client, image, expected, tmp_path, monkeypatch, capsys
):
    """Paths are relative to where the command runs."""
    client.run(os.chdir, "/")
    monkeypatch.chdir(image.parent)
    out = os.path.relpath(tmp_path, image.parent)
    asked = ["detect", image.name, "--out", out, "--scheduler", cluster.scheduler_address, *ASKED]
    assert main(asked) == 0
    found = contents(tmp_path)
    assert found.pop("napari-defocus.json")
    assert found == expected["zarr"]
    told = capsys.readouterr().out.splitlines()
    assert told == [f"{out}/image.{name}.ome.zarr" for name in NAMES[::2]]


@pytest.mark.parametrize("stage", ["predicting tiles", "refining tiles", "cutting masks"])
def test_a_worker_that_is_killed_changes_nothing(client, image, expected, tmp_path, stage):
    events, killed = [], []

    def kill_once(event):
        events.append(event)
        if event.stage == stage and event.done == 4 and not killed:
            killed.append(True)
            kill_a_worker(client)

    run = run_tiles(open_source(image), tmp_path / "image", Tasks(client), on_event=kill_once)
    assert killed
    assert contents(tmp_path) == expected["zarr"]
    counted = [event.done for event in events if event.stage == stage]
    assert counted == list(range(1, run.worked["predict"] + 1))


def test_what_was_finished_before_a_worker_died_is_not_done_again(client, tmp_path):
    done = []

    def kill_late(event):
        done.append(event.done)
        if event.done == 30:
            kill_a_worker(client)

    Tasks(client).run(partial(leave_mark, tmp_path), range(40), on_event=kill_late)
    assert done == list(range(1, 41))
    times = [len((tmp_path / str(i)).read_text().split()) for i in range(40)]
    assert min(times) == 1
    # What the client knew of, but for the one in its hands; others may be.
    assert times.count(1) >= 29


def test_tasks_that_end_every_worker_are_told(tmp_path):
    with start_cluster(1) as cluster, distributed.Client(cluster, set_as_default=False) as client:
        client.run_on_scheduler(
            lambda dask_scheduler: setattr(dask_scheduler, "allowed_failures", 0)
        )
        with pytest.raises(DefocusError, match=r"workers of tcp://.* died again and again"):
            Tasks(client).run(end_process, [1])


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Start a cluster in a process of its own, which finds modules in `path` too."""
    monkeypatch.setattr(tasks_module, "PATIENCE_S", 5)
    script = tmp_path / "cluster.py"
    script.write_text(CLUSTER)
    started = []

    def start(path=""):
        known = os.environ | {"PYTHONPATH": str(path)}
        command = [sys.executable, script]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=known)
        started.append(process)
        return process, process.stdout.readline().strip()

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_scheduler_that_is_lost_is_told(elsewhere, tmp_path):
    process, address = elsewhere(Path(__file__).parents[2])
    with tasks_on(address) as tasks, pytest.raises(DefocusError) as caught:
        tasks.run(partial(leave_mark, tmp_path), range(200), on_event=lambda event: process.kill())
    assert f"{address} answers no more" in str(caught.value)


def test_a_cluster_that_lacks_a_package_is_told(elsewhere):
    _, address = elsewhere()
    with tasks_on(address) as tasks, pytest.raises(DefocusError) as caught:
        tasks.run(square, [1])
    assert address in str(caught.value)
    assert "No module named 'tests'" in str(caught.value)
    assert "install there what is installed here" in str(caught.value)


def test_an_address_that_does_not_answer_is_told_by_the_command(
    image, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(tasks_module, "PATIENCE_S", 0.5)
    asked = ["detect", str(image), "--out", str(tmp_path / "out"), *ASKED]
    assert main([*asked, "--scheduler", "tcp://127.0.0.1:9"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert "no Dask scheduler answers at 'tcp://127.0.0.1:9'" in err
    assert not Path(tmp_path / "out").exists()
