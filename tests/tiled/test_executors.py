"""Tasks on this machine; those on a cluster are in test_cluster.py."""

import os
import signal
import threading
import time
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_defocus.core.errors import DefocusError
from napari_defocus.core.progress import Event, Stopped
from napari_defocus.core.threads import cores
from napari_defocus.tiled import executors as tasks_module
from napari_defocus.tiled.executors import Tasks, tasks_on


@pytest.fixture(scope="module")
def processes():
    with tasks_on("processes", 2) as tasks:
        yield tasks


def square(number):
    return number * number


def fail_at(bad, number):
    if number == bad:
        raise DefocusError(f"item {number} is bad")
    return number


def leave_mark(folder, number):
    (folder / str(number)).write_text(str(os.getpid()))


def get_interrupted(number):
    os.kill(os.getpid(), signal.SIGINT)
    return number


def end_process(number):
    os.kill(os.getpid(), signal.SIGKILL)


@given(
    items=st.lists(st.integers(), max_size=20),
    workers=st.integers(1, 5),
    scheduler=st.sampled_from(["threads", "synchronous"]),
)
def test_results_are_in_the_order_of_the_items(items, workers, scheduler):
    with tasks_on(scheduler, workers) as tasks:
        assert tasks.run(square, items) == [square(item) for item in items]


def test_processes_give_the_same_results(processes):
    assert processes.run(square, range(20)) == [square(i) for i in range(20)]
    assert processes.run(square, []) == []


def test_processes_are_kept_from_round_to_round(processes, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        processes.run(partial(leave_mark, tmp_path / name), range(8))
    seen = {
        name: {(tmp_path / name / str(i)).read_text() for i in range(8)} for name in ("one", "two")
    }
    assert len(seen["one"] | seen["two"]) <= 2
    assert str(os.getpid()) not in seen["one"]


def test_threads_run_at_once():
    barrier = threading.Barrier(3, timeout=60)
    with tasks_on("threads", 3) as tasks:
        tasks.run(lambda _: barrier.wait(), range(3))  # would never pass one by one


@pytest.mark.parametrize("scheduler", ["threads", "synchronous"])
@pytest.mark.parametrize("done", [0, 7])
def test_each_task_is_told_once(scheduler, done):
    events = []
    with tasks_on(scheduler, 3) as tasks:
        tasks.run(square, range(12), "squaring", done=done, on_event=events.append)
    assert events == [Event("squaring", done + i, done + 12) for i in range(1, 13)]


def test_each_task_of_processes_is_told_once(processes):
    events = []
    processes.run(square, range(5), on_event=events.append)
    assert [event.done for event in events] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("scheduler", ["threads", "synchronous"])
def test_errors_are_raised_as_they_are(scheduler):
    with tasks_on(scheduler, 2) as tasks:
        with pytest.raises(DefocusError, match=r"^item 5 is bad$"):
            tasks.run(partial(fail_at, 5), range(10))
        assert tasks.run(square, [3]) == [9]  # and it is usable still


def test_errors_of_processes_are_raised_as_they_are(processes):
    with pytest.raises(DefocusError) as caught:
        processes.run(partial(fail_at, 5), range(10))
    assert type(caught.value) is DefocusError
    assert str(caught.value) == "item 5 is bad"
    assert processes.run(square, [3]) == [9]


def test_a_process_that_is_ended_is_told(processes):
    with pytest.raises(DefocusError, match=r"process .* was ended, most likely out of memory"):
        processes.run(end_process, range(2))
    assert processes.run(square, [3]) == [9]


@pytest.mark.parametrize("scheduler", ["threads", "synchronous"])
def test_it_stops_when_asked(scheduler):
    worked = []
    with tasks_on(scheduler, 2) as tasks, pytest.raises(Stopped):
        tasks.run(worked.append, range(50), should_stop=lambda: len(worked) >= 5)
    assert 5 <= len(worked) <= 5 + 3  # what runs, and the next


def test_processes_stop_when_asked(processes, tmp_path):
    def stop():
        return len(list(tmp_path.iterdir())) >= 5

    with pytest.raises(Stopped):
        processes.run(partial(leave_mark, tmp_path), range(50), should_stop=stop)
    assert 5 <= len(list(tmp_path.iterdir())) <= 9


@pytest.mark.parametrize("scheduler", ["threads", "processes", "synchronous"])
def test_nothing_is_begun_once_it_is_asked_to_stop(scheduler, tmp_path):
    with tasks_on(scheduler, 2) as tasks, pytest.raises(Stopped):
        tasks.run(partial(leave_mark, tmp_path), range(3), should_stop=lambda: True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("how", ["stop", "fail"])
def test_tasks_that_run_are_finished_first(how):
    began, ended = [], []
    second_runs, first_is_over = threading.Event(), threading.Event()

    def work(number):
        began.append(number)
        if number == 0:
            assert second_runs.wait(60)
            if how == "fail":
                ended.append(number)
                raise DefocusError("first")
        elif number == 1:
            second_runs.set()
            assert first_is_over.wait(60)
            time.sleep(0.2)
        ended.append(number)

    def stop():
        if 0 in ended:
            first_is_over.set()
        return how == "stop" and 0 in ended

    threading.Timer(0.5, first_is_over.set).start()
    with pytest.raises(Stopped if how == "stop" else DefocusError):
        Tasks("threads", 2).run(work, range(10), should_stop=stop)
    assert sorted(began) == sorted(ended)
    assert 1 in ended


def test_as_many_threads_as_cores_by_default():
    assert Tasks().workers == cores()
    assert Tasks("threads", 3).at_once() == (3, 1)
    assert Tasks("processes", 3).at_once() == (3, 3)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "thraeds", ""])
def test_a_scheduler_that_does_not_answer_is_named(address, monkeypatch):
    monkeypatch.setattr(tasks_module, "PATIENCE_S", 0.5)
    with pytest.raises(DefocusError) as caught:
        Tasks(address)
    assert repr(address) in str(caught.value)
    assert "threads, processes" in str(caught.value)


def test_ctrl_c_leaves_processes_to_the_one_that_stops_them(processes):
    """A terminal sends it to every process of the command."""
    assert processes.run(get_interrupted, range(4)) == [0, 1, 2, 3]


def test_an_error_of_the_listener_is_its_own(processes):
    def fail(event):
        raise RuntimeError("no room")

    with pytest.raises(RuntimeError, match="no room"):
        processes.run(square, range(9), on_event=fail)
    assert processes.run(square, [3]) == [9]


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_tasks_are_begun_in_their_order(scheduler):
    begun = []
    tasks = Tasks(scheduler, 1)
    tasks.run(begun.append, list(range(30)))
    assert begun == list(range(30))
