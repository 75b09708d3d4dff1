"""Tells the fleet that this worker lives."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from outbox import clock
from outbox.drivers.base import WorkerRegistry
from outbox.drivers.values import RUNNING_JOBS_SHOWN, RunningJob, WorkerOrder, WorkerStatus
from outbox.errors import BackendUnavailable
from outbox.runtime.availability import HEARTBEAT, Availability, ReconnectBackoff
from outbox.runtime.execution.attempt import Attempt
from outbox.runtime.service import BackgroundLoop

FORGET_AFTER = 600.0
"""Seconds after which a worker that was not heard of has its row removed."""

_FORGET_EVERY = 300.0
"""Seconds between two removals of such rows by one worker."""

_SECONDS_PER_WORKER, _LONGEST = 0.4, 25.0
"""Seconds between heartbeats for every idle worker of the fleet, so that many of them do not keep the store busy."""

_log = logging.getLogger("outbox.runtime")


def running_jobs(attempts: Iterable[Attempt]) -> tuple[RunningJob, ...]:
    """The jobs whose handlers run, the longest running first: as many as a heartbeat names."""
    now = clock.now()
    running = [
        RunningJob(attempt.fence.job_id, attempt.claim.name, attempt.claim.queue, now - attempt.started)
        for attempt in attempts
        if attempt.started is not None and not attempt.ended
    ]
    return tuple(sorted(running, key=lambda job: -job.seconds)[:RUNNING_JOBS_SHOWN])


class Heartbeat(BackgroundLoop):
    """One row per process in each store that it drains. Nothing depends on it but what operators see."""

    def __init__(
        self,
        workers: WorkerRegistry,
        availability: Availability,
        *,
        interval: float,
        ready: Callable[[], bool],
        status: Callable[[], WorkerStatus],
        idle_workers: Callable[[], int] = lambda: 1,
        obey: Callable[[WorkerOrder], None] = lambda _: None,
    ) -> None:
        super().__init__()
        self._workers = workers
        self._availability = availability
        self._interval = interval
        self._ready = ready
        self._status = status
        self._idle_workers = idle_workers
        self._obey = obey
        self._forgot: float | None = None

    async def run(self) -> None:
        # Until the claimer has found the store in order there may be no table to write to.
        if await self.pause_until(self._ready):
            return
        backoff = ReconnectBackoff()
        while True:
            if await self._tell(leaving=False):
                backoff.reset()
                seconds = max(self._interval, min(self._idle_workers() * _SECONDS_PER_WORKER, _LONGEST))
            else:
                # Without it, the outage is not over.
                seconds = min(backoff.next(), self._interval)
            if await self.pause(seconds):
                break
        await self._tell(leaving=True)

    async def _tell(self, *, leaving: bool) -> bool:
        """Whether the store could be reached."""
        begun = clock.now()
        status = self._status()
        try:
            if leaving:
                await self._workers.deregister(status.id)
                return True
            order = await self._workers.heartbeat(status)
            if order is not None:
                self._obey(order)
            if self._forgot is None or begun - self._forgot > _FORGET_EVERY:
                self._forgot = begun
                await self._workers.forget(FORGET_AFTER)
        except BackendUnavailable as error:
            self._availability.failed(begun, error, HEARTBEAT)
            return False
        except Exception:  # noqa: BLE001 - operators see less; jobs go on
            _log.exception("the row of this worker could not be written")
        else:
            self._availability.succeeded(begun, HEARTBEAT)
        return True
