"""Rows that hold something encrypted, for those who encrypt it with another key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Column, Text, cast, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.drivers.base import Rewrite
from outbox.drivers.database import raw_columns
from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.finished_jobs import finished_jobs
from outbox.drivers.database.policies.schedule_tables import schedules
from outbox.drivers.database.policies.unique_tables import unique_jobs
from outbox.drivers.database.tables import batches, failed_jobs, jobs
from outbox.drivers.values import RewrittenTexts
from outbox.encryption import MARK

_LOOKED_AT = 5_000
_WRITTEN_AT_ONCE = 100


class _Texts(NamedTuple):
    """The columns of a table that can hold something encrypted, all in the rows of one job, batch or schedule."""

    key: Column[Any]
    columns: tuple[Column[Any], ...]


# In the order in which a job moves from one to the next.
_TABLES = (
    _Texts(schedules.c.name, (schedules.c.definition,)),
    _Texts(batches.c.id, (batches.c.plan,)),
    _Texts(unique_jobs.c.job_id, (unique_jobs.c.payload,)),
    _Texts(jobs.c.id, (jobs.c.payload, jobs.c.headers)),
    _Texts(failed_jobs.c.id, (failed_jobs.c.payload, failed_jobs.c.headers, failed_jobs.c.exception)),
    _Texts(finished_jobs.c.id, (finished_jobs.c.payload, finished_jobs.c.headers, finished_jobs.c.result)),
)


class EncryptedRows:
    """`EncryptedTexts`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def rewrite(self, rewrite: Rewrite) -> RewrittenTexts:
        done = RewrittenTexts()
        for texts in _TABLES:
            last: Any = None
            while True:
                looked_at = await self._look(texts, last)
                found = [key for key, encrypted in looked_at if encrypted]
                for start in range(0, len(found), _WRITTEN_AT_ONCE):
                    done += await self._rewrite(texts, found[start : start + _WRITTEN_AT_ONCE], rewrite)
                if len(looked_at) < _LOOKED_AT:
                    break
                last = looked_at[-1][0]
        return done

    async def _look(self, texts: _Texts, last: Any) -> list[tuple[Any, bool]]:
        """The next keys of a table, and whether their rows hold something encrypted."""
        key = texts.key
        holds = or_(*(cast(column, Text).like(f"%{MARK}%") for column in texts.columns))
        query = select(raw_columns.as_stored(key), holds).order_by(key).limit(_LOOKED_AT)
        if last is not None:
            query = query.where(key > last)

        async def read(connection: AsyncConnection) -> list[tuple[Any, bool]]:
            return [(row[0], bool(row[1])) for row in await connection.execute(query)]

        return await self._database.read(read)

    async def _rewrite(self, texts: _Texts, keys: Sequence[Any], rewrite: Rewrite) -> RewrittenTexts:
        """In one transaction, which waits for no lock: a row that another transaction has locked is busy."""
        columns = [cast(column, Text) for column in texts.columns]
        locking = (
            select(raw_columns.as_stored(texts.key), *columns)
            .where(texts.key.in_(keys))
            .order_by(texts.key)
            .with_for_update(skip_locked=True)
        )

        async def write(connection: AsyncConnection) -> RewrittenTexts:
            rows = (await connection.execute(locking)).all()
            rewritten = 0
            for key, *values in rows:
                changed = [None if value is None else rewrite(value) for value in values]
                if changed != values:
                    await connection.exec_driver_sql(self._update(texts), (*changed, key))
                    rewritten += 1
            return RewrittenTexts(rewritten, len(keys) - len(rows))

        return await self._database.write(write)

    def _update(self, texts: _Texts) -> str:
        mark = self._database.dialect.placeholder
        values = ", ".join(f"{column.name} = {mark}" for column in texts.columns)
        return f"UPDATE {texts.key.table.name} SET {values} WHERE {texts.key.name} = {mark}"
