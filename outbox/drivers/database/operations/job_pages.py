"""Pages of live jobs for an operator. A page reads a bounded number of rows along the claim index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, select
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.drivers.database import raw_columns
from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.dialects import Dialect
from outbox.drivers.database.operations import inspection
from outbox.drivers.database.tables import jobs
from outbox.drivers.filters import EXAMINED_PER_PAGE, JobFilter, JobPage, JobPlace
from outbox.drivers.values import JobState
from outbox.ids import JobId
from outbox.options import PRIORITIES

_LAST_ID = JobId(int=2**128 - 1)
_ORDER = (jobs.c.queue, jobs.c.priority, jobs.c.available_at, jobs.c.id)


async def page_of_jobs(database: Database, matching: JobFilter, limit: int, after: JobPlace | None) -> JobPage:
    """Two reads. The first finds, in the index alone, where the part ends that this page may look at; the second reads
    the rows in it that pass the filter. Without a name, a state or a key every row passes, and there is no first
    one."""
    dialect = database.dialect
    part = _part(dialect, matching, after)
    wanted: list[ColumnElement[bool]] = []
    if matching.name is not None:
        wanted.append(jobs.c.name == matching.name)
    if matching.state is not None:
        wanted.append(inspection.in_state(dialect, matching.state))
    if matching.key is not None:
        wanted.append(inspection.has_key(dialect, jobs.name, matching.key))

    async def read(connection: AsyncConnection) -> JobPage:
        end = await _end(connection, dialect, part) if wanted else None
        query = inspection.stored_jobs(dialect).with_hint(jobs, dialect.claim_hint).where(*part, *wanted)
        if end is not None:
            query = query.where(dialect.up_to_place(end))
        rows = (await connection.execute(query.order_by(*_ORDER).limit(limit))).mappings().all()
        found = inspection.readable(dialect, rows)
        return JobPage(found, JobPlace.of(found[-1]) if found and len(rows) == limit else end)

    return await database.read(read)


def _part(dialect: Dialect, matching: JobFilter, after: JobPlace | None) -> list[ColumnElement[bool]]:
    """Conditions that make ranges of the claim index."""
    part: list[ColumnElement[bool]] = []
    if matching.queue is not None:
        part.append(jobs.c.queue == matching.queue)
        if matching.state is JobState.READY:
            part += [jobs.c.priority.in_(PRIORITIES), jobs.c.available_at <= inspection.now_of(dialect)]
        elif matching.state in {JobState.DELAYED, JobState.RETRYING, JobState.PARKED}:
            part += [jobs.c.priority.in_(PRIORITIES), jobs.c.available_at > inspection.now_of(dialect)]
    if after is not None:
        part.append(dialect.after_place(after))
    return part


async def _end(connection: AsyncConnection, dialect: Dialect, part: Sequence[ColumnElement[bool]]) -> JobPlace | None:
    """The last place that one page may look at; None where the jobs end before it."""
    query: Any = select(*map(raw_columns.as_stored, _ORDER)).with_hint(jobs, dialect.claim_hint).where(*part)
    query = query.order_by(*_ORDER).limit(1).offset(EXAMINED_PER_PAGE - 1)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        return None
    # Of a row that has no id, all others of its moment are passed over.
    job_id = raw_columns.job_id(row.id) or _LAST_ID
    moment = dialect.parse_timestamp(row.available_at)
    return JobPlace(raw_columns.text(row.queue), raw_columns.number(row.priority), moment, job_id)
