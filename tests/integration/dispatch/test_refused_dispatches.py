"""Jobs, options and databases that a dispatch refuses, and the largest that it takes."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

import outbox
import outbox.sync
from outbox import Batch, add_to_batch, dispatch, dispatch_batch, dispatch_chain, dispatch_many
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.database.jobs.job_store import DatabaseJobs
from outbox.errors import InvalidJob, InvalidOption, PayloadTooLarge, SessionUnusable
from outbox.ids import new_job_id
from tests.support.orders import Receipt, async_engine
from tests.support.stored_receipts import stored


async def test_nothing_of_a_batch_is_written_when_one_job_is_refused(
    sessions: async_sessionmaker[AsyncSession], driver: DatabaseDriver
) -> None:
    good, bad = Receipt(order_id=1), Receipt(order_id=2)
    bad.order_id = "not a number"  # type: ignore[assignment]
    async with sessions() as session, session.begin():
        with pytest.raises(InvalidJob, match="order_id"):
            await dispatch_many([good, bad], session=session)
        with pytest.raises(InvalidOption, match="queue"):
            await dispatch(good, session=session, queue="No Such Queue")
        with pytest.raises(InvalidOption, match="connection"):
            await dispatch(good, session=session, connection=["redis"])  # type: ignore[arg-type]
        with pytest.raises(PayloadTooLarge, match="OUTBOX_PAYLOAD_LIMIT"):
            await dispatch(Receipt(order_id=1, note="x" * 1_048_576), session=session)
    assert await stored(driver) == []


class WithoutFields(outbox.Job):
    async def handle(self) -> None: ...


@pytest.mark.parametrize("job", [WithoutFields(), Receipt(order_id=1)])
async def test_one_job_in_place_of_several_is_refused(
    job: Any, sessions: async_sessionmaker[AsyncSession], driver: DatabaseDriver, configured: None
) -> None:
    one = "several jobs are dispatched here, and this is one"
    with pytest.raises(InvalidJob, match=one):
        await dispatch_many(job)
    with pytest.raises(InvalidJob, match=one):
        await dispatch_chain(job)
    with pytest.raises(InvalidJob, match=one):
        await dispatch_batch(job)
    with pytest.raises(InvalidJob, match=one):
        await dispatch_batch([Batch(job)])
    with pytest.raises(InvalidJob, match=one):
        await add_to_batch(new_job_id(), job)
    async with sessions() as session, session.begin():
        with pytest.raises(InvalidJob, match=one):
            await dispatch_many(job, session=session)
    with pytest.raises(InvalidJob, match=one):
        await asyncio.to_thread(outbox.sync.dispatch_many, job)
    assert await stored(driver) == []


async def test_an_option_that_does_not_exist_is_refused_by_name(
    sessions: async_sessionmaker[AsyncSession], sync: Engine, driver: DatabaseDriver, configured: None
) -> None:
    job = Receipt(order_id=1)
    with pytest.raises(TypeError, match="'dealy'"):
        await dispatch(job, dealy=30)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="'dealy'"):
        await dispatch_many([job], dealy=30)  # type: ignore[call-arg]
    async with sessions() as session, session.begin():
        with pytest.raises(TypeError, match="'max_retries'"):
            await dispatch_many([job], session=session, max_retries=9)  # type: ignore[call-arg]

    def work() -> None:
        with pytest.raises(TypeError, match="'max_retries'"):
            outbox.sync.dispatch(job, max_retries=9)  # type: ignore[call-arg]
        with Session(sync) as session, session.begin():
            with pytest.raises(TypeError, match="'payload_limit'"):
                outbox.sync.dispatch_many([job], session=session, payload_limit=9)  # type: ignore[call-arg]

    await asyncio.to_thread(work)
    assert await stored(driver) == []


async def test_nothing_is_sent_when_one_of_thousands_is_refused(
    driver: DatabaseDriver, configured: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [Receipt(order_id=number) for number in range(2_500)]
    jobs[2_400].order_id = "not a number"  # type: ignore[assignment]
    inserted: list[object] = []
    monkeypatch.setattr(DatabaseJobs, "insert", lambda _, envelopes: inserted.append(envelopes))
    with pytest.raises(InvalidJob, match="Receipt: the field 'order_id'"):
        await dispatch_many(jobs)
    assert inserted == []
    assert await stored(driver) == []


async def test_a_payload_at_the_limit_is_stored(
    sessions: async_sessionmaker[AsyncSession], driver: DatabaseDriver
) -> None:
    overhead = len('{"order_id":1,"note":"","extra":null}')
    async with sessions() as session, session.begin():
        job_id = await dispatch(Receipt(order_id=1, note="x" * (1_048_576 - overhead)), session=session)
    job = await driver.jobs.get(job_id)
    assert job is not None
    assert len(json.loads(job.payload)["note"]) == 1_048_576 - overhead


async def test_the_deepest_nesting_that_is_accepted_is_stored(
    sessions: async_sessionmaker[AsyncSession], driver: DatabaseDriver
) -> None:
    nested: object = 1
    for _ in range(30):
        nested = [nested]
    async with sessions() as session, session.begin():
        job_id = await dispatch(Receipt(order_id=1, extra=nested), session=session)
    job = await driver.jobs.get(job_id)
    assert job is not None
    assert json.loads(job.payload)["extra"] == nested


async def test_the_longest_key_that_is_accepted_is_stored(
    sessions: async_sessionmaker[AsyncSession], driver: DatabaseDriver, configured: None
) -> None:
    extra = {"x" * 65_535: 1, "é" * 32_767: 2}
    async with sessions() as session, session.begin():
        await dispatch(Receipt(order_id=1, extra=extra), session=session)
    await dispatch_many([Receipt(order_id=2, extra=extra)] * 10)
    assert [json.loads(job.payload)["extra"] for job in await stored(driver)] == [extra] * 11
    with pytest.raises(InvalidJob, match="'extra' has a key"):
        await dispatch(Receipt(order_id=3, extra={"x" * 65_536: 1}))


async def test_what_is_no_session_is_named() -> None:
    with pytest.raises(SessionUnusable, match="str"):
        await dispatch(Receipt(order_id=1), session="session")  # type: ignore[arg-type]


async def test_a_missing_table_says_what_to_run(database_url: str) -> None:
    engine = async_engine(database_url)
    async with AsyncSession(engine) as session:
        await dispatch(Receipt(order_id=1), session=session)
        with pytest.raises(outbox.OutboxError, match="alembic upgrade head"):
            await session.commit()
    await engine.dispose()
    outbox.configure(database_url=database_url)
    with pytest.raises(outbox.OutboxError, match="alembic upgrade head"):
        await dispatch(Receipt(order_id=1))
    await outbox.disconnect()
    outbox.configure()
