"""Reports that an attempt has begun."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outbox.events import Events, JobStarted

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from outbox.middleware.results import Handler, HandlerResult
    from outbox.runtime.execution.attempt import Attempt


def link(call_next: Handler, events: Events) -> Handler:
    def report(attempt: Attempt) -> Awaitable[HandlerResult]:
        if events.wants(JobStarted):
            events.emit(attempt.event(JobStarted, attempt.claim.rescued, attempt.seconds_waited))
        return call_next(attempt)

    return report
