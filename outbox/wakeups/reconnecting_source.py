"""The base of sources that keep a connection open and reconnect after an outage."""

from __future__ import annotations

import asyncio
import logging
import random
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import suppress

from outbox.wakeups.base import Report, Unavailable, WakeupListener

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 30.0
"""Seconds until a source is connected again, after a first failure and at most."""
START_SECONDS = 5.0
"""For which the start of a worker waits until the source is connected."""

_log = logging.getLogger("outbox.wakeups")


class ReconnectingSource(ABC):
    """A `outbox.wakeups.base.WakeupSource` that runs as one task. Workers poll while it is disconnected."""

    name: str
    """The name in the log."""

    def __init__(self, listener: WakeupListener, report: Report) -> None:
        self._listener = listener
        self._report = report
        self.connected = False
        self._task: asyncio.Task[None] | None = None
        self._first: asyncio.Future[str] | None = None
        self._stopped = False
        self._pause = FIRST_PAUSE

    @abstractmethod
    def listen(self) -> AsyncIterator[frozenset[str] | None]:
        """Connect, yield None, and then the queues of each commit; an empty set stands for every queue.

        The generator releases the connection when it ends or is closed.

        Raises:
            Unavailable: this source cannot work here, and a retry would not help.
            Exception: the connection failed or was lost. It is tried again.
        """

    async def start(self) -> str:
        """Returns when the source is connected, or after 5 seconds; then it goes on trying.

        Raises:
            Unavailable: this source cannot work here.
        """
        if self._task is None and not self._stopped:
            self._first = asyncio.get_running_loop().create_future()
            self._task = asyncio.create_task(self._run(self._first), name=type(self).__name__)
        if self._first is None:
            return self.name
        with suppress(TimeoutError):
            async with asyncio.timeout(START_SECONDS):
                return await asyncio.shield(self._first)
        return f"{self.name}, which does not answer yet"

    async def stop(self) -> None:
        self._stopped = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self, first: asyncio.Future[str]) -> None:
        try:
            while True:
                try:
                    await self._receive(first)
                except Unavailable as error:
                    if not first.done():
                        first.set_exception(error)
                        return
                    self._pause = LONGEST_PAUSE
                    self._lost(first, error)
                except Exception as error:  # noqa: BLE001 - a failed source costs latency, nothing else
                    self._lost(first, error)
                await asyncio.sleep(self._pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load
                self._pause = min(2 * self._pause, LONGEST_PAUSE)
        finally:
            first.cancel()

    async def _receive(self, first: asyncio.Future[str]) -> None:
        async for queues in self.listen():
            if queues:
                self._listener.notify(queues)
                continue
            # The queues are unknown, or commits before the connection may have been missed.
            self._listener.notify_all()
            if not self.connected:
                self.connected, self._pause = True, FIRST_PAUSE
                if first.done():
                    self._report(None)
                else:
                    first.set_result(self.name)

    def _lost(self, first: asyncio.Future[str], error: Exception) -> None:
        """An outage is reported once."""
        _log.debug("%s ended", self.name, exc_info=error)
        if not first.done():
            first.set_result(f"{self.name}, which does not answer yet ({_line(error)})")
        elif self.connected:
            self._report(_line(error))
        self.connected = False


def _line(error: BaseException) -> str:
    text = " ".join(str(part) for part in error.args) or type(error).__name__
    return " ".join(text.split())
