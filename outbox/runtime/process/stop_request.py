"""The request that a worker stop."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from outbox import clock
from outbox.runtime.process.exit_codes import Reason


class StopRequest:
    """Kept by the worker, and made from anywhere: a signal handler, another thread, a limit that was reached.

    The first reason counts, except that an urgent one goes before one of the worker's own choice: TERM during the last
    jobs of ``--max-jobs`` starts the time of grace.
    """

    def __init__(self) -> None:
        self.reason: Reason | None = None
        self.error: BaseException | None = None
        self.urgent_since: float | None = None
        """When the time of grace began, on `outbox.clock`."""
        self._asked = asyncio.Event()
        self._urgent = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def request(self, reason: Reason, error: BaseException | None = None) -> None:
        """Thread-safe; takes effect on what other threads see even while the event loop is blocked."""
        if self.reason is None or (reason.urgent and not self.reason.urgent):
            self.reason, self.error = reason, error
        if reason.urgent and self.urgent_since is None:
            self.urgent_since = clock.now()
        if self._loop is not None:
            # A loop that is closed has stopped already.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._publish)

    async def wait(self) -> None:
        """Return once anything asked to stop."""
        self._listen()
        await self._asked.wait()

    async def wait_urgent(self) -> None:
        """Return once something asked to stop that grants running jobs no more than the time of grace."""
        self._listen()
        await self._urgent.wait()

    def _listen(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._publish()

    def _publish(self) -> None:
        if self.reason is not None:
            self._asked.set()
        if self.urgent_since is not None:
            self._urgent.set()
