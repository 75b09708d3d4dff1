"""Questions of a relay about rows whose jobs are for another store."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.drivers.database import raw_columns
from outbox.drivers.database.chunks import chunked
from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.tables import jobs
from outbox.ids import JobId


async def written(database: Database, job_ids: Sequence[JobId]) -> dict[JobId, datetime]:
    query = select(jobs.c.id, raw_columns.as_stored(jobs.c.created_at))
    keys = sorted(job_id.bytes for job_id in job_ids)

    async def read(connection: AsyncConnection) -> dict[JobId, datetime]:
        found: dict[JobId, datetime] = {}
        for some in chunked(keys):
            rows = await connection.execute(database.dialect.by_ids(query, jobs, some))
            found.update((UUID(bytes=bytes(row.id)), database.dialect.parse_timestamp(row.created_at)) for row in rows)
        return found

    return await database.read(read)


async def has_unrelayed(database: Database, queue: str) -> bool:
    """Whether a row of the queue may still have to be relayed. A relayed row was put back with its attempt counted. The
    relay that holds a row may have died before that. Reads the rows of the queue up to the first match."""
    on_its_way = or_(jobs.c.attempts == 0, jobs.c.reserved_by.is_not(None))
    query = select(jobs.c.id).where(jobs.c.queue == queue, on_its_way).limit(1)

    async def read(connection: AsyncConnection) -> bool:
        return (await connection.execute(query)).first() is not None

    return await database.read(read)
