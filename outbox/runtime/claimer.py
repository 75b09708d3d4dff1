"""Claims jobs whenever there is room to run them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from outbox import clock
from outbox.errors import BackendUnavailable
from outbox.runtime.availability import CLAIM, IS_EMPTY, LOOK, Availability, ReconnectBackoff
from outbox.runtime.completer import Completer
from outbox.runtime.execution.attempt import Attempt
from outbox.runtime.idle_poller import IdlePoller
from outbox.runtime.process.pause_request import PauseRequest
from outbox.runtime.service import BackgroundLoop
from outbox.runtime.slots import Slots
from outbox.runtime.store_client import StoreClient
from outbox.settings import WorkerOptions

_BATCH_WINDOW = 0.02
"""Seconds for which a free slot waits for others while there is a backlog. Invisible beside the jobs that keep the
other slots, and it turns a claim per job into a few dozen per second."""

_LINGER_AT_MOST = 0.05
"""Seconds for which a quarter of the slots waits for the others, and never longer than half of what a claim takes.
Short jobs are then claimed in batches as large as there are slots, which matters the more the further away the store
is."""


class Claimer(BackgroundLoop):
    """Takes as many jobs as there are free slots.

    A claim that came back full says that there is more. The next one follows when a quarter of the slots is free and
    the others were waited for a moment. Where fewer are free, it follows a short while after the first. A claim that
    came back with less says that the store has been emptied: the next one follows a wake-up, or a poll that found
    something due.

    `IdlePoller` polls in the thread of the stores. When it is woken and nothing runs, it claims there, so that the jobs
    need one change of threads to start, not two.
    """

    def __init__(
        self,
        options: WorkerOptions,
        store: StoreClient,
        *,
        slots: Slots,
        consumers: int,
        completer: Completer,
        availability: Availability,
        begin: Callable[[Sequence[Attempt]], None],
        hand_back: Callable[[Sequence[Attempt]], None],
        on_empty: Callable[[], Awaitable[None]],
        pause: PauseRequest | None = None,
    ) -> None:
        super().__init__()
        self._store = store
        self._slots = slots
        self._consumers = consumers
        self._completer = completer
        self._availability = availability
        self._begin = begin
        self._hand_back = hand_back
        self._on_empty = on_empty
        self._pause = pause or PauseRequest()
        self._interrupted = asyncio.Event()
        self._backoff = ReconnectBackoff()
        self._backlog = False
        self._took = 0.0
        self.idle_poller = IdlePoller(
            options,
            store,
            availability,
            stopping=lambda: self.stopping or self._pause.active,
            idle=lambda: slots.running == 0 and completer.backlog == 0,
        )

    @property
    def idle_workers(self) -> int:
        """How many workers with room for more drain these queues, as far as is known."""
        return self.idle_poller.idle_workers

    async def run(self) -> None:
        await self._try(self._store.check)
        while not self.stopping:
            if not await self._may_claim():
                continue
            batch = max(1, (self._slots.size - self._slots.stuck) // 4) if self._backlog else 1
            linger = min(_LINGER_AT_MOST, self._took / 2) if self._backlog else 0.0
            reserved = await self._slots.reserve(
                batch=batch, window=_BATCH_WINDOW, linger=linger, share=self._consumers
            )
            if reserved and (self._pause.active or not self._completer.is_caught_up):
                self._slots.use(reserved, 0)
            elif reserved:
                await self._claim(reserved)

    async def _claim(self, reserved: int) -> None:
        """Claim for the ``reserved`` slots. Where that empties the store, go on with what the idle poller finds."""
        self.idle_poller.end()
        begun = clock.now()
        found = await self._fill(reserved, self._store.claim, reserved, self._backlog)
        self._took = clock.now() - begun
        while found is not None and not self._backlog and not self.stopping and not self._pause.active:
            if found:
                # Their first steps go first: to wake another thread takes longer.
                await asyncio.sleep(0)
            # Other consumers might need the slots meanwhile.
            free = self._slots.grab() if self._consumers == 1 else 0
            found = await self._fill(free, self.idle_poller.take, bool(found), free)

    def interrupt(self) -> None:
        self._interrupted.set()
        self._completer.release_claims()
        self._slots.kick()
        self._store.wakeups.wake()

    async def _fill(self, reserved: int, take: Callable[..., Awaitable[Any]], *arguments: Any) -> int | None:
        """Begin what ``take`` has claimed for the ``reserved`` slots. Returns how many; None when it did not claim."""
        used = 0
        attempts: list[Attempt] | None = None
        reached = True
        begun = clock.now()
        try:
            attempts = await self._store.run(take, *arguments)
            used = 0 if self.stopping else len(attempts or ())
        except BackendUnavailable as error:
            self._availability.failed(begun, error, CLAIM)
            reached = False
        finally:
            # Before any pause: the slots belong to the other consumers as well.
            self._slots.use(reserved, used)
        if not reached:
            await self.pause(self._backoff.next())
        if attempts is None:
            return None
        self._backoff.reset()
        self._availability.succeeded(begun, CLAIM)
        if self.stopping:
            self._hand_back(attempts)
            return None
        self._begin(attempts)
        self._backlog = len(attempts) == reserved
        if not attempts:
            # Most workers ask nothing then, which is no look that was carried out.
            await self._try(self._on_empty, IS_EMPTY)
        return len(attempts)

    async def _may_claim(self) -> bool:
        """False after a wait in which that may have changed."""
        if self._pause.active:
            self._availability.unneeded(CLAIM)
            await self._interrupted.wait()
            self._interrupted.clear()
            return False
        if not self._completer.is_caught_up:
            await self._completer.caught_up()
            return False
        if self._consumers > 1 and self._availability.down:
            # A claim that hangs would keep its slots from the other consumers for as long.
            await self._try(self._probe)
        if not self._slots.free:
            self._availability.unneeded(CLAIM)
        return not self.stopping

    async def _probe(self) -> None:
        await self._store.run(self._store.next_due, False)

    async def _try(self, call: Callable[[], Awaitable[None]], request: str = LOOK) -> None:
        """Until the store answers, or the worker stops."""
        while not self.stopping:
            begun = clock.now()
            try:
                await call()
            except BackendUnavailable as error:
                self._availability.failed(begun, error, request)
                await self.pause(self._backoff.next())
            else:
                self._availability.succeeded(begun, request)
                return
