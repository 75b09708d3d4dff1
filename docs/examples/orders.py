"""Dispatches jobs from async code. Run it after `alembic upgrade head`."""

import asyncio
from datetime import timedelta

from receipts import SendReceipt
from shop import Order, Session, engine
from steps import ImportOrder

from outbox import dispatch, dispatch_many  # outbox.sync has the same for a sync Session


async def place(order: Order) -> None:
    async with Session() as session, session.begin():
        session.add(order)
        await session.flush()
        await dispatch(SendReceipt(order_id=order.id), session=session)  # exists if and only if this commits


async def other_ways() -> None:
    jobs = [ImportOrder(order_id=n) for n in range(3)]
    async with Session() as session, session.begin():
        await dispatch(SendReceipt(order_id=7), session=session)  # part of the session's transaction
        await dispatch(SendReceipt(order_id=7), delay=30, queue="later")  # stored when this returns
        await dispatch_many(jobs, session=session)  # one INSERT per 1,000

    for job in jobs:
        await dispatch(job, queue="slow", delay=timedelta(minutes=5), priority=0, timeout=300, backoff=[1, 60])


async def main() -> None:
    await place(Order())
    await other_ways()
    await engine.dispose()


asyncio.run(main())
