"""What the tests of database clusters have in common: outbox's tables in one, and drains from several of its nodes."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

import outbox
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.database.connection.errors import Fault, classify
from outbox.drivers.database.connection.raw_connection import RawConnection
from outbox.drivers.database.jobs.claim import ClaimRequest, ClaimTransaction
from outbox.errors import BackendUnavailable
from outbox.ids import JobId
from outbox.settlement import Settlement
from tests.servers import LocalServer, databases, sql

DATABASE = "jobs"


def make_tables(nodes: Sequence[LocalServer]) -> None:
    """On the first of them, and wait until all have them."""
    with sql.connection(nodes[0].url) as connection:
        connection.execute(text(f"CREATE DATABASE {DATABASE}"))
    databases.create_tables(url(nodes[0]), outbox.metadata)
    count = text(f"SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = '{DATABASE}'")
    deadline = time.monotonic() + 60
    for node in nodes:
        with sql.connection(node.url) as connection:
            while connection.scalar(count) != len(outbox.metadata.tables):
                assert time.monotonic() < deadline, f"no tables on {node.url}"
                time.sleep(0.02)


def url(node: LocalServer) -> str:
    return f"{node.url}/{DATABASE}"


def empty(node: LocalServer) -> None:
    with sql.connection(url(node)) as connection:
        connection.execute(text("DELETE FROM queue_jobs"))


async def has(driver: DatabaseDriver, jobs: int) -> None:
    """Wait until what was committed elsewhere has been applied here."""
    async with asyncio.timeout(60):
        while sum(counts.ready + counts.reserved for counts in await driver.queues.counts()) != jobs:
            await asyncio.sleep(0.01)


async def take_at_once(one: DatabaseDriver, other: DatabaseDriver, jobs: int) -> tuple[set[JobId], Exception]:
    """Both take the same jobs before either commits: what the first was given, and what the second was told."""
    takings = [
        ClaimTransaction(
            driver.database,
            driver.jobs.unconfirmed,
            driver.jobs.claim_scan,
            "database",
            ClaimRequest(["default"], jobs, 60),
        )
        for driver in (one, other)
    ]
    async with RawConnection(one.database.engine) as first:
        mine = {claim.fence.job_id for claim in await takings[0].run(first)}
        with pytest.raises(DBAPIError) as refused:
            async with RawConnection(other.database.engine) as second:
                theirs = await takings[1].run(second)
                assert {claim.fence.job_id for claim in theirs} == mine
                await first.commit()
                await second.commit()
    assert classify(refused.value) is Fault.CONTENDED, refused.value
    return mine, refused.value


async def drain(drivers: Sequence[DatabaseDriver], jobs: int, batch: int) -> Counter[JobId]:
    """All of them claim and settle until the ``jobs`` are gone: how often each job was taken."""
    taken: Counter[JobId] = Counter()
    accepted = 0

    async def work(driver: DatabaseDriver) -> None:
        nonlocal accepted
        while accepted < jobs:
            try:
                claims = await driver.jobs.claim(["default"], batch, 60)
            except BackendUnavailable:
                continue  # the others were first ten times in a row; a worker begins again as well
            taken.update(claim.fence.job_id for claim in claims)
            settled = await driver.jobs.settle([Settlement.completed(claim.fence) for claim in claims])
            accepted += len(settled.accepted)

    async with asyncio.timeout(120):
        await asyncio.gather(*(work(driver) for driver in drivers))
    assert accepted == jobs
    return taken
