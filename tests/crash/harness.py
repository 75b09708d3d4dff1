"""What a crash test plays with: an application, its workers, the store between them, and what must hold in the end."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from pathlib import Path

from outbox import Job
from outbox.drivers.base import Driver
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.redis import RedisDriver
from outbox.drivers.values import StoredJob
from outbox.ids import JobId, stored_job_id
from outbox.settlement import Fence
from tests.crash.application import Ledger, dispatch_in_transactions, dispatch_to
from tests.crash.verdict import verify
from tests.support.worker_processes import Workers

LEASE = 1.5
FLAGS = ("--lease", str(LEASE), "--sleep", "0.1")
MODULES = "tests.support.recorded_jobs,tests.crash.held"
PROMPT = 15.0
"""Seconds within which a worker that has started takes what it can, on a busy machine."""
UNHURRIED = ("--lease", "60", "--sleep", "0.1")
"""For a worker that loses no lease, however long it is kept waiting on a busy machine."""


def now() -> float:
    """On the clock of the oracle."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


async def end_leases(driver: DatabaseDriver | RedisDriver) -> None:
    """What time does when workers are dead: the jobs that they held can be claimed."""
    if isinstance(driver, DatabaseDriver):
        async with driver.database.engine.connect() as connection:
            held = "SELECT id, reserved_by FROM queue_jobs WHERE reserved_by IS NOT NULL"
            tokens = {bytes(row.id): bytes(row.reserved_by) for row in await connection.exec_driver_sql(held)}
    else:
        holds = await driver.store.client.hgetall("outbox:{default}:held")
        tokens = {job_id: hold[7:23] for job_id, hold in holds.items()}
    fences = [Fence(stored_job_id(job_id), token) for job_id, token in tokens.items()]
    assert (await driver.jobs.extend(fences, 0.0)).kept == set(fences)


class Harness(ABC):
    def __init__(self, driver: Driver, workers: Workers) -> None:
        self.driver = driver
        self.workers = workers
        self.oracle = workers.oracle
        self.ledger = Ledger()

    @abstractmethod
    async def dispatch(self, *jobs: Job, pause: float = 0.0) -> None:
        """One after the other, each written to the ledger."""

    async def only(self, job: Job) -> JobId:
        await self.dispatch(job)
        (job_id,) = self.ledger.committed
        return job_id

    async def stored(self, job_id: JobId) -> StoredJob:
        job = await self.driver.jobs.get(job_id)
        assert job is not None
        return job

    async def all_done(self) -> None:
        async with asyncio.timeout(120):
            while await self.driver.jobs.list_jobs(limit=1):
                await asyncio.sleep(0.1)

    async def verify(self) -> None:
        await verify(self.driver, self.oracle, self.ledger, lease=LEASE)

    async def close(self) -> None:
        await self.workers.close()
        await self.driver.close()


class DatabaseHarness(Harness):
    """Jobs are dispatched in transactions, of which every fifth rolls back."""

    def __init__(self, url: str, directory: Path) -> None:
        super().__init__(DatabaseDriver(url), Workers(url, directory, MODULES))
        self.url = url

    async def dispatch(self, *jobs: Job, pause: float = 0.0) -> None:
        await dispatch_in_transactions(self.url, jobs, self.ledger, pause=pause)


class RedisHarness(Harness):
    """Redis and nothing beside it: jobs are dispatched straight into it, and failed ones stay there."""

    def __init__(self, url: str, directory: Path) -> None:
        super().__init__(RedisDriver(url), RedisWorkers(url, directory, MODULES))
        self.url = url

    async def dispatch(self, *jobs: Job, pause: float = 0.0) -> None:
        await dispatch_to(self.driver, jobs, self.ledger, pause=pause)


class RedisWorkers(Workers):
    def environment(self) -> dict[str, str]:
        environment = {**super().environment(), "REDIS_URL": self.url}
        del environment["DATABASE_URL"]
        return environment
