"""The relay of a worker: it moves on what the process that dispatched it did not."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import suppress

from outbox import clock
from outbox.connections import open_for_relay, relayed_connections
from outbox.errors import BackendUnavailable, ConfigurationError
from outbox.events import Events
from outbox.relay.relay import Relay
from outbox.runtime.availability import Availability, ReconnectBackoff
from outbox.runtime.service import BackgroundLoop
from outbox.settings import DATABASE, Settings
from outbox.settlement import MoveRates

SAFETY_NET = 10.0
"""Seconds between two looks of an ordinary worker. The dispatching process moves its jobs at once; this is for those
that it left behind."""

_GAP = 0.02
"""Seconds in which the ends of several jobs are gathered."""

_SECONDS_PER_WORKER = 0.4
"""Seconds between two looks for every idle worker of the fleet."""


class RelayLoop(BackgroundLoop):
    """Looks for jobs on their way to one connection, and moves them. An idle look is one statement."""

    def __init__(self, settings: Settings, connection: str, events: Events, *, interval: float) -> None:
        super().__init__()
        self.source = open_for_relay(settings, DATABASE)
        self._target = open_for_relay(settings, connection)
        self.relay = Relay(self.source, self._target, connection)
        self.availability = Availability(f"relay to {connection}", events)
        self._interval = interval
        self.alone = False
        """Whether the worker has nothing else to do: then it ends when its settings are wrong. A worker of a database
        goes on; what is wrong is between its jobs and another store."""
        self.idle_workers: Callable[[], int] = lambda: 1
        """How many workers share the looking."""
        self.connection = connection
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken = asyncio.Event()
        self.queue = self.relay.queue
        self.policies = self.source.policies
        """The policies of the jobs that it moves."""
        self.schedules = self.source.schedules
        self.description = f"relay to {connection}, from {self.source.description}"

    async def run(self) -> None:
        self._loop = asyncio.get_running_loop()
        backoff = ReconnectBackoff()
        try:
            while not self.stopping:
                begun = clock.now()
                try:
                    due = await self._move_what_is_due()
                except BackendUnavailable as error:
                    self.availability.failed(begun, error)
                    await self.pause(backoff.next())
                except ConfigurationError as error:
                    if self.alone:
                        raise
                    self.availability.failed(begun, error)
                    await self.pause(self._until_next_look())
                else:
                    self.availability.succeeded(begun)
                    backoff.reset()
                    await self._wait(due)
        finally:
            await self.source.close()
            await self._target.close()

    def wake(self) -> None:
        """Relayed jobs have ended in this process. From any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._woken.set)

    def refused(self, refused: Sequence[MoveRates]) -> None:
        """A service has refused jobs of this process. From any thread."""
        self.relay.note_refused(refused)
        self.wake()

    def interrupt(self) -> None:
        self._woken.set()

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()
                # Many jobs may end at once.
                await self.pause(_GAP)
        if not self.stopping:
            self._woken.clear()

    async def check(self) -> None:
        """Reach both stores. One that does not answer is waited for.

        Raises:
            ConfigurationError: one of them is not what outbox needs.
        """
        begun = clock.now()
        try:
            await self.source.check()
            await self._target.check()
        except BackendUnavailable as error:
            self.availability.failed(begun, error)

    async def on_the_way(self) -> bool:
        """Whether there are jobs that the other store does not have yet. A database that does not answer may have some.

        Raises:
            ConfigurationError: the database is not what outbox needs, and cannot be asked.
        """
        begun = clock.now()
        try:
            return await self.relay.has_unrelayed()
        except BackendUnavailable as error:
            self.availability.failed(begun, error)
            return True

    async def _move_what_is_due(self) -> float:
        """Seconds until the next look."""
        await self.relay.move_rates()
        due = (await self.source.jobs.next_due([self.queue])).due
        while due == 0 and not self.stopping and await self.relay.move():
            pass
        await self.relay.remove_ended()
        if self.availability.down:
            # That there was nothing to move says nothing about the other store.
            await self._target.check()
        return min(due, self._until_next_look()) if due else self._until_next_look()

    def _until_next_look(self) -> float:
        # Not all workers of a fleet at the same moment.
        return max(self._interval, _SECONDS_PER_WORKER * self.idle_workers()) * random.uniform(0.7, 1.0)  # noqa: S311 - spreads load, guards nothing


def relay_loops(settings: Settings, events: Events, *, interval: float) -> list[RelayLoop]:
    """One for each connection that jobs are relayed to; none where no database is configured beside Redis.

    Raises:
        ConfigurationError: one of the connections is not what its settings say.
    """
    return [RelayLoop(settings, name, events, interval=interval) for name in relayed_connections(settings)]
