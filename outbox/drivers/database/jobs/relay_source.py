"""Questions of a relay about rows whose jobs are for another store."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Select, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.drivers.base import Outcomes
from outbox.drivers.database import raw_columns
from outbox.drivers.database.chunks import chunked
from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.operations import policies
from outbox.drivers.database.tables import jobs
from outbox.ids import JobId
from outbox.options import RELAY_PREFIX


class RelayRows:
    """`RelaySource`, in the table `queue_jobs`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def written(self, job_ids: Sequence[JobId]) -> dict[JobId, datetime]:
        query = select(jobs.c.id, raw_columns.as_stored(jobs.c.created_at))
        return {key: self._database.dialect.parse_timestamp(at) for key, at in await self._read(query, job_ids)}

    async def queues(self, job_ids: Sequence[JobId]) -> dict[JobId, str]:
        query = select(jobs.c.id, jobs.c.queue).where(func.substr(jobs.c.queue, 1, 1) == RELAY_PREFIX)
        return {key: str(queue) for key, queue in await self._read(query, job_ids)}

    async def _read(self, query: Select[Any], job_ids: Sequence[JobId]) -> list[tuple[JobId, Any]]:
        """The ids and the other column of ``query``."""
        dialect, keys = self._database.dialect, sorted(job_id.bytes for job_id in job_ids)

        async def read(connection: AsyncConnection) -> list[tuple[JobId, Any]]:
            found: list[tuple[JobId, Any]] = []
            for some in chunked(keys):
                rows = await connection.execute(dialect.by_ids(query, jobs, some))
                found += [(JobId(bytes=bytes(key)), value) for key, value in rows]
            return found

        return await self._database.read(read)

    async def end_relayed(self, job_ids: Sequence[JobId], outcomes: Outcomes) -> list[JobId]:
        return await policies.end_relayed(self._database, job_ids, outcomes)

    async def has_unrelayed(self, queue: str) -> bool:
        """Whether a row of the queue may still have to be relayed. A relayed row was put back with its attempt counted.
        The relay that holds a row may have died before that. Reads the rows of the queue up to the first match."""
        on_its_way = or_(jobs.c.attempts == 0, jobs.c.reserved_by.is_not(None))
        query = select(jobs.c.id).where(jobs.c.queue == queue, on_its_way).limit(1)

        async def read(connection: AsyncConnection) -> bool:
            return (await connection.execute(query)).first() is not None

        return await self._database.read(read)
