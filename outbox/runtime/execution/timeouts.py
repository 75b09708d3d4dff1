"""Interrupts attempts whose time is up."""

from __future__ import annotations

import asyncio

from outbox import clock
from outbox.runtime.execution.attempt import Attempt, Interruption


class Timeouts:
    """A timer for each attempt that outlives the turn of the event loop in which it began: one that ends within its
    first step needs none, and a handler that keeps the loop busy could not be interrupted by one."""

    def __init__(self) -> None:
        self._begun: dict[Attempt, None] = {}
        self._timers: dict[Attempt, asyncio.TimerHandle] = {}

    def watch(self, attempt: Attempt) -> None:
        """Interrupt it ``attempt.timeout`` seconds after its start."""
        if not self._begun:
            # Runs after the first steps of all that begin in this turn.
            asyncio.get_running_loop().call_soon(self._set_timers)
        self._begun[attempt] = None

    def forget(self, attempt: Attempt) -> None:
        """It has returned."""
        self._begun.pop(attempt, None)
        timer = self._timers.pop(attempt, None)
        if timer is not None:
            timer.cancel()

    def _set_timers(self) -> None:
        loop, now = asyncio.get_running_loop(), clock.now()
        begun, self._begun = self._begun, {}
        for attempt in begun:
            elapsed = now - attempt.started if attempt.started is not None else 0.0
            seconds = max(0.0, attempt.timeout - elapsed)
            self._timers[attempt] = loop.call_later(seconds, attempt.interrupt, Interruption.TIMEOUT)
