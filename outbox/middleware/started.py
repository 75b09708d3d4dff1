"""Reports that an attempt has begun."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outbox import clock
from outbox.events import Events, JobStarted

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from outbox.middleware.results import Handler, HandlerResult
    from outbox.runtime.execution.attempt import Attempt


def link(call_next: Handler, events: Events, lease: float) -> Handler:
    """``lease`` is that of claims, in seconds."""

    def report(attempt: Attempt) -> Awaitable[HandlerResult]:
        if events.wants(JobStarted):
            events.emit(attempt.event(JobStarted, attempt.claim.rescued, waited(attempt, lease)))
        return call_next(attempt)

    return report


def waited(attempt: Attempt, lease: float) -> float | None:
    """Seconds since the job could be claimed. None where its store does not tell."""
    claim = attempt.claim
    if claim.waited is None:
        return None
    # The lease of a claim is counted from before it was sent.
    return claim.waited + clock.now() - (claim.deadline - lease)
