"""Writes how far running jobs are: at most once a second, however often they say so."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import suppress

from outbox.drivers.base import FinishedJobStore
from outbox.errors import OutboxError
from outbox.ids import JobId
from outbox.policies.results import Progress
from outbox.runtime.leases.in_flight import InFlight
from outbox.runtime.service import BackgroundLoop

_INTERVAL = 1.0
"""Seconds between two writes. Each is of all jobs that have said something since."""

_log = logging.getLogger("outbox.runtime")


class ProgressWriter(BackgroundLoop):
    """Of one store. What is said while the store does not answer is lost, and said again by the next report."""

    def __init__(self, store: FinishedJobStore, in_flight: InFlight) -> None:
        super().__init__()
        self._store = store
        self._in_flight = in_flight
        self._pending: dict[JobId, Progress] = {}
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wanted = asyncio.Event()

    def report(self, job_id: JobId, progress: Progress) -> None:
        """From any thread. It does not wait."""
        with self._lock:
            is_first = not self._pending
            self._pending[job_id] = progress
        if is_first and self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: the worker has stopped
                self._loop.call_soon_threadsafe(self._wanted.set)

    async def run(self) -> None:
        self._loop = asyncio.get_running_loop()
        if self._pending:
            self._wanted.set()
        while not self.stopping:
            await self._wanted.wait()
            self._wanted.clear()
            await self._write()
            if await self.pause(_INTERVAL):
                return

    def interrupt(self) -> None:
        self._wanted.set()

    async def _write(self) -> None:
        with self._lock:
            pending, self._pending = self._pending, {}
        held = [attempt.fence for attempt in self._in_flight.attempts() if attempt.fence.job_id in pending]
        if not held:
            return
        try:
            await self._store.report([(fence, pending[fence.job_id]) for fence in held])
        except OutboxError as error:
            _log.debug("the progress of %d jobs was not written: %s", len(held), error)
        except Exception:  # noqa: BLE001 - progress must stop no worker
            _log.exception("the progress of jobs could not be written")
