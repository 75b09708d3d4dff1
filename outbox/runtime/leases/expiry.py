"""Stops handlers before their leases end, where those could not be renewed."""

from __future__ import annotations

from collections.abc import Callable

from outbox import clock
from outbox.runtime.execution.attempt import Attempt
from outbox.runtime.leases.in_flight import InFlight
from outbox.runtime.service import BackgroundLoop


def margin(lease: float) -> float:
    """How many seconds before the end of its lease a handler is told to stop."""
    return lease / 6


class Expiry(BackgroundLoop):
    """A loop of its own, because a renewal can hang in a call that never returns. It notices as well when the process
    was frozen past its leases.

    A lease that is half over at a look in time was due to be renewed a while ago, and this process was running: the
    store does not renew it. If the process is late for the next look, as on a busy machine, that is not the cause.
    """

    def __init__(self, in_flight: InFlight, *, lease: float, on_expiring: Callable[[Attempt, bool], None]) -> None:
        super().__init__()
        self._in_flight = in_flight
        self._lease = lease
        self._margin = margin(lease)
        self._on_expiring = on_expiring

    async def run(self) -> None:
        """``on_expiring`` is told as well whether this process was frozen, or the store does not renew."""
        # A lease that ends between two looks is still caught before it ends: the looks are closer than the margin.
        looked = clock.now()
        unrenewed: dict[Attempt, float] = {}
        while not await self.pause(self._margin / 2):
            frozen, looked = clock.now() - looked > self._margin, clock.now()
            half_over = self._in_flight.expiring(looked + self._lease / 2)
            for attempt in half_over:
                if attempt.deadline <= looked + self._margin:
                    self._on_expiring(attempt, frozen and unrenewed.get(attempt) != attempt.deadline)
            if not frozen:
                unrenewed = {attempt: attempt.deadline for attempt in half_over}
