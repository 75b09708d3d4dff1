"""Workers in the test's own event loop, which look every ten minutes: what runs sooner was woken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from outbox import Job
from outbox.connections import open_driver
from outbox.drivers.database import DatabaseDriver
from outbox.envelope import serialize
from outbox.events import Event, Events, WorkerStarted
from outbox.options import JobOptions
from outbox.runtime.process.exit_codes import Reason
from outbox.runtime.worker import Worker
from outbox.settings import Settings, WorkerOptions
from outbox.wakeups.selector import WakeupSelector
from tests.servers import sql
from tests.servers.databases import UNKNOWN_THREAD, connections_of

TIMEOUT = 60.0
RARELY, OFTEN = 600.0, 0.3
"""Seconds between looks: longer than any test waits, and short enough to see that polling finds jobs, too."""


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


class Embedded:
    def __init__(self, worker: Worker, events: Events) -> None:
        self.worker = worker
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
        """Until each of its claimers sleeps for longer than a moment: the short naps after a claim are over."""
        async with asyncio.timeout(TIMEOUT):
            before: list[object] = []
            while not before or before != self._waiters():
                before = self._waiters()
                await asyncio.sleep(0.06)

    def _waiters(self) -> list[object]:
        """What claimers sleep on, or nothing while one of them does not."""
        found = [getattr(consumer.wakeups, "_waiter", None) for consumer in self.worker.consumers]
        return found if all(found) else []


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
    embedded = Embedded(worker, events)
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
        return list(connection.scalars(text(connections_of(connection, "command")), {"name": "Binlog Dump"}))


def kill(url: str, ids: list[int]) -> None:
    """A server keeps the stream of a worker that has ended for some seconds: it may be gone before it is killed."""
    with sql.connection(url) as connection:
        for each in ids:
            try:
                connection.execute(text(f"KILL {each}"))
            except OperationalError as error:
                if error.orig is None or error.orig.args[0] != UNKNOWN_THREAD:
                    raise
