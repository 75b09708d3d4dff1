"""Live jobs and queues for an operator: read, cancel and clear."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Table,
    Text,
    and_,
    case,
    func,
    literal,
    literal_column,
    null,
    or_,
    select,
    true,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.drivers.database import raw_columns
from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.dialects import Dialect
from outbox.drivers.database.operations.batch_delete import CHUNK, BatchDelete, chunks
from outbox.drivers.database.operations.failed_job_scope import FailedJobScope
from outbox.drivers.database.operations.policies import Removal
from outbox.drivers.database.tables import EVERY_QUEUE, PARKED, failed_jobs, jobs, pauses
from outbox.drivers.values import JobState, QueueCounts, StoredJob
from outbox.ids import JobId
from outbox.options import RELAY_PREFIX
from outbox.policies.keys import Kind
from outbox.settlement import Outcome

_FAILED, _PAUSED = "failed", "paused"
_MATCHES = 20
ENDS_LOOKED_AT = 5_000
"""Rows of each place in which an end of an id is looked for first."""
_SHOWN_DIGITS = 12
"""Of an id, as commands show it."""
_ID_DIGITS = 32


async def get(database: Database, job_id: JobId) -> StoredJob | None:
    query = stored_jobs(database.dialect).where(jobs.c.id == job_id.bytes)

    async def read(connection: AsyncConnection) -> StoredJob | None:
        rows = (await connection.execute(query)).mappings()
        return next(iter(readable(database.dialect, rows)), None)

    return await database.read(read)


async def stored(dialect: Dialect, connection: AsyncConnection, keys: Sequence[bytes]) -> list[StoredJob]:
    """Those of these jobs that are live, by id."""
    query = dialect.by_ids(stored_jobs(dialect), jobs, keys)
    return readable(dialect, (await connection.execute(query)).mappings())


async def list_jobs(database: Database, queue: str | None, limit: int) -> list[StoredJob]:
    """By queue, and in it in the order of the claim index."""
    query = stored_jobs(database.dialect).with_hint(jobs, database.dialect.claim_hint)
    query = query.order_by(jobs.c.queue, *_CLAIM_ORDER).limit(limit)
    if queue is not None:
        query = query.where(jobs.c.queue == queue)

    async def read(connection: AsyncConnection) -> list[StoredJob]:
        return readable(database.dialect, (await connection.execute(query)).mappings())

    return await database.read(read)


_CLAIM_ORDER = (jobs.c.priority, jobs.c.available_at, jobs.c.id)


def now_of(dialect: Dialect) -> ColumnElement[datetime]:
    return literal_column(dialect.now)


def in_state(dialect: Dialect, state: JobState) -> ColumnElement[bool]:
    return _state(dialect) == state.value


def _state(dialect: Dialect) -> ColumnElement[str]:
    return case(
        (jobs.c.reserved_until > now_of(dialect), JobState.RESERVED.value),
        (jobs.c.available_at >= literal(PARKED, Text), JobState.PARKED.value),
        (and_(jobs.c.available_at > now_of(dialect), jobs.c.last_error_at.is_not(None)), JobState.RETRYING.value),
        (jobs.c.available_at > now_of(dialect), JobState.DELAYED.value),
        else_=JobState.READY.value,
    )


def has_key(dialect: Dialect, table: str, key: str) -> ColumnElement[bool]:
    """Whether a row of ``table``, a name or an alias, has an ordering, concurrency or fair key of this name."""
    paths = (f"keys.{kind.name.lower()}.name" for kind in Kind)
    return or_(*(literal_column(dialect.json_text(f"{table}.headers", path)) == key for path in paths))


_SHOWN = tuple(field.name for field in fields(StoredJob))


def stored_jobs(dialect: Dialect) -> Any:
    return select(*raw_columns.all_as_stored(jobs, _SHOWN), _state(dialect).label("state"))


def readable(dialect: Dialect, rows: Iterable[Any]) -> list[StoredJob]:
    """The jobs of rows of `stored_jobs`; a row whose id is none is left out."""
    return [_stored_job(dialect, job_id, row) for row in rows if (job_id := raw_columns.job_id(row["id"])) is not None]


def _stored_job(dialect: Dialect, job_id: JobId, row: Any) -> StoredJob:
    values = raw_columns.values(jobs, row, dialect.parse_timestamp)
    return StoredJob(**{**values, "id": job_id, "state": JobState(row["state"])})


async def find(database: Database, digits: str, *, nearby: bool) -> list[JobId]:
    hint = database.dialect.primary_hint
    return await IdSearch(jobs, digits, ((hint, jobs.c.id.asc()), (hint, jobs.c.id.desc()))).find(
        database, nearby=nearby
    )


@dataclass(frozen=True, slots=True)
class IdSearch:
    """Finds ids in ``table`` that begin or end with these hexadecimal ``digits``, of rows that meet ``conditions``.

    A beginning is a range of the key. No index has the ends. Those of as many digits as commands show are looked for
    among the first rows of each of the ``places`` first: another id with the same end is next to impossible. Each place
    is an index hint and the column of its order.
    """

    table: Table
    digits: str
    places: Sequence[tuple[str, ColumnElement[Any]]]
    conditions: Sequence[ColumnElement[bool]] = ()

    async def find(self, database: Database, *, nearby: bool) -> list[JobId]:
        """``nearby``: not among all."""

        async def read(connection: AsyncConnection) -> list[JobId]:
            found = await self._nearby(connection) if len(self.digits) >= _SHOWN_DIGITS else []
            return found if found or nearby else await self._anywhere(connection)

        return await database.read(read)

    async def _nearby(self, connection: AsyncConnection) -> list[JobId]:
        query = select(self._key).where(self._begins, *self.conditions).order_by(self.table.c.id).limit(_MATCHES)
        keys = list(await connection.scalars(query))
        # In the rows, and not a condition on them: a row that does not pass is looked at, too.
        passes = case((and_(true(), *self.conditions), 1), else_=0).label("passes")
        for hint, order in self.places:
            part = select(self._key, passes).with_hint(self.table, hint).order_by(order).limit(ENDS_LOOKED_AT)
            keys += [row.id for row in await connection.execute(part) if row.passes]
        ids = {job_id for job_id in map(raw_columns.job_id, keys) if job_id is not None}
        return sorted(each for each in ids if self._matches(each))[:_MATCHES]

    def _matches(self, job_id: JobId) -> bool:
        digits = self.digits.lower()
        return job_id.hex.startswith(digits) or job_id.hex.endswith(digits)

    async def _anywhere(self, connection: AsyncConnection) -> list[JobId]:
        ends = func.hex(self.table.c.id).like(f"%{self.digits.upper()}")
        query = select(self._key).where(or_(self._begins, ends), *self.conditions)
        found = map(raw_columns.job_id, await connection.scalars(query.order_by(self.table.c.id).limit(_MATCHES)))
        return [job_id for job_id in found if job_id is not None]

    @property
    def _key(self) -> ColumnElement[Any]:
        return raw_columns.as_stored(self.table.c.id)

    @property
    def _begins(self) -> ColumnElement[bool]:
        first, last = (bytes.fromhex(self.digits.ljust(_ID_DIGITS, filler)) for filler in "0f")
        return self.table.c.id.between(first, last)


async def exact_counts(database: Database, scope: FailedJobScope) -> list[QueueCounts]:
    """All jobs, in one statement, so that a job that moves meanwhile is counted in one place, not in two or none.

    It reads every live row once: which of them are reserved is in no index, because a claim is to touch none.
    """
    dialect = database.dialect
    waiting: ColumnElement[float | None] = literal_column(f"-({dialect.seconds_until('MIN(available_at)')})")
    query = union_all(
        select(
            jobs.c.queue, _state(dialect).label("state"), func.count().label("number"), waiting.label("waiting")
        ).group_by(jobs.c.queue, "state"),
        select(failed_jobs.c.queue, literal_column(f"'{_FAILED}'"), func.count(), null())
        .where(scope.condition)
        .group_by(failed_jobs.c.queue),
        select(pauses.c.queue, literal_column(f"'{_PAUSED}'"), literal_column("1"), null()).where(
            pauses.c.queue != EVERY_QUEUE,
            or_(pauses.c.paused_until.is_(None), pauses.c.paused_until > now_of(database.dialect)),
        ),
    )

    async def read(connection: AsyncConnection) -> list[QueueCounts]:
        queues: dict[str, dict[str, tuple[int, float | None]]] = {}
        for queue, kind, number, oldest in await connection.execute(query):
            known, longest = queues.setdefault(raw_columns.text(queue), {}).get(kind, (0, None))
            waited = raw_columns.seconds(oldest)
            queues[raw_columns.text(queue)][kind] = (
                known + number,
                longest if waited is None else max(waited, longest or 0.0),
            )
        return [_queue_counts(queue, found) for queue, found in sorted(queues.items())]

    return await database.read(read)


def _queue_counts(queue: str, found: dict[str, tuple[int, float | None]]) -> QueueCounts:
    nothing = (0, None)
    ready, oldest = found.get(JobState.READY, nothing)
    return QueueCounts(
        queue=queue,
        ready=ready,
        delayed=found.get(JobState.DELAYED, nothing)[0],
        reserved=found.get(JobState.RESERVED, nothing)[0],
        failed=found.get(_FAILED, nothing)[0],
        oldest=None if oldest is None else max(0.0, float(oldest)),
        paused=_PAUSED in found,
        retrying=found.get(JobState.RETRYING, nothing)[0],
        parked=found.get(JobState.PARKED, nothing)[0],
    )


async def now(database: Database) -> datetime:
    query = select(now_of(database.dialect))

    async def read(connection: AsyncConnection) -> datetime:
        return database.dialect.parse_timestamp(await connection.scalar(query))

    return await database.read(read)


async def cancel(database: Database, job_ids: Sequence[JobId]) -> list[JobId]:
    """Delete the rows, held or not. The token of a worker that runs such a job then matches no row. Those of jobs that
    were relayed stay: another store has the jobs."""
    removed: set[bytes] = set()
    is_here = or_(func.substr(jobs.c.queue, 1, 1) != RELAY_PREFIX, jobs.c.attempts == 0)
    for keys in chunks(job_ids):
        removal = Removal(database, jobs.name, Outcome.CANCELLED)
        removed.update(await BatchDelete(database, jobs, keys, is_here, gated=removal.leave).run())
        await removal.report()
    return [job_id for job_id in dict.fromkeys(job_ids) if job_id.bytes in removed]


async def clear(database: Database, queue: str) -> int:
    """Walk the queue once in the order of the claim index, so that it ends however fast jobs come in at its end. A row
    that a worker claims meanwhile is left alone."""
    removed = 0
    place: _Place | None = None
    while True:
        found = await _unheld_after(database, queue, place)
        if found:
            keys = sorted(job.key for job in found if isinstance(job.key, bytes))
            conditions = (jobs.c.queue == queue, _unheld(database.dialect))
            removal = Removal(database, jobs.name, Outcome.CANCELLED)
            deletion = BatchDelete(database, jobs, keys, *conditions, gated=removal.leave, skip_locked=True)
            removed += len(await deletion.run())
            await removal.report()
        if len(found) < CHUNK:
            return removed
        place = found[-1]


def _unheld(dialect: Dialect) -> ColumnElement[bool]:
    return or_(jobs.c.reserved_until.is_(None), jobs.c.reserved_until <= now_of(dialect))


class _Place(NamedTuple):
    """Where a job is in the claim index of its queue."""

    priority: int
    available_at: datetime
    key: bytes
    """Another program may have written another type into SQLite: such a row is left alone."""


async def _unheld_after(database: Database, queue: str, place: _Place | None) -> list[_Place]:
    query = (
        select(*map(raw_columns.as_stored, (jobs.c.priority, jobs.c.available_at, jobs.c.id)))
        .with_hint(jobs, database.dialect.claim_hint)
        .where(jobs.c.queue == queue, _unheld(database.dialect))
        .order_by(*_CLAIM_ORDER)
        .limit(CHUNK)
    )
    if place is not None:
        query = query.where(_after(place))

    async def read(connection: AsyncConnection) -> list[_Place]:
        return [_Place(*row) for row in await connection.execute(query)]

    return await database.read(read)


def _after(place: _Place) -> ColumnElement[bool]:
    """Written out: MySQL makes no range of ``(priority, available_at, id) > (…)``."""
    priority, available_at, key = map(raw_columns.value_as_stored, place)
    same_priority = jobs.c.priority == priority
    return or_(
        jobs.c.priority > priority,
        and_(same_priority, jobs.c.available_at > available_at),
        and_(same_priority, jobs.c.available_at == available_at, jobs.c.id > key),
    )
