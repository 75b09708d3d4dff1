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
from outbox.ids import JobId
from tests.crash.application import Ledger, dispatch_in_transactions, dispatch_to
from tests.crash.verdict import verify
from tests.support.worker_processes import Workers

LEASE = 1.5
FLAGS = ("--lease", str(LEASE), "--sleep", "0.1")


def now() -> float:
    """On the clock of the oracle."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


class Harness(ABC):
    def __init__(self, driver: Driver, workers: Workers) -> None:
        self.driver = driver
        self.workers = workers
        self.oracle = workers.oracle
        self.ledger = Ledger()
        self.deaths: dict[int, float] = {}

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
        async with asyncio.timeout(60):
            while await self.driver.jobs.list_jobs(limit=1):
                await asyncio.sleep(0.1)

    async def verify(self) -> None:
        await verify(self.driver, self.oracle, self.ledger, lease=LEASE, deaths=self.deaths)

    async def close(self) -> None:
        await self.workers.close()
        await self.driver.close()


class DatabaseHarness(Harness):
    """Jobs are dispatched in transactions, of which every fifth rolls back."""

    def __init__(self, url: str, directory: Path) -> None:
        super().__init__(DatabaseDriver(url), Workers(url, directory))
        self.url = url

    async def dispatch(self, *jobs: Job, pause: float = 0.0) -> None:
        await dispatch_in_transactions(self.url, jobs, self.ledger, pause=pause)


class RedisHarness(Harness):
    """Redis and nothing beside it: jobs are dispatched straight into it, and failed ones stay there."""

    def __init__(self, url: str, directory: Path) -> None:
        super().__init__(RedisDriver(url), RedisWorkers(url, directory))
        self.url = url

    async def dispatch(self, *jobs: Job, pause: float = 0.0) -> None:
        await dispatch_to(self.driver, jobs, self.ledger, pause=pause)


class RedisWorkers(Workers):
    def environment(self) -> dict[str, str]:
        environment = {**super().environment(), "REDIS_URL": self.url}
        del environment["DATABASE_URL"]
        return environment
