"""A job that an operator removes while it runs: its handler is stopped, and nothing is said of a lost lease."""

from __future__ import annotations

from pathlib import Path

from outbox.drivers.base import Driver
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.redis import RedisDriver
from outbox.envelope import serialize
from tests.crash.harness import RedisWorkers
from tests.support.recorded_jobs import Counted, Endless
from tests.support.worker_processes import Workers, numbers

FLAGS = ("--lease", "6", "--sleep", "0.05", "--timeout", "0")
"""A third of the lease passes, and it is renewed, while the other job goes on."""


async def test_it_is_reported_as_cancelled(database: DatabaseDriver, migrated_url: str, tmp_path: Path) -> None:
    await cancel_while_it_runs(database, Workers(migrated_url, tmp_path))


async def test_it_is_reported_as_cancelled_on_redis(redis: RedisDriver, redis_url: str, tmp_path: Path) -> None:
    await cancel_while_it_runs(redis, RedisWorkers(redis_url, tmp_path), "--connection", "redis")


async def cancel_while_it_runs(driver: Driver, workers: Workers, *flags: str) -> None:
    cancelled, other = serialize(Endless(number=1)), serialize(Counted(number=2, seconds=3))
    await driver.jobs.insert([cancelled, other])
    try:
        worker = await workers.started(*FLAGS, *flags)
        await workers.oracle.wait("begin", 2)
        assert await driver.jobs.cancel([cancelled.id]) == [cancelled.id]
        (told,) = await worker.event("job_cancelled")
        assert told["job_id"] == str(cancelled.id)
        await workers.oracle.wait("end")
        assert await worker.terminate() == 0
        assert worker.of("lease_lost") == []
        assert numbers(workers.oracle.runs("end")) == [2]
    finally:
        await workers.close()
