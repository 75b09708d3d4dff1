"""Workers in the test's own event loop, which look every ten minutes: what runs sooner was woken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import text

from outbox import Job
from outbox.connections import open_driver
from outbox.drivers.database import DatabaseDriver
from outbox.envelope import serialize
from outbox.events import Event, Events, WorkerStarted
from outbox.options import JobOptions
from outbox.runtime.process.exit_codes import Reason
from outbox.runtime.worker import Worker
from outbox.settings import Settings, WorkerOptions
from outbox.wakeups import reconnecting_source
from outbox.wakeups.base import Wake, Wakeups
from outbox.wakeups.selector import WakeupSelector
from tests.servers import databases, sql

TIMEOUT = 60.0
RARELY, OFTEN = 600.0, 0.3
"""Seconds between looks: longer than any test waits, and short enough to see that polling finds jobs, too."""

_SHORT_PAUSE = 0.25
"""Seconds. The pauses of a claimer that has just been at work are shorter."""


class Ping(Job):
    """Comes back to the test that waits for it, and can dispatch another."""

    number: int = 0

    async def handle(self) -> None:
        heard = _hearers.get(self.number)
        if heard is not None:
            heard.set_result(self.context.queue)


_hearers: dict[int, asyncio.Future[str]] = {}


class Arrival:
    """A job on its way."""

    def __init__(self) -> None:
        self.number = len(_hearers) + 1
        self.job = Ping(number=self.number)
        self._heard: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        _hearers[self.number] = self._heard

    async def __call__(self) -> str:
        """Wait for it; returns its queue."""
        async with asyncio.timeout(TIMEOUT):
            return await asyncio.shield(self._heard)

    @property
    def done(self) -> bool:
        return self._heard.done()


class Sleep:
    """For how long a claimer sleeps, or 0 while it is awake, and how often it has fallen asleep."""

    def __init__(self, wakeups: Wakeups) -> None:
        self.seconds = 0.0
        self.count = 0
        self._wait = wakeups.wait
        wakeups.wait = self._note  # type: ignore[method-assign]

    async def _note(self, seconds: float) -> Wake:
        self.count += 1
        self.seconds = seconds
        try:
            return await self._wait(seconds)
        finally:
            self.seconds = 0.0


class Embedded:
    def __init__(self, worker: Worker, events: Events, sleep: float = RARELY) -> None:
        self.worker = worker
        self._short_pause = min(sleep, _SHORT_PAUSE)
        self._sleeps = [Sleep(consumer.wakeups) for consumer in worker.consumers]
        self.events: list[Event] = []
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        events.listen(self._hear)

    def _hear(self, event: Event) -> None:
        self.events.append(event)
        self._loop.call_soon_threadsafe(self._changed.set)

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    async def event(self, kind: type[Event], count: int = 1) -> Any:
        async with asyncio.timeout(TIMEOUT):
            while len(self.of(kind)) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.of(kind)[count - 1]

    @property
    def woken_by(self) -> str:
        [wakeups] = self.of(WorkerStarted)[0].wakeups
        return str(wakeups)

    async def idle(self) -> None:
        """Until each of its claimers sleeps for longer than a moment: the short pauses after a claim are over."""
        async with asyncio.timeout(TIMEOUT):
            before: list[int] = []
            while not before or before != self._long_sleeps():
                before = self._long_sleeps()
                await asyncio.sleep(0.06)

    def _long_sleeps(self) -> list[int]:
        """Which sleep of each claimer this is, or nothing while one of them is awake or pauses. How long a sleep is
        to last tells it from a pause: how long it has lasted does not, on a machine that stood still meanwhile."""
        long = all(sleep.seconds >= self._short_pause for sleep in self._sleeps)
        return [sleep.count for sleep in self._sleeps] if long else []


@asynccontextmanager
async def working(
    database_url: str,
    *,
    wake: str = "auto",
    sleep: float = RARELY,
    redis_url: str | None = None,
    connection: str = "database",
    **options: Any,
) -> AsyncIterator[Embedded]:
    settings = Settings(DATABASE_URL=database_url, REDIS_URL=redis_url)  # type: ignore[call-arg]
    chosen = WorkerOptions(sleep=sleep, wake=wake, **options)  # type: ignore[arg-type]
    events = Events()
    selector = WakeupSelector(settings, wake, events)
    worker = Worker(chosen, [open_driver(settings, connection)], events, name="embedded", wakeup_selector=selector)
    embedded = Embedded(worker, events, sleep)
    patch = pytest.MonkeyPatch()
    # A source that answers late is no other source: its name would say that it has not answered yet.
    patch.setattr(reconnecting_source, "START_SECONDS", TIMEOUT)
    task = asyncio.create_task(worker.run())
    try:
        started = asyncio.create_task(embedded.event(WorkerStarted))
        await asyncio.wait([task, started], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            started.cancel()
            await task
        await embedded.idle()
        yield embedded
    finally:
        patch.undo()
        worker.stop.request(Reason.SIGNAL)
        await asyncio.wait([task])


async def put(url: str, job: Job, **options: Any) -> None:
    """As another process dispatches it, whose commit nobody here hears of by itself."""
    driver = DatabaseDriver(url)
    await driver.jobs.insert([serialize(job, JobOptions.checked(**options))])
    await driver.close()


def dumps(url: str) -> list[int]:
    """The ids of the streams of the server's binary log."""
    with sql.connection(url) as connection:
        return list(connection.scalars(text(databases.connections_of(connection, "command")), {"name": "Binlog Dump"}))


def kill(url: str, ids: list[int]) -> None:
    with sql.connection(url) as connection:
        databases.kill(connection, ids)
