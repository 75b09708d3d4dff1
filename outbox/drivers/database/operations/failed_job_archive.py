"""Failed jobs of another store, kept in a database's `queue_failed_jobs`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from itertools import chain
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.drivers.base import BeforeRemoval, StillFailed
from outbox.drivers.database.chunks import packets
from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.connection.engine import parse_url
from outbox.drivers.database.connection.plans import run
from outbox.drivers.database.jobs.insert import insert_rows
from outbox.drivers.database.operations import health
from outbox.drivers.database.operations.batch_delete import BatchDelete, Gated, chunks
from outbox.drivers.database.operations.failed_job_scope import FailedJobScope
from outbox.drivers.database.operations.failed_jobs import FailedJobs
from outbox.drivers.database.operations.policies import RelayedFailures, Removal, Return
from outbox.drivers.database.policies.leaving import headers_of
from outbox.drivers.database.tables import failed_jobs
from outbox.drivers.filters import ANY_FAILED, FailedFilter, FailedGroup
from outbox.drivers.values import FailedJob, HealthIssue
from outbox.envelope import Envelope
from outbox.ids import JobId
from outbox.options import RELAY_PREFIX
from outbox.settlement import Outcome, dump_failure

_ROWS_PER_INSERT = 100

_POOL_SIZE = 2


class FailedJobArchive:
    """`FailedStore` for the connection ``of``.

    Raises:
        ConfigurationError: the URL is not one of a database that outbox can use, or its package is missing.
    """

    def __init__(self, url: str, *, of: str) -> None:
        self._database = Database(parse_url(url), _POOL_SIZE)
        self._scope = FailedJobScope(only=of)
        self._rows = FailedJobs(self._database, self._scope)
        self._relay_queue = f"{RELAY_PREFIX}{of}"

    @property
    def database(self) -> Database:
        """The engine, its reader and its dialect."""
        return self._database

    async def keep(self, jobs: Sequence[FailedJob], still: StillFailed) -> None:
        """Write these failed jobs, in place of older rows of the same ids. With the rows written and locked, and before
        the commit, ``still`` says which of them are to be kept; the others are left out, and older rows with them."""
        for batch in packets(sorted(jobs, key=lambda job: job.id), _size, rows_limit=_ROWS_PER_INSERT):
            await self._database.write(_ArchiveTransaction(self._database, batch, still).write)

    async def take(self, job_ids: Sequence[JobId], also: BeforeRemoval) -> list[JobId]:
        """Lock these rows, do ``also`` with what is in them, and remove them, in one transaction per thousand; return
        those that there were."""
        taken: set[bytes] = set()
        for keys in chunks(job_ids):
            taken.update(await self._removal(keys, also).run())
        return [job_id for job_id in dict.fromkeys(job_ids) if job_id.bytes in taken]

    async def take_all(
        self, queue: str | None, older_than: float | None, also: BeforeRemoval, matching: FailedFilter = ANY_FAILED
    ) -> int:
        """`take` all failed jobs (of a queue) that match and failed more than ``older_than`` seconds before the
        call."""

        async def take(keys: Sequence[bytes], *conditions: Any) -> list[bytes]:
            return await self._removal(keys, also, *conditions).run()

        return await self._rows.sweep(queue, older_than or 0.0, matching, take)

    async def retry(self, job_ids: Sequence[JobId], also: BeforeRemoval) -> list[JobId]:
        """`take`, for jobs that become live again. Those with policies become rows that wait for the relay: it moves
        them on when their policies admit them.

        Raises:
            DuplicateJob: a policy refuses one of them.
        """
        taken: set[bytes] = set()
        for keys in chunks(job_ids):
            taken.update(await self._put_back(keys, also, strict=True))
        return [job_id for job_id in dict.fromkeys(job_ids) if job_id.bytes in taken]

    async def retry_all(self, queue: str | None, also: BeforeRemoval, matching: FailedFilter = ANY_FAILED) -> int:
        """`retry` all that match. Those that a policy refuses stay."""

        async def take(keys: Sequence[bytes], *conditions: Any) -> list[bytes]:
            return await self._put_back(keys, also, *conditions, strict=False)

        return await self._rows.sweep(queue, 0.0, matching, take)

    async def _put_back(
        self, keys: Sequence[bytes], also: BeforeRemoval, *conditions: Any, strict: bool
    ) -> list[bytes]:
        failures = RelayedFailures(self._database, self._relay_queue)
        returning = Return(self._database, strict=strict)

        async def ask(connection: AsyncConnection, gated: Sequence[bytes]) -> frozenset[bytes]:
            await failures.end(connection, gated)
            return await returning.ask(connection, gated)

        async def insert(connection: AsyncConnection, failed: Sequence[FailedJob]) -> None:
            rows = [_relay_row(job, self._relay_queue) for job in failed if job.policies is not None]
            await run(insert_rows(self._database.dialect, rows), connection)

        put_back = await self._removal(keys, also, *conditions, gated=ask, before=insert).run()
        await failures.report()
        return put_back

    def _removal(
        self,
        keys: Sequence[bytes],
        also: BeforeRemoval,
        *conditions: Any,
        gated: Gated | None = None,
        before: Callable[[AsyncConnection, Sequence[FailedJob]], Awaitable[None]] | None = None,
    ) -> BatchDelete:
        async def with_rows(connection: AsyncConnection, locked: Sequence[bytes]) -> None:
            failed = await self._rows.locked(connection, locked)
            if before is not None:
                await before(connection, failed)
            await also(failed)

        gate = gated or Removal(self._database, failed_jobs.name, Outcome.FORGOTTEN).leave
        return BatchDelete(
            self._database, failed_jobs, keys, self._scope.condition, *conditions, also=with_rows, gated=gate
        )

    async def get(self, job_id: JobId) -> FailedJob | None:
        return await self._rows.get(job_id)

    async def find(self, digits: str, *, nearby: bool = False) -> list[JobId]:
        return await self._rows.find(digits, nearby=nearby)

    async def page(
        self, queue: str | None, limit: int, before: JobId | None, matching: FailedFilter = ANY_FAILED
    ) -> list[FailedJob]:
        return await self._rows.page(queue, limit, before, matching=matching)

    async def groups(self, queue: str | None, limit: int, matching: FailedFilter) -> list[FailedGroup]:
        return await self._rows.groups(queue, limit, matching=matching)

    async def hours(self, groups: Sequence[FailedGroup]) -> list[list[int]]:
        return await self._rows.hours(groups)

    async def counts(self) -> dict[str, int]:
        """How many there are, by queue."""
        mine = self._scope.condition
        query = select(failed_jobs.c.queue, func.count().label("number")).where(mine).group_by(failed_jobs.c.queue)

        async def read(connection: AsyncConnection) -> dict[str, int]:
            return {row.queue: row.number for row in await connection.execute(query)}

        return await self._database.read(read)

    async def check(self) -> None:
        """
        Raises:
            TablesMissing, BackendUnavailable, ConfigurationError: as their names say.
        """

        async def read(connection: AsyncConnection) -> None:
            await connection.execute(failed_jobs.select().limit(0))

        await self._database.read(read)

    async def health_issues(self) -> list[HealthIssue]:
        return await health.health_issues(self._database)

    async def close(self) -> None:
        await self._database.close()


def _relay_row(job: FailedJob, relay_queue: str) -> Envelope:
    """The row of a job that waits in this queue for the relay."""
    headers = headers_of(job.headers).model_copy(update={"relayed_to": job.queue, "policies": job.policies})
    return Envelope(
        job.id,
        relay_queue,
        job.name,
        job.priority,
        job.payload,
        headers.dump(),
        policies=job.policies,
    )


class _ArchiveTransaction:
    """One transaction of `FailedJobArchive.keep`."""

    def __init__(self, database: Database, jobs: Sequence[FailedJob], still: StillFailed) -> None:
        self._database = database
        self._jobs = jobs
        self._still = still

    async def write(self, connection: AsyncConnection) -> None:
        jobs = self._jobs
        while jobs:
            parameters = tuple(value for job in jobs for value in self._row(job))
            await connection.exec_driver_sql(self._database.dialect.keep_failed(len(jobs)), parameters)
            kept = await self._still(jobs)
            if len(kept) == len(jobs):
                return
            # What was there before must stay as it was, so begin again without the others.
            await connection.rollback()
            jobs = [job for job in jobs if job.id in kept]

    def _row(self, job: FailedJob) -> tuple[Any, ...]:
        failed_at = self._database.dialect.timestamp(job.failed_at)
        special = {"id": (job.id.bytes,), "exception": (dump_failure(job.failure),), "failed_at": (failed_at,) * 2}
        special["fingerprint"] = (job.failure.fingerprint,)
        values = [special.get(column.name) or (getattr(job, column.name),) for column in failed_jobs.c]
        return tuple(chain.from_iterable(values))


def _size(job: FailedJob) -> int:
    return len(job.payload.encode()) + len(dump_failure(job.failure))


def open_failed_store(url: str, connection: str) -> FailedJobArchive:
    """
    Raises:
        ConfigurationError: as `FailedJobArchive`.
    """
    return FailedJobArchive(url, of=connection)
