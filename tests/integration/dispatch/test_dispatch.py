"""G1: a job exists if and only if the transaction that dispatched it committed."""

from __future__ import annotations

import asyncio
import json

import pytest
from sqlalchemy import delete, event, insert, select
from sqlalchemy.exc import IntegrityError, OperationalError, PendingRollbackError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

import outbox
from outbox import dispatch
from outbox.drivers.database import DatabaseDriver
from outbox.errors import SessionUnusable
from tests.support.orders import COUNT, Order, Receipt
from tests.support.stored_receipts import numbers, stored

JOBS = outbox.metadata.tables["queue_jobs"]


async def test_a_job_is_there_when_its_transaction_has_committed(
    sessions: async_sessionmaker[AsyncSession], driver: DatabaseDriver
) -> None:
    async with sessions() as session, session.begin():
        order = Order(customer="Ada")
        session.add(order)
        await session.flush()
        order_id = order.id
        job_id = await dispatch(Receipt(order_id=order_id), session=session)
        assert await stored(driver) == [], "seen before the commit"
    [job] = await stored(driver)
    assert (job.id, job.queue, job.priority, job.attempts) == (job_id, "mail", 5, 0)
    assert job.name == "tests.support.orders.Receipt"
    assert json.loads(job.payload) == {"order_id": order_id, "note": "", "extra": None}


async def test_a_rollback_takes_the_job_along(
    sessions: async_sessionmaker[AsyncSession], driver: DatabaseDriver
) -> None:
    async with sessions() as session:
        await dispatch(Receipt(order_id=1), session=session)
        await session.rollback()
        await dispatch(Receipt(order_id=2), session=session)
        await session.flush()
        await session.rollback()
        await session.commit()
    assert await stored(driver) == []


async def test_an_exception_in_the_transaction_takes_the_job_along(
    sessions: async_sessionmaker[AsyncSession], driver: DatabaseDriver
) -> None:
    with pytest.raises(RuntimeError):
        async with sessions() as session, session.begin():
            await dispatch(Receipt(order_id=1), session=session)
            await session.flush()
            raise RuntimeError
    assert await stored(driver) == []


async def test_dispatch_begins_by_itself_as_sessions_do(
    sessions: async_sessionmaker[AsyncSession], driver: DatabaseDriver
) -> None:
    async with sessions() as session:
        await dispatch(Receipt(order_id=1), session=session)
        assert session.in_transaction()
        await session.commit()
        await dispatch(Receipt(order_id=2), session=session)
        await session.commit()
    assert await numbers(driver) == [1, 2]


async def test_a_flush_writes_the_job_into_the_open_transaction(sessions: async_sessionmaker[AsyncSession]) -> None:
    async with sessions() as session:
        await dispatch(Receipt(order_id=1), session=session)
        await session.flush()
        assert await session.scalar(COUNT) == 1
        await dispatch(Receipt(order_id=2), session=session)
        await session.execute(select(Order))
        assert await session.scalar(COUNT) == 2, "autoflush comes before a query"


async def test_without_autoflush_the_commit_writes_it(engine: AsyncEngine, driver: DatabaseDriver) -> None:
    async with AsyncSession(engine, autoflush=False) as session:
        await dispatch(Receipt(order_id=1), session=session)
        assert await session.scalar(COUNT) == 0
        await session.commit()
    assert await numbers(driver) == [1]


async def test_a_rolled_back_savepoint_takes_its_jobs_and_no_others(
    sessions: async_sessionmaker[AsyncSession], driver: DatabaseDriver
) -> None:
    async with sessions() as session, session.begin():
        await dispatch(Receipt(order_id=1), session=session)
        undone = await session.begin_nested()
        await dispatch(Receipt(order_id=2), session=session)
        await session.flush()
        await dispatch(Receipt(order_id=3), session=session)
        await undone.rollback()
        await dispatch(Receipt(order_id=4), session=session)
        async with session.begin_nested():
            await dispatch(Receipt(order_id=5), session=session)
            with pytest.raises(RuntimeError):
                async with session.begin_nested():
                    await dispatch(Receipt(order_id=6), session=session)
                    raise RuntimeError
            await dispatch(Receipt(order_id=7), session=session)
    assert await numbers(driver) == [1, 4, 5, 7]


async def test_a_failed_flush_in_a_savepoint_takes_only_the_jobs_of_the_savepoint(
    sessions: async_sessionmaker[AsyncSession], driver: DatabaseDriver
) -> None:
    async with sessions() as session, session.begin():
        session.add(Order(customer="Ada"))
        await dispatch(Receipt(order_id=1), session=session)
        with pytest.raises(IntegrityError):
            async with session.begin_nested():
                await dispatch(Receipt(order_id=2), session=session)
                session.add(Order(customer="Ada"))
                await session.flush()
        await dispatch(Receipt(order_id=3), session=session)
    assert await numbers(driver) == [1, 3]


async def test_a_session_that_has_failed_says_so(
    sessions: async_sessionmaker[AsyncSession], driver: DatabaseDriver
) -> None:
    async with sessions() as session:
        session.add_all([Order(customer="Ada"), Order(customer="Ada")])
        with pytest.raises(IntegrityError):
            await session.flush()
        if not session.is_active:
            with pytest.raises(SessionUnusable, match="rollback"):
                await dispatch(Receipt(order_id=1), session=session)
        await session.rollback()
        await dispatch(Receipt(order_id=2), session=session)
        await session.commit()
    assert await numbers(driver) == [2]


async def test_after_a_failed_insert_nothing_can_be_committed_before_a_rollback(
    sessions: async_sessionmaker[AsyncSession], engine: AsyncEngine, driver: DatabaseDriver
) -> None:
    """Otherwise a session whose flush error was swallowed could commit the business data without the job."""
    async with sessions() as session:
        session.add(Order(customer="Ada"))
        await dispatch(Receipt(order_id=1), session=session)

        @event.listens_for(engine.sync_engine, "before_cursor_execute", retval=True)
        def break_it(_connection: object, _cursor: object, statement: str, parameters: object, *_: object) -> object:
            return statement.replace("queue_jobs", "queue_nothing"), parameters

        with pytest.raises(outbox.OutboxError, match="alembic upgrade head"):
            await session.flush()
        event.remove(engine.sync_engine, "before_cursor_execute", break_it)
        with pytest.raises(SessionUnusable, match="rollback"):
            await dispatch(Receipt(order_id=2), session=session)
        with pytest.raises(PendingRollbackError):
            await session.commit()
        await session.rollback()
        assert await session.scalar(select(Order)) is None
        await dispatch(Receipt(order_id=3), session=session)
        await session.commit()
    assert await numbers(driver) == [3]


async def test_a_transaction_that_the_server_undid_cannot_be_committed_without_its_business_data(
    sessions: async_sessionmaker[AsyncSession], engine: AsyncEngine, driver: DatabaseDriver, backend: str
) -> None:
    """A deadlock at the INSERT of the job, of which the session's transaction is the victim."""
    if backend == "sqlite":
        pytest.skip("SQLite knows no deadlocks")
    async with sessions() as session, engine.connect() as heavier:
        await session.execute(insert(Order).values(customer="Ada"))
        await heavier.execution_options(isolation_level="REPEATABLE READ")
        # Of two transactions the server undoes the one that has changed fewer rows.
        await heavier.execute(insert(Order), [{"customer": f"customer {number}"} for number in range(100)])
        await heavier.execute(select(JOBS).with_for_update())
        await dispatch(Receipt(order_id=1), session=session)
        waiting = asyncio.create_task(heavier.execute(delete(Order).where(Order.customer == "Ada")))
        with pytest.raises(OperationalError, match="Deadlock"):
            await session.commit()
        with pytest.raises(PendingRollbackError):
            await session.commit()
        await waiting
        await heavier.rollback()
    assert await stored(driver) == []
