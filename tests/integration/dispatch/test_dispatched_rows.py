"""What a dispatch writes: how many statements, which options, when it is due."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

import outbox
import outbox.sync
from outbox import dispatch, dispatch_many
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.values import StoredJob
from tests.support.orders import Receipt
from tests.support.stored_receipts import numbers, stored


async def test_a_thousand_dispatches_in_a_transaction_are_one_insert(
    sessions: async_sessionmaker[AsyncSession], driver: DatabaseDriver, statements: list[str]
) -> None:
    async with sessions() as session, session.begin():
        for number in range(1_000):
            await dispatch(Receipt(order_id=number), session=session, delay=number % 3)
    assert len([statement for statement in statements if "INSERT" in statement]) == 1
    assert await numbers(driver) == list(range(1_000))


async def test_dispatch_many_is_one_insert_per_thousand(
    sessions: async_sessionmaker[AsyncSession], driver: DatabaseDriver, statements: list[str]
) -> None:
    async with sessions() as session, session.begin():
        ids = await dispatch_many((Receipt(order_id=number) for number in range(2_500)), session=session)
    assert len([statement for statement in statements if "INSERT" in statement]) == 3
    assert len(set(ids)) == 2_500
    assert [job.id for job in await stored(driver)] == ids == sorted(ids)


async def test_dispatch_in_a_session_sends_nothing_of_its_own(
    sessions: async_sessionmaker[AsyncSession], statements: list[str]
) -> None:
    async with sessions() as session:
        await dispatch(Receipt(order_id=1), session=session)
        assert statements == []
        await session.commit()
    assert len([statement for statement in statements if "BEGIN" not in statement]) == 1


async def test_options_of_a_dispatch_go_before_those_of_the_class(
    sessions: async_sessionmaker[AsyncSession], driver: DatabaseDriver
) -> None:
    async with sessions() as session, session.begin():
        await dispatch(
            Receipt(order_id=1), session=session, queue="slow", delay=timedelta(minutes=5), priority=1, max_tries=9,
            timeout=2.5, backoff=[1, 2],
        )  # fmt: skip
    [job] = await stored(driver)
    assert (job.queue, job.priority) == ("slow", 1)
    assert json.loads(job.headers) == {
        "max_tries": 9, "timeout": 2.5, "backoff": {"delays": [1.0, 2.0], "jitter": 0.0},
    }  # fmt: skip
    assert timedelta(minutes=4) < job.available_at - job.created_at <= timedelta(minutes=5, seconds=1)


async def test_a_delay_counts_from_the_write_by_the_databases_clock(
    sessions: async_sessionmaker[AsyncSession], driver: DatabaseDriver
) -> None:
    when = datetime.now(UTC) + timedelta(hours=3)
    async with sessions() as session, session.begin():
        await dispatch(Receipt(order_id=1), session=session, delay=90)
        await dispatch(Receipt(order_id=2), session=session, delay=when)
        await dispatch(Receipt(order_id=3), session=session, delay=-5)
    by_number = {json.loads(job.payload)["order_id"]: job for job in await stored(driver)}
    assert (by_number[1].available_at - by_number[1].created_at).total_seconds() == pytest.approx(90, abs=0.01)
    assert by_number[2].available_at == when
    assert by_number[3].available_at <= by_number[3].created_at


@pytest.mark.parametrize("year", [1, 300, 1969, 2020])
async def test_a_moment_that_has_passed_means_now(
    sessions: async_sessionmaker[AsyncSession], driver: DatabaseDriver, configured: None, year: int
) -> None:
    passed = datetime(year, 1, 1, tzinfo=UTC)
    async with sessions() as session, session.begin():
        await dispatch(Receipt(order_id=1), session=session, delay=passed)
    await dispatch(Receipt(order_id=2), delay=passed)
    jobs = await stored(driver)
    assert [job.available_at for job in jobs] == [job.created_at for job in jobs]
    assert len(await driver.jobs.claim(["mail"], 10, 30)) == 2


async def test_without_a_session_the_job_is_stored_when_dispatch_returns(
    migrated_url: str, driver: DatabaseDriver, configured: None
) -> None:
    job_id = await dispatch(Receipt(order_id=1))
    ids = await dispatch_many([Receipt(order_id=2), Receipt(order_id=3)])
    assert {job.id for job in await stored(driver)} == {job_id, *ids}


def test_sync_code_without_a_session(migrated_url: str, tmp_path: object) -> None:
    outbox.configure(database_url=migrated_url)
    try:
        job_id = outbox.sync.dispatch(Receipt(order_id=1), delay=5)

        async def read() -> list[StoredJob]:
            driver = DatabaseDriver(migrated_url)
            try:
                return await stored(driver)
            finally:
                await driver.close()

        assert [job.id for job in asyncio.run(read())] == [job_id]
    finally:
        outbox.sync.disconnect()
        outbox.configure()


def test_a_generator_of_jobs_runs_in_the_thread_of_its_sync_caller(migrated_url: str) -> None:
    """It may read rows with a connection that belongs to the thread, and dispatch jobs itself."""
    threads: list[threading.Thread] = []
    ids: list[outbox.JobId] = []

    def jobs() -> Iterator[Receipt]:
        threads.append(threading.current_thread())
        # On the loop's thread this would wait for itself.
        if threads == [caller]:
            ids.append(outbox.sync.dispatch(Receipt(order_id=1)))
        yield Receipt(order_id=2)

    def work() -> None:
        ids.extend(outbox.sync.dispatch_many(jobs()))

    outbox.configure(database_url=migrated_url)
    try:
        caller = threading.Thread(target=work)
        caller.start()
        caller.join()
        assert (threads, len(ids)) == ([caller], 2)
    finally:
        outbox.sync.disconnect()
        outbox.configure()
