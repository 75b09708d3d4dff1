"""Skips attempts that must not begin: the lease has ended, or the worker stops."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outbox import clock
from outbox.middleware.interruption import Interruption
from outbox.middleware.results import HandlerResult

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from outbox.middleware.results import Handler
    from outbox.runtime.execution.attempt import Attempt


def link(call_next: Handler) -> Handler:
    def check(attempt: Attempt) -> Awaitable[HandlerResult]:
        if attempt.deadline <= clock.now():
            # Claimed long ago: the store hung, a handler kept the loop busy, or the process was frozen.
            attempt.interrupt(Interruption.NOT_BEGUN)
        return call_next(attempt) if attempt.interruption is None else _skipped(attempt.interruption)

    return check


async def _skipped(interruption: Interruption) -> HandlerResult:
    return HandlerResult(settled=interruption.final)
