"""A worker whose jobs arrived one by one holds each of them under a claim token of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path

import pytest

from benchmarks.proxy import Proxy
from outbox.drivers.database import DatabaseDriver
from outbox.envelope import serialize
from tests.support.recorded_jobs import Endless
from tests.support.worker_processes import Workers, until

SERVERS = [pytest.param("mysql", marks=pytest.mark.mysql), pytest.param("mariadb", marks=pytest.mark.mariadb)]
COUNT = 300
LEASE = 15
DELAY = 0.060
"""Seconds for each way to the server."""


@pytest.fixture
async def proxy(migrated_url: str) -> AsyncIterator[Proxy]:
    proxy = Proxy(migrated_url)
    async with await proxy.start():
        yield proxy
        await proxy.close()


@pytest.mark.parametrize("backend", SERVERS, indirect=True)
async def test_a_worker_with_300_claims_far_from_its_server_keeps_every_lease(
    proxy: Proxy, database: DatabaseDriver, tmp_path: Path
) -> None:
    """One statement for each token would take 36 seconds, which is longer than two leases: what is not renewed in time
    is lost, and begins again."""
    workers = Workers(proxy.url, tmp_path)
    try:
        worker = await workers.started(
            "--concurrency", str(COUNT), "--lease", str(LEASE), "--timeout", "0", "--sleep", "0.01"
        )
        for number in range(COUNT):
            await database.jobs.insert([serialize(Endless(number=number))])
            await until(lambda count=number + 1: len(workers.oracle.runs("begin")) >= count)  # type: ignore[misc]
        proxy.delay = DELAY
        for _ in range(2):
            before = await ends_of_leases(database)
            async with asyncio.timeout(60):
                while not before.isdisjoint(await ends_of_leases(database)):
                    await asyncio.sleep(0.1)
        assert len(workers.oracle.runs("begin")) == COUNT
        assert worker.of("lease_lost") == []
    finally:
        proxy.delay = 0.0
        await workers.close()


async def ends_of_leases(database: DatabaseDriver) -> set[datetime | None]:
    """While each job is held, and was claimed once."""
    jobs = await database.jobs.list_jobs(limit=COUNT)
    assert len(jobs) == COUNT
    assert {job.attempts for job in jobs} == {1}
    assert {job.state.value for job in jobs} == {"reserved"}
    return {job.reserved_until for job in jobs}
