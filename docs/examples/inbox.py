"""The inbox: a message that is delivered twice is taken once."""

import asyncio
from dataclasses import dataclass

from receipts import SendReceipt
from shop import Order, Session, engine

from outbox import disconnect, inbox, receive


@dataclass
class Message:
    id: str
    order_id: int


async def place_order(message: Message) -> None:
    async with Session() as session, session.begin():
        async with inbox(session, message.id, source="orders") as fresh:
            if fresh:
                session.add(Order(id=message.order_id))
    print("stored" if fresh else "known")  # committed: now acknowledge the message


async def order_paid(message: Message) -> None:
    async with Session() as session, session.begin():
        job = SendReceipt(order_id=message.order_id)
        job_id = await receive(session, message.id, job, source="payments")
    print("dispatched" if job_id else "known")


async def main() -> None:
    message = Message("a81bc81b", order_id=7)
    await place_order(message)
    await place_order(message)  # delivered again
    await order_paid(message)  # another source: another message
    await order_paid(message)
    await disconnect()
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(main())
