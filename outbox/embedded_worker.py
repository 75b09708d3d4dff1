"""A worker inside an application's own process, beside whatever else its event loop runs."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from outbox.client_state import current_client, enter_client, leave_client
from outbox.connections import open_driver
from outbox.errors import ConfigurationError
from outbox.events import Event, Events, JobSettled, JobStarted, WorkerStarted
from outbox.registry import import_jobs, registered
from outbox.runtime.process.exit_codes import Reason
from outbox.runtime.relay_loop import SAFETY_NET, relay_loops
from outbox.runtime.reporting.event_text import LOG_LEVELS, describe
from outbox.runtime.worker import Ended
from outbox.runtime.worker import Worker as Engine
from outbox.settings import Settings, WorkerOptions
from outbox.settlement import Outcome
from outbox.wakeups.selector import WakeupSelector

_NOT_EMBEDDED = ("reload", "relay", "once", "health_port")

_log = logging.getLogger("outbox.worker")


class Worker:
    """Runs jobs on the event loop of the application: ``async with outbox.Worker(queue="mail"):`` in a lifespan.

    It installs no signal handlers, changes no logging, and never ends the process: leaving the block stops it. Then it
    claims no more, gives running jobs ``grace`` seconds, and hands the rest back without costing them an attempt. What
    happens is logged by the logger ``outbox.worker``. Options are those of `WorkerOptions`, from ``options``, the
    keywords, the environment and pyproject.toml; ``processes`` is 1.

    A handler that blocks the event loop blocks the application, and nothing ends it: prefer ``def handle``, which runs
    in a thread, or processes of their own (``python -m outbox.work``).

    Raises:
        ConfigurationError: an option is wrong, or is one of a process of its own.
    """

    def __init__(self, options: WorkerOptions | None = None, **given: Any) -> None:
        self.options = options.overridden(**given) if options is not None else WorkerOptions.load(**given)
        if self.options.processes > 1:
            raise ConfigurationError("a worker in an application's process is one: processes is 1, not more")
        for option in _NOT_EMBEDDED:
            if getattr(self.options, option):
                raise ConfigurationError(f"{option} is for `python -m outbox.work`, not for a worker in an application")
        self.name = self.options.name or f"{socket.gethostname()}:{os.getpid()}"
        self.events = Events()
        self.events.listen(_write)
        self._client = current_client()
        self.events.listen_to_batches(self._tell_client)
        self._engine: Engine | None = None
        self._task: asyncio.Task[Ended] | None = None

    @property
    def running(self) -> bool:
        """Whether it works: not before it has started, nor once it has ended by itself, after an error for example."""
        return self._task is not None and not self._task.done()

    async def start(self) -> None:
        """Begin to work, once the stores were looked at; one that does not answer is waited for meanwhile.

        Raises:
            ConfigurationError: a store is not what outbox needs, no job class is known, or it has started before.
        """
        if self._task is not None:
            raise ConfigurationError("this worker has started before: make another one")
        started = asyncio.Event()
        self.events.listen(lambda _: started.set(), WorkerStarted)
        # Jobs dispatch by the client of their worker.
        token = enter_client(self._client)
        try:
            self._engine = _assemble(self._client.settings(), self.options, self.events, self.name)
            self._task = asyncio.create_task(self._engine.run(), name="outbox-worker")
        finally:
            leave_client(token)
        waiting = asyncio.create_task(started.wait())
        try:
            await asyncio.wait({self._task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if self._task.done() and (error := self._task.exception()) is not None:
            raise error

    async def stop(self) -> None:
        """Stop in order, and return when that is done; harmless when repeated, and when it has not started.

        A cancellation of the caller does not break it off: it is raised again at the end.
        """
        task = self._task
        if task is None or self._engine is None:
            return
        self._engine.stop.request(Reason.SIGNAL)
        cancelled: asyncio.CancelledError | None = None
        while not task.done():
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled
        _report(task)

    def _tell_client(self, events: Sequence[Event]) -> None:
        """Its listeners may be added later than the worker."""
        if self._client.events is not None:
            self._client.events.emit_all(events)

    async def wait(self) -> None:
        """Return when it has ended: because it was stopped, or by itself (``max_jobs``, ``stop_when_empty``, an error,
        which is logged)."""
        if self._task is not None:
            await asyncio.wait({self._task})
            _report(self._task)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


def _report(task: asyncio.Task[Ended]) -> None:
    error = task.exception() if not task.cancelled() else None
    if error is not None:
        _log.error("the worker ended with an error", exc_info=error)


def _assemble(settings: Settings, options: WorkerOptions, events: Events, name: str) -> Engine:
    drivers = [open_driver(settings, each) for each in options.connection or (settings.connection,)]
    import_jobs(settings.jobs)
    if not registered():
        raise ConfigurationError(
            "no job class is known, so that every job would fail: import the modules that define them, or set "
            "OUTBOX_JOBS to them"
        )
    interval = options.sleep if options.stop_when_empty else SAFETY_NET
    engine = Engine(
        options,
        drivers,
        events,
        name=name,
        wakeup_selector=WakeupSelector(settings, options.wake, events),
        relays=relay_loops(settings, events, interval=interval),
    )
    # The process is the application's: a handler that blocks its loop is reported, and not a reason to end it.
    engine.hard_grace = float("inf")
    return engine


def _write(event: Event) -> None:
    # Every job brings these two: they are put into words only where somebody reads them.
    if isinstance(event, JobStarted) and not _log.isEnabledFor(logging.DEBUG):
        return
    if isinstance(event, JobSettled) and event.outcome is Outcome.COMPLETED and not _log.isEnabledFor(logging.INFO):
        return
    level, word, text = describe(event)
    _log.log(LOG_LEVELS[level], "%s: %s", word, text)
