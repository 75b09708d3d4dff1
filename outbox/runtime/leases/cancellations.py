"""Looks for jobs that an operator has removed while this worker runs them."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Sequence

from outbox import clock
from outbox.errors import BackendUnavailable
from outbox.ids import JobId
from outbox.runtime.execution.attempt import Attempt
from outbox.runtime.leases.in_flight import InFlight
from outbox.runtime.service import BackgroundLoop
from outbox.wakeups.base import CANCELLED
from outbox.wakeups.local_hub import local_hub
from outbox.wakeups.polling import Polling

_INTERVAL, _SHORT = 0.5, 0.25
"""Seconds between two looks, where no message tells of a cancellation, and for which a job has been running that is
looked for: together they stay below a second."""
_WITH_MESSAGES = 3600.0
"""Seconds between two looks where messages tell."""

_log = logging.getLogger("outbox.runtime")


class CancellationWatch(BackgroundLoop):
    """Asks the store which of the jobs that run here it still has: after each message that jobs were cancelled, and,
    where messages may not arrive, as long as a job runs.

    A worker without such a job asks nothing. The look reads rows by their primary key.
    """

    def __init__(
        self,
        missing: Callable[[Sequence[JobId]], Awaitable[Collection[JobId]]],
        in_flight: InFlight,
        *,
        polls: Callable[[], bool],
        on_cancelled: Callable[[Attempt], None],
    ) -> None:
        super().__init__()
        self._missing = missing
        self._in_flight = in_flight
        self._polls = polls
        self._on_cancelled = on_cancelled
        self._wakeups = Polling()

    async def run(self) -> None:
        local_hub.listen([CANCELLED], self._wakeups)
        try:
            while not self.stopping:
                told = await self._wakeups.wait(_INTERVAL if self._polls() else _WITH_MESSAGES)
                if not self.stopping:
                    await self._look(0.0 if told else _SHORT)
        finally:
            local_hub.forget(self._wakeups)

    def interrupt(self) -> None:
        self._wakeups.wake()

    async def _look(self, seconds: float) -> None:
        """At jobs that have been running for so long."""
        now = clock.now()
        running = [
            attempt
            for attempt in self._in_flight.attempts()
            if attempt.started is not None and attempt.started <= now - seconds and _is_ours(attempt)
        ]
        if not running:
            return
        try:
            missing = await self._missing([attempt.fence.job_id for attempt in running])
        except BackendUnavailable:
            # Renewals report it, and notice the cancellation.
            return
        except Exception:  # noqa: BLE001 - renewals notice it later
            _log.exception("the search for cancelled jobs failed")
            return
        for attempt in running:
            if attempt.fence.job_id in missing and _is_ours(attempt):
                self._on_cancelled(attempt)


def _is_ours(attempt: Attempt) -> bool:
    """While its lease is alive, no other worker can have ended the job."""
    return not attempt.ended and attempt.interruption is None and attempt.deadline > clock.now()
