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
    was frozen past its leases."""

    def __init__(self, held: InFlight, *, lease: float, on_expiring: Callable[[Attempt, bool], None]) -> None:
        super().__init__()
        self._in_flight = held
        self._margin = margin(lease)
        self._on_expiring = on_expiring

    async def run(self) -> None:
        """``on_expiring`` is told as well whether this process was frozen, or the store does not renew."""
        # A lease that ends between two looks is still caught before it ends: the looks are closer than the margin.
        looked = clock.now()
        while not await self.pause(self._margin / 2):
            frozen, looked = clock.now() - looked > self._margin, clock.now()
            for attempt in self._in_flight.expiring(looked + self._margin):
                self._on_expiring(attempt, frozen)
