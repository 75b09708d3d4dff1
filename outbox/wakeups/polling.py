"""What an idle connection waits on: a clock, and calls of ``wake``."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress

from outbox.wakeups.base import Wake


class Polling:
    """`outbox.wakeups.base.Wakeups`. Without anything that calls ``wake`` it sleeps, and then one looks."""

    def __init__(self) -> None:
        self._wake = Wake.NOTHING
        self._waiter: asyncio.Future[None] | None = None
        self._thread: int | None = None

    async def wait(self, seconds: float) -> Wake:
        loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        # In this order: one who wakes sets the wake first and then looks for a waiter, so that one of both sees it.
        waiter = self._waiter = loop.create_future()
        if self._wake is Wake.NOTHING:
            timer = loop.call_later(seconds, _resolve, waiter)
            try:
                await waiter
            finally:
                timer.cancel()
        self._waiter = None
        return Polling.clear(self)

    def wake(self, wake: Wake = Wake.JOBS) -> None:
        if wake <= self._wake:
            return
        self._wake = wake
        waiter = self._waiter
        if waiter is None:
            return
        if threading.get_ident() == self._thread:
            _resolve(waiter)
            return
        # A loop that is closed has nobody left to wake.
        with suppress(RuntimeError):
            waiter.get_loop().call_soon_threadsafe(_resolve, waiter)

    def clear(self) -> Wake:
        wake, self._wake = self._wake, Wake.NOTHING
        return wake

    def close(self) -> None:
        """It holds nothing."""


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
