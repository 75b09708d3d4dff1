"""A store under load, and the claims that are measured on it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks.counters import Reads, reads, unpurged
from benchmarks.filling import Fill, fill
from benchmarks.flat.cost import Cost
from benchmarks.stores import Store
from outbox.drivers.base import Driver
from outbox.drivers.values import WorkerStatus
from outbox.settlement import Settlement

BATCH = 100
"""Jobs per measured claim."""

_CLAIMS = 5
_PASSING_BATCH = 500
_LEASE = 3_600.0
_PURGE_PAUSE = 1.5
"""Seconds without progress after which the server is done: it looks for work at least once a second."""

_SNAPSHOT = "START TRANSACTION WITH CONSISTENT SNAPSHOT"


class Ground:
    """Opened by `ground`. Every driver has one connection, whose reads the server counts. Claims are made as a worker
    makes them in a backlog of short jobs."""

    def __init__(self, store: Store, stack: AsyncExitStack, *, patient: bool) -> None:
        self.store = store
        self._patient = patient
        self.drivers: list[Driver] = []
        self.queues: Sequence[str] = ("default",)
        """What is claimed from."""
        self.shape = Fill(0)
        """How jobs that get ready are spread."""
        self.stocked = False
        """Whether there are enough of them for all that is to come."""
        self._filled = 0
        self._stack = stack

    @property
    def claimed_per_cost(self) -> int:
        """How many jobs one `cost` takes."""
        return BATCH * _CLAIMS * len(self.drivers)

    async def staff(self, count: int) -> None:
        """Let so many drivers claim at once."""
        while len(self.drivers) < count:
            driver = self.store.driver(pool_size=1)
            self._stack.push_async_callback(driver.close)
            self.drivers.append(driver)

    async def enlist(self, count: int) -> None:
        """Let there be a fleet of so many workers, as their heartbeats tell; those that claim are of it."""
        for number in range(count):
            worker = WorkerStatus(bytes([number]) * 16, "worker", "host", number, "default", BATCH, 0, 0, 0)
            await self.drivers[0].workers.heartbeat(worker)
        # How many there are is believed for some seconds by those who have counted.
        self.drivers.clear()
        await self.staff(1)
        await self.pass_through(BATCH)

    async def put(self, what: Fill) -> None:
        """Add jobs; those that were there keep theirs."""
        await fill(self.store, replace(what, first=self._filled))
        self._filled += what.count

    async def stock(self, count: int) -> None:
        """Add all jobs that will ever be claimed, with some to spare: none arrives later."""
        await self.put(replace(self.shape, count=count))
        self.stocked = True

    async def hold(self, count: int) -> None:
        """Let jobs at the head be claimed and not settled, as long ones are."""
        await self.put(replace(self.shape, count=count, delay=-86_400.0))
        for start in range(0, count, _PASSING_BATCH):
            await self.drivers[0].jobs.claim(self.queues, min(_PASSING_BATCH, count - start), _LEASE)

    async def pass_through(self, count: int) -> None:
        """Let so many jobs be claimed and completed, each as soon as it has come unless there is a stock of them."""
        driver, passed = self.drivers[0], 0
        while passed < count:
            batch = min(_PASSING_BATCH, count - passed)
            if not self.stocked:
                await self.put(replace(self.shape, count=batch, delay=0.0))
            claims = await (driver.short_jobs or driver.jobs).claim(self.queues, batch, _LEASE)
            await driver.jobs.settle([Settlement.completed(claim.fence) for claim in claims])
            passed += len(claims)

    async def keep_snapshot(self) -> None:
        """Open a transaction that sees the store as it is now, and leave it open. What was deleted before is removed
        first: else the server goes on with that in the background while pages are counted."""
        await self._purge()
        self._patient = False
        engine = create_async_engine(self.store.url)
        self._stack.push_async_callback(engine.dispose)
        connection = await self._stack.enter_async_context(engine.connect())
        await connection.execute(text("ROLLBACK"))
        await connection.execute(text(_SNAPSHOT))

    async def cost(self) -> Cost:
        """Of a claim, while all drivers claim. What is claimed is completed."""
        if self._patient:
            await self._purge()
        if not self.stocked:
            await self.put(replace(self.shape, count=2 * self.claimed_per_cost, delay=0.0))
        measured = [await self._measure() for _ in range(_CLAIMS)]
        return Cost.of([each for each, _ in measured], [seconds for _, seconds in measured])

    async def _purge(self) -> None:
        """Wait until the server has removed what was deleted: what comes next is not to pay for what came before. It
        never gets to none, so until it gets no further."""
        last, since = -1, time.monotonic()
        while time.monotonic() < since + _PURGE_PAUSE:
            count = await unpurged(self.drivers[0])
            if last < 0 or count < last:
                last, since = count, time.monotonic()
            await asyncio.sleep(_PURGE_PAUSE / 10)

    async def _measure(self) -> tuple[Reads, float]:
        """One claim of every driver, at once: the mean of their reads, and the time divided by their number."""
        before = await self.reads()
        begun = time.perf_counter()
        taken = await asyncio.gather(
            *((each.short_jobs or each.jobs).claim(self.queues, BATCH, _LEASE) for each in self.drivers)
        )
        seconds = time.perf_counter() - begun
        after = await self.reads()
        for driver, claims in zip(self.drivers, taken, strict=True):
            if len(claims) != BATCH:
                raise RuntimeError(f"a claim of {BATCH} took {len(claims)} jobs: the load is not what it should be")
            await driver.jobs.settle([Settlement.completed(claim.fence) for claim in claims])
        count = len(self.drivers)
        rows = sum((end - start).rows for start, end in zip(before, after, strict=True))
        # The pages are those of the whole server, so one connection knows them all.
        pages = (after[0] - before[0]).pages
        return Reads(rows // count, pages // count), seconds / count

    async def reads(self) -> list[Reads]:
        """What each driver has read so far."""
        return [await reads(driver) for driver in self.drivers]


@contextmanager
def _statistics_kept(store: Store) -> Iterator[None]:
    """Whatever happens, the server thinks of the table as it is now."""
    with store.sql() as connection:
        connection.execute(text("ALTER TABLE queue_jobs STATS_PERSISTENT = 1, STATS_AUTO_RECALC = 0"))
        connection.execute(text("ANALYZE TABLE queue_jobs"))
    try:
        yield
    finally:
        with store.sql() as connection:
            connection.execute(text("ALTER TABLE queue_jobs STATS_PERSISTENT = DEFAULT, STATS_AUTO_RECALC = DEFAULT"))


@asynccontextmanager
async def ground(store: Store, *, counted: bool = False) -> AsyncIterator[Ground]:
    """The store, empty at first, with one driver whose connection is open. ``counted``: see `loads.Load.costs`."""
    async with AsyncExitStack() as stack:
        if counted:
            stack.enter_context(_statistics_kept(store))
        opened = Ground(store, stack, patient=not counted)
        await opened.staff(1)
        await opened.pass_through(BATCH)
        yield opened
