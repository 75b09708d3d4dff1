"""Failed jobs by queue, name, error and age: filters as SQL."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, func, literal_column, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.dialects import Dialect
from outbox.drivers.database.tables import failed_jobs
from outbox.drivers.filters import FailedFilter


async def conditions(database: Database, queue: str | None, matching: FailedFilter) -> list[ColumnElement[bool]]:
    """SQL conditions for the rows that match. The age is measured once, by the database's clock."""
    found: list[ColumnElement[bool]] = []
    if queue is not None:
        found.append(failed_jobs.c.queue == queue)
    if matching.name is not None:
        found.append(failed_jobs.c.name == matching.name)
    if matching.error is not None:
        kind, message = (error_text(database.dialect, part) for part in ("type", "message"))
        found.append(is_error(matching.error, kind, message))
    if matching.group is not None:
        found.append(failed_jobs.c.fingerprint == matching.group)
    if matching.since is not None:
        found.append(failed_jobs.c.failed_at >= await time_from_now(database, -matching.since))
    return found


def hint(dialect: Dialect, queue: str | None, matching: FailedFilter) -> str:
    """The index that has the jobs of a group, or all by time. A server that expects few jobs reads and sorts all."""
    if matching.group is not None:
        return dialect.group_hint
    return dialect.latest_hint if queue is None else dialect.failed_hint


def is_error(error: str, kind: ColumnElement[str], message: ColumnElement[str]) -> ColumnElement[bool]:
    """``error`` is a type of exception, with or without its module, or a part of the message."""
    ends = func.substr(kind, -len(error) - 1) == f".{error}"
    return or_(kind == error, ends, func.instr(message, error) > 0)


def error_text(dialect: Dialect, key: str) -> ColumnElement[str]:
    """The ``type`` or the ``message`` of the exception."""
    return literal_column(dialect.exception_text(key))


async def time_from_now(database: Database, seconds: float) -> Any:
    """The time ``seconds`` from now by the database's clock, as a parameter."""
    then: ColumnElement[Any] = literal_column(database.dialect.seconds_from_now(seconds))

    async def read(connection: AsyncConnection) -> Any:
        return database.dialect.timestamp(database.dialect.parse_timestamp(await connection.scalar(select(then))))

    return await database.read(read)
