"""SQLModel: its session is one of SQLAlchemy, so that jobs belong to its transaction."""

import asyncio

from receipts import SendReceipt
from shop import engine
from sqlmodel import Field, SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

import outbox


class Invoice(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)


async def main() -> None:
    async with engine.begin() as connection:
        await connection.run_sync(SQLModel.metadata.create_all)
    async with AsyncSession(engine) as session, session.begin():
        invoice = Invoice()
        session.add(invoice)
        await session.flush()
        assert invoice.id is not None  # noqa: S101 - for type checkers: the flush has set it
        await outbox.dispatch(SendReceipt(order_id=invoice.id), session=session)
    await engine.dispose()


asyncio.run(main())
