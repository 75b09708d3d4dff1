"""What a shop does with an order. The tests of it are in test_checkout.py."""

from receipts import SendReceipt
from shop import Order
from sqlalchemy.ext.asyncio import AsyncSession
from steps import ImportOrder

from outbox import dispatch


async def check_out(session: AsyncSession, order: Order) -> None:
    session.add(order)
    await session.flush()
    await dispatch(SendReceipt(order_id=order.id), session=session)
    await dispatch(ImportOrder(order_id=order.id), session=session, delay=3600)
