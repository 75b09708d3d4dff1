"""What happens to the jobs that run when a worker stops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from outbox import clock
from outbox.runtime.execution.protected_task import protected_task
from outbox.runtime.process.stop_request import StopRequest
from outbox.runtime.slots import Slots


class GracefulShutdown:
    """A service that only stops.

    A worker that stops by its own choice lets everything finish. One that was asked to gives running jobs the time of
    grace, then tells the rest to stop; they are handed back without having cost an attempt.
    """

    def __init__(self, interrupt: Callable[[], None], *, slots: Slots, stop: StopRequest, grace: float) -> None:
        self._interrupt = interrupt
        self._slots = slots
        self._stop = stop
        self._grace = grace
        self._stopped = False

    async def start(self) -> None:
        """Nothing runs yet."""

    async def stop(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        await self._idle_or_urgent()
        if self._stop.urgent_since is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, self._stop.urgent_since + self._grace - clock.now())):
                    await self._slots.idle()
        self._interrupt()
        await self._slots.idle()

    async def _idle_or_urgent(self) -> None:
        waits = [protected_task(self._slots.idle()), protected_task(self._stop.wait_urgent())]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        await asyncio.wait(waits)
