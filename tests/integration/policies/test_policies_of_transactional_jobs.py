"""Jobs that end in a session at REPEATABLE READ, the default of servers, let others in that were parked meanwhile. The
transaction of such a job sees what was there when it first read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import ClassVar

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from outbox import Job, Worker, disconnect, dispatch, find, jobs, schedules
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.values import JobState, StoredJob
from outbox.ids import JobId
from tests.servers import sql

pytestmark = pytest.mark.parametrize(
    "backend",
    [pytest.param("mysql", marks=pytest.mark.mysql), pytest.param("mariadb", marks=pytest.mark.mariadb)],
    indirect=True,
)


class Reading(Job):
    """Reads first; each but the first of its kind ends at once."""

    account: int = 7
    number: int = 0
    reading: ClassVar[asyncio.Event]
    go_on: ClassVar[asyncio.Event]
    second: ClassVar[asyncio.Event]

    async def handle(self, session: AsyncSession) -> None:
        await session.execute(text("SELECT COUNT(*) FROM queue_batches"))
        if self.reading.is_set():
            self.second.set()
            return
        self.reading.set()
        await self.go_on.wait()


class Ordered(Reading):
    ordering_key = "account"


class Limited(Reading):
    concurrency_key = "account"


class Unique(Reading):
    unique = ["account"]  # noqa: RUF012 - as users write it
    unique_until = "end"


@pytest.fixture(autouse=True)
async def _database(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    monkeypatch.setenv("DATABASE_URL", migrated_url)
    for event in ("reading", "go_on", "second"):
        monkeypatch.setattr(Reading, event, asyncio.Event(), raising=False)
    yield
    await disconnect()


async def parked(job_id: JobId) -> None:
    async with asyncio.timeout(20):
        while not (isinstance(job := await find(job_id), StoredJob) and job.state is JobState.PARKED):
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("kind", [Ordered, Limited, Unique])
async def test_what_is_parked_while_it_runs_follows_it(kind: type[Reading]) -> None:
    async with Worker(concurrency=4, sleep=0.1):
        await dispatch(kind(number=1))
        async with asyncio.timeout(20):
            await Reading.reading.wait()
        await parked(await dispatch(kind(number=2)))
        Reading.go_on.set()
        async with asyncio.timeout(20):
            await Reading.second.wait()


async def test_the_next_job_of_its_schedule_is_not_left_waiting() -> None:
    await schedules.add("reading", None, Reading(), every="1s", overlap="queue_one")
    async with Worker(concurrency=4, sleep=0.1):
        async with asyncio.timeout(20):
            await Reading.reading.wait()
            while not (await jobs(state=JobState.PARKED)).jobs:
                await asyncio.sleep(0.02)
        Reading.go_on.set()
        async with asyncio.timeout(20):
            await Reading.second.wait()


async def test_what_another_transaction_has_locked_then_is_let_in_by_upkeep(
    migrated_url: str, database: DatabaseDriver
) -> None:
    async with Worker(concurrency=4, sleep=0.1):
        running = await dispatch(Unique(number=1))
        async with asyncio.timeout(20):
            await Reading.reading.wait()
        waiting = await dispatch(Unique(number=2))
        await parked(waiting)
        with (
            sql.connection(migrated_url) as connection,
            connection.execution_options(isolation_level="READ COMMITTED").begin(),
        ):
            connection.execute(text("SELECT id FROM queue_jobs WHERE id = :id FOR UPDATE"), {"id": waiting.bytes})
            Reading.go_on.set()
            async with asyncio.timeout(20):
                while await find(running) is not None:
                    await asyncio.sleep(0.02)
        await database.policies.upkeep()
        async with asyncio.timeout(20):
            await Reading.second.wait()
