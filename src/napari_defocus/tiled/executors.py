"""Many independent tasks: on threads, on processes, or on the workers of a Dask scheduler."""

import multiprocessing
import signal
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from contextlib import closing, contextmanager, suppress
from itertools import islice
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
# How long to wait for a scheduler's answer, in seconds.
PATIENCE_S = 10


class Tasks:
    """Runs tasks, one kind after the other, on the same workers.

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
            # One whose scheduler is lost raises this or that, and is closed all the same.
            with suppress(Exception):
                self.client.close()

    def at_once(self) -> tuple[int, int]:
        """Return how many tasks one machine works at once, and in how many processes."""
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
            The stage of the events.
        done : int
            How many like these were done before, for the events.
        on_event : callable
            Called after each task.
        should_stop : callable
            Called before the first task and after each.

        Returns
        -------
        list
            The results in the order of `items`.

        Raises
        ------
        Stopped
            Where `should_stop` returns true.
        DefocusError
            Where workers die, or the scheduler does not answer any more.

        Whatever a task raises is raised as it is. In any case tasks that run are finished first.
        """
        if should_stop():
            raise Stopped
        total = done + len(items)
        results: dict[int, Result] = {}
        with closing(self._results(work, items)) as finished:
            for index, result in finished:
                results[index] = result
                on_event(Event(stage, done + len(results), total))
                if should_stop():
                    raise Stopped
        return [results[index] for index in range(len(items))]

    def _results(
        self, work: Callable[[Item], Result], items: Sequence[Item]
    ) -> Generator[tuple[int, Result], None, None]:
        """Yield the place and the result of each item, as they are finished."""
        if self.client is not None:
            yield from _on_cluster(self.client, work, items)
        elif self.scheduler == "synchronous":
            yield from enumerate(map(work, items))
        else:
            yield from self._on_this_machine(work, items)

    def _on_this_machine(
        self, work: Callable[[Item], Result], items: Sequence[Item]
    ) -> Iterator[tuple[int, Result]]:
        waiting = iter(enumerate(items))
        begun: dict[Future[Result], int] = {}
        try:
            while True:
                # One more than run, so that no worker waits for its next.
                for index, item in islice(waiting, self.workers + 1 - len(begun)):
                    begun[self._workers_here().submit(work, item)] = index
                if not begun:
                    return
                for future in wait(begun, return_when=FIRST_COMPLETED).done:
                    yield begun.pop(future), future.result()
        except BrokenExecutor as error:
            self._end_pool()
            raise DefocusError(
                "a process that works on tiles was ended, most likely out of memory; give a "
                "smaller --tile, and the same command goes on where it was"
            ) from error
        finally:
            for future in begun:
                future.cancel()
            wait(begun)

    def _workers_here(self) -> Executor:
        if self._pool is None:
            self._pool = (
                ThreadPoolExecutor(self.workers)
                if self.scheduler == "threads"
                else ProcessPoolExecutor(
                    self.workers,
                    multiprocessing.get_context("spawn"),
                    # Ctrl+C reaches them too, but it is for this process to stop them.
                    signal.signal,
                    (signal.SIGINT, signal.SIG_IGN),
                )
            )
        return self._pool

    def _end_pool(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None


@contextmanager
def tasks_on(scheduler: Any = "threads", workers: int | None = None) -> Iterator[Tasks]:
    """Yield `Tasks`, and leave the scheduler at the end."""
    with closing(Tasks(scheduler, workers)) as tasks:
        yield tasks


def _on_cluster(
    client: Any, work: Callable[[Item], Result], items: Sequence[Item]
) -> Iterator[tuple[int, Result]]:
    from distributed import KilledWorker, as_completed
    from distributed.comm import CommClosedError

    left = {future.key: future for future in client.map(work, items, pure=False)}
    place = {key: index for index, key in enumerate(left)}
    try:
        for future in as_completed(list(left.values()), loop=client.loop):
            # A future that is held would be worked again where its worker is lost.
            del left[future.key]
            yield place[future.key], future.result()
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
