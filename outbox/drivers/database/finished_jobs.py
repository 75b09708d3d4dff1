"""Jobs that are kept for a while after they have ended, and how far running jobs are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Double,
    Index,
    Table,
    Text,
    and_,
    literal,
    or_,
    select,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.drivers.database import raw_columns
from outbox.drivers.database.chunks import packets
from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.connection.plans import Plan
from outbox.drivers.database.connection.raw_connection import SqlConnection
from outbox.drivers.database.dialects import Dialect
from outbox.drivers.database.forgetting import forget
from outbox.drivers.database.tables import INNODB, ascii_text, binary, long_text, metadata, short_text, small, timestamp
from outbox.drivers.filters import EXAMINED_PER_PAGE, FinishedPage, FinishedPlace
from outbox.drivers.values import FinishedJob, JobProgress
from outbox.ids import JobId
from outbox.policies.results import TEXT_LIMIT, Progress
from outbox.settlement import Fence, KeepFinished

finished_jobs = Table(
    "queue_finished_jobs",
    metadata,
    Column("id", binary(), primary_key=True),
    Column("queue", ascii_text(64), nullable=False),
    Column("name", ascii_text(255), nullable=False),
    Column("priority", small(), nullable=False),
    Column("payload", long_text(), nullable=False),
    Column("headers", long_text(), nullable=False),
    Column("attempts", small(), nullable=False),
    Column("result", long_text(), nullable=False),
    Column("progress", Double()),
    Column("progress_text", short_text(TEXT_LIMIT)),
    Column("seconds", Double(), nullable=False),
    Column("finished_at", timestamp(), nullable=False),
    Column("kept_until", timestamp(), nullable=False),
    Index("queue_finished_jobs_finished_at", "finished_at"),
    Index("queue_finished_jobs_kept_until", "kept_until"),
    **INNODB,
)
"""Completed jobs with ``keep_for``, written by their settlements."""

progress = Table(
    "queue_progress",
    metadata,
    Column("job_id", binary(), primary_key=True),
    Column("fraction", Double(), nullable=False),
    Column("message", short_text(TEXT_LIMIT), nullable=False),
    Column("reported_at", timestamp(), nullable=False),
    **INNODB,
)
"""How far live jobs are that have said so. `prune` removes the rows of those that have ended."""

_AS_STORED = tuple(map(raw_columns.as_stored, finished_jobs.c))
_COLUMNS = tuple(finished_jobs.c.keys())
_LATEST_FIRST = (finished_jobs.c.finished_at.desc(), finished_jobs.c.id.desc())


def keep(dialect: Dialect, effects: Sequence[KeepFinished]) -> Plan[None]:
    """In the transaction that removes these jobs."""
    for some in packets(sorted(effects, key=lambda each: each.job_id), _size):
        rows: list[str] = []
        parameters: list[Any] = []
        for effect in some:
            listed, job_id = dialect.id_list([effect.job_id.bytes])
            values = _values(effect)
            kept_until = dialect.seconds_from_now(effect.keep_for)
            rows.append(f"({listed}, {dialect.placeholders(len(values))}, {dialect.now}, {kept_until})")
            parameters += (*job_id, *values)
        yield (
            f"INSERT INTO queue_finished_jobs ({', '.join(_COLUMNS)}) VALUES {', '.join(rows)} "
            f"{dialect.keep_existing('queue_finished_jobs', 'id')}",
            tuple(parameters),
        )


def _size(effect: KeepFinished) -> int:
    return len(effect.payload) + len(effect.headers) + len(effect.result)


def _values(effect: KeepFinished) -> tuple[Any, ...]:
    """In the order of the columns, between the id and the times."""
    fraction, text = effect.progress or (None, None)
    job = effect.queue, effect.name, effect.priority, effect.payload, effect.headers, effect.attempts
    return (*job, effect.result, fraction, text, effect.seconds)


def _report(dialect: Dialect, fence: Fence, reported: Progress) -> tuple[str, tuple[Any, ...]]:
    """Nothing is written for a job that this token does not hold."""
    listed, parameters = dialect.id_list([fence.job_id.bytes])
    mark = dialect.placeholder
    return (
        "INSERT INTO queue_progress (job_id, fraction, message, reported_at) "
        f"SELECT id, {mark}, {mark}, {dialect.now} FROM queue_jobs WHERE id = {listed} AND reserved_by = {mark} "
        f"{dialect.update_existing('job_id')} fraction = {mark}, message = {mark}, reported_at = {dialect.now}",
        (*reported, *parameters, fence.token, *reported),
    )


class FinishedJobs:
    """The finished jobs of one database, and the progress of its live ones."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, job_id: JobId) -> FinishedJob | None:
        found = await self._read(select(*_AS_STORED).where(finished_jobs.c.id == job_id.bytes))
        return next(iter(found), None)

    async def latest(self, queue: str | None = None, name: str | None = None, limit: int = 100) -> list[FinishedJob]:
        query = _finished_jobs(self._database.dialect).where(*_wanted(queue, name)).order_by(*_LATEST_FIRST)
        return await self._read(query.limit(limit))

    async def page(
        self, queue: str | None = None, name: str | None = None, limit: int = 100, after: FinishedPlace | None = None
    ) -> FinishedPage:
        """Two reads, as for live jobs: where the part ends that the page may look at, and what matches in it."""
        dialect, wanted = self._database.dialect, _wanted(queue, name)
        part = [] if after is None else _behind(dialect, after)

        async def read(connection: AsyncConnection) -> FinishedPage:
            end = await _end(connection, dialect, part) if wanted else None
            query = _finished_jobs(dialect).where(*part, *wanted).order_by(*_LATEST_FIRST).limit(limit)
            if end is not None:
                query = query.where(*_up_to(dialect, end))
            rows = (await connection.execute(query)).mappings().all()
            found = self._jobs(rows)
            return FinishedPage(found, FinishedPlace.of(found[-1]) if found and len(rows) == limit else end)

        return await self._database.inspect(read)

    async def _read(self, query: Any) -> list[FinishedJob]:
        async def read(connection: AsyncConnection) -> list[FinishedJob]:
            return self._jobs((await connection.execute(query)).mappings())

        return await self._database.read(read)

    def _jobs(self, rows: Iterable[Any]) -> list[FinishedJob]:
        return [job for row in rows if (job := self._job(row)) is not None]

    def _job(self, row: Any) -> FinishedJob | None:
        """None for a row whose id is none."""
        job_id = raw_columns.job_id(row["id"])
        values = raw_columns.values(finished_jobs, row, self._database.dialect.parse_timestamp)
        return None if job_id is None else FinishedJob(**values | {"id": job_id})

    async def progress(self, job_id: JobId) -> JobProgress | None:
        query = select(*map(raw_columns.as_stored, progress.c)).where(progress.c.job_id == job_id.bytes)

        async def read(connection: AsyncConnection) -> JobProgress | None:
            row = (await connection.execute(query)).mappings().first()
            if row is None:
                return None
            values = raw_columns.values(progress, row, self._database.dialect.parse_timestamp)
            return JobProgress(values["fraction"], values["message"], values["reported_at"])

        return await self._database.read(read)

    async def report(self, reports: Sequence[tuple[Fence, Progress]]) -> None:
        async def write(connection: SqlConnection) -> None:
            for fence, reported in sorted(reports, key=lambda each: each[0].job_id):
                await connection.exec_driver_sql(*_report(self._database.dialect, fence, reported))

        await self._database.write_plain(write)

    async def prune(self) -> int:
        """Forget finished jobs whose time is over, and how far jobs were that have ended."""
        over = f"kept_until < {self._database.dialect.now} ORDER BY kept_until"
        removed = await forget(self._database, "queue_finished_jobs", over)
        ended = "NOT EXISTS (SELECT 1 FROM queue_jobs WHERE queue_jobs.id = queue_progress.job_id)"
        await forget(self._database, "queue_progress", ended, key="job_id")
        return removed


def _finished_jobs(dialect: Dialect) -> Any:
    return select(*_AS_STORED).with_hint(finished_jobs, dialect.finished_hint)


def _wanted(queue: str | None, name: str | None) -> list[ColumnElement[bool]]:
    given = ((finished_jobs.c.queue, queue), (finished_jobs.c.name, name))
    return [column == value for column, value in given if value is not None]


def _moment_of(dialect: Dialect, place: FinishedPlace) -> ColumnElement[Any]:
    # As a text, which a clock of another zone cannot shift.
    return literal(dialect.timestamp(place.finished_at), Text)


def _behind(dialect: Dialect, place: FinishedPlace) -> list[ColumnElement[bool]]:
    """Two conditions that are ranges of the index: by the time alone, which SQLite makes one of, and by time and id.
    With the first alone, MariaDB reads all jobs of the place's moment, backwards, before it looks at their ids."""
    finished_at, moment = finished_jobs.c.finished_at, _moment_of(dialect, place)
    same_moment = and_(finished_at == moment, finished_jobs.c.id < place.id.bytes)
    return [finished_at <= moment, or_(finished_at < moment, same_moment)]


def _up_to(dialect: Dialect, place: FinishedPlace) -> list[ColumnElement[bool]]:
    """The jobs down to ``place``, and it too: two ranges, as `_behind`."""
    finished_at, moment = finished_jobs.c.finished_at, _moment_of(dialect, place)
    same_moment = and_(finished_at == moment, finished_jobs.c.id >= place.id.bytes)
    return [finished_at >= moment, or_(finished_at > moment, same_moment)]


async def _end(
    connection: AsyncConnection, dialect: Dialect, part: Sequence[ColumnElement[bool]]
) -> FinishedPlace | None:
    """The last place that one page may look at; None where the jobs end before it."""
    place = map(raw_columns.as_stored, (finished_jobs.c.finished_at, finished_jobs.c.id))
    query = select(*place).with_hint(finished_jobs, dialect.finished_hint)
    query = query.where(*part).order_by(*_LATEST_FIRST)
    row = (await connection.execute(query.limit(1).offset(EXAMINED_PER_PAGE - 1))).one_or_none()
    if row is None or (job_id := raw_columns.job_id(row.id)) is None:
        return None
    return FinishedPlace(dialect.parse_timestamp(row.finished_at), job_id)
