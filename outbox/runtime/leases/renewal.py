"""Keeps the leases of held jobs from ending."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Sequence

from outbox import clock
from outbox.drivers.base import JobClaims
from outbox.errors import BackendUnavailable
from outbox.runtime.availability import RENEW, Availability, ReconnectBackoff
from outbox.runtime.execution.attempt import Attempt
from outbox.runtime.leases.in_flight import InFlight
from outbox.runtime.service import BackgroundLoop
from outbox.settlement import Fence

_log = logging.getLogger("outbox.runtime")

_SHORT_JOB_SECONDS = 1.0
"""Seconds after which a job that was claimed as a short one is held as any other."""


class Renewal(BackgroundLoop):
    """Renews every lease of one connection in one call, at a third of the lease: two of them may fail. The leases of
    jobs that were claimed as short ones are renewed for the first time after a second."""

    def __init__(
        self,
        jobs: JobClaims,
        in_flight: InFlight,
        availability: Availability,
        *,
        lease: float,
        on_lost: Callable[[Attempt], None],
        on_cancelled: Callable[[Attempt], None],
        removed: Callable[[Sequence[Attempt]], Awaitable[Collection[Attempt]]],
    ) -> None:
        super().__init__()
        self._jobs = jobs
        self._in_flight = in_flight
        self._availability = availability
        self._lease = lease
        self._interval = lease / 3
        self._on_lost = on_lost
        self._on_cancelled = on_cancelled
        self._removed = removed
        self._backoff = ReconnectBackoff(maximum=lease / 12)

    async def run(self) -> None:
        due = clock.now() + self._interval
        delay = min(self._interval, _SHORT_JOB_SECONDS)
        while not await self.pause(delay):
            begun = clock.now()
            fences = (
                self._in_flight.renewable() if begun >= due else self._in_flight.overstaying(begun - _SHORT_JOB_SECONDS)
            )
            if not fences:
                self._availability.unneeded(RENEW)
            if not fences or await self._renew(fences):
                self._backoff.reset()
                due = begun + self._interval if begun >= due else due
                delay = max(0.0, min(due - clock.now(), _SHORT_JOB_SECONDS))
            else:
                delay = self._backoff.next()

    async def _renew(self, fences: Sequence[Fence]) -> bool:
        begun = clock.now()
        try:
            lease = await self._jobs.extend(fences, self._lease)
        except BackendUnavailable as error:
            self._availability.failed(begun, error, RENEW)
            return False
        except Exception:  # noqa: BLE001 - whatever it is: to stop renewing would cost every job that runs
            _log.exception("leases could not be renewed; trying again")
            return False
        self._availability.succeeded(begun, RENEW)
        self._in_flight.renewed(lease.kept, lease.deadline)
        if lease.lost:
            gone = [attempt for attempt in self._in_flight.attempts() if attempt.fence in lease.lost]
            cancelled = await self._removed([attempt for attempt in gone if not attempt.ended])
            for attempt in gone:
                (self._on_cancelled if attempt in cancelled else self._on_lost)(attempt)
        return True
