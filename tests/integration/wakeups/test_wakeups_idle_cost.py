"""What doing nothing costs the server, by the server's own count: looks and heartbeats, and beside them upkeep."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from outbox.drivers.database import DatabaseDriver
from outbox.runtime import upkeep
from tests.conformance.jobs import envelope
from tests.support.embedded_worker import Arrival, Embedded, put, working

pytestmark = pytest.mark.alone_on_its_server("idle cost")

WATCHED, CALM = 30.0, 3.0
"""Seconds."""

FLEET = 50


SERVERS = (pytest.param("mysql", marks=pytest.mark.mysql), pytest.param("mariadb", marks=pytest.mark.mariadb))


@pytest.fixture(params=SERVERS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Count:
    """Statements that the server was sent since it was last asked, but for those that every new connection begins with:
    on a busy machine, looks that overlap need one more."""

    def __init__(self, url: str) -> None:
        self._engine = create_async_engine(url, isolation_level="AUTOCOMMIT", pool_size=1)
        self._last = 0

    async def __call__(self) -> int:
        query = text("SHOW GLOBAL STATUS WHERE Variable_name IN ('Questions', 'Com_set_option')")
        async with self._engine.connect() as connection:
            status = {str(name): int(value) for name, value in await connection.execute(query)}
        now = status["Questions"] - status["Com_set_option"]
        since, self._last = now - self._last, now
        return since

    async def during(self, seconds: float, *, idle: float) -> float:
        """Per second, without what it costs to ask. How long the start of the workers takes is up to the machine: it is
        over after `CALM` seconds with no more than ``idle`` statements in each."""
        await self()
        own = await self()
        async with asyncio.timeout(120):
            while await self._after(CALM) - own > idle * CALM:
                pass
        begun = asyncio.get_running_loop().time()
        sent = await self._after(seconds) - own
        return sent / (asyncio.get_running_loop().time() - begun)

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
    async with asyncio.timeout(120):
        while any(consumer.claimer.idle_workers < FLEET for worker in workers for consumer in worker.worker.consumers):
            await asyncio.sleep(0.1)


@pytest.fixture
def no_upkeep(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first round of a worker comes 42 seconds after its start: on a slow machine, that is while it is watched."""
    monkeypatch.setattr(upkeep, "INTERVAL", 3_600.0)


@pytest.mark.usefixtures("no_upkeep")
@pytest.mark.parametrize("wake", ["poll", "binlog"])
async def test_an_idle_worker_sends_at_most_one_statement_per_second(
    migrated_url: str, statements: Count, wake: str
) -> None:
    """Whatever there is that it may not run yet. Upkeep comes on top."""
    driver = DatabaseDriver(migrated_url)
    await driver.jobs.insert([envelope(queue="paused"), envelope(delay=3600)])
    await driver.queues.pause("paused")
    async with working(migrated_url, wake=wake, sleep=1.0, queue=("default", "paused")):
        assert await statements.during(WATCHED, idle=1.0) <= 1.0
    await driver.close()


async def test_a_round_of_upkeep_is_at_most_thirty_statements(migrated_url: str, statements: Count) -> None:
    """Of one worker of the fleet, once a minute: for the same jobs."""
    driver = DatabaseDriver(migrated_url)
    await driver.jobs.insert([envelope(queue="paused"), envelope(delay=3600)])
    await driver.queues.pause("paused")
    await driver.check()
    await statements()
    own = await statements()
    await driver.policies.upkeep()
    await driver.metrics.upkeep()
    await driver.jobs.fail_unreadable()
    assert 10 < await statements() - own <= 30
    await driver.close()


@pytest.mark.usefixtures("no_upkeep")
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
