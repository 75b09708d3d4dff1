"""Jobs that end in their own transaction: whatever step a process is killed at, each has its effects exactly once."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest
from sqlalchemy import text

from outbox import Job
from outbox.drivers.database import DatabaseDriver
from outbox.envelope import serialize_many
from tests.crash.transactional import EVERY, STEPS, Effect, EffectInThread
from tests.servers import sql
from tests.support.worker_processes import Workers

pytestmark = pytest.mark.timeout(900)

JOBS = 2_000
FLAGS = ("--concurrency", "5", "--lease", "1", "--sleep", "0.1", "--stop-when-empty")


async def test_each_effect_and_each_follow_up_happens_once(migrated_url: str, tmp_path: Path) -> None:
    with sql.connection(migrated_url) as connection:
        for table in ("effects", "follow_effects"):
            connection.execute(text(f"CREATE TABLE {table} (number INTEGER NOT NULL)"))
    jobs: list[Job] = [(Effect if number % 3 else EffectInThread)(number=number) for number in range(JOBS)]
    driver = DatabaseDriver(migrated_url)
    await driver.jobs.insert(serialize_many(jobs))
    workers = Workers(migrated_url, tmp_path, "tests.crash.transactional")
    try:
        await asyncio.gather(*(until_nothing_is_left(workers) for _ in range(2)))
        assert await driver.failed.page(limit=10) == []
        assert await driver.jobs.list_jobs() == []
    finally:
        await workers.close()
        await driver.close()
    deaths = deaths_in(tmp_path)
    assert deaths == list(range(0, JOBS, EVERY)), "not each of them died"
    assert {number // EVERY % len(STEPS) for number in deaths} == set(STEPS)
    with sql.connection(migrated_url) as connection:
        for table in ("effects", "follow_effects"):
            numbers = sorted(connection.scalars(text(f"SELECT number FROM {table}")))
            assert numbers == list(range(JOBS)), table


async def until_nothing_is_left(workers: Workers) -> None:
    """A worker, and another one whenever it was killed. The last one may have many jobs left."""
    while await (await workers.start(*FLAGS)).exit_code(within=800) == -signal.SIGKILL:
        pass


def deaths_in(directory: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("died-")) for path in directory.glob("died-*"))
