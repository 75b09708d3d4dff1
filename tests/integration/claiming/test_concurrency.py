"""G3 and G8 under contention: no job twice, and nobody waits for a claimer."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from outbox import dispatch
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.database.jobs.claim import ClaimRequest, ClaimTransaction
from outbox.settlement import Settlement
from tests.conformance.jobs import FAILURE, envelopes
from tests.support.orders import Receipt, async_engine

CLAIMERS, JOBS, BATCH = 16, 20_000, 50


@pytest.fixture
async def claimers(migrated_url: str) -> AsyncIterator[list[DatabaseDriver]]:
    drivers = [DatabaseDriver(migrated_url, pool_size=1) for _ in range(CLAIMERS)]
    yield drivers
    for driver in drivers:
        await driver.close()


async def row_lock_waits(driver: DatabaseDriver) -> int:
    """How often a transaction has waited for a row, since the server started."""
    async with driver.database.engine.connect() as connection:
        status = await connection.execute(text("SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_waits'"))
        return int(status.one()[1])


@pytest.mark.parametrize("short_jobs", [False, True], ids=["moved", "in place"])
async def test_sixteen_claimers_take_each_job_once(
    claimers: list[DatabaseDriver], backend: str, short_jobs: bool
) -> None:
    refused: list[str] = []
    for driver in claimers:

        @event.listens_for(driver.database.engine.sync_engine, "handle_error")
        def note(context: object) -> None:
            refused.append(str(getattr(context, "original_exception", "")))

    await claimers[0].jobs.insert(envelopes(JOBS))
    taken: Counter[object] = Counter()
    accepted = 0

    async def drain(driver: DatabaseDriver) -> None:
        nonlocal accepted
        empty = 0
        while empty < 3:
            claims = await (driver.short_jobs if short_jobs else driver.jobs).claim(["default"], BATCH, 60)
            # All that is left may be what others are looking at right now, and skipped.
            empty = 0 if claims else empty + 1
            taken.update(claim.fence.job_id for claim in claims)
            settled = await driver.jobs.settle([Settlement.completed(claim.fence) for claim in claims])
            accepted += len(settled.accepted)

    await asyncio.gather(*(drain(driver) for driver in claimers))
    assert len(taken) == JOBS
    assert set(taken.values()) == {1}
    assert accepted == JOBS
    if backend == "mysql":
        # MariaDB's SKIP LOCKED waits for entries that another transaction is deleting, and now and then that is a
        # deadlock. The driver does it again, and nobody has noticed: no exception came out of `drain`.
        assert [error for error in refused if "eadlock" in error] == []
    assert await claimers[0].jobs.list_jobs() == []


async def take(driver: DatabaseDriver, connection: AsyncConnection, *, short_jobs: bool) -> None:
    """Claim, without a commit."""
    jobs, database = driver.jobs, driver.database
    claim = ClaimTransaction(
        database,
        jobs.unconfirmed,
        jobs.claim_scan,
        "database",
        ClaimRequest(["default"], BATCH, 60, short_jobs=short_jobs),
    )
    assert len(await claim.run(connection)) == BATCH


@pytest.mark.parametrize("short_jobs", [False, True], ids=["moved", "in place"])
@pytest.mark.alone_on_its_server("one by one")
@pytest.mark.usefixtures("fresh_pages")
async def test_application_transactions_never_wait_for_claimers(
    claimers: list[DatabaseDriver], migrated_url: str, backend: str, short_jobs: bool
) -> None:
    """Claimers stop in the middle of their transactions, holding all the locks that they ever hold, and nothing that an
    application does with outbox's tables waits: the server counts every wait. MariaDB's SKIP LOCKED waits for entries
    that were deleted and are not removed yet: here are none."""
    if backend == "sqlite":
        pytest.skip("SQLite has one writer at a time, and no locks on rows to count")
    await claimers[0].jobs.insert(envelopes(2_000))
    waits = await row_lock_waits(claimers[0])
    engine = async_engine(migrated_url)
    async with AsyncExitStack() as held:
        # One after the other, because sixteen at once can meet in a deadlock on MariaDB, after which a driver claims
        # again.
        connections = [await held.enter_async_context(driver.database.engine.connect()) for driver in claimers]
        for driver, connection in zip(claimers, connections, strict=True):
            await take(driver, connection, short_jobs=short_jobs)
        for number in range(200):
            async with AsyncSession(engine) as session, session.begin():
                await dispatch(Receipt(order_id=number), session=session, queue="default", priority=number % 10)
        assert await row_lock_waits(claimers[0]) == waits
        for connection in connections:
            await connection.commit()

    stop = asyncio.Event()

    async def keep_inserting() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            async with AsyncSession(engine) as session, session.begin():
                await dispatch(Receipt(order_id=number), session=session, queue="default")

    application = [asyncio.create_task(keep_inserting()) for _ in range(4)]
    await asyncio.gather(
        *(
            (driver.short_jobs if short_jobs else driver.jobs).claim(["default"], 20, 60)
            for driver in claimers
            for _ in range(10)
        )
    )
    stop.set()
    await asyncio.gather(*application)
    await engine.dispose()
    assert await row_lock_waits(claimers[0]) == waits


@pytest.mark.parametrize("count", [1, 2, 10, 100, 500, 1_100])
@pytest.mark.alone_on_its_server("one by one")
async def test_no_statement_of_a_worker_waits_for_an_open_transaction_of_the_application(
    migrated_url: str, backend: str, count: int
) -> None:
    """On a nearly empty table the optimizer is tempted to read all of it, and waits for rows that it does not want.
    The application's transaction stays open for the whole test."""
    if backend == "sqlite":
        pytest.skip("SQLite has one writer at a time: an open transaction of the application is waited for")
    worker, engine = DatabaseDriver(migrated_url), async_engine(migrated_url)
    await worker.jobs.insert(envelopes(count))
    async with AsyncSession(engine) as session:
        await dispatch(Receipt(order_id=1), session=session, queue="default")
        await session.flush()
        waits = await row_lock_waits(worker)
        async with asyncio.timeout(120):
            for end in (
                lambda fence: Settlement.retried(fence, 0, FAILURE),
                Settlement.snoozed,
                lambda fence: Settlement.failed(fence, FAILURE),
                Settlement.completed,
            ):
                claims = await worker.jobs.claim(["default"], count, 60)
                assert len(claims) == count
                assert not (await worker.jobs.extend([claim.fence for claim in claims], 60)).lost
                settled = await worker.jobs.settle([end(claim.fence) for claim in claims])
                assert len(settled.accepted) == count
                await worker.failed.retry_all()
        assert await row_lock_waits(worker) == waits
        await session.rollback()
    await engine.dispose()
    await worker.close()
