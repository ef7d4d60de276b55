"""Calls in the background that are requested faster than they return: the last one counts."""

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QObject, Signal

from napari_defocus.widgets._shared.jobs import Job


class Latest(QObject):
    """Runs one call at a time; of those requested meanwhile only the last follows."""

    # What a call returned, after the key of its request; and what it raised.
    ready = Signal(object, object)
    failed = Signal(object)

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self._job: Job | None = None
        self._key: Any = None
        self._waiting: tuple[Any, ...] | None = None

    @property
    def busy(self) -> bool:
        """Whether a call runs."""
        return self._job is not None

    def request(self, key: Any, function: Callable[..., Any], *arguments: Any) -> None:
        """Request a call; see `Job` for the keywords that the function gets."""
        self._waiting = (key, function, *arguments)
        if self._job is None:
            self._next()

    def stop(self) -> None:
        """Drop all requests."""
        self._waiting = None
        if self._job is not None:
            self._job.quit()

    def _next(self) -> None:
        self._job = None
        if self._waiting is not None:
            (self._key, *call), self._waiting = self._waiting, None
            self._job = Job(*call)
            self._job.returned.connect(self._receive)
            self._job.errored.connect(self.failed)
            self._job.finished.connect(self._next)
            self._job.start()

    def _receive(self, result: Any) -> None:
        if result is not None:
            self.ready.emit(self._key, result)
