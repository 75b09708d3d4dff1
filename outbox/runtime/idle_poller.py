"""The time between a claim that emptied the store and the next one that is worth its while."""

from __future__ import annotations

import random
from collections.abc import Callable

from outbox import clock
from outbox.errors import BackendUnavailable
from outbox.runtime.availability import LOOK, Availability
from outbox.runtime.execution.attempt import Attempt
from outbox.runtime.store_client import StoreClient
from outbox.runtime.wakeup_backoff import WakeupBackoff
from outbox.settings import WorkerOptions
from outbox.wakeups.base import Wake

_LULL = 0.01
"""Seconds after a claim that found something, in which a wake-up leads to the next claim without a look between."""

_SHORTEST, _STEPS = 0.005, 20
"""The first pause while something is due that cannot be claimed, and how often the next one is four times as long."""

_DOUBT = 0.02
"""Seconds after which a worker that was woken for nothing looks once more: a binary log tells of a commit a moment
before its rows can be seen."""

_SECONDS_PER_WORKER = 0.2
"""Seconds of sleep for every idle worker of the fleet: together they look five times a second, however many."""

_SPREAD = (1.2, 1.4)
"""Pauses are longer than ``--sleep`` by a random part, so that workers started together do not look together. One
worker's looks and heartbeats together stay below one statement per second. Upkeep, once a minute for the whole fleet,
comes on top."""

_HERD_SPREAD, _HERD_SPREAD_AT_MOST = 0.001, 0.05
"""The same for the moment at which a job becomes due, for every idle worker that sleeps until then."""

_HERD_STEP = 0.04
"""Seconds for which a worker hesitates at most, for every other idle one: however many there are and however often all
of them are woken, those who find nothing look fifty times a second together."""


class IdlePoller:
    """One statement per pause: a look tells whether something is due, when the next job is, and how many workers share
    the looking.

    All of it happens in the thread of the stores, where wake-ups arrive. ``stopping`` and ``idle``, whether nothing
    runs in this worker, are asked from there.
    """

    def __init__(
        self,
        options: WorkerOptions,
        store: StoreClient,
        availability: Availability,
        *,
        stopping: Callable[[], bool],
        idle: Callable[[], bool],
    ) -> None:
        self.idle_workers = 1
        """How many workers with room for more drain these queues, as far as is known."""
        self._sleep = options.sleep
        # They must claim to find out that there is nothing to claim.
        self._restless = options.once or options.stop_when_empty
        self._store = store
        self._wakeups = store.wakeups
        self._availability = availability
        self._stopping = stopping
        self._idle = idle
        self.backoff = WakeupBackoff()
        self._has_room = False
        self._fruitless = 0
        self._expecting = False
        self._known: float | None = None

    def end(self) -> None:
        """A claim is about to begin."""
        self._expecting |= bool(self._wakeups.clear())

    async def take(self, found: bool, limit: int) -> list[Attempt] | None:
        """Return when a claim is worth its while, or the worker stops. ``found`` is whether the last one was.

        A worker in which nothing runs claims up to ``limit`` jobs at once and returns them. In one whose handlers might
        keep the event loop from starting more, that is for the event loop to do.

        Raises:
            BackendUnavailable: the claim did not reach the store.
        """
        self._has_room = limit > 0
        await self._wait_until_worthwhile(found)
        if limit == 0 or self._stopping() or not self._idle():
            return await self._store.cancel_blocking_claim() or None
        self.end()
        attempts = await self._store.claim(limit)
        if self._expecting and not attempts and self.idle_workers == 1:
            # A binary log tells of a commit a moment before others can see its rows. Where there are others, it is
            # more likely that one of them was quicker, and a look is cheaper.
            attempts = await self._store.claim(limit)
        return attempts

    async def _wait_until_worthwhile(self, found: bool) -> None:
        if found:
            self._fruitless, self._expecting = 0, False
            self.backoff.succeeded()
            if await self._wakeups.wait(_LULL) >= Wake.JOBS:
                self._expecting = True
                return
        else:
            self._fruitless += 1
        doubtful = self._expecting
        while not self._stopping():
            pause = await self._next_pause(doubtful)
            # A stop of the worker meanwhile has already woken this poller, or will.
            if pause <= 0 or self._stopping():
                return
            woken = await self._wakeups.wait(min(pause, _DOUBT) if doubtful else pause)
            doubtful = False
            if self._restless or self._fruitless or (woken and not await self._hesitate(woken)):
                return

    async def _next_pause(self, doubtful: bool) -> float:
        """Look, and say how long to sleep; 0 for not at all."""
        expecting, self._expecting = bool(self._wakeups.clear()) or self._expecting, False
        begun = clock.now()
        try:
            next_due = await self._store.next_due(self._has_room and not self._restless and self._idle())
        except BackendUnavailable as error:
            self._availability.failed(begun, error, LOOK)
            self._fruitless = 1  # The next claim finds out when it is back.
            return self._sleep
        self._availability.succeeded(begun, LOOK)
        self.idle_workers = max(1, next_due.idle)
        news = self._news(next_due.due)
        if next_due.due is not None and next_due.due <= 0:
            # What is due and cannot be claimed: another worker is claiming it right now, or a worker that died holds it
            # in place.
            in_other_hands = self._fruitless and not doubtful
            steps = min(self._fruitless - 1, _STEPS)
            return min(self._longest_pause, _SHORTEST * 4**steps) if in_other_hands else 0.0
        self._fruitless = 0
        if expecting and not news:
            self.backoff.failed()
        return self._until(next_due.due)

    def _news(self, due: float | None) -> bool:
        """Whether a job is due earlier than was known: then this is what the wake-up was about."""
        known, self._known = self._known, None if due is None else clock.now() + due
        return self._known is not None and (known is None or self._known < known - _SHORTEST)

    @property
    def _longest_pause(self) -> float:
        return max(self._sleep, _SECONDS_PER_WORKER * self.idle_workers)

    def _until(self, due: float | None) -> float:
        pause = self._longest_pause * random.uniform(*_SPREAD)  # noqa: S311 - spreads load
        if due is None:
            return pause
        herd = min(_HERD_SPREAD_AT_MOST, _HERD_SPREAD * (self.idle_workers - 1))
        return min(pause, max(due, _SHORTEST) + random.uniform(0.0, herd))  # noqa: S311 - spreads load

    async def _hesitate(self, woken: Wake) -> bool:
        """Whether to look first: something may have changed, or others may be quicker."""
        self._expecting = True
        if woken is Wake.TAKEN:
            return False
        alone = self.idle_workers == 1
        others = self.idle_workers - 1 if alone or woken is Wake.JOBS else self.idle_workers
        delay = self.backoff.delay(_HERD_STEP * others)
        if delay:
            await self._sit_out(delay)
        return bool(delay) or woken is Wake.MAYBE

    async def _sit_out(self, seconds: float) -> None:
        """Whatever wakes this worker meanwhile."""
        end = clock.now() + seconds
        while not self._stopping() and (left := end - clock.now()) > 0:
            if await self._wakeups.wait(left) is Wake.TAKEN:
                return
