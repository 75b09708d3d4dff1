"""Ends jobs whose time has passed before an attempt begins, and tells until when they are retried."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TYPE_CHECKING

from outbox import clock
from outbox.errors import AttemptsExhausted, BackendUnavailable, JobExpired
from outbox.events import Events, JobSkipped
from outbox.ids import JobId
from outbox.job_context import Deleted
from outbox.middleware.interruption import Interruption
from outbox.middleware.results import HandlerResult
from outbox.policies.attempt_limits import DROP

if TYPE_CHECKING:
    from outbox.drivers.values import StoredJob
    from outbox.middleware.results import Handler
    from outbox.policies.attempt_limits import AttemptLimits
    from outbox.runtime.execution.attempt import Attempt

JobTimes = Callable[[str, JobId], Awaitable[tuple[datetime, datetime] | None]]
"""When a job of a connection was dispatched, and now, by the clock of its store. None where the job is not known."""


async def no_times(_: str, __: JobId) -> None:
    """`JobTimes` of attempts without a store: each job was dispatched just now."""
    return


async def times_in(
    get: Callable[[JobId], Awaitable[StoredJob | None]], now: Callable[[], Awaitable[datetime]], job_id: JobId
) -> tuple[datetime, datetime] | None:
    """`JobTimes` of a store, which ``get`` and ``now`` ask."""
    job = await get(job_id)
    return None if job is None else (job.created_at, await now())


async def check(
    attempt: Attempt, limits: AttemptLimits, call_next: Handler, times: JobTimes, events: Events
) -> HandlerResult:
    """Ask the store, and go on where the job has time left.

    Raises:
        JobExpired: ``expires_after`` has passed.
        AttemptsExhausted: ``retry_until`` has passed, and this is not the first attempt.
    """
    try:
        found = await times(attempt.connection, attempt.fence.job_id)
    except BackendUnavailable:
        attempt.interrupt(Interruption.UNREACHABLE)
        return HandlerResult()
    if attempt.interruption is not None:
        return HandlerResult(settled=attempt.interruption.final)
    if found is not None:
        created_at, now = found
        if limits.expired(created_at, now):
            return _expired(attempt, limits, (now - created_at).total_seconds(), events)
        left = limits.retry_seconds(created_at, now)
        if left is not None:
            if left <= 0 and attempt.claim.attempt > 1:
                raise AttemptsExhausted(f"{attempt.claim.name}: its retry_until has passed: no further attempt begins")
            attempt.retry_deadline = clock.now() + left
    return await call_next(attempt)


def _expired(attempt: Attempt, limits: AttemptLimits, age: float, events: Events) -> HandlerResult:
    """
    Raises:
        JobExpired: it is not to be dropped.
    """
    reason = f"it was dispatched {age:.1f} s ago, and expires after {limits.expires_after:g} s"
    if limits.on_expired != DROP:
        raise JobExpired(f"{attempt.claim.name}: {reason}")
    events.emit(attempt.event(JobSkipped, reason))
    return HandlerResult(decision=Deleted())
