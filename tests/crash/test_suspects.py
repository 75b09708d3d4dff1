"""One job that kills its process three times takes none of the jobs beside it to the failed jobs."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from outbox.drivers.database import DatabaseDriver
from outbox.drivers.redis import RedisDriver
from outbox.envelope import serialize
from tests.crash.harness import UNHURRIED, RedisWorkers, end_leases
from tests.crash.poison import INNOCENT, Innocent, Poison
from tests.support.worker_processes import Workers, numbers

FLAGS = (*UNHURRIED, "--concurrency", str(INNOCENT + 1))


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[RedisDriver]:
    driver = RedisDriver(redis_url)
    yield driver
    await driver.close()


async def test_only_the_poison_fails(database: DatabaseDriver, migrated_url: str, tmp_path: Path) -> None:
    await only_the_poison_fails(database, Workers(migrated_url, tmp_path, "tests.crash.poison"))


async def test_only_the_poison_fails_on_redis(redis: RedisDriver, redis_url: str, tmp_path: Path) -> None:
    workers = RedisWorkers(redis_url, tmp_path, "tests.crash.poison")
    await only_the_poison_fails(redis, workers, "--connection", "redis")


async def only_the_poison_fails(driver: DatabaseDriver | RedisDriver, workers: Workers, *flags: str) -> None:
    poison = serialize(Poison())
    await driver.jobs.insert([poison, *(serialize(Innocent(number=number)) for number in range(INNOCENT))])
    try:
        for _ in range(3):
            worker = await workers.start(*FLAGS, *flags)
            assert await worker.exit_code() == -signal.SIGKILL
            await end_leases(driver)
        assert len(workers.oracle.runs("begin")) >= 2 * INNOCENT, "they have died with it twice"
        # Not --stop-when-empty: some of the jobs are put back for a moment.
        worker = await workers.start(*FLAGS, *flags)
        await workers.oracle.wait("end", INNOCENT)
        async with asyncio.timeout(120):
            while not await driver.failed.page(limit=1):
                await asyncio.sleep(0.1)
        assert await worker.terminate() == 0, worker.other
    finally:
        await workers.close()
    failed = await driver.failed.page(limit=1000)
    assert [job.id for job in failed] == [poison.id]
    assert failed[0].failure.type == "outbox.errors.AttemptsExhausted"
    assert [run.attempt for run in workers.oracle.runs("poisoned")] == [1, 2, 3]
    assert numbers(workers.oracle.runs("end")) == list(range(INNOCENT))
