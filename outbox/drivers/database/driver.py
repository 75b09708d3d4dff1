"""The database as a driver: the parts that it is made of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import datetime
from typing import TypeVar

from sqlalchemy import false, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.drivers.base import Driver
from outbox.drivers.database.audit import AuditRows
from outbox.drivers.database.bulk.store import BulkOperations
from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.connection.engine import parse_url, replica_of, server_version
from outbox.drivers.database.finished_jobs import FinishedJobs
from outbox.drivers.database.jobs.job_store import DatabaseJobs
from outbox.drivers.database.jobs.relay_source import RelayRows
from outbox.drivers.database.metrics.store import DatabaseMetrics
from outbox.drivers.database.operations import facts, health, inspection, outdated_tables
from outbox.drivers.database.operations.encrypted_rows import EncryptedRows
from outbox.drivers.database.operations.failed_job_scope import FailedJobScope
from outbox.drivers.database.operations.failed_jobs import FailedJobs
from outbox.drivers.database.operations.limits import Limits
from outbox.drivers.database.operations.policies import DatabasePolicies
from outbox.drivers.database.operations.queues import Queues
from outbox.drivers.database.operations.workers import Workers
from outbox.drivers.database.pauses.store import Pauses
from outbox.drivers.database.received_messages import ReceivedMessages
from outbox.drivers.database.schedules.store import DatabaseSchedules
from outbox.drivers.database.tables import SEEDS, metadata
from outbox.drivers.database.versions import LATEST, rows_of
from outbox.drivers.filters import ANY_FAILED, FailedFilter, FailedPage
from outbox.drivers.registry import OpenOptions
from outbox.drivers.values import Claim, HealthIssue, StoreFacts
from outbox.errors import TablesMissing
from outbox.ids import JobId

T = TypeVar("T")


class DatabaseDriver(Driver):
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
        replica_url: str | None = None,
    ) -> None:
        """What operators read comes from ``replica_url``, if it is given. With ``inserts_directly`` an INSERT goes over
        a connection that is kept for nothing else, in autocommit: for those who only dispatch. Others have a connection
        for their transactions anyway."""
        self.name = name
        replica = None if replica_url is None else replica_of(parse_url(url), replica_url)
        self._database = Database(parse_url(url), pool_size, note, replica)
        scope = FailedJobScope(but=frozenset(keeps_failed_of))
        self.jobs: DatabaseJobs = DatabaseJobs(self._database, name, inserts_directly=inserts_directly)
        self.failed: FailedJobs = FailedJobs(self._database, scope)
        self.failed_pages: BoundedPages = BoundedPages(self.failed)
        self.pauses: Pauses = Pauses(self._database, name)
        self.breakers: Pauses = self.pauses
        self.queues: Queues = Queues(self._database, scope, self.pauses)
        self.workers: Workers = Workers(self._database)
        self.operations: BulkOperations = BulkOperations(self._database, self.failed)
        self.audit: AuditRows = AuditRows(self._database)
        chores = (self.pauses, self.operations, self.audit)
        self.policies: DatabasePolicies = DatabasePolicies(self._database, chores)
        self.schedules: DatabaseSchedules = DatabaseSchedules(self._database)
        self.metrics: DatabaseMetrics = DatabaseMetrics(self._database, scope)
        self.limits: Limits = Limits(self._database)
        self.encrypted_texts: EncryptedRows = EncryptedRows(self._database)
        self.inbox: ReceivedMessages = ReceivedMessages(self._database)
        self.finished: FinishedJobs = FinishedJobs(self._database)
        self.short_jobs: ShortJobs = ShortJobs(self.jobs)
        self.aging: Aging = Aging(self.jobs)
        self.relay_source: RelayRows = RelayRows(self._database)
        self.session_url = self._database.engine.url.render_as_string(hide_password=False)
        self._server = ""

    @property
    def database(self) -> Database:
        """The engine, its reader and its dialect."""
        return self._database

    @property
    def description(self) -> str:
        return f"{self._database.address} ({self._server})" if self._server else self._database.address

    async def check(self) -> None:
        async def read_tables(connection: AsyncConnection) -> str:
            version = await server_version(connection)
            for table in metadata.sorted_tables:
                await connection.execute(table.select().limit(0))
            return version

        async def write_nothing(connection: AsyncConnection) -> None:
            """The server checks the rights to write, although no row matches. Tables get the rows that they are made
            with, if they lack some."""
            for name, count in rows_of(LATEST).items():
                if await connection.scalar(select(func.count()).select_from(metadata.tables[name])) != count:
                    await connection.exec_driver_sql(SEEDS[name])
            for table in metadata.sorted_tables:
                nothing = table.select().where(false())
                await connection.execute(table.insert().from_select(table.columns.keys(), nothing))
                await connection.execute(table.update().where(false()).values({table.columns[0]: table.columns[0]}))
                await connection.execute(table.delete().where(false()))

        try:
            self._server = await self._database.read(read_tables)
        except TablesMissing as error:
            raise await outdated_tables.explained(self._database, error) from error
        await self._database.write(write_nothing)

    async def read_only(self, question: Callable[[], Awaitable[T]]) -> T:
        return await self._database.read_only(question)

    async def now(self) -> datetime:
        return await inspection.now(self._database)

    async def facts(self) -> StoreFacts:
        return await facts.facts(self._database)

    async def health_issues(self) -> list[HealthIssue]:
        return await health.health_issues(self._database)

    async def close(self) -> None:
        await self.jobs.close()
        await self._database.close()

    def drop(self) -> None:
        self._database.drop()


class BoundedPages:
    """`FailedPages`, read by `FailedJobs`."""

    def __init__(self, failed: FailedJobs) -> None:
        self._failed = failed

    async def page(
        self, queue: str | None, limit: int, before: JobId | None, *, matching: FailedFilter = ANY_FAILED
    ) -> FailedPage:
        return await self._failed.bounded_page(queue, limit, before, matching=matching)


class Aging:
    """`AgingClaims`, made by `DatabaseJobs`."""

    def __init__(self, jobs: DatabaseJobs) -> None:
        self._jobs = jobs

    async def claim(self, queues: Sequence[str], limit: int, lease: float, waited: float) -> list[Claim]:
        return await self._jobs.claim_aged(queues, limit, lease, waited)


class ShortJobs:
    """`ShortJobClaims`, made by `DatabaseJobs`."""

    def __init__(self, jobs: DatabaseJobs) -> None:
        self._jobs = jobs

    async def claim(self, queues: Sequence[str], limit: int, lease: float) -> list[Claim]:
        return await self._jobs.claim_short_jobs(queues, limit, lease)


def open_driver(options: OpenOptions) -> DatabaseDriver:
    """
    Raises:
        ConfigurationError: as `DatabaseDriver`.
    """
    return DatabaseDriver(
        options.url,
        name=options.name,
        pool_size=options.pool_size,
        keeps_failed_of=options.keeps_failed_of,
        note=options.note,
        inserts_directly=options.dispatches,
        replica_url=options.replica_url,
    )
