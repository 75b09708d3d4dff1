"""The store of worker processes under test, from outside."""

from __future__ import annotations

from typing import Any

import pytest

from outbox import Job
from outbox.drivers.database import DatabaseDriver
from outbox.envelope import serialize
from outbox.ids import JobId
from outbox.options import JobOptions

FAST = ("--sleep", "0.05")


class Queue:
    """The store, from outside."""

    def __init__(self, url: str) -> None:
        self.driver = DatabaseDriver(url)

    async def put(self, *jobs: Job, **options: Any) -> list[JobId]:
        envelopes = [serialize(job, JobOptions(**options)) for job in jobs]
        await self.driver.jobs.insert(envelopes)
        return [envelope.id for envelope in envelopes]

    async def close(self) -> None:
        await self.driver.close()


on_every_database = pytest.mark.parametrize(
    "backend",
    ["sqlite", pytest.param("mysql", marks=pytest.mark.mysql), pytest.param("mariadb", marks=pytest.mark.mariadb)],
)
