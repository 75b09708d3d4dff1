"""Litestar: a worker in the same process while `DEVELOPMENT` is set. `uvicorn web_litestar:app`"""

import os

from litestar import Litestar, post
from receipts import SendReceipt
from shop import Order, Session

import outbox
from outbox.contrib.lifespan import outbox_lifespan


@post("/orders")
async def place_order() -> int:
    async with Session() as session, session.begin():
        order = Order()
        session.add(order)
        await session.flush()
        await outbox.dispatch(SendReceipt(order_id=order.id), session=session)
        return order.id


app = Litestar([place_order], lifespan=[outbox_lifespan(worker="DEVELOPMENT" in os.environ, queue="mail")])
