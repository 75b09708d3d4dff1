"""Waiting for a timeout or for a call of ``wake``."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress

from outbox.wakeups.base import Wake


class Polling:
    """The default `outbox.wakeups.base.Wakeups`."""

    def __init__(self) -> None:
        self._wake = Wake.NOTHING
        self._waiter: asyncio.Future[None] | None = None
        self._thread: int | None = None

    async def wait(self, seconds: float) -> Wake:
        loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        # The waiter is set before the wake is read. `wake` does both in the opposite order, so that none is lost.
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
        # The loop is closed.
        with suppress(RuntimeError):
            waiter.get_loop().call_soon_threadsafe(_resolve, waiter)

    def clear(self) -> Wake:
        wake, self._wake = self._wake, Wake.NOTHING
        return wake

    def close(self) -> None:
        """There is nothing to release."""


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
