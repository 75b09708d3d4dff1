"""Failed jobs for an operator: read, retry and delete."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Text, and_, cast, func, not_, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.drivers.database import raw_columns
from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.dialects import Dialect
from outbox.drivers.database.jobs.settlement_plan import load_failure
from outbox.drivers.database.operations import inspection
from outbox.drivers.database.operations.batch_delete import CHUNK, BatchDelete, chunks
from outbox.drivers.database.operations.failed_filters import conditions as conditions_of
from outbox.drivers.database.operations.failed_filters import time_from_now
from outbox.drivers.database.operations.policies import Removal, Return
from outbox.drivers.database.tables import failed_jobs
from outbox.drivers.filters import FailedFilter
from outbox.drivers.values import FailedJob
from outbox.errors import InvalidPayload, JobNotFound
from outbox.ids import JobId
from outbox.settlement import Failure, Outcome

# The JSON columns of queue_jobs refuse anything else; on SQLite, which would take it, a worker could not read it. As
# text, because what SQLite keeps as a BLOB is put back as text.
_STORABLE = tuple(func.json_valid(cast(column, Text)) == 1 for column in (failed_jobs.c.payload, failed_jobs.c.headers))


async def get_failed(database: Database, job_id: JobId) -> FailedJob | None:
    query = _failed_jobs().where(failed_jobs.c.id == job_id.bytes, database.origin.condition)

    async def read(connection: AsyncConnection) -> FailedJob | None:
        rows = (await connection.execute(query)).mappings()
        return next(iter(_readable(database.dialect, rows)), None)

    return await database.read(read)


async def list_failed(
    database: Database, queue: str | None, limit: int, before: JobId | None, matching: FailedFilter
) -> list[FailedJob]:
    """
    Raises:
        JobNotFound: ``before`` is gone, and with it the place where its page ended.
    """
    query = _failed_jobs().where(*await conditions_of(database, queue, matching))
    query = query.order_by(failed_jobs.c.failed_at.desc(), failed_jobs.c.id.desc()).limit(limit)

    async def read(connection: AsyncConnection) -> list[FailedJob]:
        page = query if before is None else query.where(await _earlier_than(connection, before))
        return _readable(database.dialect, (await connection.execute(page)).mappings())

    return await database.read(read)


async def _earlier_than(connection: AsyncConnection, job_id: JobId) -> ColumnElement[bool]:
    """Failures of one moment, those of one settlement, follow each other by id."""
    query = select(raw_columns.as_stored(failed_jobs.c.failed_at)).where(failed_jobs.c.id == job_id.bytes)
    failed_at = await connection.scalar(query)
    if failed_at is None:
        raise JobNotFound(f"the failed job {job_id} was removed meanwhile: begin again with the first page")
    timestamp = raw_columns.value_as_stored(failed_at)
    return or_(
        failed_jobs.c.failed_at < timestamp,
        and_(failed_jobs.c.failed_at == timestamp, failed_jobs.c.id < job_id.bytes),
    )


def _failed_jobs() -> Any:
    return select(*map(raw_columns.as_stored, failed_jobs.c))


async def locked_jobs(database: Database, connection: AsyncConnection, keys: Sequence[bytes]) -> list[FailedJob]:
    """The failed jobs in rows that this transaction has locked."""
    query = database.dialect.by_ids(_failed_jobs(), failed_jobs, keys)
    return _readable(database.dialect, (await connection.execute(query)).mappings())


def _readable(dialect: Dialect, rows: Iterable[Any]) -> list[FailedJob]:
    return [_failed_job(dialect, job_id, row) for row in rows if (job_id := raw_columns.job_id(row["id"])) is not None]


def _failed_job(dialect: Dialect, job_id: JobId, row: Any) -> FailedJob:
    values = raw_columns.values(failed_jobs, row, dialect.parse_timestamp)
    failure = _failure(values.pop("exception"))
    return FailedJob(**{**values, "id": job_id, "failure": failure})


def _failure(text: str) -> Failure:
    """The failure in ``text``. A row that another program wrote otherwise must not hide all others."""
    try:
        failure = load_failure(text)
    except (ValueError, KeyError, TypeError, RecursionError):
        return Failure("unknown", text, "")
    return Failure(*map(raw_columns.text, (failure.type, failure.message, failure.traceback)))


async def find_failed(database: Database, digits: str) -> list[JobId]:
    return await inspection.find_ids(database, failed_jobs, digits, database.origin.condition)


async def retry(database: Database, job_ids: Sequence[JobId]) -> list[JobId]:
    """Put failed jobs back under their ids, with no attempts counted, available now. A live job of the same id stays as
    it is, because it may be running; then only the failed row is deleted.

    Two operators who retry the same job put it back once: the second finds the row locked, then gone.
    """
    broken = [
        job_id
        for keys in chunks(job_ids)
        for job_id in await _unstorable(database, failed_jobs.c.id.in_(keys), limit=len(keys))
    ]
    if broken:
        names = ", ".join(str(job_id) for job_id in broken)
        raise InvalidPayload(
            f"the payload or the headers of {names} are not JSON, so nothing was retried: leave "
            f"{'it' if len(broken) == 1 else 'them'} out, or repair the row in queue_failed_jobs"
        )
    put_back: set[bytes] = set()
    for keys in chunks(job_ids):
        put_back.update(await _put_back(database, keys, strict=True))
    return [job_id for job_id in dict.fromkeys(job_ids) if job_id.bytes in put_back]


async def unretryable(database: Database, queue: str | None, limit: int, matching: FailedFilter) -> list[JobId]:
    return await _unstorable(database, *await conditions_of(database, queue, matching), limit=limit)


async def _unstorable(database: Database, *conditions: ColumnElement[bool], limit: int) -> list[JobId]:
    broken = or_(*(not_(storable) for storable in _STORABLE))
    query = (
        select(raw_columns.as_stored(failed_jobs.c.id))
        .where(broken, database.origin.condition, *conditions)
        .order_by(failed_jobs.c.id)
        .limit(limit)
    )

    async def read(connection: AsyncConnection) -> list[JobId]:
        found = map(raw_columns.job_id, await connection.scalars(query))
        return [job_id for job_id in found if job_id is not None]

    return await database.read(read)


async def _put_back(
    database: Database, keys: Sequence[bytes], *conditions: ColumnElement[bool], strict: bool = False
) -> list[bytes]:
    async def insert(connection: AsyncConnection, locked: Sequence[bytes]) -> None:
        await connection.exec_driver_sql(database.dialect.copy_from_failed(len(locked)), tuple(locked))

    mine = database.origin.condition
    gated = Return(database, strict=strict).ask
    return await BatchDelete(database, failed_jobs, keys, mine, *conditions, *_STORABLE, also=insert, gated=gated).run()


async def retry_all(database: Database, queue: str | None, matching: FailedFilter) -> int:
    """Retry the jobs that had failed when the call began. A job that fails again meanwhile is not retried again."""

    async def put_back(keys: Sequence[bytes], *conditions: ColumnElement[bool]) -> list[bytes]:
        return await _put_back(database, keys, *conditions)

    return await sweep(database, queue, 0.0, matching, put_back)


async def forget(database: Database, job_ids: Sequence[JobId]) -> list[JobId]:
    removed: set[bytes] = set()
    for keys in chunks(job_ids):
        removed.update(await _forget(database, keys, database.origin.condition))
    return [job_id for job_id in dict.fromkeys(job_ids) if job_id.bytes in removed]


async def flush(database: Database, queue: str | None, older_than: float | None, matching: FailedFilter) -> int:
    """Delete failed jobs. Their age is measured once, by the database's clock."""

    async def remove(keys: Sequence[bytes], *conditions: ColumnElement[bool]) -> list[bytes]:
        return await _forget(database, keys, *conditions)

    return await sweep(database, queue, older_than or 0.0, matching, remove)


async def _forget(database: Database, keys: Sequence[bytes], *conditions: ColumnElement[bool]) -> list[bytes]:
    removal = Removal(database, failed_jobs.name, Outcome.FORGOTTEN)
    removed = await BatchDelete(database, failed_jobs, keys, *conditions, gated=removal.leave).run()
    removal.report()
    return removed


async def sweep(
    database: Database,
    queue: str | None,
    age: float,
    matching: FailedFilter,
    act: Callable[..., Awaitable[list[bytes]]],
) -> int:
    """Walk once, in the order of the key, over the jobs (of a queue) that match and failed at least ``age`` seconds
    ago, and ``act`` on each chunk; what changes between looking and acting is seen by the conditions that ``act``
    repeats."""
    horizon = await time_from_now(database, -age)
    conditions = [failed_jobs.c.failed_at <= horizon, *await conditions_of(database, queue, matching)]
    done = 0
    last = b""
    while True:
        keys = await _keys_after(database, last, conditions)
        if keys:
            done += len(await act(keys, *conditions))
        if len(keys) < CHUNK:
            return done
        last = keys[-1]


async def _keys_after(database: Database, last: bytes, conditions: Sequence[ColumnElement[bool]]) -> list[bytes]:
    query = (
        select(raw_columns.as_stored(failed_jobs.c.id))
        .with_hint(failed_jobs, database.dialect.primary_hint)
        .where(failed_jobs.c.id > last, *conditions)
        .order_by(failed_jobs.c.id)
        .limit(CHUNK)
    )

    async def read(connection: AsyncConnection) -> list[bytes]:
        return list(await connection.scalars(query))

    return await database.read(read)
