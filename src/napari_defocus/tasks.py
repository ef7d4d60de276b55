"""Many independent tasks on Dask: threads, processes, or a cluster's scheduler."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from napari_defocus.errors import DefocusError
from napari_defocus.events import Event, OnEvent, ShouldStop, Stopped, ignore_event, never_stop
from napari_defocus.parts import cores

Item = TypeVar("Item")
Result = TypeVar("Result")

LOCAL = ("threads", "processes", "synchronous")
# How long a scheduler's answer is waited for, in seconds.
PATIENCE_S = 10


class Tasks:
    """Runs tasks one kind after the other, on the same workers.

    Parameters
    ----------
    scheduler : str or distributed.Client
        ``threads``, ``processes`` or ``synchronous`` on this machine, or the address of a Dask
        scheduler, such as ``tcp://host:8786``, or a client that is connected to one.
    workers : int, optional
        Threads or processes on this machine; by default as many as it has cores.

    Raises
    ------
    DefocusError
        Where the scheduler is unknown, or does not answer.
    """

    def __init__(self, scheduler: Any = "threads", workers: int | None = None) -> None:
        self.scheduler = scheduler
        self.workers = workers or cores()
        self.client = None if scheduler in LOCAL else _connect(scheduler)

    def close(self) -> None:
        """Leave a scheduler that was named by its address."""
        if self.client is not None and self.client is not self.scheduler:
            self.client.close()

    def run(
        self,
        work: Callable[[Item], Result],
        items: Sequence[Item],
        stage: str = "working",
        *,
        done: int = 0,
        on_event: OnEvent = ignore_event,
        should_stop: ShouldStop = never_stop,
    ) -> list[Result]:
        """Do `work` on every item.

        Parameters
        ----------
        work : callable
            A function of a module, or a `functools.partial` of one; other processes call it too.
        items : sequence
            What it takes, small.
        stage : str
            What is done, for events.
        done : int
            How many like these are done already, for events.
        on_event : callable
            Told after each task.
        should_stop : callable
            Asked before each task.

        Returns
        -------
        list
            The results in the order of `items`.

        Raises
        ------
        Stopped
            Where it was asked to stop; tasks that run are finished first.
        """
        total = done + len(items)

        def count() -> None:
            nonlocal done
            done += 1
            on_event(Event(stage, done, total))

        if self.client is not None:
            return _on_cluster(self.client, work, items, count, should_stop)
        return self._on_this_machine(work, items, count, should_stop)

    def _on_this_machine(
        self,
        work: Callable[[Item], Result],
        items: Sequence[Item],
        count: Callable[[], None],
        should_stop: ShouldStop,
    ) -> list[Result]:
        from dask import compute, delayed
        from dask.callbacks import Callback

        if self.scheduler != "processes":
            work = partial(_unless_stopped, work, should_stop)
        tasks = [delayed(work, pure=False, traverse=False)(item) for item in items]

        def after(*_: Any) -> None:
            count()
            if should_stop():
                raise Stopped

        with Callback(posttask=after):
            found = compute(
                *tasks,
                scheduler=self.scheduler,
                num_workers=self.workers,
                optimize_graph=False,
                traverse=False,
            )
        return list(found)


@contextmanager
def tasks_on(scheduler: Any = "threads", workers: int | None = None) -> Iterator[Tasks]:
    """Give `Tasks`, and leave the scheduler at the end."""
    tasks = Tasks(scheduler, workers)
    try:
        yield tasks
    finally:
        tasks.close()


def _unless_stopped(work: Callable[[Item], Result], should_stop: ShouldStop, item: Item) -> Result:
    if should_stop():
        raise Stopped
    return work(item)


def _on_cluster(
    client: Any,
    work: Callable[[Item], Result],
    items: Sequence[Item],
    count: Callable[[], None],
    should_stop: ShouldStop,
) -> list[Result]:
    from distributed import KilledWorker, as_completed

    futures = client.map(work, items, pure=False)
    try:
        for future in as_completed(futures):
            future.result()
            count()
            if should_stop():
                raise Stopped
        return list(client.gather(futures))
    except KilledWorker as error:
        raise DefocusError(
            f"workers of {client.scheduler.address} died again and again at the same task, "
            "most likely out of memory; give them more, or give a smaller --tile"
        ) from error
    finally:
        client.cancel(futures)


def _connect(scheduler: Any) -> Any:
    try:
        from distributed import Client
    except ImportError as error:
        raise DefocusError(
            "a cluster needs Dask's distributed; pip install 'napari-defocus[cluster]'"
        ) from error
    if isinstance(scheduler, Client):
        return scheduler
    try:
        return Client(scheduler, timeout=PATIENCE_S, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise DefocusError(
            f"no Dask scheduler answers at {scheduler!r}; check the address, or choose one of "
            f"{', '.join(LOCAL)}"
        ) from error
