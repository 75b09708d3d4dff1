"""Jobs on their way to Redis, and whatever dies around them: every committed one runs, a rolled back one never does."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from outbox.drivers.database import DatabaseDriver
from outbox.drivers.redis import RedisDriver
from tests.servers import LocalServer
from tests.support.python_process import ROOT, run_python
from tests.support.worker_processes import Workers, until

pytestmark = [
    pytest.mark.redis,
    pytest.mark.timeout(900),
    # What a relay asks of a database is what every worker asks of it: one of them is enough.
    pytest.mark.parametrize("backend", [pytest.param("mysql", marks=pytest.mark.mysql)], indirect=True),
]


class RedisWorkers(Workers):
    """With both stores configured."""

    def __init__(self, url: str, redis: str, directory: Path) -> None:
        super().__init__(url, directory)
        self.redis = redis

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "REDIS_URL": self.redis}

    def dispatch_and_die(self, count: int) -> set[str]:
        """What it committed before it was killed."""
        ran = run_python(
            *("-m", "tests.crash.dispatching_app", str(count)), cwd=ROOT, env=self.environment(), check=False
        )
        assert ran.returncode == -signal.SIGKILL, ran.stderr
        return set(ran.stdout.split())


@pytest.fixture
async def workers(migrated_url: str, local_redis: LocalServer, tmp_path: Path) -> AsyncIterator[RedisWorkers]:
    workers = RedisWorkers(migrated_url, local_redis.url, tmp_path)
    yield workers
    await workers.close()


async def all_ended(workers: RedisWorkers, committed: set[str]) -> None:
    await until(
        lambda: committed <= {run.id for run in workers.oracle.runs("end")},
        lambda: f"{len(committed - {run.id for run in workers.oracle.runs('end')})} jobs that are lost",
    )
    assert {run.id for run in workers.oracle.runs()} == committed, "phantom"


def more_than(workers: RedisWorkers, count: int) -> bool:
    runs = len(workers.oracle.runs("begin"))
    return runs > count or runs == 1_600


async def no_rows_left(database: DatabaseDriver) -> None:
    async with asyncio.timeout(120):
        while await database.jobs.list_jobs():
            await asyncio.sleep(0.1)


async def test_a_process_killed_between_commit_and_relay_loses_nothing(
    workers: RedisWorkers, database: DatabaseDriver
) -> None:
    committed = workers.dispatch_and_die(50)
    assert len(committed) == 40
    await workers.started("--relay", "--sleep", "0.2")
    await workers.started("--connection", "redis", "--sleep", "0.2")
    await all_ended(workers, committed)
    await no_rows_left(database)
    begun = [run.id for run in workers.oracle.runs("begin")]
    assert len(begun) == len(set(begun)), "a job ran twice"


async def test_any_worker_of_the_fleet_relays(workers: RedisWorkers) -> None:
    committed = workers.dispatch_and_die(5)
    await workers.started("--connection", "redis", "--sleep", "0.2")
    await all_ended(workers, committed)


async def test_a_relay_killed_in_the_middle_loses_and_doubles_nothing(
    workers: RedisWorkers, database: DatabaseDriver
) -> None:
    await workers.started("--connection", "redis", "--sleep", "0.1", "--concurrency", "100")
    committed = workers.dispatch_and_die(2_000)
    for _ in range(4):
        relay = await workers.started("--relay", "--sleep", "0.1")
        before = len(workers.oracle.runs("begin"))
        await until(partial(more_than, workers, before))
        await relay.kill()
    await workers.started("--relay", "--sleep", "0.1")
    await all_ended(workers, committed)
    begun = [run.id for run in workers.oracle.runs("begin")]
    assert len(begun) == len(set(begun)), "a job ran twice"


async def test_a_redis_that_is_down_or_flushed_loses_nothing(
    workers: RedisWorkers, database: DatabaseDriver, local_redis: LocalServer
) -> None:
    committed = workers.dispatch_and_die(50)
    await workers.started("--relay", "--sleep", "0.2")
    redis = RedisDriver(local_redis.url)
    async with asyncio.timeout(120):
        while sum(count.ready for count in await redis.queues.counts()) < 40:
            await asyncio.sleep(0.05)
    await redis.close()
    # Without a log or a snapshot it comes back empty: all that it had been given is gone.
    await asyncio.to_thread(local_redis.kill)
    committed |= workers.dispatch_and_die(50)
    for path in local_redis.data.rglob("*"):
        if path.is_file() and path.suffix in {".rdb", ".aof", ".manifest"}:
            path.unlink()
    await asyncio.to_thread(local_redis.restart)
    await workers.started("--connection", "redis", "--sleep", "0.2")
    await all_ended(workers, committed)
