"""Dispatches to Redis in a transaction of the database. DATABASE_URL and REDIS_URL are both set."""

import asyncio

from receipts import SendReceipt
from shop import Order, Session, engine

from outbox import dispatch


async def main() -> None:
    order = Order()
    async with Session() as session, session.begin():
        session.add(order)
        await session.flush()
        await dispatch(SendReceipt(order_id=order.id), session=session, connection="redis")
    await engine.dispose()


asyncio.run(main())
