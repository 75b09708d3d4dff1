"""Failed jobs by name, error and age: filters as SQL, and groups with their counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Text, func, literal_column, or_, select, type_coerce
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.drivers.database import raw_columns
from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.dialects import Dialect
from outbox.drivers.database.tables import failed_jobs
from outbox.drivers.filters import FailedFilter, FailedGroup

_MICROSECONDS = 1_000_000


async def conditions(database: Database, queue: str | None, matching: FailedFilter) -> list[ColumnElement[bool]]:
    """SQL conditions for the rows that match. The age is measured once, by the database's clock."""
    found: list[ColumnElement[bool]] = []
    if queue is not None:
        found.append(failed_jobs.c.queue == queue)
    if matching.name is not None:
        found.append(failed_jobs.c.name == matching.name)
    if matching.error is not None:
        found.append(_has_error(database.dialect, matching.error))
    if matching.since is not None:
        found.append(failed_jobs.c.failed_at >= await time_from_now(database, -matching.since))
    return found


def _has_error(dialect: Dialect, error: str) -> ColumnElement[bool]:
    kind, message = _text(dialect, "type"), _text(dialect, "message")
    ends = func.substr(kind, -len(error) - 1) == f".{error}"
    return or_(kind == error, ends, func.instr(message, error) > 0)


def _text(dialect: Dialect, key: str) -> ColumnElement[str]:
    return literal_column(dialect.exception_text(key))


async def time_from_now(database: Database, seconds: float) -> Any:
    """The time ``seconds`` from now by the database's clock, as a parameter."""
    then: ColumnElement[Any] = literal_column(database.dialect.now_plus(str(int(seconds * _MICROSECONDS))))

    async def read(connection: AsyncConnection) -> Any:
        return database.dialect.timestamp(database.dialect.parse_timestamp(await connection.scalar(select(then))))

    return await database.read(read)


async def groups(database: Database, conditions: Sequence[ColumnElement[bool]], limit: int) -> list[FailedGroup]:
    """Reads every failed job that matches once: the type is in no index."""
    kind = _text(database.dialect, "type").label("kind")
    count = func.count().label("number")
    query = (
        select(
            raw_columns.as_stored(failed_jobs.c.connection),
            raw_columns.as_stored(failed_jobs.c.name),
            kind,
            count,
            type_coerce(func.min(failed_jobs.c.failed_at), Text).label("first"),
            type_coerce(func.max(failed_jobs.c.failed_at), Text).label("last"),
        )
        .where(*conditions)
        .group_by(failed_jobs.c.connection, failed_jobs.c.name, kind)
        .order_by(count.desc(), failed_jobs.c.name, kind)
        .limit(limit)
    )
    moment_of, text = database.dialect.parse_timestamp, raw_columns.text

    def group(row: Any) -> FailedGroup:
        names = (text(row.connection), text(row.name), text(row.kind))
        return FailedGroup(*names, row.number, moment_of(row.first), moment_of(row.last))

    async def read(connection: AsyncConnection) -> list[FailedGroup]:
        return [group(row) for row in await connection.execute(query)]

    return await database.read(read)
