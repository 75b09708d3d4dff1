"""The database as a driver: each verb of the contract, and the module that does it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import false
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.drivers.base import (
    Claim,
    Concern,
    FailedJob,
    Lease,
    Outlook,
    QueueCounts,
    Settled,
    StoredJob,
    Waiting,
    WorkerStatus,
)
from outbox.drivers.database import (
    claiming,
    concerns,
    direct_insert,
    failed,
    failed_filters,
    fleet,
    forwarding,
    holding,
    inspecting,
    looking,
    paging,
    settling,
    unreadable,
)
from outbox.drivers.database.database import Database
from outbox.drivers.database.engine import parse_url, server_version
from outbox.drivers.database.origin import Origin
from outbox.drivers.database.tables import metadata
from outbox.drivers.filters import ANY_FAILED, FailedFilter, FailedGroup, JobFilter, JobPage, JobPlace
from outbox.envelope import Envelope
from outbox.ids import JobId
from outbox.settlement import Fence, Settlement


class DatabaseDriver:
    """Jobs in MySQL, MariaDB or SQLite. Its connections belong to the event loop on which they are first used.

    Failed jobs ``keeps_failed_of`` other connections are none of this driver's business: see `FailedJobKeeper`. A
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
        self._database = Database(parse_url(url), pool_size, Origin(but=frozenset(keeps_failed_of)), note)
        self._server = ""

    @property
    def description(self) -> str:
        return f"{self._database.address} ({self._server})" if self._server else self._database.address

    async def check(self) -> None:
        async def look(connection: AsyncConnection) -> str:
            version = await server_version(connection)
            for table in metadata.sorted_tables:
                await connection.execute(table.select().limit(0))
            return version

        async def write_nothing(connection: AsyncConnection) -> None:
            """Whoever may not write is refused all the same."""
            for table in metadata.sorted_tables:
                nothing = table.select().where(false())
                await connection.execute(table.insert().from_select(table.columns.keys(), nothing))
                await connection.execute(table.update().where(false()).values({table.columns[0]: table.columns[0]}))
                await connection.execute(table.delete().where(false()))

        self._server = await self._database.read(look)
        await self._database.write(write_nothing)

    async def now(self) -> datetime:
        return await inspecting.now(self._database)

    async def concerns(self) -> list[Concern]:
        return await concerns.concerns(self._database)

    async def close(self) -> None:
        await holding.give_back(self._database)
        await self._database.close()

    def drop(self) -> None:
        self._database.drop()

    async def insert(self, envelopes: Sequence[Envelope]) -> None:
        await direct_insert.insert(self._database, envelopes, directly=self._inserts_directly)

    async def claim(self, queues: Sequence[str], limit: int, lease: float, *, brief: bool = False) -> list[Claim]:
        return await claiming.claim(self._database, self.name, queues, limit, lease, brief=brief)

    async def extend(self, fences: Sequence[Fence], lease: float) -> Lease:
        return await holding.extend(self._database, fences, lease)

    async def settle(self, settlements: Sequence[Settlement]) -> Settled:
        return await settling.settle(self._database, self.name, settlements)

    async def fail_unreadable(self) -> int:
        return await unreadable.fail_unreadable(self._database, self.name)

    async def withdraw(self) -> list[Claim]:
        return []

    async def look(
        self,
        queues: Sequence[str],
        waiting: Waiting | None = None,  # noqa: ARG002 - a database takes no job for anybody
    ) -> Outlook:
        return await looking.look(self._database, queues)

    async def written(self, job_ids: Sequence[JobId]) -> dict[JobId, datetime]:
        return await forwarding.written(self._database, job_ids)

    async def unsent(self, queue: str) -> bool:
        return await forwarding.unsent(self._database, queue)

    async def beat(self, worker: WorkerStatus) -> None:
        await fleet.beat(self._database, worker)

    async def retire(self, worker_id: bytes) -> None:
        await fleet.retire(self._database, worker_id)

    async def workers(self) -> list[WorkerStatus]:
        return await fleet.list_workers(self._database)

    async def forget_workers(self, unseen_for: float) -> int:
        return await fleet.forget_workers(self._database, unseen_for)

    async def get(self, job_id: JobId) -> StoredJob | None:
        return await inspecting.get(self._database, job_id)

    async def find(self, digits: str) -> list[JobId]:
        return await inspecting.find(self._database, digits)

    async def list_jobs(self, queue: str | None = None, limit: int = 100) -> list[StoredJob]:
        return await inspecting.list_jobs(self._database, queue, limit)

    async def page_of_jobs(self, matching: JobFilter, limit: int = 100, after: JobPlace | None = None) -> JobPage:
        return await paging.page_of_jobs(self._database, matching, limit, after)

    async def counts(self) -> list[QueueCounts]:
        return await inspecting.counts(self._database)

    async def cancel(self, job_ids: Sequence[JobId]) -> list[JobId]:
        return await inspecting.cancel(self._database, job_ids)

    async def clear(self, queue: str) -> int:
        return await inspecting.clear(self._database, queue)

    async def pause(self, queue: str) -> bool:
        return await inspecting.pause(self._database, queue)

    async def resume(self, queue: str) -> bool:
        return await inspecting.resume(self._database, queue)

    async def get_failed(self, job_id: JobId) -> FailedJob | None:
        return await failed.get_failed(self._database, job_id)

    async def find_failed(self, digits: str) -> list[JobId]:
        return await failed.find_failed(self._database, digits)

    async def list_failed(
        self,
        queue: str | None = None,
        limit: int = 100,
        before: JobId | None = None,
        *,
        matching: FailedFilter = ANY_FAILED,
    ) -> list[FailedJob]:
        return await failed.list_failed(self._database, queue, limit, before, matching)

    async def failed_groups(
        self, queue: str | None = None, limit: int = 100, *, matching: FailedFilter = ANY_FAILED
    ) -> list[FailedGroup]:
        return await failed_filters.groups(self._database, queue, limit, matching)

    async def retry(self, job_ids: Sequence[JobId]) -> list[JobId]:
        return await failed.retry(self._database, job_ids)

    async def retry_all(self, queue: str | None = None, *, matching: FailedFilter = ANY_FAILED) -> int:
        return await failed.retry_all(self._database, queue, matching)

    async def unretryable(
        self, queue: str | None = None, limit: int = 100, *, matching: FailedFilter = ANY_FAILED
    ) -> list[JobId]:
        return await failed.unretryable(self._database, queue, limit, matching)

    async def forget(self, job_ids: Sequence[JobId]) -> list[JobId]:
        return await failed.forget(self._database, job_ids)

    async def flush(
        self, queue: str | None = None, older_than: float | None = None, *, matching: FailedFilter = ANY_FAILED
    ) -> int:
        return await failed.flush(self._database, queue, older_than, matching)
