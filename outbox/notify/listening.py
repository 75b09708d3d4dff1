"""What every source of wake-ups does around its connection: listen, and after an outage listen again."""

from __future__ import annotations

import asyncio
import logging
import random
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import suppress

from outbox.notify.base import Report, Unavailable
from outbox.notify.switchboard import Switchboard

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 30.0
_START_SECONDS = 5.0

_log = logging.getLogger("outbox.notify")


class Listening(ABC):
    """A `outbox.notify.base.Source` that is one task. Workers poll while it does not hear, as they would without it."""

    name: str
    """What the banner says."""

    def __init__(self, switchboard: Switchboard, report: Report) -> None:
        self._switchboard = switchboard
        self._report = report
        self._task: asyncio.Task[None] | None = None
        self._stopped = False

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
        if self._stopped or self._task is not None:
            return self.name
        first: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(first), name=type(self).__name__)
        return await first

    async def stop(self) -> None:
        self._stopped = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self, first: asyncio.Future[str]) -> None:
        loop = asyncio.get_running_loop()
        late = loop.call_later(_START_SECONDS, _settle, first, f"{self.name}, which does not answer yet")
        pause = _FIRST_PAUSE
        hears = True
        try:
            while True:
                try:
                    async for queues in self.listen():
                        if queues is not None:
                            self._ring(queues)
                            continue
                        # Whatever was committed while nobody listened.
                        self._switchboard.ring_all()
                        pause = _FIRST_PAUSE
                        if not hears:
                            self._report(None)
                        hears = True
                        _settle(first, self.name)
                except Unavailable as error:
                    if not first.done():
                        first.set_exception(error)
                        return
                    hears = self._lost(hears, error)
                    pause = _LONGEST_PAUSE
                except Exception as error:  # noqa: BLE001 - a mechanism that fails costs latency, nothing else
                    _settle(first, f"{self.name}, which does not answer yet ({_line(error)})")
                    hears = self._lost(hears, error)
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load, guards nothing
                pause = min(2 * pause, _LONGEST_PAUSE)
        finally:
            late.cancel()
            _settle(first, self.name)

    def _ring(self, queues: frozenset[str]) -> None:
        if queues:
            self._switchboard.ring(queues)
        else:
            self._switchboard.ring_all()

    def _lost(self, heard: bool, error: Exception) -> bool:
        if heard:
            _log.debug("%s ended", self.name, exc_info=error)
            self._report(_line(error))
        return False


def _settle(first: asyncio.Future[str], text: str) -> None:
    with suppress(asyncio.InvalidStateError):
        first.set_result(text)


def _line(error: BaseException) -> str:
    text = " ".join(str(part) for part in error.args) or type(error).__name__
    return " ".join(text.split())
