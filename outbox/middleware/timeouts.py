"""Interrupts attempts whose time is up."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from outbox import clock
from outbox.middleware.interruption import Interruption

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from outbox.middleware.results import Handler, HandlerResult
    from outbox.runtime.execution.attempt import Attempt


def link(call_next: Handler, timeouts: Timeouts) -> Handler:
    def watch(attempt: Attempt) -> Awaitable[HandlerResult]:
        if attempt.timeout > 0:
            timeouts.watch(attempt)
        return call_next(attempt)

    return watch


class Timeouts:
    """Sets a timer for each attempt that outlives the turn of the event loop in which it began.

    An attempt that ends within its first step needs none, and a timer could not interrupt a handler that keeps the loop
    busy. `Attempt.end` cancels the timer.
    """

    def __init__(self) -> None:
        self._begun: list[Attempt] = []

    def watch(self, attempt: Attempt) -> None:
        """Interrupt it ``attempt.timeout`` seconds after its start."""
        if not self._begun:
            # Runs after the first steps of all that begin in this turn.
            asyncio.get_running_loop().call_soon(self._set_timers)
        self._begun.append(attempt)

    def _set_timers(self) -> None:
        loop, now = asyncio.get_running_loop(), clock.now()
        begun, self._begun = self._begun, []
        for attempt in begun:
            if not attempt.ended and attempt.started is not None:
                seconds = max(0.0, attempt.started + attempt.timeout - now)
                attempt.timer = loop.call_later(seconds, attempt.interrupt, Interruption.TIMEOUT)
