"""The one contract of everything that runs in the background of a worker."""

from __future__ import annotations

import asyncio
import logging
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

from outbox import clock
from outbox.runtime.execution.protected_task import protected_task

_BRIEFEST = 1e-6
"""Seconds. Sums of times differ by less; it is not worth a pause."""

_EARLIEST = 0.7
"""The share of its interval that a pause in turn takes at least."""

_UNTIL_READY = 0.2
"""Seconds between two looks whether a loop may begin."""

_log = logging.getLogger("outbox.runtime")


class Cancelled(Exception):
    """A handler cancelled what runs in the background: it cancels every task that it finds. The worker itself never
    does."""

    def __init__(self) -> None:
        super().__init__("a handler has cancelled tasks that are not its own")


class Service(Protocol):
    """Both calls are safe in any state: stopped before it was started, stopped twice, started twice. What has been
    stopped stays stopped."""

    async def start(self) -> None:
        """Return once the service is under way."""

    async def stop(self) -> None:
        """Return once it has ended."""


class Together:
    """Several services that stop at the same time, so that one whose store hangs does not keep the others going."""

    def __init__(self, services: Sequence[Service]) -> None:
        self._services = services

    async def start(self) -> None:
        for service in self._services:
            await service.start()

    async def stop(self) -> None:
        await asyncio.gather(*(service.stop() for service in self._services))


class BackgroundLoop(ABC):
    """A service that is one task.

    The task is asked to end and never cancelled: it may be in the middle of a database call, and a cancelled call
    leaves behind a connection in an unknown state.
    """

    on_crash: Callable[[BaseException], None] | None = None
    """Called when the loop ends with an exception, which is always a defect or a store that changed under it."""

    def __init__(self) -> None:
        self._asked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._has_had_turn = False

    @abstractmethod
    async def run(self) -> None:
        """Work until ``stopping``."""

    @property
    def stopping(self) -> bool:
        return self._asked.is_set()

    async def start(self) -> None:
        if self._task is None and not self.stopping:
            self._task = protected_task(self.run(), name=type(self).__name__)
            self._task.add_done_callback(self._ended)

    async def stop(self) -> None:
        self._asked.set()
        self.interrupt()
        if self._task is not None:
            await asyncio.wait([self._task])

    def interrupt(self) -> None:  # noqa: B027 - most loops wait for nothing but ``pause``
        """End waits other than ``pause``, so that the loop notices at once that it should stop."""

    async def pause(self, seconds: float) -> bool:
        """Sleep, at most until asked to stop. Returns whether it was."""
        if not self.stopping and seconds > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._asked.wait()
        return self.stopping

    async def pause_until(self, ready: Callable[[], bool]) -> bool:
        """Sleep until ``ready`` says yes, at most until asked to stop. Returns whether it was."""
        while not ready():
            if await self.pause(_UNTIL_READY):
                return True
        return False

    async def pause_in_turn(self, interval: float, workers: Callable[[], int], *, at_most: float | None = None) -> bool:
        """Sleep for about ``interval`` seconds for each of ``workers``, which share what comes after it: not all of
        them at the same moment, and counting those that appear meanwhile. Returns as `pause` does.

        The first turn is at any moment of that time. So workers that start together, as in a deploy, take turns from
        then on. Those that end before the whole time has passed have their share of turns as well.
        """
        begun, place = clock.now(), random.random()  # noqa: S311 - spreads load, guards nothing
        first = not self._has_had_turn
        self._has_had_turn = True
        while True:
            count = max(1, workers())
            earliest = _EARLIEST if first else _EARLIEST * count
            whole = interval * (earliest + place * (count - earliest))
            left = begun + (whole if at_most is None else min(whole, at_most)) - clock.now()
            if left < _BRIEFEST:
                return self.stopping
            if await self.pause(left):
                return True

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = (None if self.stopping else Cancelled()) if task.cancelled() else task.exception()
        if error is None:
            return
        if self.on_crash is not None:
            self.on_crash(error)
        else:
            _log.error("%s failed", type(self).__name__, exc_info=error)
