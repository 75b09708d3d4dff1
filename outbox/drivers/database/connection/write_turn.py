"""The turn to write to a database of SQLite, for all that writes there on one event loop."""

from __future__ import annotations

import asyncio
from types import TracebackType


class WriteTurn:
    """A lock that is waited for at most ``seconds``.

    SQLite has one writer, and others sleep for longer and longer until it lets them in, even those of this process.
    Here they follow each other at once, in the order in which they came.
    """

    def __init__(self, seconds: float) -> None:
        self._lock = asyncio.Lock()
        self._seconds = seconds
        self._asked = 0
        """How many have the turn or wait for it."""

    async def __aenter__(self) -> None:
        """
        Raises:
            TimeoutError: others had the turn all the time.
        """
        self._asked += 1
        try:
            if self._asked == 1:
                # The lock is free, and a timer takes longer than the lock.
                await self._lock.acquire()
            else:
                async with asyncio.timeout(self._seconds):
                    await self._lock.acquire()
        except BaseException:
            self._asked -= 1
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._asked -= 1
        self._lock.release()
