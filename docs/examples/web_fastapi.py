"""FastAPI: jobs of a request's session, and a worker in the same process. `uvicorn web_fastapi:app`"""

import os
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, FastAPI
from receipts import SendReceipt
from shop import Order, Session
from sqlalchemy.ext.asyncio import AsyncSession

import outbox
from outbox.contrib.lifespan import outbox_lifespan

app = FastAPI(lifespan=outbox_lifespan(worker="DEVELOPMENT" in os.environ, queue="mail"))


async def in_transaction() -> AsyncIterator[AsyncSession]:
    async with Session() as session, session.begin():
        yield session


@app.post("/orders")
async def place_order(session: Annotated[AsyncSession, Depends(in_transaction)]) -> int:
    order = Order()
    session.add(order)
    await session.flush()
    await outbox.dispatch(SendReceipt(order_id=order.id), session=session)
    return order.id
