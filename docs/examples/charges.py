"""A job whose writes, follow-ups and own end are one transaction."""

from shop import Order, Session
from sqlalchemy.ext.asyncio import AsyncSession

from outbox import Job, dispatch


class SendReceipt(Job):
    queue = "later"
    order_id: int

    async def handle(self) -> None:
        print("receipt for order", self.order_id)


class BookOrder(Job):
    order_id: int

    async def handle(self, session: AsyncSession) -> None:
        session.add(Order(id=self.order_id))
        await dispatch(SendReceipt(order_id=self.order_id), session=session)


class BookOrderItself(Job):
    order_id: int

    async def handle(self) -> None:
        async with Session() as session, session.begin():
            session.add(Order(id=self.order_id))
            await self.context.complete(session)
