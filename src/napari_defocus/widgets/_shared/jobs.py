"""Long work in the background: one job at a time, with progress, a Cancel button and errors."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from napari.qt.threading import WorkerBase, WorkerBaseSignals
from napari.utils.notifications import show_error
from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QProgressBar, QWidget

from napari_defocus.core.errors import DefocusError
from napari_defocus.core.progress import Event, Stopped
from napari_defocus.widgets._shared import ui

LOGGER = logging.getLogger(__name__)


class _Signals(WorkerBaseSignals):
    progressed = Signal(object)


class Job(WorkerBase):
    """A call on another thread, with ``on_event`` and ``should_stop`` beside its arguments.

    Not a generator worker: those swallow every RuntimeError, all of torch's with them.
    """

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        super().__init__(SignalsClass=_Signals)
        self.function = function
        self.arguments = arguments

    def work(self) -> Any:
        """Run the call; return None where it was stopped."""
        try:
            return self.function(
                *self.arguments,
                on_event=self.progressed.emit,
                should_stop=lambda: self.abort_requested,
            )
        except Stopped:
            return None


def plain(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a job of a function that neither reports progress nor can be stopped."""

    def call(*arguments: Any, on_event: Any, should_stop: Any) -> Any:
        return function(*arguments)

    return call


class Jobs(QObject):
    """The plugin's one job at a time."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.current: Job | None = None

    def start(self, job: Job, then: Callable[[], None]) -> None:
        """Start a job, if none runs; at its end `then` is called: another may start already."""
        if self.current is not None:
            raise DefocusError("another job of this plugin is running; wait for it, or cancel it")
        self.current = job
        job.finished.connect(self._end)
        job.finished.connect(then)
        job.start()
        self.changed.emit()

    def _end(self) -> None:
        self.current = None
        self.changed.emit()


class JobBar(QWidget):
    """A Run button of this label, a Cancel button, a progress bar and a line of text."""

    clicked = Signal()
    progressed = Signal(object)
    # Whether it was cancelled.
    ended = Signal(bool)

    def __init__(self, jobs: Jobs, label: str, tip: str) -> None:
        super().__init__()
        self._jobs = jobs
        self._job: Job | None = None
        self._on_done: Callable[[Any], None] | None = None
        self._began = 0.0
        self.run_button = ui.button(label, tip, self.clicked)
        self.cancel_button = ui.button(
            "Cancel", "Stops at the next step. What was there before stays.", self.cancel
        )
        self.bar = QProgressBar()
        self.text = ui.wrapped_label()
        buttons = ui.row(self.run_button, self.cancel_button)
        buttons.setStretch(0, 2)
        buttons.setStretch(1, 1)
        ui.column(self, buttons, self.bar, self.text)
        jobs.changed.connect(self._refresh)
        self.bar.hide()
        self._refresh()

    @property
    def busy(self) -> bool:
        """Whether this bar's own job runs."""
        return self._job is not None

    def report(self, text: str) -> None:
        """Show a line under the buttons."""
        self.text.setText(text)

    def refuse(self, error: Exception) -> None:
        """Show why nothing was started."""
        self.report(ui.warning(error))

    def forget_refusal(self, _: Any = None) -> None:
        """Take back why nothing was started, as something else is chosen."""
        if self.text.text().startswith(ui.WARNING):
            self.report("")

    def refusing(self) -> AbstractContextManager[None]:
        """Show a DefocusError that is raised within as the reason why nothing was started."""
        return ui.refusing(self.refuse)

    @contextmanager
    def saving(self, path: Path) -> Iterator[None]:
        """Report a file as saved that is written within, or why it cannot be."""
        with self.refusing():
            yield
            self.report(f"saved to {path}")

    def run(
        self, on_done: Callable[[Any], None], function: Callable[..., Any], *arguments: Any
    ) -> None:
        """Call a function in the background, and `on_done` with its result on this thread.

        `on_done` is not called where the job failed, was cancelled or gave None.
        """
        job = Job(function, *arguments)
        job.progressed.connect(self._progress)
        job.errored.connect(self._fail)
        # A method of this widget, not a lambda: Qt drops the connection when the window closes.
        job.returned.connect(self._receive)
        self.destroyed.connect(job.quit)
        try:
            self._job, self._on_done, self._began = job, on_done, time.monotonic()
            self._jobs.start(job, self._finish)
        except DefocusError as error:
            self._job = self._on_done = None
            self.refuse(error)
            return
        self.bar.setRange(0, 1)
        self.bar.setValue(0)
        self.bar.show()
        self.report("")
        self._refresh()

    def cancel(self) -> None:
        """Ask the running job to stop; it is dropped at its next step."""
        if self._job is not None:
            self._job.quit()
            self.cancel_button.setText("Cancelling…")
            self.cancel_button.setEnabled(False)

    def _progress(self, event: Event) -> None:
        self.bar.setRange(0, event.total)
        self.bar.setValue(event.done)
        if not event.total:
            self.report(f"{event.stage}…")
            return
        values = "".join(f", {name} {value:.3f}" for name, value in event.values.items())
        left = (time.monotonic() - self._began) * (event.total - event.done) / max(event.done, 1)
        self.report(f"{event.stage}: {event.done} of {event.total}{values}; {left:.0f} s left")
        self.progressed.emit(event)

    def _receive(self, result: Any) -> None:
        if result is None or self._on_done is None:
            return
        try:
            self._on_done(result)
        except Exception as error:
            if not isinstance(error, DefocusError):
                LOGGER.exception("a result could not be shown")
                said = f"{type(error).__name__}: {error}"
                error = DefocusError(f"the result could not be shown in full ({said})")
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        text = ui.warning(error) + ("" if isinstance(error, DefocusError) else _advice(error))
        self.report(text)
        show_error(text.removeprefix(ui.WARNING))

    def _finish(self) -> None:
        cancelled = self._job is not None and self._job.abort_requested
        if cancelled:
            self.report("cancelled; nothing was changed")
        self._job = self._on_done = None
        self.bar.hide()
        self._refresh()
        self.ended.emit(cancelled)

    def _refresh(self) -> None:
        self.run_button.setEnabled(self._jobs.current is None)
        if self._job is None:
            self.cancel_button.setText("Cancel")
        self.cancel_button.setEnabled(self._job is not None and not self._job.abort_requested)


def _advice(error: Exception) -> str:
    memory = isinstance(error, MemoryError) or "out of memory" in str(error).lower()
    return "; close other programs, or take a smaller image or batch" if memory else ""
