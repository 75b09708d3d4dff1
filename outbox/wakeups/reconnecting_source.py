"""What every source of wake-ups does around its connection: listen, and after an outage listen again."""

from __future__ import annotations

import asyncio
import logging
import random
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import suppress

from outbox.wakeups.base import Report, Unavailable, WakeupListener

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 30.0
_START_SECONDS = 5.0

_log = logging.getLogger("outbox.wakeups")


class Listening(ABC):
    """A `outbox.wakeups.base.Source` that is one task. Workers poll while it hears nothing."""

    name: str
    """What the banner says."""

    def __init__(self, bells: WakeupListener, report: Report) -> None:
        self._bells = bells
        self._report = report
        self.hears = False
        """Whether it is connected at this moment."""
        self._task: asyncio.Task[None] | None = None
        self._first: asyncio.Future[str] | None = None
        self._stopped = False
        self._pause = _FIRST_PAUSE

    @abstractmethod
    def listen(self) -> AsyncIterator[frozenset[str] | None]:
        """Connect, yield None once it hears, and then the queues that got jobs; an empty set where that is not known.
        Everything is given back when it ends, by an exception, or by being closed.

        Raises:
            Unavailable: it cannot be had, and would not if tried again.
            Exception: it could not be had this time, or is over.
        """

    async def start(self) -> str:
        """Returns after a few seconds, too, if it could not be had this time: it goes on trying.

        Raises:
            Unavailable: it cannot be had.
        """
        if self._task is None and not self._stopped:
            self._first = asyncio.get_running_loop().create_future()
            self._task = asyncio.create_task(self._run(self._first), name=type(self).__name__)
        if self._first is None:
            return self.name
        with suppress(TimeoutError):
            async with asyncio.timeout(_START_SECONDS):
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
                    await self._hear(first)
                except Unavailable as error:
                    if not first.done():
                        first.set_exception(error)
                        return
                    self._pause = _LONGEST_PAUSE
                    self._lost(first, error)
                except Exception as error:  # noqa: BLE001 - a mechanism that fails costs latency, nothing else
                    self._lost(first, error)
                await asyncio.sleep(self._pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load
                self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        finally:
            first.cancel()

    async def _hear(self, first: asyncio.Future[str]) -> None:
        async for queues in self.listen():
            if queues:
                self._bells.notify(queues)
                continue
            # Nobody knows which queues; or nobody listened until now.
            self._bells.notify_all()
            if not self.hears:
                self.hears, self._pause = True, _FIRST_PAUSE
                if first.done():
                    self._report(None)
                else:
                    first.set_result(self.name)

    def _lost(self, first: asyncio.Future[str], error: Exception) -> None:
        """Told once, however long it lasts."""
        _log.debug("%s ended", self.name, exc_info=error)
        if not first.done():
            first.set_result(f"{self.name}, which does not answer yet ({_line(error)})")
        elif self.hears:
            self._report(_line(error))
        self.hears = False


def _line(error: BaseException) -> str:
    text = " ".join(str(part) for part in error.args) or type(error).__name__
    return " ".join(text.split())
