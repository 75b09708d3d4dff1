"""The database as a driver: each verb of the contract, and the module that does it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime

from sqlalchemy import false
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.drivers.base import (
    BlockingClaimRequest,
    Claim,
    FailedJob,
    HealthIssue,
    Lease,
    NextDue,
    Outcomes,
    PolicyNews,
    QueueCounts,
    Settled,
    StoredJob,
    WorkerStatus,
)
from outbox.drivers.database.claim_scan.cursor_scan import scan_for
from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.connection.engine import parse_url, server_version
from outbox.drivers.database.jobs import claim as claim_module
from outbox.drivers.database.jobs import direct_insert, next_due, relay_source, unreadable
from outbox.drivers.database.jobs import lease as lease_module
from outbox.drivers.database.jobs import settle as settle_module
from outbox.drivers.database.operations import (
    failed_filters,
    failed_jobs,
    health,
    inspection,
    job_pages,
    outdated_tables,
    policies,
)
from outbox.drivers.database.operations import workers as workers_module
from outbox.drivers.database.operations.failed_job_scope import FailedJobScope
from outbox.drivers.database.tables import metadata
from outbox.drivers.filters import ANY_FAILED, FailedFilter, FailedGroup, JobFilter, JobPage, JobPlace
from outbox.envelope import Envelope
from outbox.errors import TablesMissing
from outbox.ids import JobId
from outbox.settlement import Fence, Settlement


class DatabaseDriver:
    """Jobs in MySQL, MariaDB or SQLite. Its connections belong to the event loop on which they are first used.

    The driver leaves out the failed jobs ``keeps_failed_of`` other connections: see `FailedJobArchive`. A
    ``note`` is added to its address in errors and descriptions.

    Raises:
        ConfigurationError: the URL is not one of a database that outbox can use, or its package is missing.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str = "database",
        pool_size: int = 5,
        keeps_failed_of: Collection[str] = (),
        note: str = "",
        inserts_directly: bool = False,
    ) -> None:
        """With ``inserts_directly`` an INSERT goes over a connection that is kept for nothing else, in autocommit: for
        those who only dispatch. Others have a connection for their transactions anyway."""
        self.name = name
        self._inserts_directly = inserts_directly
        self._database = Database(parse_url(url), pool_size, FailedJobScope(but=frozenset(keeps_failed_of)), note)
        self.claim_scan = scan_for(self._database)
        """Where claims of this driver search, and what they have learnt."""
        self._server = ""

    @property
    def database(self) -> Database:
        """The engine, its reader and its dialect."""
        return self._database

    @property
    def description(self) -> str:
        return f"{self._database.address} ({self._server})" if self._server else self._database.address

    async def check(self) -> None:
        async def next_due(connection: AsyncConnection) -> str:
            version = await server_version(connection)
            for table in metadata.sorted_tables:
                await connection.execute(table.select().limit(0))
            return version

        async def write_nothing(connection: AsyncConnection) -> None:
            """The server checks the rights to write, although no row matches."""
            for table in metadata.sorted_tables:
                nothing = table.select().where(false())
                await connection.execute(table.insert().from_select(table.columns.keys(), nothing))
                await connection.execute(table.update().where(false()).values({table.columns[0]: table.columns[0]}))
                await connection.execute(table.delete().where(false()))

        try:
            self._server = await self._database.read(next_due)
        except TablesMissing as error:
            raise await outdated_tables.explained(self._database, error) from error
        await self._database.write(write_nothing)

    async def now(self) -> datetime:
        return await inspection.now(self._database)

    async def health_issues(self) -> list[HealthIssue]:
        return await health.health_issues(self._database)

    async def close(self) -> None:
        await lease_module.give_back(self._database)
        await self._database.close()

    def drop(self) -> None:
        self._database.drop()

    async def insert(self, envelopes: Sequence[Envelope]) -> None:
        await direct_insert.insert(self._database, envelopes, directly=self._inserts_directly)

    async def claim(self, queues: Sequence[str], limit: int, lease: float, *, short_jobs: bool = False) -> list[Claim]:
        return await claim_module.claim(
            self._database, self.claim_scan, self.name, queues, limit, lease, short_jobs=short_jobs
        )

    async def extend(self, fences: Sequence[Fence], lease: float) -> Lease:
        return await lease_module.extend(self._database, fences, lease)

    async def settle(self, settlements: Sequence[Settlement]) -> Settled:
        return await settle_module.settle(self._database, self.name, settlements)

    @property
    def on_policy_news(self) -> Callable[[PolicyNews], None]:
        return self._database.on_policy_news

    @on_policy_news.setter
    def on_policy_news(self, hear: Callable[[PolicyNews], None]) -> None:
        self._database.on_policy_news = hear

    async def policy_upkeep(self) -> float | None:
        return await policies.upkeep(self._database)

    async def explain(self, job: StoredJob) -> list[str]:
        return await policies.explain(self._database, job)

    async def fail_unreadable(self) -> int:
        return await unreadable.fail_unreadable(self._database, self.name)

    async def cancel_blocking_claim(self) -> list[Claim]:
        return []

    async def next_due(
        self,
        queues: Sequence[str],
        waiting: BlockingClaimRequest | None = None,  # noqa: ARG002 - a database takes no job for anybody
    ) -> NextDue:
        return await next_due.next_due(self._database, self.claim_scan.cursors, queues)

    async def written(self, job_ids: Sequence[JobId]) -> dict[JobId, datetime]:
        return await relay_source.written(self._database, job_ids)

    async def end_relayed(self, job_ids: Sequence[JobId], outcomes: Outcomes) -> list[JobId]:
        return await policies.end_relayed(self._database, job_ids, outcomes)

    async def has_unrelayed(self, queue: str) -> bool:
        return await relay_source.has_unrelayed(self._database, queue)

    async def heartbeat(self, worker: WorkerStatus) -> None:
        await workers_module.heartbeat(self._database, worker)

    async def deregister(self, worker_id: bytes) -> None:
        await workers_module.deregister(self._database, worker_id)

    async def workers(self) -> list[WorkerStatus]:
        return await workers_module.list_workers(self._database)

    async def forget_workers(self, unseen_for: float) -> int:
        return await workers_module.forget_workers(self._database, unseen_for)

    async def get(self, job_id: JobId) -> StoredJob | None:
        return await inspection.get(self._database, job_id)

    async def find(self, digits: str) -> list[JobId]:
        return await inspection.find(self._database, digits)

    async def list_jobs(self, queue: str | None = None, limit: int = 100) -> list[StoredJob]:
        return await inspection.list_jobs(self._database, queue, limit)

    async def page_of_jobs(self, matching: JobFilter, limit: int = 100, after: JobPlace | None = None) -> JobPage:
        return await job_pages.page_of_jobs(self._database, matching, limit, after)

    async def counts(self) -> list[QueueCounts]:
        return await inspection.counts(self._database)

    async def cancel(self, job_ids: Sequence[JobId]) -> list[JobId]:
        return await inspection.cancel(self._database, job_ids)

    async def clear(self, queue: str) -> int:
        return await inspection.clear(self._database, queue)

    async def pause(self, queue: str) -> bool:
        return await inspection.pause(self._database, queue)

    async def resume(self, queue: str) -> bool:
        return await inspection.resume(self._database, queue)

    async def get_failed(self, job_id: JobId) -> FailedJob | None:
        return await failed_jobs.get_failed(self._database, job_id)

    async def find_failed(self, digits: str) -> list[JobId]:
        return await failed_jobs.find_failed(self._database, digits)

    async def list_failed(
        self,
        queue: str | None = None,
        limit: int = 100,
        before: JobId | None = None,
        *,
        matching: FailedFilter = ANY_FAILED,
    ) -> list[FailedJob]:
        return await failed_jobs.list_failed(self._database, queue, limit, before, matching)

    async def failed_groups(
        self, queue: str | None = None, limit: int = 100, *, matching: FailedFilter = ANY_FAILED
    ) -> list[FailedGroup]:
        return await failed_filters.groups(self._database, queue, limit, matching)

    async def retry(self, job_ids: Sequence[JobId]) -> list[JobId]:
        return await failed_jobs.retry(self._database, job_ids)

    async def retry_all(self, queue: str | None = None, *, matching: FailedFilter = ANY_FAILED) -> int:
        return await failed_jobs.retry_all(self._database, queue, matching)

    async def unretryable(
        self, queue: str | None = None, limit: int = 100, *, matching: FailedFilter = ANY_FAILED
    ) -> list[JobId]:
        return await failed_jobs.unretryable(self._database, queue, limit, matching)

    async def forget(self, job_ids: Sequence[JobId]) -> list[JobId]:
        return await failed_jobs.forget(self._database, job_ids)

    async def flush(
        self, queue: str | None = None, older_than: float | None = None, *, matching: FailedFilter = ANY_FAILED
    ) -> int:
        return await failed_jobs.flush(self._database, queue, older_than, matching)
