"""What makes a worker stop by its own choice."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from outbox.runtime.process.exit_codes import Reason
from outbox.runtime.process.stop_request import StopRequest
from outbox.runtime.service import BackgroundLoop
from outbox.runtime.slots import Slots


class TimeLimit(BackgroundLoop):
    """``--max-time``"""

    def __init__(self, seconds: float, stop: StopRequest) -> None:
        super().__init__()
        self._seconds = seconds
        self._stop = stop

    async def run(self) -> None:
        if not await self.pause(self._seconds):
            self._stop.request(Reason.MAX_TIME)


def resident_mib() -> float:
    """Memory that this process holds, in MiB; 0 where the system does not say (only Linux does, so far)."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024**2


class MemoryLimit(BackgroundLoop):
    """``--memory``"""

    def __init__(
        self, mib: int, stop: StopRequest, *, every: float = 1.0, measure: Callable[[], float] = resident_mib
    ) -> None:
        super().__init__()
        self._mib = mib
        self._stop = stop
        self._every = every
        self._measure = measure

    async def run(self) -> None:
        while not await self.pause(self._every):
            if self._measure() > self._mib:
                self._stop.request(Reason.MEMORY)
                return


class StopWhenEmpty:
    """``--once`` and ``--stop-when-empty``, across all connections that a worker drains.

    A handler that was given up keeps no worker: its attempt has ended, and it may never return.
    """

    def __init__(self, consumers: int, reason: Reason, slots: Slots, stop: StopRequest) -> None:
        self._consumers = consumers
        self._reason = reason
        self._slots = slots
        self._stop = stop
        self._empty_at: dict[str, int] = {}

    def found(self, connection: str) -> None:
        """There is nothing to do on this connection. It counts until this process starts another job, which may have
        dispatched to any of them."""
        self._empty_at[connection] = self._slots.started
        idle = not self._slots.busy
        if idle and sum(at == self._slots.started for at in self._empty_at.values()) == self._consumers:
            self._stop.request(self._reason)
