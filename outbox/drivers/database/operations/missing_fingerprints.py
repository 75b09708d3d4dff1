"""Upkeep of failed jobs: fingerprints for those that an earlier release has stored."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.drivers.database import raw_columns
from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.operations.failed_jobs import stored_failure
from outbox.drivers.database.tables import failed_jobs

_AT_ONCE = 200
"""Jobs of one transaction."""
_ROUNDS = 25
"""Transactions of one round of upkeep."""


async def add_missing(database: Database) -> None:
    """Up to 5,000 jobs. Releases of before that run beside this one go on to store failures without fingerprints."""
    for _ in range(_ROUNDS):
        if not await _add_some(database):
            return


async def _add_some(database: Database) -> bool:
    """Whether there may be more of them."""
    columns = map(raw_columns.as_stored, (failed_jobs.c.id, failed_jobs.c.exception))
    query = (
        select(*columns)
        .with_hint(failed_jobs, database.dialect.group_hint)
        .where(failed_jobs.c.fingerprint.is_(None))
        .limit(_AT_ONCE)
    )

    async def read(connection: AsyncConnection) -> list[tuple[Any, str]]:
        rows = await connection.execute(query)
        return [(key, stored_failure(raw_columns.text(exception)).fingerprint) for key, exception in rows]

    found = await database.read(read)
    if not found:
        return False
    keys = sorted(key for key, _ in found)
    statement = (
        f"UPDATE queue_failed_jobs SET fingerprint = {database.dialect.case('id', len(keys))} "
        f"WHERE id IN ({database.dialect.placeholders(len(keys))}) AND fingerprint IS NULL"
    )

    async def write(connection: AsyncConnection) -> None:
        await connection.exec_driver_sql(statement, (*(value for pair in found for value in pair), *keys))

    await database.write(write)
    return len(found) == _AT_ONCE
