"""Ends of attempts at jobs with limits: what they have counted goes into the headers of the job."""

from __future__ import annotations

from outbox import clock
from outbox.envelope import Headers
from outbox.errors import AttemptsExhausted
from outbox.policies.attempt_limits import NO_COUNTS, AttemptCounts
from outbox.runtime.execution.attempt import Attempt
from outbox.settlement import ReplaceHeaders, Settlement


def retried(attempt: Attempt, settlement: Settlement, error: BaseException) -> Settlement:
    """``settlement``, which retries a job, or the end of the job where its limits allow no further attempt."""
    limits = attempt.limits
    if limits is None:
        return settlement
    deadline = attempt.retry_deadline
    if deadline is not None and clock.now() + settlement.delay >= deadline:
        return failed(attempt, error)
    if limits.max_exceptions is None:
        return settlement
    counts = attempt.counts or NO_COUNTS
    if counts.exceptions + 1 >= limits.max_exceptions:
        return failed(attempt, error)
    return _counted(attempt, settlement, counts.model_copy(update={"exceptions": counts.exceptions + 1}))


def snoozed(attempt: Attempt, settlement: Settlement) -> Settlement:
    """``settlement`` of a job that has snoozed, or its failure where it has done so too often."""
    limits = attempt.limits
    if limits is None or limits.max_snoozes is None:
        return settlement
    counts = attempt.counts or NO_COUNTS
    if counts.snoozes >= limits.max_snoozes:
        times = f"{limits.max_snoozes} time{'s' if limits.max_snoozes != 1 else ''}"
        return failed(
            attempt, AttemptsExhausted(f"{attempt.claim.name}: has snoozed {times}, its max_snoozes, already")
        )
    return _counted(attempt, settlement, counts.model_copy(update={"snoozes": counts.snoozes + 1}))


def failed(attempt: Attempt, error: BaseException) -> Settlement:
    """The failure of a job. Put back by hand, it counts from 0."""
    attempt.error = error
    settlement = Settlement.failed(attempt.fence, attempt.failure(error))
    return settlement if attempt.counts is None else _counted(attempt, settlement, None)


def _counted(attempt: Attempt, settlement: Settlement, counts: AttemptCounts | None) -> Settlement:
    headers = Headers.load(attempt.claim.headers).model_copy(update={"counts": counts}).dump()
    return settlement._replace(effects=(*settlement.effects, ReplaceHeaders(attempt.fence.job_id, headers)))
