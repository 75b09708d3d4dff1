"""Whether a worker process lives, and whether it can claim jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from outbox import clock
from outbox.runtime.service import BackgroundLoop

STALE_AFTER = 10.0
"""Seconds without a turn of the event loop, or of the thread of the stores, after which a worker is not alive."""

_TICK = 1.0

Problems = Sequence[str]
"""What is wrong, one sentence each. Nothing: all is well."""


class WorkerHealth:
    """Asked from any thread.

    Before the worker has begun, it is alive and not ready.
    """

    def __init__(self, stale_after: float = STALE_AFTER) -> None:
        self._stale_after = stale_after
        self._unready: Callable[[], Problems] = lambda: ("the worker is starting",)
        self._ticks: Ticks | None = None

    def watch(self, loop: asyncio.AbstractEventLoop, unready: Callable[[], Problems]) -> Ticks:
        """Returns a service for the thread of the stores, which shows that this thread and ``loop`` go on. ``unready``
        says why the worker cannot claim; any thread may call it."""
        self._unready = unready
        self._ticks = Ticks(loop, min(_TICK, self._stale_after / 4))
        return self._ticks

    def not_live(self) -> Problems:
        """Why the process should be replaced."""
        ticks = self._ticks
        if ticks is None:
            return ()
        now = clock.now()
        last = (("event loop", ticks.loop_ran_at), ("thread of the stores", ticks.stores_ran_at))
        return [f"the {what} has not run for {now - at:.0f} s" for what, at in last if now - at > self._stale_after]

    def not_ready(self) -> Problems:
        """Why it cannot claim jobs."""
        return self._unready()


class Ticks(BackgroundLoop):
    """Runs in the thread of the stores, and asks the event loop of the worker for an answer."""

    def __init__(self, loop: asyncio.AbstractEventLoop, interval: float) -> None:
        super().__init__()
        self._loop = loop
        self._interval = interval
        self._asked_loop = False
        self.loop_ran_at = self.stores_ran_at = clock.now()
        """On `outbox.clock`."""

    async def run(self) -> None:
        while not self.stopping:
            self.stores_ran_at = clock.now()
            if not self._asked_loop:
                self._asked_loop = True
                # A loop that is closed has stopped.
                with suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(self._answer)
            await self.pause(self._interval)

    def _answer(self) -> None:
        self._asked_loop = False
        self.loop_ran_at = clock.now()
