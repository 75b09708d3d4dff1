"""The ends of attempts that the store refuses, each by itself, while it takes others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from outbox import clock
from outbox.events import Events, SettlementPostponed
from outbox.runtime.availability import ReconnectBackoff
from outbox.runtime.execution.attempt import Attempt
from outbox.settlement import Failure

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0


class PostponedSettlements:
    """Tries each of them again by itself, at growing intervals. Their leases are renewed meanwhile, so that the jobs do
    not run a second time. Each is reported once."""

    def __init__(self, write: Callable[[list[Attempt]], Awaitable[None]], events: Events) -> None:
        """``write`` is given one attempt, and calls `add` again if the store still refuses its end."""
        self._write = write
        self._events = events
        self._attempts: dict[Attempt, None] = {}
        self._told: set[Attempt] = set()
        self.backoff = ReconnectBackoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        self._due = float("inf")

    @property
    def waits(self) -> bool:
        return bool(self._attempts)

    @property
    def due_in(self) -> float | None:
        """Seconds until the next try; None where there is nothing to try."""
        return max(0.0, self._due - clock.now()) if self._attempts else None

    def add(self, attempt: Attempt, error: Exception) -> None:
        if attempt.settlement is not None and attempt not in self._told:
            self._told.add(attempt)
            self._events.emit(attempt.event(SettlementPostponed, attempt.settlement.outcome, Failure.of(error)))
        if not self._attempts:
            self._due = clock.now() + self.backoff.next()
        self._attempts[attempt] = None

    async def retry(self) -> None:
        """Try all of them, each by itself, if it is time."""
        if not self._attempts or clock.now() < self._due:
            return
        attempts, self._attempts = list(self._attempts), {}
        for attempt in attempts:
            await self._write([attempt])
        self._told.intersection_update(self._attempts)
        if not self._attempts:
            self.backoff.reset()

    def give_up(self) -> list[Attempt]:
        """Those that are left."""
        attempts, self._attempts = list(self._attempts), {}
        self._told.clear()
        return attempts
