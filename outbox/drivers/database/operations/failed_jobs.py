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
from outbox.drivers.database.operations import failed_filters, failed_groups, inspection
from outbox.drivers.database.operations.batch_delete import CHUNK, BatchDelete, chunks
from outbox.drivers.database.operations.failed_job_scope import FailedJobScope
from outbox.drivers.database.operations.policies import Removal, Return
from outbox.drivers.database.tables import failed_jobs
from outbox.drivers.filters import ANY_FAILED, FAILED_EXAMINED, FailedFilter, FailedGroup, FailedPage
from outbox.drivers.values import FailedJob
from outbox.errors import InvalidPayload, JobNotFound
from outbox.ids import JobId
from outbox.settlement import Failure, Outcome

# The JSON columns of queue_jobs refuse anything else; on SQLite, which would take it, a worker could not read it. As
# text, because what SQLite keeps as a BLOB is put back as text.
_STORABLE = tuple(func.json_valid(cast(column, Text)) == 1 for column in (failed_jobs.c.payload, failed_jobs.c.headers))
_UNSTORABLE = or_(*map(not_, _STORABLE))

_LATEST_FIRST = (failed_jobs.c.failed_at.desc(), failed_jobs.c.id.desc())


class FailedJobs:
    """`FailedJobStore`: the rows of `queue_failed_jobs` in ``scope``."""

    def __init__(self, database: Database, scope: FailedJobScope) -> None:
        self._database = database
        self.scope = scope

    async def get(self, job_id: JobId) -> FailedJob | None:
        query = _failed_jobs().where(failed_jobs.c.id == job_id.bytes, self.scope.condition)

        async def read(connection: AsyncConnection) -> FailedJob | None:
            rows = (await connection.execute(query)).mappings()
            return next(iter(_readable(self._database.dialect, rows)), None)

        return await self._database.read(read)

    async def page(
        self,
        queue: str | None = None,
        limit: int = 100,
        before: JobId | None = None,
        *,
        matching: FailedFilter = ANY_FAILED,
    ) -> list[FailedJob]:
        """
        Raises:
            JobNotFound: ``before`` is gone, and with it the place where its page ended.
        """
        query = _failed_jobs().with_hint(failed_jobs, failed_filters.hint(self._database.dialect, queue, matching))
        query = query.where(*await self._matching(queue, matching)).order_by(*_LATEST_FIRST).limit(limit)

        async def read(connection: AsyncConnection) -> list[FailedJob]:
            page = query if before is None else query.where(await _earlier_than(connection, before))
            return _readable(self._database.dialect, (await connection.execute(page)).mappings())

        return await self._database.inspect(read)

    async def bounded_page(
        self, queue: str | None, limit: int, before: JobId | None, *, matching: FailedFilter = ANY_FAILED
    ) -> FailedPage:
        """`FailedPages`. Two reads, as for live jobs: where the part ends that the page may look at, and what matches
        in it."""
        mine = [self.scope.condition, *await failed_filters.conditions(self._database, queue, matching)]
        part = [self.scope.condition, *await failed_filters.conditions(self._database, queue, FailedFilter())]
        dialect = self._database.dialect
        finds = matching.error is None and (matching.name is None or matching.group is not None)
        hint = failed_filters.hint(dialect, queue, matching if finds else ANY_FAILED)

        async def read(connection: AsyncConnection) -> FailedPage:
            behind = [] if before is None else [await _earlier_than(connection, before)]
            query = _failed_jobs().with_hint(failed_jobs, hint).where(*mine, *behind)
            query = query.order_by(*_LATEST_FIRST).limit(limit + 1)
            end = None if finds else await _end(connection, hint, [*part, *behind])
            if end is not None:
                query = query.where(*_up_to(*end))
            found = _readable(dialect, (await connection.execute(query)).mappings())
            last = None if end is None else raw_columns.job_id(end[1])
            return FailedPage(found[:limit], found[limit - 1].id if len(found) > limit else last)

        return await self._database.inspect(read)

    async def locked(self, connection: AsyncConnection, keys: Sequence[bytes]) -> list[FailedJob]:
        """The failed jobs in rows that this transaction has locked."""
        query = self._database.dialect.by_ids(_failed_jobs(), failed_jobs, keys)
        return _readable(self._database.dialect, (await connection.execute(query)).mappings())

    async def find(self, digits: str, *, nearby: bool = False) -> list[JobId]:
        dialect = self._database.dialect
        latest = (dialect.latest_hint, failed_jobs.c.failed_at.desc()), (dialect.primary_hint, failed_jobs.c.id.desc())
        searched = inspection.IdSearch(failed_jobs, digits, latest, (self.scope.condition,))
        return await searched.find(self._database, nearby=nearby)

    async def retry(self, job_ids: Sequence[JobId]) -> list[JobId]:
        """Put failed jobs back under their ids, with no attempts counted, available now. A live job of the same id
        stays as it is, because it may be running; then only the failed row is deleted.

        Two operators who retry the same job put it back once: the second finds the row locked, then gone.
        """
        broken = [
            job_id
            for keys in chunks(job_ids)
            for job_id in await self._unstorable(failed_jobs.c.id.in_(keys), limit=len(keys))
        ]
        if broken:
            names = ", ".join(str(job_id) for job_id in broken)
            raise InvalidPayload(
                f"the payload or the headers of {names} are not JSON, so nothing was retried: leave "
                f"{'it' if len(broken) == 1 else 'them'} out, or repair the row in queue_failed_jobs"
            )
        put_back: set[bytes] = set()
        for keys in chunks(job_ids):
            put_back.update(await self._put_back(keys, strict=True))
        return [job_id for job_id in dict.fromkeys(job_ids) if job_id.bytes in put_back]

    async def unretryable(
        self, queue: str | None = None, limit: int = 100, *, matching: FailedFilter = ANY_FAILED
    ) -> list[JobId]:
        return await self._unstorable(*await self._matching(queue, matching), limit=limit)

    async def _unstorable(self, *conditions: ColumnElement[bool], limit: int) -> list[JobId]:
        query = (
            select(raw_columns.as_stored(failed_jobs.c.id))
            .where(_UNSTORABLE, self.scope.condition, *conditions)
            .order_by(failed_jobs.c.id)
            .limit(limit)
        )

        async def read(connection: AsyncConnection) -> list[JobId]:
            found = map(raw_columns.job_id, await connection.scalars(query))
            return [job_id for job_id in found if job_id is not None]

        return await self._database.read(read)

    async def _put_back(
        self, keys: Sequence[bytes], *conditions: ColumnElement[bool], strict: bool = False
    ) -> list[bytes]:
        returning = Return(self._database, strict=strict)
        put_back = await self.putting_back(keys, returning, self.scope.condition, *conditions).run()
        returning.report()
        return put_back

    def putting_back(
        self, keys: Sequence[bytes], returning: Return, *conditions: ColumnElement[bool], skip_locked: bool = False
    ) -> BatchDelete:
        """The transaction that makes those of ``keys`` live again that meet ``conditions`` and that a live row can
        hold."""

        async def insert(connection: AsyncConnection, locked: Sequence[bytes]) -> None:
            await connection.exec_driver_sql(self._database.dialect.copy_from_failed(len(locked)), tuple(locked))

        return BatchDelete(
            self._database,
            failed_jobs,
            keys,
            *conditions,
            *_STORABLE,
            also=insert,
            gated=returning.ask,
            skip_locked=skip_locked,
        )

    async def unstorable(self, connection: AsyncConnection, keys: Sequence[bytes]) -> list[bytes]:
        """Those of these failed jobs that no live row can hold: their payload or headers are not JSON."""
        query = self._database.dialect.by_ids(select(failed_jobs.c.id).where(_UNSTORABLE), failed_jobs, keys)
        return [bytes(key) for key in await connection.scalars(query)]

    async def retry_all(self, queue: str | None = None, *, matching: FailedFilter = ANY_FAILED) -> int:
        """Retry the jobs that had failed when the call began. A job that fails again meanwhile is not retried again."""

        async def put_back(keys: Sequence[bytes], *conditions: ColumnElement[bool]) -> list[bytes]:
            return await self._put_back(keys, *conditions)

        return await self.sweep(queue, 0.0, matching, put_back)

    async def forget(self, job_ids: Sequence[JobId]) -> list[JobId]:
        removed: set[bytes] = set()
        for keys in chunks(job_ids):
            removed.update(await self._forget(keys, self.scope.condition))
        return [job_id for job_id in dict.fromkeys(job_ids) if job_id.bytes in removed]

    async def flush(
        self, queue: str | None = None, older_than: float | None = None, *, matching: FailedFilter = ANY_FAILED
    ) -> int:
        """Delete failed jobs. Their age is measured once, by the database's clock."""

        async def remove(keys: Sequence[bytes], *conditions: ColumnElement[bool]) -> list[bytes]:
            return await self._forget(keys, *conditions)

        return await self.sweep(queue, older_than or 0.0, matching, remove)

    async def _forget(self, keys: Sequence[bytes], *conditions: ColumnElement[bool]) -> list[bytes]:
        removal = Removal(self._database, failed_jobs.name, Outcome.FORGOTTEN)
        removed = await BatchDelete(self._database, failed_jobs, keys, *conditions, gated=removal.leave).run()
        await removal.report()
        return removed

    async def sweep(
        self,
        queue: str | None,
        age: float,
        matching: FailedFilter,
        act: Callable[..., Awaitable[list[bytes]]],
    ) -> int:
        """Walk once, in the order of the key, over the jobs (of a queue) that match and failed at least ``age`` seconds
        ago. ``act`` on each chunk: it repeats the conditions, and so sees what has changed since."""
        horizon = await failed_filters.time_from_now(self._database, -age)
        conditions = [failed_jobs.c.failed_at <= horizon, *await self._matching(queue, matching)]
        done = 0
        last = b""
        while True:
            keys = await self._keys_after(last, conditions)
            if keys:
                done += len(await act(keys, *conditions))
            if len(keys) < CHUNK:
                return done
            last = keys[-1]

    async def _keys_after(self, last: bytes, conditions: Sequence[ColumnElement[bool]]) -> list[bytes]:
        query = (
            select(raw_columns.as_stored(failed_jobs.c.id))
            .with_hint(failed_jobs, self._database.dialect.primary_hint)
            .where(failed_jobs.c.id > last, *conditions)
            .order_by(failed_jobs.c.id)
            .limit(CHUNK)
        )

        async def read(connection: AsyncConnection) -> list[bytes]:
            return list(await connection.scalars(query))

        return await self._database.read(read)

    async def groups(
        self, queue: str | None = None, limit: int = 100, *, matching: FailedFilter = ANY_FAILED
    ) -> list[FailedGroup]:
        return await failed_groups.groups(self._database, queue, matching, self.scope, limit)

    async def hours(self, groups: Sequence[FailedGroup]) -> list[list[int]]:
        return await failed_groups.hours(self._database, self.scope, groups)

    async def _matching(self, queue: str | None, matching: FailedFilter) -> list[ColumnElement[bool]]:
        return [self.scope.condition, *await failed_filters.conditions(self._database, queue, matching)]


async def _end(connection: AsyncConnection, hint: str, part: Sequence[ColumnElement[bool]]) -> tuple[Any, Any] | None:
    """The time and the id, as they are stored, of the last failed job at which one page may look; None where they end
    before it."""
    columns = map(raw_columns.as_stored, (failed_jobs.c.failed_at, failed_jobs.c.id))
    query = select(*columns).with_hint(failed_jobs, hint).where(*part).order_by(*_LATEST_FIRST)
    row = (await connection.execute(query.limit(1).offset(FAILED_EXAMINED - 1))).one_or_none()
    return None if row is None else (row[0], row[1])


def _up_to(failed_at: Any, key: Any) -> list[ColumnElement[bool]]:
    """Two conditions that are ranges of an index: by the time alone, which SQLite makes one of, and by time and id.
    With the first alone, MariaDB reads all failures of the last moment, backwards, before it looks at their ids."""
    moment = raw_columns.value_as_stored(failed_at)
    same_moment = and_(failed_jobs.c.failed_at == moment, failed_jobs.c.id >= key)
    return [failed_jobs.c.failed_at >= moment, or_(failed_jobs.c.failed_at > moment, same_moment)]


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


def _readable(dialect: Dialect, rows: Iterable[Any]) -> list[FailedJob]:
    return [_failed_job(dialect, job_id, row) for row in rows if (job_id := raw_columns.job_id(row["id"])) is not None]


def _failed_job(dialect: Dialect, job_id: JobId, row: Any) -> FailedJob:
    values = raw_columns.values(failed_jobs, row, dialect.parse_timestamp)
    failure = stored_failure(values.pop("exception"))
    # It is an index of what `Failure.fingerprint` says.
    del values["fingerprint"]
    return FailedJob(**{**values, "id": job_id, "failure": failure})


def stored_failure(text: str) -> Failure:
    """The failure in ``text``. A row that another program wrote otherwise must not hide all others."""
    try:
        failure = load_failure(text)
    except (ValueError, KeyError, TypeError, RecursionError):
        return Failure("unknown", text, "")
    return Failure(*map(raw_columns.text, (failure.type, failure.message, failure.traceback)))
