"""Alembic's environment of an application: its own tables and outbox's in one history."""

import asyncio

from alembic import context
from shop import Base, engine
from sqlalchemy import Connection

import outbox

target_metadata = [Base.metadata, outbox.metadata]


def migrate(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=target_metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


async def main() -> None:
    async with engine.begin() as connection:
        await connection.run_sync(migrate)
    await engine.dispose()


asyncio.run(main())
