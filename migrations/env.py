"""Migrations of outbox's tables and of the example application's, on the database that DATABASE_URL names."""

from __future__ import annotations

import asyncio
from logging.config import fileConfig

from alembic import context
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

import outbox
from app.models import Base

TARGETS = [outbox.metadata, Base.metadata]


def migrate(connection: Connection | None, url: str) -> None:
    """Run the migrations, or print them as SQL where there is no connection."""
    context.configure(
        connection=connection,
        url=None if connection else url,
        target_metadata=TARGETS,
        render_as_batch=url.startswith("sqlite"),
        literal_binds=connection is None,
    )
    with context.begin_transaction():
        context.run_migrations()


async def migrate_online(url: str) -> None:
    engine = create_async_engine(url, poolclass=NullPool)
    async with engine.begin() as connection:
        await connection.run_sync(migrate, url)
    await engine.dispose()


def main() -> None:
    if context.config.config_file_name and context.config.attributes.get("configure_logging", True):
        fileConfig(context.config.config_file_name, disable_existing_loggers=False)
    url = context.config.get_main_option("sqlalchemy.url") or outbox.Settings.load().database_url
    if context.is_offline_mode():
        migrate(None, url)
    else:
        asyncio.run(migrate_online(url))


main()
