"""Many independent tasks on Dask: threads, processes, or a cluster's scheduler."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    Executor,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

from napari_defocus.core.errors import DefocusError
from napari_defocus.core.progress import (
    Event,
    OnEvent,
    ShouldStop,
    Stopped,
    ignore_event,
    never_stop,
)
from napari_defocus.core.threads import cores

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
        self._pool: Executor | None = None

    def close(self) -> None:
        """End the workers of this machine, and leave a scheduler that was named by its address."""
        self._end_pool()
        if self.client is not None and self.client is not self.scheduler:
            self.client.close()

    def at_once(self) -> tuple[int, int]:
        """Count the tasks that one machine does at once, and the processes it does them in."""
        if self.client is None:
            return self.workers, self.workers if self.scheduler == "processes" else 1
        threads: Counter[str] = Counter()
        processes: Counter[str] = Counter()
        for worker, count in self.client.nthreads().items():
            host = worker.rpartition(":")[0]
            threads[host] += count
            processes[host] += 1
        return max(threads.values(), default=1), max(processes.values(), default=1)

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
            Where it was asked to stop.
        DefocusError
            Where workers die, or the scheduler does not answer any more.

        Whatever a task raises is raised as it is. In any case tasks that run are finished first.
        """
        if should_stop():
            raise Stopped
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
        from dask.multiprocessing import RemoteException

        if self.scheduler != "processes":
            work = partial(_unless_stopped, work, should_stop)
        call = delayed(work, pure=False, traverse=False)
        # Of tasks that are equal otherwise Dask works the one with the last name first.
        tasks = [
            call(item, dask_key_name=f"{len(items) - index:09d}")
            for index, item in enumerate(items)
        ]

        def after(*_: Any) -> None:
            count()
            if should_stop():
                raise Stopped

        options: dict[str, Any] = {"optimize_graph": False, "traverse": False, "chunksize": 1}
        if self.scheduler != "synchronous":
            options["pool"] = self._workers_here()
        try:
            with Callback(posttask=after):
                return list(compute(*tasks, scheduler=self.scheduler, **options))
        except BrokenExecutor as error:
            self._end_pool()
            raise DefocusError(
                "a process that works on tiles was ended, most likely out of memory; give a "
                "smaller --tile, and the same command goes on where it was"
            ) from error
        except RemoteException as error:  # what another process raised
            self._end_pool()
            raise error.exception from None
        except BaseException:
            self._end_pool()  # waits for tasks that run
            raise

    def _workers_here(self) -> Executor:
        from dask.multiprocessing import get_context, initialize_worker_process

        if self._pool is None:
            self._pool = (
                ThreadPoolExecutor(self.workers)
                if self.scheduler == "threads"
                else ProcessPoolExecutor(
                    self.workers, mp_context=get_context(), initializer=initialize_worker_process
                )
            )
        return self._pool

    def _end_pool(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None


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
    from distributed.comm import CommClosedError

    left = {future.key: future for future in client.map(work, items, pure=False)}
    place = {key: i for i, key in enumerate(left)}
    found: dict[int, Result] = {}
    try:
        for future in as_completed(list(left.values()), loop=client.loop):
            found[place[future.key]] = future.result()
            # One that is kept would be done again where its worker is lost.
            del left[future.key]
            count()
            if should_stop():
                raise Stopped
        return [found[i] for i in range(len(items))]
    except KilledWorker as error:
        raise DefocusError(
            f"workers of {client.scheduler.address} died again and again at the same task, "
            "most likely out of memory; give them more, or give a smaller --tile"
        ) from error
    except (ImportError, RuntimeError) as error:
        cause = error if isinstance(error, ImportError) else error.__cause__
        if not isinstance(cause, ImportError):
            raise
        raise DefocusError(
            f"scheduler or workers at {client.scheduler.address} lack a package ({cause}); "
            "install there what is installed here"
        ) from error
    except (CancelledError, CommClosedError) as error:
        raise DefocusError(
            f"the Dask scheduler at {client.scheduler.address} answers no more; start it again, "
            "and the same command goes on where it was"
        ) from error
    finally:
        _call_off(client, left)


def _call_off(client: Any, left: Mapping[str, Any]) -> None:
    """Cancel tasks, and wait for those that run: else they would write beside what comes next."""
    from distributed import wait

    if not left:
        return
    with suppress(OSError, CancelledError):  # where the scheduler is lost
        running = {key for keys in client.processing().values() for key in keys}
        client.cancel([future for key, future in left.items() if key not in running])
        with client.as_current():
            wait([future for key, future in left.items() if key in running])


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
