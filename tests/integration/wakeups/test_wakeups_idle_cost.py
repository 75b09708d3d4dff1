"""What doing nothing costs the server, by the server's own count."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from outbox.drivers.database import DatabaseDriver
from tests.conformance.jobs import envelope
from tests.support.embedded_worker import Arrival, Embedded, put, working

pytestmark = pytest.mark.alone_on_its_server("idle cost")

WATCHED = 30.0
"""Seconds."""

FLEET = 50


SERVERS = (pytest.param("mysql", marks=pytest.mark.mysql), pytest.param("mariadb", marks=pytest.mark.mariadb))


@pytest.fixture(params=SERVERS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Count:
    """Statements that the server was sent since it was last asked."""

    def __init__(self, url: str) -> None:
        self._engine = create_async_engine(url, isolation_level="AUTOCOMMIT", pool_size=1)
        self._last = 0

    async def __call__(self) -> int:
        async with self._engine.connect() as connection:
            status = await connection.execute(text("SHOW GLOBAL STATUS LIKE 'Questions'"))
            now = int(status.one()[1])
        since, self._last = now - self._last, now
        return since

    async def during(self, seconds: float, *, idle: float) -> float:
        """Per second, without what it costs to ask. How long the start of the workers takes is up to the machine: it is
        over after a second with no more than ``idle`` statements."""
        await self()
        own = await self()
        async with asyncio.timeout(60):
            while await self._after(1.0) - own > idle:
                pass
        return (await self._after(seconds) - own) / seconds

    async def _after(self, seconds: float) -> int:
        await asyncio.sleep(seconds)
        return await self()

    async def close(self) -> None:
        await self._engine.dispose()


@pytest.fixture
async def statements(migrated_url: str) -> AsyncIterator[Count]:
    count = Count(migrated_url)
    yield count
    await count.close()


async def all_know_each_other(workers: list[Embedded]) -> None:
    """Until each of them has looked once with all the others there."""
    async with asyncio.timeout(60):
        while any(consumer.claimer.idle_workers < FLEET for worker in workers for consumer in worker.worker.consumers):
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("wake", ["poll", "binlog"])
async def test_an_idle_worker_sends_at_most_one_statement_per_second(
    migrated_url: str, statements: Count, wake: str
) -> None:
    """Whatever there is that it may not run yet."""
    driver = DatabaseDriver(migrated_url)
    await driver.jobs.insert([envelope(queue="paused"), envelope(delay=3600)])
    await driver.queues.pause("paused")
    async with working(migrated_url, wake=wake, sleep=1.0, queue=("default", "paused")):
        assert await statements.during(WATCHED, idle=1.0) <= 1.0
    await driver.close()


async def test_fifty_idle_workers_send_at_most_ten_statements_per_second(migrated_url: str, statements: Count) -> None:
    """And together they look often enough that nobody waits for long."""
    async with AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(working(migrated_url, wake="poll", sleep=1.0)) for _ in range(FLEET)]
        await all_know_each_other(workers)
        assert await statements.during(WATCHED, idle=10.0) <= 10.0
        began = asyncio.get_running_loop().time()
        arrival = Arrival()
        await put(migrated_url, arrival.job)
        await arrival()
        assert asyncio.get_running_loop().time() - began < 10
