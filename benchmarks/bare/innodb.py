"""The bare loop on MySQL and MariaDB, over asyncmy without SQLAlchemy."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import asyncmy
from sqlalchemy import make_url

from benchmarks.bare.loop import Loop, Row
from benchmarks.job_counters import Counters

# Jobs are held as outbox holds short ones in a backlog, so that both give the server the same work.
_SELECT = (
    "SELECT id, payload FROM queue_jobs FORCE INDEX (queue_jobs_claim) WHERE queue = 'default' "
    "AND priority IN (0, 1, 2, 3, 4, 5, 6, 7, 8, 9) AND available_at <= UTC_TIMESTAMP(6) "
    "AND (reserved_until IS NULL OR reserved_until <= UTC_TIMESTAMP(6)) "
    "ORDER BY priority, available_at LIMIT {} FOR UPDATE SKIP LOCKED"
)
_RESERVE = (
    "UPDATE queue_jobs FORCE INDEX (PRIMARY) SET reserved_by = %s, "
    "reserved_until = UTC_TIMESTAMP(6) + INTERVAL 30 SECOND, {} attempts = attempts + 1 WHERE id IN ({})"
)
_MOVE = "available_at = UTC_TIMESTAMP(6) + INTERVAL 30 SECOND,"
_DELETE = "DELETE queue_jobs FROM queue_jobs FORCE INDEX (PRIMARY) WHERE id IN ({})"


async def connect(url: str) -> Any:
    """A connection at READ COMMITTED whose transactions begin by themselves."""
    address = make_url(url)
    connection = await asyncmy.connect(
        host=address.host,
        port=address.port or 3306,
        user=address.username,
        password=address.password or "",
        db=address.database,
        autocommit=False,
    )
    async with connection.cursor() as cursor:
        await cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
    return connection


class InnoDBLoop(Loop):
    def __init__(self, url: str, counters: Counters, *, batch: int, joined: bool) -> None:
        super().__init__(counters, batch=batch, joined=joined)
        self._url = url
        self._select = _SELECT.format(batch)

    async def connect(self) -> None:
        self._connection = await connect(self._url)
        self._move = _MOVE if "MariaDB" in self._connection.get_server_info() else ""

    async def claim(self) -> Sequence[Row]:
        async with self._connection.cursor() as cursor:
            await cursor.execute(self._select)
            rows: Sequence[Row] = await cursor.fetchall()
            if rows:
                ids = sorted(row[0] for row in rows)
                await cursor.execute(_RESERVE.format(self._move, _marks(ids)), (os.urandom(16), *ids))
        return rows

    async def delete(self, ids: Sequence[bytes]) -> None:
        async with self._connection.cursor() as cursor:
            await cursor.execute(_DELETE.format(_marks(ids)), tuple(sorted(ids)))

    async def commit(self) -> None:
        await self._connection.commit()

    async def close(self) -> None:
        await self._connection.ensure_closed()


def _marks(ids: Sequence[bytes]) -> str:
    return ", ".join(["%s"] * len(ids))
