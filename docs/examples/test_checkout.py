"""Tests of checkout.py and its jobs: `pytest --asyncio-mode auto`, after `alembic upgrade head`."""

from collections.abc import AsyncIterator

import pytest
from checkout import check_out
from receipts import SendReceipt
from shop import Order, engine
from sqlalchemy.ext.asyncio import AsyncSession
from steps import ImportOrder

import outbox
from outbox import testing
from outbox.testing import drain, fake, perform, travel


@pytest.fixture
async def session() -> AsyncIterator[AsyncSession]:
    """What a test commits in this session is rolled back at its end."""
    async with engine.connect() as connection:
        outer = await connection.begin()
        async with AsyncSession(
            connection, expire_on_commit=False, join_transaction_mode="create_savepoint"
        ) as session:
            yield session
        await outer.rollback()
    await engine.dispose()


async def test_a_receipt_is_dispatched_with_an_order(session: AsyncSession, outbox_fake: testing.Fake) -> None:
    order = Order()
    await check_out(session, order)
    await session.commit()

    outbox_fake.assert_dispatched(SendReceipt, order_id=order.id)
    outbox_fake.assert_dispatched(ImportOrder, times=1, where=lambda job: not job.cancelled)
    outbox_fake.assert_not_dispatched(SendReceipt, order_id=0)


async def test_an_order_that_is_undone_takes_its_jobs_along(session: AsyncSession) -> None:
    with fake() as dispatches:
        async with session.begin_nested() as savepoint:
            await check_out(session, Order())
            await savepoint.rollback()
        dispatches.assert_nothing_dispatched()


async def test_how_an_import_ends() -> None:
    assert (await perform(ImportOrder(order_id=7))).completed

    ended = await perform(ImportOrder(order_id=2_000_000))
    assert ended.snoozed(60)

    ended = await perform(ImportOrder(order_id=-1), attempt=8)
    assert ended.failed
    assert str(ended.error) == "no such order"


async def test_an_order_is_worked_off(session: AsyncSession) -> None:
    await check_out(session, Order())
    await session.commit()

    [receipt] = await drain(session=session)
    assert receipt.completed

    with travel(hours=1):
        [imported] = await drain(session=session)
    assert imported.name == "steps.ImportOrder"


async def test_a_stored_job_is_worked_off(outbox_drain: testing.Drain, outbox_clock: testing.Clock) -> None:
    await outbox.dispatch(ImportOrder(order_id=7), delay=60)
    assert await outbox_drain() == []

    outbox_clock.travel(minutes=1)
    [imported] = await outbox_drain()
    assert imported.completed


def test_a_receipt_is_sent() -> None:
    assert testing.sync.perform(SendReceipt(order_id=7)).completed
