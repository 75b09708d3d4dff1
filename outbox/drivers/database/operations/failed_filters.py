"""Failed jobs by name, error and age: filters as SQL, and groups with their counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import ColumnElement, Select, Text, and_, case, func, literal_column, or_, select, type_coerce
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.drivers.database import raw_columns
from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.connection.plans import running
from outbox.drivers.database.dialects import Dialect
from outbox.drivers.database.operations.failed_groups import GroupReader
from outbox.drivers.database.operations.failed_job_scope import FailedJobScope
from outbox.drivers.database.tables import failed_jobs
from outbox.drivers.filters import ANY_FAILED, FailedFilter, FailedGroup

_LATEST, _UNMARKED = 4_000, 500
"""Jobs that are looked at where no index has the groups: of a queue or with an error, and without a fingerprint. A
server counts each up to six times: in the index, kept, looked up, and in its group."""


async def conditions(database: Database, queue: str | None, matching: FailedFilter) -> list[ColumnElement[bool]]:
    """SQL conditions for the rows that match. The age is measured once, by the database's clock."""
    found: list[ColumnElement[bool]] = []
    if queue is not None:
        found.append(failed_jobs.c.queue == queue)
    if matching.name is not None:
        found.append(failed_jobs.c.name == matching.name)
    if matching.error is not None:
        kind, message = (_text(database.dialect, part) for part in ("type", "message"))
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


def _text(dialect: Dialect, key: str) -> ColumnElement[str]:
    return literal_column(dialect.exception_text(key))


async def time_from_now(database: Database, seconds: float) -> Any:
    """The time ``seconds`` from now by the database's clock, as a parameter."""
    then: ColumnElement[Any] = literal_column(database.dialect.seconds_from_now(seconds))

    async def read(connection: AsyncConnection) -> Any:
        return database.dialect.timestamp(database.dialect.parse_timestamp(await connection.scalar(select(then))))

    return await database.read(read)


async def groups(
    database: Database, queue: str | None, matching: FailedFilter, scope: FailedJobScope, limit: int
) -> list[FailedGroup]:
    """The largest groups of the jobs that match, at a bounded cost."""
    # Those by which an index finds the latest jobs; all others are looked at in their rows.
    found_by = await conditions(database, queue, FailedFilter(since=matching.since))
    passing = and_(scope.condition, *await conditions(database, None, replace(matching, since=None)))
    latest = select(failed_jobs.c.id).with_hint(failed_jobs, hint(database.dialect, queue, ANY_FAILED))
    latest = latest.where(*found_by).order_by(failed_jobs.c.failed_at.desc()).limit(_LATEST)
    if queue is not None or matching.error is not None:
        found = await _groups_of(database, latest, passing, _LATEST)
    else:
        found = await _groups_of_index(database, scope, matching)
        if matching.group is None:
            found += await _groups_of(database, _unmarked(database), and_(passing, *found_by), _UNMARKED)
    return sorted(found, key=lambda group: (-group.count, group.name, group.error))[:limit]


def _unmarked(database: Database) -> Select[Any]:
    """Jobs without a fingerprint, in the order of the index of fingerprints."""
    query = select(failed_jobs.c.id).with_hint(failed_jobs, database.dialect.group_hint)
    query = query.where(failed_jobs.c.fingerprint.is_(None))
    return query.order_by(failed_jobs.c.name.desc(), failed_jobs.c.failed_at.desc()).limit(_UNMARKED)


async def _groups_of_index(database: Database, scope: FailedJobScope, matching: FailedFilter) -> list[FailedGroup]:
    return await database.inspect(running(GroupReader(database.dialect, scope).groups, matching))


async def hours(database: Database, scope: FailedJobScope, groups: Sequence[FailedGroup]) -> list[list[int]]:
    """As `FailedJobStore.hours`."""
    return await database.inspect(running(GroupReader(database.dialect, scope).hours, groups))


async def _groups_of(
    database: Database, chosen: Select[Any], passing: ColumnElement[bool], most: int
) -> list[FailedGroup]:
    """Groups of the ``most`` jobs that are ``chosen``, as far as they are ``passing``."""
    dialect = database.dialect
    latest = chosen.subquery()
    kind = _text(dialect, "type").label("kind")
    passes = case((passing, 1), else_=0).label("passes")
    names = (failed_jobs.c.connection, failed_jobs.c.name, failed_jobs.c.fingerprint)
    query = (
        select(
            *map(raw_columns.as_stored, names),
            kind,
            passes,
            func.count().label("number"),
            type_coerce(func.min(failed_jobs.c.failed_at), Text).label("first"),
            type_coerce(func.max(failed_jobs.c.failed_at), Text).label("last"),
        )
        .select_from(latest.join(failed_jobs, failed_jobs.c.id == latest.c.id))
        .group_by(*names, kind, passes)
    )

    async def read(connection: AsyncConnection) -> list[FailedGroup]:
        rows = (await connection.execute(query)).all()
        cut = sum(row.number for row in rows) >= most
        return [_group(dialect, row, cut=cut) for row in rows if row.passes]

    return await database.inspect(read)


def _group(dialect: Dialect, row: Any, *, cut: bool) -> FailedGroup:
    text, moment_of = raw_columns.text, dialect.parse_timestamp
    return FailedGroup(
        text(row.connection),
        text(row.name),
        text(row.kind),
        row.number,
        moment_of(row.first),
        moment_of(row.last),
        text(row.fingerprint),
        at_least=cut,
    )
